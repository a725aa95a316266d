#!/bin/sh
# run_tests.sh - run tests and add up what they say.
#
#   run_tests.sh PROGRAM... replay:FUZZ_TARGET... SCRIPT.sh...
#
# Programs (cmocka) and replays run JOBS at a time, then the scripts one by
# one. A program is counted by cmocka's own report; a script by its last line
# 'N passed, N failed, N skipped', or as one test when it prints none. A
# program that dies is one failure more. Logs are kept in
# $KINDRED_BUILD/test-logs; a failing one is shown. Exits 1 after a failure.
set -eu

: "${KINDRED_BUILD:=build/release}" "${JOBS:=1}" "${TEST_SECONDS_MAX:=900}"
export KINDRED_BUILD JOBS
# The numeric libraries' thread settings of the caller would change timings.
for name in $(env | sed -n 's/^\(OPENBLAS_[A-Z_]*\)=.*/\1/p'); do
    unset "$name"
done
logs=$KINDRED_BUILD/test-logs

sum_cmocka() { # LOG WORD: the sum of the n in '[  WORD  ] n test(s)'
    sed -n "s/^\[ *$2 *\] \([0-9][0-9]*\) test(s).*/\1/p" "$1" |
        awk '{ n += $1 } END { print n + 0 }'
}

run_one() { # a program, replay:program or script
    what=${1#replay:}
    log=$logs/$(echo "$what" | tr / _).log
    started=$(date +%s)
    status=0
    case $1 in
    replay:*)
        name=${what##*/}
        timeout "$TEST_SECONDS_MAX" "$what" "tests/fuzz/corpus/$name" \
            >"$log" 2>&1 </dev/null || status=$?
        ;;
    *.sh)
        runner=sh
        case $(head -n 1 "$what") in *bash*) runner=bash ;; esac
        timeout "$TEST_SECONDS_MAX" $runner "$what" >"$log" 2>&1 </dev/null ||
            status=$?
        ;;
    *)
        timeout "$TEST_SECONDS_MAX" "$what" >"$log" 2>&1 </dev/null ||
            status=$?
        ;;
    esac
    passed=$(sum_cmocka "$log" PASSED)
    failed=$(sum_cmocka "$log" FAILED)
    skipped=$(sum_cmocka "$log" SKIPPED)
    line=$(sed -n '/^[0-9]* passed, [0-9]* failed, [0-9]* skipped$/p' "$log" |
        tail -n 1)
    if [ -n "$line" ]; then
        # shellcheck disable=SC2086 # its words
        set -- $line
        passed=$1 failed=$3 skipped=$5
    elif [ $((passed + failed + skipped)) = 0 ]; then
        [ $status != 0 ] || passed=1
    fi
    if [ $status != 0 ] && [ "$failed" = 0 ]; then
        failed=1
        echo "(exit status $status)" >>"$log"
    fi
    echo "$passed $failed $skipped" >"$log.count"
    verdict=ok
    [ "$failed" = 0 ] || verdict=FAILED
    note=
    [ "$skipped" = 0 ] || note=", $skipped skipped"
    text=$(printf '%-6s %s (%s passed%s, %s s)' "$verdict" "$what" "$passed" \
        "$note" $(($(date +%s) - started)))
    if [ "$failed" = 0 ]; then
        echo "$text"
        [ "$skipped" = 0 ] || grep -i 'skip' "$log" | head -n 3 |
            sed 's/^/       /'
    else
        # One write, so that two failing programs do not mix their lines.
        # The daemon's own log lines are left to the file.
        printf '%s\n%s\n    (all of it: %s)\n' "$text" "$(grep -v \
            -e '^\[ *\(RUN\|OK\) *\]' -e '^[-0-9T:.]*Z \(info\|debug\) ' \
            "$log" | tail -n 60 | sed 's/^/    /')" "$log"
    fi
}

if [ "${1-}" = --one ]; then
    run_one "$2"
    exit 0
fi

rm -rf "$logs"
mkdir -p "$logs"
programs= scripts=
for what; do
    case $what in
    *.sh) scripts="$scripts $what" ;;
    *) programs="$programs $what" ;;
    esac
done
if [ -n "$programs" ]; then
    # shellcheck disable=SC2086 # paths without blanks, as make has them
    printf '%s\n' $programs | xargs -n 1 -P "$JOBS" sh "$0" --one
fi
for script in $scripts; do
    echo "       $script ..."
    run_one "$script"
done

cat "$logs"/*.count 2>/dev/null | awk '
    { passed += $1; failed += $2; skipped += $3 }
    END {
        printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
        exit failed > 0
    }'
