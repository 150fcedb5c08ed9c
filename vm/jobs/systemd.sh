#!/usr/bin/env bash
# The cgroup driver systemd: scopes in the slices that a kubelet makes, and what becomes of them when things go wrong. systemd [HANDLER...]; podbay and runc.
# needs: conformance
# within: 30m
set -euo pipefail

# shellcheck source=vm/lib/pods.sh
. vm/lib/pods.sh

handlers=("$@")
[ ${#handlers[@]} -gt 0 ] || handlers=(podbay runc)
socket=unix:///run/podbay/podbay.sock
cgroups=/sys/fs/cgroup
parent=/kubepods.slice/kubepods-burstable.slice

fail() {
    say "failed: $*"
    journalctl --unit podbayd --no-pager --output cat | tail -n 40
    systemctl list-units --all --no-legend 'podbay-*.scope'
    find $cgroups -path '*.scope/*' -name cgroup.procs | while read -r procs; do echo "$procs: $(xargs -r ps -o pid=,args= <"$procs")"; done
    exit 1
}
same() { [ "$2" = "$3" ] || fail "$1 is $2, not $3"; }

configure() {
    cat >/etc/podbay/config.toml <<TOML
[cgroups]
driver = "$1"
[network]
fallback = "bridge"
[handlers.podbay]
[handlers.runc]
runtime = "runc"
TOML
}

# [PROPERTY=VALUE...] of its service.
start_podbayd() {
    printf '%s\n' "[Unit]" StartLimitIntervalSec=0 "[Service]" Type=notify Delegate=yes KillMode=process Restart=always RestartSec=0 \
        ExecStart=/podbay/bin/podbayd "$@" >/etc/systemd/system/podbayd.service
    systemctl daemon-reload
    systemctl start podbayd
}

restart_podbayd() {
    systemctl stop podbayd
    configure "$1" && shift
    start_podbayd "$@"
}

prepare() {
    mkdir -p /etc/podbay "$logs"
    printf 'runtime-endpoint: %s\nimage-endpoint: %s\ntimeout: 60\n' $socket $socket >/etc/crictl.yaml
    serve_images
    configure systemd
    start_podbayd
    cri pull $image >/dev/null
}

# As a kubelet makes it: slice NAME [PROPERTY TYPE VALUE]...
slice() {
    local name=$1
    shift
    busctl --quiet call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager StartTransientUnit \
        'ssa(sv)a(sa(sv))' "$name" replace $(($# / 3 + 1)) DefaultDependencies b false "$@" 0 >/dev/null
}

# pod NAME LINUX [OPTION...] prints its id; LINUX is JSON.
pod() {
    local name=$1 linux=$2
    shift 2
    cat >"$place/pod-$name.json" <<JSON
{"metadata": {"name": "$name", "namespace": "systemd", "uid": "uid-$name", "attempt": 0}, "hostname": "$name",
 "log_directory": "$logs/$name", "linux": $linux}
JSON
    mkdir -p "$logs/$name"
    cri runp "$@" "$place/pod-$name.json"
}

# With a process namespace for each container, as most pods have it: nothing but the holder is in the scope of such a pod at first.
of_kubelet() { echo "{\"cgroup_parent\": \"$parent/kubepods-burstable-pod$1.slice\", \"security_context\": {\"namespace_options\": {\"pid\": 1}}}"; }

# container POD NAME COMMAND LIMITS [DEVICES [MOUNTS]] makes one in the pod of that name, whose id is in ids, starts it, and prints its id.
container() {
    cat >"$place/$2.json" <<JSON
{"metadata": {"name": "$2", "attempt": 0}, "image": {"image": "$image"}, "command": ["sh", "-c", "$3"], "log_path": "$2.log",
 "devices": [${5:-}], "mounts": [${6:-}], "linux": {"resources": {$4}, "security_context": {"namespace_options": {"pid": 1}}}}
JSON
    local id
    id=$(cri create "${ids[$1]}" "$place/$2.json" "$place/pod-$1.json") && cri start "$id" >/dev/null && echo "$id"
}

scope_of() { echo "podbay-$1.scope"; }
path_of() { systemctl show --property ControlGroup --value "$(scope_of "$1")"; }
reason() { cri inspect --output go-template --template '{{.status.reason}}' "$1"; }
has_ended() { [ "$(cri inspect --output go-template --template '{{.status.state}}' "$1")" = CONTAINER_EXITED ]; }
runs() { [ "$(cri inspect --output go-template --template '{{.status.state}}' "$1")" = CONTAINER_RUNNING ] && cri exec "$1" true; }
scopes() { systemctl list-units --all --plain --no-legend 'podbay-*.scope' | awk '{print $1}'; }
holders() { pgrep -f '^[^ ]*podbay-pause podbay-.*\.scope$' || true; }
nothing_left() {
    until_true 10 eval '[ -z "$(scopes)" ]'
    until_true 10 eval '[ -z "$(holders)" ]'
    local left
    left=$(find $cgroups -type d -name 'podbay-*.scope'; find $cgroups/podbay -mindepth 1 -type d 2>/dev/null || true
        findmnt --noheadings --list --output TARGET | grep '^/run/podbay/pods/' || true; pgrep -a podbay-shim || true)
    [ -z "$left" ] || fail "after $1 something is left: $left"
}

# limits TIME: of the pod's slice and of the container, as they were asked for.
limits() {
    same "memory.max of the slice, $1" "$(cat "$cgroups$slice/memory.max")" 268435456
    same "pids.max of the slice, $1" "$(cat "$cgroups$slice/pids.max")" 500
    same "memory.max of the container, $1" "$(cat "$cgroups$slice/$scope/$counter/memory.max")" 67108864
    same "cpu.max of the container, $1" "$(cat "$cgroups$slice/$scope/$counter/cpu.max")" "50000 100000"
    same "cpu.weight of the container, $1" "$(cat "$cgroups$slice/$scope/$counter/cpu.weight")" "$weight"
    runs "$counter" || fail "the container does not run, $1"
}

as_a_kubelet() {
    local handler=$1 holder other scope slice counter weight=59
    # runc has reckoned as we do since 1.3.
    [ "$handler" != runc ] || weight=20
    say "$handler: a pod in a slice as a kubelet makes it"
    slice "kubepods-burstable-pod$handler.slice" MemoryMax t 268435456 CPUWeight t 20 TasksMax t 500
    slice=$parent/kubepods-burstable-pod$handler.slice
    ids[$handler]=$(pod "$handler" "$(of_kubelet "$handler")" --runtime "$handler")
    scope=$(scope_of "${ids[$handler]}")
    same "the scope's cgroup" "$(path_of "${ids[$handler]}")" "$slice/$scope"
    counter=$(container "$handler" "counter-$handler" "while :; do sleep 1; done" '"memory_limit_in_bytes": 67108864, "cpu_period": 100000, "cpu_quota": 50000, "cpu_shares": 512')
    limits "at first"
    holder=$(cat "$cgroups$slice/$scope/hold/cgroup.procs")
    same "the holder" "$(cat "/proc/$holder/comm")" podbay-pause
    same "its oom_score_adj" "$(cat "/proc/$holder/oom_score_adj")" -998
    same "its session" "$(ps -o sid= "$holder" | tr -d ' ')" "$holder"
    say "$handler: systemd reads its files again, and executes itself again"
    systemctl daemon-reload && limits "after daemon-reload"
    systemctl daemon-reexec && limits "after daemon-reexec"
    systemctl daemon-reload && limits "after another daemon-reload"
    [ "$(cri stats --output json "$counter" | grep -c '"workingSetBytes"')" -gt 0 ] || fail "no stats of the container"
    cri statsp --output json | grep -q '"usageCoreNanoSeconds"' || fail "no stats of the pod"

    say "$handler: what holds the scope is killed"
    kill -9 "$holder"
    other=$(container "$handler" "beside-$handler" "sleep 1000" "")
    runs "$counter" && runs "$other" || fail "not both run"
    [ "$(cat "$cgroups$slice/$scope/hold/cgroup.procs")" != "$holder" ] || fail "the holder is not new"
    cri stop --timeout 0 "$other" "$counter" >/dev/null
    kill -9 "$(cat "$cgroups$slice/$scope/hold/cgroup.procs")"
    until_true 10 eval "! [ -d $cgroups$slice/$scope ]"
    other=$(container "$handler" "again-$handler" "sleep 1000" "")
    runs "$other" || fail "nothing runs in a scope that was made again"
    same "the scope's cgroup" "$(path_of "${ids[$handler]}")" "$slice/$scope"

    say "$handler: memory runs out"
    local n oom
    for n in 1 2 3; do
        oom=$(container "$handler" "oom-$handler-$n" "sleep 0.2; tail /dev/zero" '"memory_limit_in_bytes": 16777216')
        until_true 30 has_ended "$oom"
        same "the reason of its end" "$(reason "$oom")" OOMKilled
    done
    runs "$other" || fail "what ran beside does not"

    say "$handler: devices"
    local disk='{"host_path": "/dev/vda", "container_path": "/dev/disk", "permissions": "r"}'
    # Nodes that are there, of which a rule allows one.
    other=$(container "$handler" "devices-$handler" "sleep 1000" "" "" '{"host_path": "/dev/vda", "container_path": "/d"}, {"host_path": "/dev/null", "container_path": "/n"}')
    cri exec "$other" sh -c 'echo x >/n' || fail "/dev/null cannot be opened"
    if cri exec "$other" sh -c 'head -c 1 </d' >/dev/null 2>"$place/denied"; then fail "a disk can be opened"; fi
    grep -q "not permitted" "$place/denied" || fail "$(cat "$place/denied")"
    other=$(container "$handler" "allowed-$handler" "sleep 1000" "" "$disk")
    cri exec "$other" sh -c 'head -c 1 </dev/disk >/dev/null' || fail "a disk cannot be opened though it is allowed"
    if cri exec "$other" sh -c ': >>/dev/disk' 2>/dev/null; then fail "a disk can be opened to be written"; fi

    say "$handler: a container that divides its own cgroup"
    divide "$handler"

    say "$handler: stopped and removed"
    cri stopp "${ids[$handler]}" >/dev/null
    until_true 10 eval "! [ -d $cgroups$slice/$scope ]"
    same "what runs in the slice" "$(cat "$cgroups$slice/cgroup.procs")" ""
    cri rmp --force "${ids[$handler]}" >/dev/null
    nothing_left "$handler"
    systemctl stop "kubepods-burstable-pod$handler.slice"
}

# By a container that may, in a pod that lets it.
divide() {
    local privileged='"security_context": {"privileged": true, "namespace_options": {"pid": 1}}' id
    ids[divided]=$(pod "divided-$1" "{\"cgroup_parent\": \"$parent/kubepods-burstable-poddivided.slice\", $privileged}" --runtime "$1")
    cat >"$place/divided.json" <<JSON
{"metadata": {"name": "divided", "attempt": 0}, "image": {"image": "$image"}, "log_path": "divided.log", "linux": {$privileged}, "command": ["sh", "-c",
 "d=/sys/fs/cgroup\$(cut -d: -f3 /proc/self/cgroup); mkdir \$d/x && echo 0 >\$d/x/cgroup.procs && echo +pids >\$d/cgroup.subtree_control && touch /divided; sleep 1000"]}
JSON
    id=$(cri create "${ids[divided]}" "$place/divided.json" "$place/pod-divided-$1.json") && cri start "$id" >/dev/null
    until_true 10 cri exec "$id" test -e /divided
    cri exec "$id" cat /proc/self/cgroup | grep -q "/$id/x$" || fail "a command is not where the container's first process is"
    cri rmp --force "${ids[divided]}" >/dev/null
}

with_limits_of_its_own() {
    say "a pod without a parent, limited in whole"
    local path
    ids[own]=$(pod own '{"resources": {"memory_limit_in_bytes": 134217728, "cpu_period": 100000, "cpu_quota": 33333, "cpu_shares": 2048, "cpuset_cpus": "0", "unified": {"memory.min": "4096", "memory.oom.group": "0"}}, "overhead": {"memory_limit_in_bytes": 1048576}}')
    path=$(path_of "${ids[own]}")
    same "the scope's cgroup" "$path" "/podbay.slice/$(scope_of "${ids[own]}")"
    for time in "at first" "after daemon-reload" "after daemon-reexec"; do
        case $time in *reload) systemctl daemon-reload ;; *reexec) systemctl daemon-reexec && systemctl daemon-reload ;; esac
        same "memory.max, $time" "$(cat "$cgroups$path/memory.max")" 135266304
        same "cpu.max, $time" "$(cat "$cgroups$path/cpu.max")" "34000 100000"
        same "cpu.weight, $time" "$(cat "$cgroups$path/cpu.weight")" 174
        same "cpuset.cpus, $time" "$(cat "$cgroups$path/cpuset.cpus")" 0
        same "memory.min, $time" "$(cat "$cgroups$path/memory.min")" 4096
        same "pids.max, $time" "$(cat "$cgroups$path/pids.max")" max
    done
    local all
    all=$(container own all-of-it "sleep 0.2; tail /dev/zero" "")
    until_true 30 has_ended "$all"
    same "the reason of an end by the pod's limit" "$(reason "$all")" OOMKilled
    systemctl is-active --quiet "$(scope_of "${ids[own]}")" || fail "the scope is gone with it"
    cri rmp --force "${ids[own]}" >/dev/null
    nothing_left "its removal"
}

refused() {
    local message
    message=$(pod refused "{\"cgroup_parent\": \"$1\"}" 2>&1) && fail "$1 is taken"
    grep -q "config.linux.cgroup_parent" <<<"$message" && grep -q "$2" <<<"$message" || fail "of $1 it says: $message"
}

what_is_no_slice() {
    say "what is no slice"
    refused /kubepods/burstable/podx "driver systemd"
    refused kubepods--x.slice "driver systemd"
    refused /elsewhere.slice/kubepods-x.slice "not where systemd has"
    refused kubepods "absolute path"
    nothing_left "what was refused"
}

kill_podbayd() {
    local before
    before=$(main_pid)
    systemctl kill --kill-whom=main --signal=KILL podbayd
    until_true 60 is_another "$before"
    serves
}

killed() {
    say "podbayd is killed"
    local one n
    ids[kept]=$(pod kept "$(of_kubelet kept)")
    one=$(container kept kept "sleep 1000" "")
    for n in $(seq 12); do
        # At some moment of its making.
        (pod "torn-$n" "$(of_kubelet "torn$n")" >/dev/null 2>&1 || true) &
        local making=$!
        read -rt "0.0$((n * 3 % 10))$n" <> <(:) || true
        kill_podbayd
        wait $making
        runs "$one" || fail "a container is lost, in round $n"
    done
    cri pods --quiet | { grep -v "${ids[kept]}" || true; } | while read -r id; do cri rmp --force "$id" >/dev/null; done
    until_true 20 eval '[ "$(scopes | wc -l)" = 1 ]'
    until_true 20 eval '[ "$(holders | wc -l)" = 1 ]'
    one=$(container kept after "sleep 1000" "")
    runs "$one" || fail "nothing new runs in a pod that outlived it"
}

# One of the pod that is kept; what becomes of it.
goes_on() {
    local one
    one=$(container kept "$1" "sleep 1000" "")
    runs "$one" || fail "nothing runs: $1"
    cri stop --timeout 0 "$one" >/dev/null && cri rm "$one" >/dev/null
}

without_a_bus() {
    say "without a bus"
    local message since
    ids[going]=$(pod going "$(of_kubelet going)")
    systemctl stop dbus.socket dbus.service
    since=$SECONDS
    message=$(pod busless "$(of_kubelet busless)" 2>&1) && fail "a pod without a bus"
    [ $((SECONDS - since)) -lt 30 ] || fail "it took $((SECONDS - since)) s"
    grep -q "the system bus cannot be reached" <<<"$message" || fail "it says: $message"
    say "it says: $message"
    goes_on busless
    cri rmp --force "${ids[going]}" >/dev/null || fail "a pod cannot be removed without a bus"
    same "scopes" "$(scopes)" "$(scope_of "${ids[kept]}")"
    same "holders" "$(holders | wc -l)" 1
    systemctl start dbus.socket dbus.service
    until_true 20 busctl --quiet call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.DBus.Peer Ping
    ids[going]=$(pod going "$(of_kubelet going)") || fail "no pod though the bus is back"
    cri rmp --force "${ids[going]}" >/dev/null

    say "with a bus that hangs"
    local bus
    bus=$(systemctl show --property MainPID --value dbus.service)
    kill -STOP "$bus"
    since=$SECONDS
    message=$(pod hanging "$(of_kubelet hanging)" 2>&1) && fail "a pod with a bus that hangs"
    [ $((SECONDS - since)) -lt 40 ] || fail "it took $((SECONDS - since)) s"
    say "after $((SECONDS - since)) s it says: $message"
    grep -q "did not end within" <<<"$message" || fail "it says: $message"
    goes_on hanging
    kill -CONT "$bus"
    until_true 20 eval '[ "$(scopes)" = "$(scope_of "${ids[kept]}")" ]'
    until_true 20 eval '[ "$(holders | wc -l)" = 1 ]'
    ids[going]=$(pod going "$(of_kubelet going)") || fail "no pod though the bus goes on"
    cri rmp --force "${ids[going]}" >/dev/null
}

a_tree_that_is_read_only() {
    say "a cgroup tree that cannot be written"
    local message
    restart_podbayd systemd ProtectControlGroups=yes
    message=$(pod readonly "$(of_kubelet readonly)" 2>&1) && fail "a pod in a tree that is read-only"
    grep -q "Read-only file system" <<<"$message" || fail "it says: $message"
    say "it says: $message"
    until_true 20 eval '[ "$(scopes)" = "$(scope_of "${ids[kept]}")" ]'
    until_true 20 eval '[ "$(holders | wc -l)" = 1 ]'
    restart_podbayd systemd
}

another_driver() {
    say "the driver is changed by configuration"
    restart_podbayd cgroupfs
    cri runtime-config 2>/dev/null | grep -i cgroupfs >/dev/null || say "crictl does not tell the driver"
    goes_on "by-files"
    refused kubepods-x.slice "by their files"
    ids[files]=$(pod files '{}')
    container files files "sleep 1000" "" >/dev/null
    [ -d "$cgroups/podbay/${ids[files]}" ] || fail "there is no cgroup of a pod by files"
    restart_podbayd systemd
    goes_on "by-systemd"
    container files files-again "sleep 1000" "" >/dev/null
    cri rmp --force "${ids[files]}" >/dev/null
    [ ! -d "$cgroups/podbay/${ids[files]}" ] || fail "the cgroup of a pod by files is left"
    restart_podbayd cgroupfs
    cri rmp --force "${ids[kept]}" >/dev/null
    nothing_left "a removal by the other driver"
    restart_podbayd systemd
}

many_at_once() {
    say "twenty pods at once"
    local n since making=()
    since=$(date +%s%N)
    for n in $(seq 20); do
        (pod "many-$n" "$(of_kubelet "many$n")" >"$place/many-$n") &
        making+=($!)
    done
    for n in "${making[@]}"; do wait "$n" || fail "one of many"; done
    say "made in $((($(date +%s%N) - since) / 1000000)) ms, each by a crictl of its own"
    same "scopes" "$(scopes | wc -l)" 20
    cri rmp --force --all >/dev/null
    nothing_left "many"
}

prepare
say "$(systemctl --version | head -n 1), $(uname -r)"
cri runtime-config 2>/dev/null || true
for handler in "${handlers[@]}"; do as_a_kubelet "$handler"; done
with_limits_of_its_own
what_is_no_slice
killed
without_a_bus
a_tree_that_is_read_only
another_driver
many_at_once
systemctl stop podbayd
say "all is as it should be, after $SECONDS s"
