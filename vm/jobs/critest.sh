#!/usr/bin/env bash
# critest against podbayd: critest [cgroupfs|systemd] [OPTION...] [HANDLER...]; see conformance/against-podbay.
# needs: conformance
# within: 120m
set -euo pipefail

driver=cgroupfs
case ${1:-} in cgroupfs | systemd) driver=$1 && shift ;; esac
echo "critest on $(uname -r), cgroup v2, with the cgroup driver $driver"

# It is silent to its end: so tell how far it is.
log=target/conformance/run/critest.log
(while sleep 60; do echo "critest: $(grep -o '•' $log 2>/dev/null | wc -l) specs are done, after $((SECONDS / 60)) min"; done) &
telling=$!

status=0
PODBAY_CGROUP_DRIVER=$driver PODBAY_LOGS=$OUT conformance/against-podbay --timeout 110m "$@" || status=$?
kill $telling
# critest's log and report; of the last handler, where there are several.
[ ! -d target/conformance/run ] || cp -r target/conformance/run "$OUT/critest"
dmesg >"$OUT/dmesg.log"
exit $status
