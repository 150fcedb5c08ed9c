#!/usr/bin/env bash
# The tests of those rooms that know the kernel: rooms [FILTER] runs the tests whose names have FILTER in them.
# tests: sys shim
# within: 30m
set -uo pipefail

failed=()
while read -r folder program; do
    name=$(basename "$folder") && echo "== $name: $(basename "$program")"
    (cd "$folder" && timeout 600 "$program" "$@") || failed+=("$name/$(basename "$program")")
done </podbay/tests
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
