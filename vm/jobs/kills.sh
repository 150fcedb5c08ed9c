#!/usr/bin/env bash
# podbayd is killed twenty times under twenty pods, and systemd starts it again: nothing of the pods is lost. kills [ROUNDS [PODS]]; two pods at least.
# needs: conformance package
# within: 60m
set -euo pipefail
# shellcheck source=vm/lib/pods.sh
. vm/lib/pods.sh

rounds=${1:-20} pods=${2:-20}

has_ended() { [ "$(cri inspect --output go-template --template '{{.status.exitCode}} {{.status.state}}' "$1")" = "7 CONTAINER_EXITED" ]; }

kill_once() {
    local round=$1 victim=$2 short before
    # One that ends while nobody is there to see it.
    short=$(container "$victim" "short-$round" "sleep 1; exit 7")
    cri start "$short" >/dev/null
    before=$(main_pid)
    systemctl kill --kill-whom=main --signal=KILL podbayd
    until_true 60 is_another "$before"
    serves
    [ "$(cri pods --quiet --state ready | wc -l)" = "$pods" ] || fail "pods are missing after round $round"
    [ "$(pids "${counters[@]}")" = "$running" ] || fail "containers are others after round $round"
    until_true 30 has_ended "$short"
}

install_package
serve_images
cri pull $image >/dev/null
say "making $pods pods"
counting_pods "$pods"
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
check_left
systemctl stop podbayd
say "$rounds kills, $pods pods, $lines lines: nothing lost, nothing left"
