# What the jobs have in common that make pods with crictl: the package, a registry, pods and containers, and what is left of them. To be sourced; the job says what
# it is called ($JOB, by vm/guest/run).
# shellcheck shell=bash

image=registry.k8s.io/e2e-test-images/busybox:1.29-2
logs=/var/log/pods
place=$(mktemp -d)
declare -A ids
declare -a counters

say() { echo "$JOB: $*"; }
fail() {
    say "$*"
    journalctl --unit podbayd --no-pager --output cat | tail -n 50
    exit 1
}
cri() { crictl --config /etc/crictl.yaml "$@" 2> >(grep -v "cgroup_parent is not set" >&2); }

install_package() { dpkg --install /podbay/package/podbay.deb >/dev/null || fail "the package cannot be installed"; }

# A registry on loopback that has the images of critest; it lives for as long as its standard input is open.
serve_images() {
    mkdir -p /etc/podbay/certs.d
    # What a cut leaves of it would be this job's to repair.
    mkdir -p target/conformance/registry
    mountpoint --quiet target/conformance/registry || mount -t tmpfs registry target/conformance/registry
    mkfifo "$place/hold" "$place/port"
    conformance/registry /etc/podbay/certs.d <"$place/hold" >"$place/port" &
    exec 8>"$place/hold"
    read -r _ <"$place/port"
}

# pod N and container N NAME COMMAND print ids.
pod() {
    cat >"$place/pod-$1.json" <<JSON
{"metadata": {"name": "pod-$1", "namespace": "$JOB", "uid": "uid-$1", "attempt": 0}, "hostname": "pod-$1",
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

# Makes pods 1 to N, each with a container that counts in its log.
counting_pods() {
    local n
    for n in $(seq "$1"); do
        ids[$n]=$(pod "$n")
        # shellcheck disable=SC2016 # the container's shell is to expand it
        counters[n]=$(container "$n" counter 'i=0; while :; do i=$((i+1)); echo $i; sleep 1; done')
        cri start "${counters[n]}" >/dev/null
    done
}

# Of two containers or more: of one, crictl makes no list.
pids() {
    cri inspect --output go-template --template '{{range .}}{{.info.pid}} {{end}}' "$@" | tr ' ' '\n' | grep . | sort -n
}

# What a container has written is the numbers from 1, each once.
check_log() {
    awk '{ n += 1; if ($4 != n) { print "line " n " is " $0; exit 1 } }' "$1" || fail "$1 has a gap"
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

main_pid() { systemctl show --property MainPID --value podbayd; }
is_another() { main=$(main_pid) && [ "$main" != 0 ] && [ "$main" != "$1" ]; }
serves() { until_true 60 cri info; }

# What pods have left, though there are none any more.
left() {
    find /sys/fs/cgroup/podbay -mindepth 1 -type d 2>/dev/null
    findmnt --noheadings --list --output TARGET | grep '^/run/podbay/'
    find /run/podbay/pods /run/podbay/netns /run/podbay/userns /run/podbay/shims -mindepth 1 2>/dev/null
    find /var/lib/podbay/network /var/lib/podbay/images/containers /var/lib/podbay/images/tmp -mindepth 1 2>/dev/null
    ip -brief link show type veth
    pgrep -a podbay-shim
    true
}
nothing_is_left() { [ -z "$(left)" ]; }
check_left() {
    # What was big is removed in the background, and a shim ends when it has answered.
    local since=$SECONDS
    until nothing_is_left; do
        [ $((SECONDS - since)) -lt 30 ] || fail "something is left: $(left)"
        sleep 0.2
    done
}

addresses() { find /var/lib/podbay/network -mindepth 1 2>/dev/null || true; }

# From the start of the daemon to its word that it serves, in milliseconds, as systemd saw it.
serving_after() {
    local at
    at=$(systemctl show --property ExecMainStartTimestampMonotonic --property ActiveEnterTimestampMonotonic podbayd)
    awk -F = '/^ExecMain/ { from = $2 } /^Active/ { to = $2 } END { print int((to - from) / 1000) }' <<<"$at"
}

# Each layer with a digest of all that is in it: names, kinds, modes, owners, times, and content. A folder that the archive does not name has the time when it was
# unpacked.
layers_as_they_are() {
    local layer
    for layer in /var/lib/podbay/images/layers/*/; do
        [ ! -d "$layer" ] || echo "$(basename "$layer") $(layer_as_it_is "${layer}fs")"
    done
}
layer_as_it_is() {
    (
        cd "$1" || exit
        find . -type d -printf '%P %m %U %G\n' | sort
        find . -not -type d -printf '%P %y %m %U %G %l %T@ %n\n' | sort
        find . -type f -print0 | sort -z | xargs --null --no-run-if-empty sha256sum
    ) | sha256sum | cut -d ' ' -f 1
}
