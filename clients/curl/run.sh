#!/bin/sh
# run.sh - run every example against a daemon; the tests do.
#
# usage: run.sh [URL]    default KINDRED_URL or http://127.0.0.1:8420
# Prints one line for each, and what a failed one said.
set -u
cd "$(dirname "$0")" || exit 1
KINDRED_URL=${1:-${KINDRED_URL:-http://127.0.0.1:8420}}
export KINDRED_URL
log=$(mktemp "${TMPDIR:-/tmp}/kindred-curl-log-XXXXXX")
trap 'rm -f "$log"' EXIT
passed=0 failed=0
for script in *.sh; do
    case $script in lib.sh | run.sh) continue ;; esac
    if sh "$script" >"$log" 2>&1; then
        passed=$((passed + 1))
        echo "ok    $script"
    else
        failed=$((failed + 1))
        echo "FAIL  $script"
        tail -n 12 "$log" | sed 's/^/      /'
    fi
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
