#!/usr/bin/env bash
# Five pods, and the machine is started anew: what was running is told to have ended, what it had is free again, images are whole, and a new pod runs.
# needs: conformance package
# boots: 2
# within: 15m
set -euo pipefail
# shellcheck source=vm/lib/pods.sh
. vm/lib/pods.sh

pods=5
images=("$image" registry.k8s.io/e2e-test-images/nginx:1.14-2 registry.k8s.io/e2e-test-images/httpd:2.4.39-4)

before() {
    install_package
    serve_images
    for one in "${images[@]}"; do cri pull "$one" >/dev/null; done
    layers_as_they_are >/root/layers
    counting_pods $pods
    cri pods --quiet --state ready | sort >/root/pods
    [ "$(wc -l </root/pods)" = $pods ] || fail "not all pods are ready"
    cri images --quiet | sort >/root/images
    say "$pods pods run; the machine is started anew"
}

after() {
    local id
    systemctl start podbayd # it waits for it
    serves
    say "it serves, $(serving_after) ms after it was started"
    [ "$(cri pods --quiet --state notready | sort)" = "$(cat /root/pods)" ] || fail "pods are not told as not ready"
    [ "$(cri ps --quiet --all --state exited | wc -l)" = $pods ] || fail "containers are not told as exited"
    for id in $(cri ps --quiet --all); do
        # systemd ends scopes on its way down, which podbayd may see, or be gone by then: the container takes its SIGTERM, or the holder of the pod's
        # process namespace took its own first, whereupon the kernel kills what is in it.
        case $(cri inspect --output go-template --template '{{.status.exitCode}} {{.status.reason}}' "$id") in
        "255 Unknown" | "143 Error" | "137 Error") ;;
        *) fail "a container says nothing of its end: $(cri inspect "$id" | grep -A 4 exitCode)" ;;
        esac
    done
    [ "$(cri images --quiet | sort)" = "$(cat /root/images)" ] || fail "images are others"
    [ "$(layers_as_they_are)" = "$(cat /root/layers)" ] || fail "layers are not as they were"
    [ -z "$(addresses)" ] || fail "addresses are held by pods that do not run: $(addresses)"
    cri rmp --force --all >/dev/null
    check_left
    [ "$(podbay quarantine ls | wc -l)" -le 1 ] || fail "records are in quarantine: $(podbay quarantine ls)"
    counting_pods 2
    pids "${counters[@]}" >/dev/null
    cri rmp --force --all >/dev/null
    check_left
    say "what ran has ended, images are whole, new pods ran, nothing is left"
}

if [ "$BOOT" = 1 ]; then before; else after; fi
