#!/usr/bin/env bash
# The tests of a daemon under real pods, on this kernel and cgroup v2: e2e [FILTER] runs the tests whose names have FILTER in them.
# needs: faults
# tests: e2e
# within: 60m
set -uo pipefail

# Tests have CNI plugins of their own below /run, where Debian lets nothing be run.
mount -o remount,exec /run
failed=()
while read -r folder program; do
    case $(basename "$program") in
    # It kills at the pace of a processor, at which QEMU's translator makes no pod; the job `kills` waits for what it kills.
    kills-*) continue ;;
    esac
    echo "== $(basename "$program"), after $SECONDS s"
    # They share the processors with QEMU's translator: side by side they would wait for each other. Two hundred at once, and much output, take it for minutes.
    (cd "$folder" && timeout 1200 "$program" --test-threads 2 --skip two_hundred --skip much_output "$@") || failed+=("$(basename "$program")")
done </podbay/tests
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
