#!/usr/bin/env bash
# The machine is what it should be; podbayd starts with no configuration; `podbay demo` passes.
set -euo pipefail

say() { echo; echo "== $*"; }

say "kernel"
uname -a
cat /sys/kernel/security/lsm && echo

say "cgroups"
grep cgroup /proc/self/mounts
cat /sys/fs/cgroup/cgroup.controllers /sys/fs/cgroup/cgroup.subtree_control
head -n 1 /sys/fs/cgroup/system.slice/cpu.pressure

say "systemd"
systemctl --version | head -n 1
systemctl is-system-running --wait || { systemctl --failed --no-pager; exit 1; }

say "AppArmor"
aa-status 2>/dev/null | head -n 5

say "podbayd with no configuration"
podbayd --version
systemd-run --quiet --unit=podbayd --property=Delegate=yes --property=KillMode=process --property=Type=notify \
    /podbay/bin/podbayd
podbay pods
[ ! -x target/conformance/bin/crictl ] || crictl --runtime-endpoint unix:///run/podbay/podbay.sock info | head -n 40
systemctl stop podbayd
journalctl --unit podbayd --no-pager --output cat

say "podbay demo"
podbay demo

say "what is left"
find /sys/fs/cgroup -type d -name 'podbay*'
findmnt --noheadings --list --output TARGET | grep podbay- || echo "no mount of podbay's"
