#!/usr/bin/env bash
# Power cuts: the machine loses its power at some moment of pulling images and making and removing pods; afterwards all that is left is whole. cuts [N]
# needs: conformance package
# within: 10m
# cuts: 30
set -euo pipefail
# shellcheck source=vm/lib/pods.sh
. vm/lib/pods.sh

# From the start of the daemon until it serves, at the most, in ms: on a machine whose processor is translated, and beside all else that starts
# with the machine, it takes some seconds.
usual=60000
others=(registry.k8s.io/e2e-test-images/nginx:1.14-2 registry.k8s.io/e2e-test-images/httpd:2.4.39-4 registry.k8s.io/e2e-test-images/nonewprivs:1.3
    gcr.io/k8s-staging-cri-tools/test-image-1:latest gcr.io/k8s-staging-cri-tools/test-image-2:latest gcr.io/k8s-staging-cri-tools/test-image-3:latest)

# What each layer is, before anything was cut.
learn() {
    local one
    install_package
    serve_images
    for one in "$image" "${others[@]}"; do cri pull "$one" >/dev/null; done
    layers_as_they_are >/root/layers
    sync -f /root/layers
    say "$(wc -l </root/layers) layers are known"
}

check() {
    local ms wrong
    systemctl start podbayd # it waits for it
    serves
    ms=$(serving_after)
    [ "$ms" -le $usual ] || fail "it served only after $ms ms"
    [ -z "$(cri pods --quiet --state ready)" ] || fail "pods of another boot are told as ready"
    [ -z "$(cri ps --quiet)" ] || fail "containers of another boot are told as running"
    wrong=$(find /var/lib/podbay -name '*.damaged*' && find /var/lib/podbay/images/quarantine -mindepth 1 && podbay quarantine ls | tail -n +2)
    [ -z "$wrong" ] || fail "what was flushed cannot be read: $wrong"
    wrong=$(layers_as_they_are | grep -vxFf /root/layers || true)
    [ -z "$wrong" ] || { cp -r /var/lib/podbay/images/layers "$OUT/layers" && fail "layers are not what they are called: $wrong"; }
    until_true 60 no_address_is_held
    until_true 60 no_folder_is_nobodys
    say "boot $BOOT of $BOOTS: it served after $ms ms; $(cri pods --quiet | wc -l) pods, $(cri ps --all --quiet | wc -l) containers, $(cri images --quiet | wc -l) images, all whole"
}
no_address_is_held() { [ -z "$(addresses)" ]; }
no_folder_is_nobodys() { [ -z "$(comm -23 <(find /var/lib/podbay/images/containers -mindepth 1 -printf '%f\n' -prune | sort) <(cri ps --all --quiet --no-trunc | sort))" ]; }

# A few are kept, to be there after the next cut too.
remove_old_pods() {
    local id
    serve_images
    for id in $(cri pods --quiet --no-trunc | tail -n +3); do cri rmp --force "$id" >/dev/null; done
    cri pull $image >/dev/null
    ids[check-$BOOT]=$(pod "check-$BOOT")
    id=$(container "check-$BOOT" see 'echo a new pod runs; sleep 1000')
    cri start "$id" >/dev/null
    until_true 30 grep -q "a new pod runs" "$logs/pod-check-$BOOT/see.log"
}

# Pulls images and removes them, until it is enough: in all boots but the last, it never is.
work_on_images() {
    local one
    until [ -e "$place/enough" ]; do
        one=${others[RANDOM % ${#others[@]}]}
        cri pull "$one" >/dev/null
        one=${others[RANDOM % ${#others[@]}]}
        cri rmi "$one" >/dev/null 2>&1 || true # it may not be there
    done
}

# Makes pods with containers, and stops and removes some.
work_on_pods() {
    local n=0 id name
    until [ -e "$place/enough" ]; do
        n=$((n + 1))
        name=work-$BOOT-$n
        ids[$name]=$(pod "$name")
        id=$(container "$name" work "echo $n; sleep 1000")
        cri start "$id" >/dev/null
        [ $((RANDOM % 3)) -ne 0 ] || cri stop "$id" >/dev/null
        [ $((RANDOM % 3)) -ne 0 ] || cri stopp "${ids[$name]}" >/dev/null
        [ $((RANDOM % 2)) -ne 0 ] || cri rmp --force "${ids[$name]}" >/dev/null
    done
}

work() {
    say "the work begins"
    work_on_images &
    local images=$!
    work_on_pods &
    local pods=$!
    [ "$BOOT" -lt "$BOOTS" ] || (sleep 15 && touch "$place/enough") &
    wait -n $images $pods || fail "the work failed"
    wait $images || fail "the work on images failed"
    wait $pods || fail "the work on pods failed"
}

clean_up() {
    cri rmp --force --all >/dev/null
    cri rmi --all >/dev/null
    check_left
    until_true 30 nothing_is_kept
    say "$((BOOTS - 1)) cuts: all that was left was whole, and nothing is left"
}
nothing_is_kept() { [ -z "$(cri pods --quiet)$(cri images --quiet)$(find /var/lib/podbay/images/{layers,images,quarantine} -mindepth 1)" ]; }

if [ "$BOOT" = 1 ]; then learn; else check && remove_old_pods; fi
work
clean_up
