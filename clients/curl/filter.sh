#!/bin/sh
# Search among the items whose metadata fit.
set -eu
. "$(dirname "$0")/lib.sh"
fill curl-filter

expect 200 "$C/search" -H "$JSON" -d '{"text":"grows on a tree","filter":{"kind":"vegetable"}}'
must '"carrot"'
! grep -q red-apple "$body" || { echo "$0: the filter was not kept" >&2; exit 1; }
expect 200 "$C/search" -H "$JSON" \
    -d '{"text":"a tree","filter":{"price":{"$gte":3,"$lt":100}}}'
must '"red-apple"'
expect 200 "$C/search" -H "$JSON" \
    -d '{"text":"a tree","filter":{"$or":[{"kind":"vehicle"},{"kind":{"$in":["software"]}}],"$not":{"price":0}}}'
must '"bicycle"'
expect '400 422' "$C/search" -H "$JSON" -d '{"text":"a tree","filter":{"price":{"$near":3}}}'
