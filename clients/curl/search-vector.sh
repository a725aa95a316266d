#!/bin/sh
# Search by a vector: here the one that the collection makes of a text.
set -eu
. "$(dirname "$0")/lib.sh"
fill curl-search-vector

expect 200 "$U/v1/embeddings" -H "$JSON" \
    -d '{"model":"curl-search-vector","input":"a wheel with a chain"}' >"$tmp/out"
vector=$(tr -d ' \n' <"$body" | sed 's/.*"embedding":\(\[[^]]*\]\).*/\1/')
printf '{"k":2,"vector":%s}' "$vector" >"$tmp/query"
expect 200 "$C/search" -H "$JSON" -d "@$tmp/query"
must '"bicycle"'

# The same, as base64 of little-endian floats.
expect 200 "$U/v1/embeddings" -H "$JSON" \
    -d '{"model":"curl-search-vector","input":"a wheel with a chain","encoding_format":"base64"}' >"$tmp/out"
printf '{"k":2,"vector":"%s"}' "$(field embedding)" >"$tmp/query"
expect 200 "$C/search" -H "$JSON" -d "@$tmp/query"
must '"bicycle"'
expect '400 409 422' "$C/search" -H "$JSON" -d '{"vector":[1,0,0]}'
