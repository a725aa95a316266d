#!/bin/sh
# bench_loop.sh - the whole loop as a service, on real texts: indexing, start,
# memory, searches beside a training round, re-embedding and switching.
#
#   KINDRED_BUILD=build/release sh tests/bench/bench_loop.sh FILE.tsv
#
# FILE: package, source, section, tags, summary, description, with a header,
# unpacked. Needs curl, awk, wrk.
set -eu

: "${KINDRED_BUILD:=build/release}"
file=$1
dir=$(mktemp -d "${TMPDIR:-/tmp}/kindred-bench-XXXXXX")
pid=
stop() {
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || :
    [ -z "$pid" ] || wait "$pid" 2>/dev/null || :
    rm -rf "$dir"
}
trap stop EXIT
trap 'exit 1' INT TERM

start() {
    rm -f "$dir/port"
    "$KINDRED_BUILD/kindredd" --listen 127.0.0.1:0 --data "$dir/data" \
        --port-file "$dir/port" --log-level warn &
    pid=$!
    until [ -s "$dir/port" ]; do
        kill -0 "$pid"
        sleep 0.02
    done
    url=http://127.0.0.1:$(cat "$dir/port")
}
now() { date +%s.%N; }
since() { echo "$1 $(now)" | awk '{ printf "%.2f", $2 - $1 }'; }
resident() { awk '/VmRSS/ { printf "%.0f MB", $2 / 1024 }' "/proc/$pid/status"; }
peak() { awk '/VmHWM/ { printf "%.0f MB", $2 / 1024 }' "/proc/$pid/status"; }
json='Content-Type: application/json'
call() { curl -sf -H "$json" "$@"; }
job() { call "$url/v1/jobs/$1"; }
state() { job "$1" | sed 's/.*"state":"\([a-z]*\)","phase":"\([a-z]*\)".*/\1 \2/'; }

# NDJSON of items and pairs, made by awk so that nothing else is needed
awk -F'\t' -v items="$dir/items" -v pairs="$dir/pairs" \
    -v summaries="$dir/summaries" '
    function quote(s) { gsub(/[\\"]/, "\\\\&", s); return "\"" s "\"" }
    NR > 1 && $6 != "" {
        printf "{\"id\":%s,\"text\":%s}\n", quote($1), quote($6) > items
        printf "{\"id\":%s,\"text\":%s}\n", quote($1), quote($5) > summaries
        printf "{\"anchor\":{\"text\":%s},\"positive\":{\"id\":%s},\"group\":%s}\n",
            quote($5), quote($1), quote($2) > pairs
    }' "$file"
n=$(wc -l <"$dir/items")

start
for what in summaries items; do
    call -X PUT "$url/v1/collections/$what" -d '{}' >/dev/null
    t=$(now)
    curl -sf -H 'Content-Type: application/x-ndjson' -X POST -T "$dir/$what" \
        "$url/v1/collections/$what/items?outcomes=errors" | tail -1
    echo "indexed $n $what by NDJSON in $(since "$t") s:" \
        "$(echo "$t $(now) $n" | awk '{ printf "%.0f", $3 / ($2 - $1) }')/s"
done
curl -sf -X DELETE "$url/v1/collections/summaries" >/dev/null
curl -sf -H 'Content-Type: application/x-ndjson' -X POST -T "$dir/pairs" \
    "$url/v1/collections/items/pairs?outcomes=errors" | tail -1
kill "$pid" && wait "$pid" || :
t=$(now)
start
echo "restarted with $n items in $(since "$t") s, resident $(resident)"

cat >"$dir/search.lua" <<'LUA'
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local texts = {}
for line in io.lines(os.getenv("BENCH_TEXTS")) do
    texts[#texts + 1] = line:match('"text":(".*")}$')
end
request = function()
    return wrk.format(nil, "/v1/collections/items/search", nil,
        '{"k":10,"text":' .. texts[math.random(#texts)] .. "}")
end
LUA
head -2000 "$dir/summaries" >"$dir/texts"
p99() {
    BENCH_TEXTS=$dir/texts wrk -t1 -c1 -d"$1" --latency -s "$dir/search.lua" \
        "$url" | awk '/50%|99%|Requests\/sec/ { printf "%s %s  ", $1, $2 }'
    echo
}
p99 2s >/dev/null
echo "search, idle:            $(p99 8s)"
call -X POST "$url/v1/admin/collections/items/train" -d '{}' >/dev/null
t=$(now)
until [ "$(state 1)" = "running train" ]; do sleep 0.1; done
sleep 1
echo "search, while training:  $(p99 8s)"
last=
while :; do
    s=$(state 1)
    [ "$s" = "$last" ] || echo "  at $(since "$t") s: $s"
    last=$s
    case $s in running* | queued*) sleep 0.1 ;; *) break ;; esac
done
echo "round in $(since "$t") s, peak resident $(peak)"
job 1 | sed 's/.*"result":{"reason":"\([^"]*\)".*/\1/'
job 1 | grep -o '"pairs_per_second":[0-9]*' | tail -1
t=$(now)
call -X POST "$url/v1/admin/collections/items/rollback" -d '{}'
echo " rolled back in $(since "$t") s"
sleep 5
echo "resident, idle again: $(resident)"
