#!/usr/bin/env bash
# podbayd is killed twenty times under twenty pods, and systemd starts it again: nothing of the pods is lost. kills [ROUNDS [PODS]]; two pods at least.
# needs: conformance
# within: 60m
set -euo pipefail

rounds=${1:-20} pods=${2:-20}
socket=unix:///run/podbay/podbay.sock
image=registry.k8s.io/e2e-test-images/busybox:1.29-2
logs=/var/log/pods
place=$(mktemp -d)

say() { echo "kills: $*"; }
fail() { say "$*"; journalctl --unit podbayd --no-pager --output cat | tail -n 50; exit 1; }
cri() { crictl --config /etc/crictl.yaml "$@" 2> >(grep -v "cgroup_parent is not set" >&2); }

prepare() {
    mkdir -p /etc/podbay /etc/podbay/certs.d "$logs"
    printf 'runtime-endpoint: %s\nimage-endpoint: %s\ntimeout: 60\n' $socket $socket >/etc/crictl.yaml
    printf '[cgroups]\ndriver = "cgroupfs"\n[network]\nfallback = "bridge"\n' >/etc/podbay/config.toml
    # The registry lives for as long as its standard input is open.
    mkfifo "$place/hold" "$place/port"
    conformance/registry /etc/podbay/certs.d <"$place/hold" >"$place/port" &
    exec 8>"$place/hold"
    read -r _ <"$place/port"
    if [ -e /podbay/dist/podbayd.service ]; then
        cp /podbay/dist/podbayd.service /etc/systemd/system/ && systemctl start podbayd
    else
        systemd-run --quiet --unit=podbayd --property=Type=notify --property=Delegate=yes --property=KillMode=process \
            --property=Restart=always --property=RestartSec=0 --property=StartLimitBurst=1000 /podbay/bin/podbayd
    fi
    cri pull $image >/dev/null
}

# pod N and container N NAME COMMAND print ids.
pod() {
    cat >"$place/pod-$1.json" <<JSON
{"metadata": {"name": "pod-$1", "namespace": "kills", "uid": "uid-$1", "attempt": 0}, "hostname": "pod-$1",
 "log_directory": "$logs/pod-$1", "linux": {}}
JSON
    mkdir -p "$logs/pod-$1"
    cri runp "$place/pod-$1.json"
}

container() {
    cat >"$place/$2-$1.json" <<JSON
{"metadata": {"name": "$2", "attempt": 0}, "image": {"image": "$image"}, "command": ["sh", "-c", "$3"], "log_path": "$2.log", "linux": {}}
JSON
    cri create "${ids[$1]}" "$place/$2-$1.json" "$place/pod-$1.json"
}

# Of two containers or more: of one, crictl makes no list.
pids() {
    cri inspect --output go-template --template '{{range .}}{{.info.pid}} {{end}}' "$@" | tr ' ' '\n' | grep . | sort -n
}

# Waits, for as long as is allowed, for a command to be true.
until_true() {
    local within=$1 since=$SECONDS
    shift
    until "$@" >/dev/null 2>&1; do
        [ $((SECONDS - since)) -lt "$within" ] || fail "not so after $within s: $*"
        read -rt 0.1 <> <(:) || true
    done
}

has_ended() { [ "$(cri inspect --output go-template --template '{{.status.exitCode}} {{.status.state}}' "$1")" = "7 CONTAINER_EXITED" ]; }
is_another() { main=$(systemctl show --property MainPID --value podbayd) && [ "$main" != 0 ] && [ "$main" != "$1" ]; }

kill_once() {
    local round=$1 victim=$2 short before
    # One that ends while nobody is there to see it.
    short=$(container "$victim" "short-$round" "sleep 1; exit 7")
    cri start "$short" >/dev/null
    before=$(systemctl show --property MainPID --value podbayd)
    systemctl kill --kill-whom=main --signal=KILL podbayd
    until_true 60 is_another "$before"
    until_true 60 cri info
    [ "$(cri pods --quiet --state ready | wc -l)" = "$pods" ] || fail "pods are missing after round $round"
    [ "$(pids "${counters[@]}")" = "$running" ] || fail "containers are others after round $round"
    until_true 30 has_ended "$short"
}

check_log() {
    # What a container has written is the numbers from 1, each once.
    awk '{ n += 1; if ($4 != n) { print "line " n " is " $0; exit 1 } }' "$1" || fail "$1 has a gap"
}

prepare
declare -a ids counters
say "making $pods pods"
for n in $(seq "$pods"); do
    ids[n]=$(pod "$n")
    counters[n]=$(container "$n" counter 'i=0; while :; do i=$((i+1)); echo $i; sleep 1; done')
    cri start "${counters[n]}" >/dev/null
done
running=$(pids "${counters[@]}")
[ "$(wc -l <<<"$running")" = "$pods" ] || fail "not all run"

for round in $(seq "$rounds"); do
    kill_once "$round" $(((round - 1) % pods + 1))
    say "round $round: all is as it was, after $SECONDS s"
done

say "removing them"
cri rmp --force --all >/dev/null
for n in $(seq "$pods"); do check_log "$logs/pod-$n/counter.log"; done
lines=$(cat "$logs"/*/counter.log | wc -l)
left=$(find /sys/fs/cgroup/podbay -mindepth 1 -type d; findmnt --noheadings --list --output TARGET | grep '^/run/podbay/' || true; pgrep -a podbay-shim || true)
[ -z "$left" ] || fail "something is left: $left"
systemctl stop podbayd
say "$rounds kills, $pods pods, $lines lines: nothing lost, nothing left"
