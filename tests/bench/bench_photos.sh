#!/bin/sh
# bench_photos.sh - a folder of photographs as a service: how fast it is
# indexed, beside what the decoder alone does, and how long a query by picture
# takes.
#
#   KINDRED_BUILD=build/release sh tests/bench/bench_photos.sh [FOLDER]
#
# FOLDER: JPEG files; without it BENCH_PHOTOS (10000) files of 500 pixels are
# drawn once (make_image_photos) and kept in build/photos-N. BENCH_SIDE (64) is
# the encoder's input, BENCH_SECONDS (5) a measurement of queries. Needs curl,
# awk and wrk; without wrk the queries are asked by curl, one process each.
set -eu

cd "$(dirname "$0")/../.."
: "${KINDRED_BUILD:=build/release}" "${BENCH_PHOTOS:=10000}"
: "${BENCH_SIDE:=64}" "${BENCH_SECONDS:=5}"
folder=${1:-build/photos-$BENCH_PHOTOS}
bench=$KINDRED_BUILD/tests/bench
for program in kindredd kindred tests/bench/make_image_photos \
    tests/bench/bench_image_folder; do
    [ -x "$KINDRED_BUILD/$program" ] ||
        make "B=$KINDRED_BUILD" "$KINDRED_BUILD/$program"
done
if [ $# -eq 0 ] && [ ! -f "$folder/made" ]; then
    mkdir -p "$folder"
    "$bench/make_image_photos" "$folder" "$BENCH_PHOTOS" 500
    touch "$folder/made"
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/kindred-bench-XXXXXX")
pid=
stop() {
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || :
    [ -z "$pid" ] || wait "$pid" 2>/dev/null || :
    rm -rf "$dir"
}
trap stop EXIT
trap 'exit 1' INT TERM
now() { date +%s.%N; }
ticks() { awk '{ print $14 + $15 }' "/proc/$pid/stat"; }

find "$folder" -name '*.jpg' -type f | LC_ALL=C sort >"$dir/list"
n=$(wc -l <"$dir/list")
[ "$n" -gt 0 ] || {
    echo "no .jpg file in $folder" >&2
    exit 1
}
for threads in 1 2; do
    head -2000 "$dir/list" |
        "$bench/bench_image_folder" "$BENCH_SIDE" "$threads"
done

"$KINDRED_BUILD/kindredd" --listen 127.0.0.1:0 --data "$dir/data" \
    --port-file "$dir/port" --log-level warn &
pid=$!
until [ -s "$dir/port" ]; do
    kill -0 "$pid"
    sleep 0.02
done
KINDRED_URL=http://127.0.0.1:$(cat "$dir/port")
export KINDRED_URL
for what in indexed "unchanged, looked through"; do
    t=$(now) used=$(ticks)
    "$KINDRED_BUILD/kindred" -q -c photos index --pictures \
        --input-side "$BENCH_SIDE" "$folder" >"$dir/out" 2>&1 || {
        cat "$dir/out"
        exit 1
    }
    echo "$t $(now) $n $used $(ticks) $(getconf CLK_TCK)" |
        awk -v what="$what" '{
            printf "%d photographs %s in %.1f s: %.0f pictures/s, daemon %.2f" \
                " ms of processor time each\n", $3, what, $2 - $1,
                $3 / ($2 - $1), 1000 * ($5 - $4) / $6 / $3 }'
done
awk '/VmHWM/ { printf "daemon: peak resident %.0f MB", $2 / 1024 }' \
    "/proc/$pid/status"
du -sk "$dir/data" | awk '{ printf ", %.0f MB on the disk\n", $1 / 1024 }'

# Queries: 200 of the pictures, as they lie in the folder.
awk -v n="$n" 'BEGIN { step = n > 200 ? int(n / 200) : 1 } NR % step == 1 ||
    step == 1' "$dir/list" | head -200 >"$dir/queries"
url=$KINDRED_URL/v1/collections/photos/search/image?k=10
first=$(head -1 "$dir/queries")
curl -sf -H 'Content-Type: image/jpeg' --data-binary "@$first" "$url" |
    cut -c1-300
echo
if command -v wrk >/dev/null; then
    cat >"$dir/search.lua" <<'LUA'
wrk.method = "POST"
wrk.headers["Content-Type"] = "image/jpeg"
local bodies, i = {}, 0
for line in io.lines(os.getenv("BENCH_QUERIES")) do
    local f = io.open(line, "rb")
    bodies[#bodies + 1] = f:read("*a")
    f:close()
end
request = function()
    i = i % #bodies + 1
    return wrk.format(nil, nil, nil, bodies[i])
end
LUA
    for connections in 1 8; do
        printf 'query by picture, %d connections: ' "$connections"
        BENCH_QUERIES=$dir/queries wrk -t1 "-c$connections" \
            "-d${BENCH_SECONDS}s" --latency -s "$dir/search.lua" "$url" |
            awk '/50%|99%|Requests\/sec|Non-2xx/ { printf "%s %s  ", $1, $2 }'
        echo
    done
else
    while read -r file; do
        curl -sf -o "$dir/out" -w '%{time_total}\n' --data-binary "@$file" \
            -H 'Content-Type: image/jpeg' "$url"
    done <"$dir/queries" | sort -n | awk '{ s[NR] = $1 * 1000 } END {
        printf "query by picture, one by one: p50 %.1f ms, p99 %.1f ms\n",
            s[int(NR * 0.5) + 1], s[int(NR * 0.99)] }'
fi
