#!/bin/sh
# bench_http.sh - what the service does over HTTP, with the client on the same
# processors: indexing by NDJSON, then searches over keep-alive connections.
#
#   KINDRED_BUILD=build/release sh tests/bench/bench_http.sh
#
# BENCH_ITEMS (60000), BENCH_DIMS (256), BENCH_SECONDS (5) and
# BENCH_CONNECTIONS (32) change the load. Texts are drawn from a vocabulary of
# 20,000 made-up words with a Zipf-like distribution, 8 to 12 words each, from
# a fixed seed. Needs curl, awk and wrk; without wrk the searches are skipped.
set -eu

: "${KINDRED_BUILD:=build/release}" "${BENCH_ITEMS:=60000}" "${BENCH_DIMS:=256}"
: "${BENCH_SECONDS:=5}" "${BENCH_CONNECTIONS:=32}"
dir=$(mktemp -d "${TMPDIR:-/tmp}/kindred-bench-XXXXXX")
pid=
stop() {
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || :
    [ -z "$pid" ] || wait "$pid" 2>/dev/null || :
    rm -rf "$dir"
}
trap stop EXIT
trap 'exit 1' INT TERM

"$KINDRED_BUILD/kindredd" --listen 127.0.0.1:0 --data "$dir/data" \
    --port-file "$dir/port" --log-level warn &
pid=$!
tries=0
until [ -s "$dir/port" ]; do
    tries=$((tries + 1))
    if [ $tries -gt 200 ] || ! kill -0 $pid 2>/dev/null; then
        echo "the daemon did not start" >&2
        exit 1
    fi
    sleep 0.05
done
port=$(cat "$dir/port")
url=http://127.0.0.1:$port
json='Content-Type: application/json'

made_up() { # N SEED FORMAT: texts of made-up words
    awk -v n="$1" -v seed="$2" -v format="$3" 'BEGIN {
        srand(seed)
        split("ba ce di fo gu ka le mi no pu ra se ti vo zu", part, " ")
        for (w = 0; w < 20000; w++) {
            word[w] = ""
            for (p = 2 + w % 3; p > 0; p--)
                word[w] = word[w] part[1 + int(rand() * 15)]
        }
        for (i = 0; i < n; i++) {
            text = ""
            for (k = 8 + int(rand() * 5); k > 0; k--)
                text = text " " word[int(20000 ^ rand()) - 1]
            printf format, i, substr(text, 2)
        }
    }'
}

resident() { awk '/VmRSS/ { printf "%.0f MB", $2 / 1024 }' "/proc/$pid/status"; }

curl -fsS -X PUT -H "$json" -d "{\"dims\": $BENCH_DIMS}" \
    "$url/v1/collections/bench" >/dev/null
made_up "$BENCH_ITEMS" 1 '{"id":"item-%d","text":"%s"}\n' >"$dir/items"
started=$(date +%s%N)
curl -fsS -X POST -H 'Content-Type: application/x-ndjson' -T "$dir/items" \
    "$url/v1/collections/bench/items?outcomes=errors" >"$dir/answer"
ended=$(date +%s%N)
echo "indexing: $(tail -n 1 "$dir/answer")"
echo "$BENCH_ITEMS $started $ended" | awk '{
    s = ($3 - $2) / 1e9
    printf "indexing by NDJSON, durable: %.0f items/s (%.2f s)\n", $1 / s, s }'
echo "resident after indexing: $(resident)"

if ! command -v wrk >/dev/null; then
    echo "SKIPPED searches: wrk is not installed"
    exit 0
fi

made_up 500 2 '%d %s\n' | cut -d ' ' -f 2- >"$dir/texts"
# Their vectors, base64, for searches that need no encoder.
awk 'BEGIN { printf "{\"model\":\"bench\",\"encoding_format\":\"base64\",\"input\":[" }
    { printf "%s\"%s\"", (NR > 1 ? "," : ""), $0 } END { print "]}" }' \
    "$dir/texts" >"$dir/embed"
curl -fsS -H "$json" --data-binary "@$dir/embed" "$url/v1/embeddings" |
    tr '{' '\n' | sed -n 's/.*"embedding":"\([^"]*\)".*/\1/p' >"$dir/vectors"

cat >"$dir/load.lua" <<'LUA'
local bodies = {}
local at = 0
function init(args)
    for line in io.lines(args[1]) do
        bodies[#bodies + 1] = '{"' .. args[2] .. '":"' .. line .. '","k":10}'
    end
    at = math.random(#bodies)
end
function request()
    at = at % #bodies + 1
    return wrk.format("POST", nil, {["Content-Type"] = "application/json"},
        bodies[at])
end
LUA
load() { # NAME CONNECTIONS FILE FIELD
    wrk -t 1 -c "$2" -d "${BENCH_SECONDS}s" --latency -s "$dir/load.lua" \
        "$url/v1/collections/bench/search" -- "$3" "$4" >"$dir/wrk"
    awk -v name="$1" '
        /50%/ { p50 = $2 } /99%/ { p99 = $2 } /Requests\/sec/ { rps = $2 }
        /Non-2xx/ { bad = $NF } /Socket errors/ { bad = $0 }
        END {
            printf "%-34s %8.0f requests/s  p50 %-8s p99 %-8s%s\n", name, rps,
                p50, p99, bad ? "  ERRORS: " bad : ""
        }' "$dir/wrk"
}
echo "searches of $BENCH_ITEMS x $BENCH_DIMS, k = 10, exact:"
load "by vector, 1 connection" 1 "$dir/vectors" vector
load "by vector, $BENCH_CONNECTIONS connections" "$BENCH_CONNECTIONS" \
    "$dir/vectors" vector
load "by text, 1 connection" 1 "$dir/texts" text
load "by text, $BENCH_CONNECTIONS connections" "$BENCH_CONNECTIONS" \
    "$dir/texts" text
wrk -t 1 -c "$BENCH_CONNECTIONS" -d "${BENCH_SECONDS}s" "$url/healthz" |
    awk '/Requests\/sec/ { printf "%-34s %8.0f requests/s\n",
        "no work at all (/healthz)", $2 }'
echo "resident after searching: $(resident)"
