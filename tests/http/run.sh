#!/bin/sh
# Goal: the API does what its documents say, seen from outside.
# Method: the programs tests/http/test_* start daemons of their own; the scripts
#   beside them (*.sh) get one that this script starts, at KINDRED_URL, on a
#   free port with a temporary folder, and may call the programs of
#   KINDRED_BUILD. Ends with 'N passed, N failed, N skipped'.
set -u

cd "$(dirname "$0")/../.." || exit 1
: "${KINDRED_BUILD:=build/release}"
export KINDRED_BUILD
dir=$(mktemp -d "${TMPDIR:-/tmp}/kindred-http-XXXXXX") || exit 1
passed=0 failed=0 skipped=0 pid=
stop() {
    if [ -n "$pid" ]; then
        kill "$pid" 2>/dev/null
        wait "$pid"
        status=$?
        pid=
        return $status
    fi
}
trap 'stop; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

sum() { # LOG WORD: what cmocka counted
    sed -n "s/^\[ *$2 *\] \([0-9][0-9]*\) test(s).*/\1/p" "$1" |
        awk '{ n += $1 } END { print n + 0 }'
}

for source in tests/http/test_*.c; do
    [ -e "$source" ] || continue
    name=$(basename "$source" .c)
    program=$KINDRED_BUILD/tests/http/$name
    status=0
    "$program" >"$dir/$name.log" 2>&1 || status=$?
    bad=$(sum "$dir/$name.log" FAILED)
    passed=$((passed + $(sum "$dir/$name.log" PASSED)))
    skipped=$((skipped + $(sum "$dir/$name.log" SKIPPED)))
    [ $status = 0 ] || [ "$bad" != 0 ] || bad=1
    failed=$((failed + bad))
    if [ "$bad" != 0 ]; then
        echo "FAILED $name (status $status)"
        grep -vE '^\[ +(RUN|OK) ' "$dir/$name.log" | head -n 60
    else
        echo "ok     $name"
    fi
done

"$KINDRED_BUILD/kindredd" --listen 127.0.0.1:0 --data "$dir/data" \
    --port-file "$dir/port" --log-level warn 2>"$dir/daemon.log" &
pid=$!
tries=0
until [ -s "$dir/port" ]; do
    tries=$((tries + 1))
    if [ $tries -gt 600 ] || ! kill -0 $pid 2>/dev/null; then
        echo "FAILED the daemon did not start"
        cat "$dir/daemon.log"
        echo "$passed passed, $((failed + 1)) failed, $skipped skipped"
        exit 1
    fi
    sleep 0.05
done
KINDRED_URL=http://127.0.0.1:$(cat "$dir/port")
export KINDRED_URL

for script in tests/http/*.sh; do
    [ "$script" != tests/http/run.sh ] || continue
    name=$(basename "$script")
    status=0
    runner=sh
    case $(head -n 1 "$script") in *bash*) runner=bash ;; esac
    $runner "$script" >"$dir/$name.log" 2>&1 || status=$?
    line=$(sed -n '/^[0-9]* passed, [0-9]* failed, [0-9]* skipped$/p' \
        "$dir/$name.log" | tail -n 1)
    if [ -n "$line" ]; then
        # shellcheck disable=SC2086 # its words
        set -- $line
    else
        set -- $((status == 0)) passed, $((status != 0)) failed, 0
    fi
    [ "$status" = 0 ] || [ "$3" != 0 ] || set -- "$1" passed, 1 failed, "$5"
    passed=$((passed + $1)) failed=$((failed + $3)) skipped=$((skipped + $5))
    if [ "$3" != 0 ]; then
        echo "FAILED $name"
        tail -n 60 "$dir/$name.log"
    else
        echo "ok     $name"
        grep -E '^SKIP' "$dir/$name.log"
    fi
done

if stop; then
    passed=$((passed + 1))
else
    failed=$((failed + 1))
    echo "FAILED the daemon did not stop with status 0"
    tail -n 40 "$dir/daemon.log"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
