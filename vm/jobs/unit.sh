#!/usr/bin/env bash
# Installs the package; a first pod with no edits; then all that systemd and dpkg do to the daemon, under ten pods. unit [ROUNDS [PODS]]; two pods at least.
# needs: conformance package
# within: 40m
set -euo pipefail
# shellcheck source=vm/lib/pods.sh
. vm/lib/pods.sh

rounds=${1:-5} pods=${2:-10}

first_pod() {
    local since=$SECONDS
    install_package
    say "installed, and it serves, after $((SECONDS - since)) s: $(podbayd --version), $(du -k /podbay/package/podbay.deb | cut -f 1) KiB"
    cri info >/dev/null || fail "it does not serve"
    [ -z "$(find /etc/podbay -type f)" ] || fail "there is a configuration"
    serve_images
    cri pull $image >/dev/null
    ids[0]=$(pod 0)
    counters[0]=$(container 0 counter 'echo it runs; cat /proc/self/oom_score_adj; wget -qO- http://10.88.0.1/ 2>&1 | head -n 1; sleep 1000')
    cri start "${counters[0]}" >/dev/null
    until_true 20 grep -q "it runs" "$logs/pod-0/counter.log"
    # The supervisor may not be killed for memory, and its containers may.
    until_true 20 grep -q ' F 0$' "$logs/pod-0/counter.log"
    cri exec "${counters[0]}" cat /proc/self/oom_score_adj | grep -qx 0 || fail "a command is not killed for memory"
    cri exec "${counters[0]}" ip addr show eth0 | grep -q "inet 10.88." || fail "it has no address"
    cri info | grep -q NoNetworkConfig || fail "a kubelet is told that the network is ready"
    cri rmp --force "${ids[0]}" >/dev/null
    unset "counters[0]"
    say "a first pod ran, $((SECONDS - since)) s after dpkg began"
}

# After something has been done to the daemon, whose process was PID.
unchanged() {
    [ "$(cri pods --quiet --state ready | sort)" = "$known" ] || fail "pods are others after $1"
    [ "$(pids "${counters[@]}")" = "$running" ] || fail "containers are others after $1"
}

restart() { systemctl restart podbayd; }
stop_and_start() { systemctl stop podbayd && systemctl start podbayd; }
kill_it() { systemctl kill --kill-whom=main --signal=KILL podbayd; }
reload_systemd() { systemctl daemon-reload; }
hang() { kill -STOP "$(main_pid)"; }
upgrade() { install_package; }

# every NAME HOW: HOW is done ROUNDS times; another process serves each time, but where none is to.
every() {
    local name=$1 how=$2 round before since=$SECONDS
    for round in $(seq "$rounds"); do
        before=$(main_pid)
        $how
        [ "$how" = reload_systemd ] || until_true 120 is_another "$before"
        serves
        unchanged "$name, round $round"
    done
    say "$rounds × $name: all is as it was, after $((SECONDS - since)) s"
}

# With the time that the unit gives it, a hung daemon is killed after a minute.
hurry() {
    mkdir -p /run/systemd/system/podbayd.service.d
    printf '[Service]\nWatchdogSec=6\nRestartSec=0\n' >/run/systemd/system/podbayd.service.d/short.conf
    systemctl daemon-reload
    systemctl restart podbayd
}

# Pods of before work with the daemon of after.
old_pods_work() {
    cri exec "${counters[1]}" true || fail "no command runs in an old container"
    local more
    more=$(container 1 more 'exit 7')
    cri start "$more" >/dev/null
    until_true 30 has_ended "$more"
    cri rm "$more" >/dev/null
}
has_ended() { [ "$(cri inspect --output go-template --template '{{.status.exitCode}}' "$1")" = 7 ]; }

remove() {
    local n
    dpkg --remove podbay 2>&1 | tee "$place/remove.log"
    grep -q "$pods\." "$place/remove.log" || fail "it does not say that $pods pods go on"
    grep -q /var/lib/podbay "$place/remove.log" || fail "it does not say that images are left"
    [ -z "$(pgrep -x podbayd)" ] || fail "the daemon runs"
    for n in $running; do [ -d "/proc/$n" ] || fail "a container has ended"; done
    install_package
    serves
    unchanged "remove and install"
}

first_pod
hurry
say "making $pods pods"
counting_pods "$pods"
running=$(pids "${counters[@]}")
[ "$(wc -l <<<"$running")" = "$pods" ] || fail "not all run"
known=$(cri pods --quiet --state ready | sort)

every "systemctl restart" restart
every "stop and start" stop_and_start
every "kill -KILL" kill_it
every "daemon-reload" reload_systemd
every "a daemon that hangs" hang
journalctl --unit podbayd --output cat --no-pager | grep -c "Watchdog timeout" | grep -qx "$rounds" || fail "it was not the watchdog"
every "upgrade" upgrade
old_pods_work
remove

say "removing them"
cri rmp --force --all >/dev/null
for n in $(seq "$pods"); do check_log "$logs/pod-$n/counter.log"; done
lines=$(cat "$logs"/pod-*/counter.log | wc -l)
check_left
cri rmi --all >/dev/null 2>&1
dpkg --purge podbay 2>&1 | tee "$place/purge.log"
grep -q /var/lib/podbay "$place/purge.log" || fail "it does not say what is left"
for file in /etc/crictl.yaml /usr/bin/podbayd; do [ ! -e $file ] || fail "$file is left"; done
say "all of it, $pods pods, $lines lines: nothing lost, nothing left"
