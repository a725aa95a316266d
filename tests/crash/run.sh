#!/bin/sh
# run.sh - crash tests: daemons that are killed, starved, damaged.
#
# Each program prints a line "ok NAME", "FAILED NAME" or "skipped NAME: why" for
# each of its tests; a program that dies counts as one failure more. What a
# tier runs is each program's own matter (KINDRED_TIER).
set -u

: "${KINDRED_BUILD:=build/release}" "${KINDRED_TIER:=check}"
: "${KINDRED_CRASH_BUILD:=build/failpoints}"
export KINDRED_BUILD KINDRED_CRASH_BUILD KINDRED_TIER
passed=0 failed=0 skipped=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT

if [ ! -x "$KINDRED_CRASH_BUILD/kindredd" ]; then
    echo "skipped all: no $KINDRED_CRASH_BUILD/kindredd" \
        "(make VARIANT=failpoints programs)"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
for program in crash_faults crash_resume crash_pictures crash_cycles; do
    status=0
    echo "== $program"
    "$KINDRED_BUILD/tests/crash/$program" >"$out" 2>&1 || status=$?
    cat "$out"
    n_failed=$(grep -c '^FAILED ' "$out")
    if [ $status != 0 ] && [ "$n_failed" = 0 ]; then
        echo "FAILED $program: exit status $status"
        n_failed=1
    fi
    passed=$((passed + $(grep -c '^ok ' "$out")))
    failed=$((failed + n_failed))
    skipped=$((skipped + $(grep -c '^skipped ' "$out")))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
