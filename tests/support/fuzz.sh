#!/bin/sh
# fuzz.sh - run libFuzzer targets, each for some seconds from its committed
# seeds. What is found new stays below build/; a crash is kept there too, to
# be added to tests/fuzz/corpus/<target>/ with its mend.
#
#   fuzz.sh SECONDS TARGET...
set -eu

seconds=$1
shift
failed=0
for target; do
    name=${target##*/}
    found=$target.found
    mkdir -p "$found" "$target.crashes" "tests/fuzz/corpus/$name"
    echo "== $name for $seconds s"
    dict=
    [ ! -f "tests/fuzz/$name.dict" ] || dict="-dict=tests/fuzz/$name.dict"
    # shellcheck disable=SC2086 # no dictionary is no word
    if ! "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$target.crashes/" $dict \
        "$found" "tests/fuzz/corpus/$name" >"$target.log" 2>&1; then
        failed=$((failed + 1))
        tail -n 60 "$target.log"
    fi
    grep -E 'stat::(number_of_executed_units|peak_rss_mb)' "$target.log" || :
done
exit $failed
