#!/bin/sh
# valgrind.sh - the test programs of src/base, src/store and src/engine under
# memcheck: the ones with hand-made memory. Kernels choose what valgrind
# supports at run time.
#
#   valgrind.sh PROGRAM...
set -eu

if ! command -v valgrind >/dev/null 2>&1; then
    echo "valgrind is not installed: skipped"
    exit 0
fi
failed=0
for program; do
    case ${program##*/} in
    test_base_* | test_store_* | test_text_*) ;;
    *) continue ;;
    esac
    if KINDRED_UNDER_VALGRIND=1 valgrind -q --error-exitcode=9 \
        --leak-check=full --errors-for-leak-kinds=definite \
        "$program" >"$program.valgrind" 2>&1; then
        echo "ok     $program"
    else
        echo "FAILED $program"
        tail -n 40 "$program.valgrind"
        failed=1
    fi
done
exit $failed
