#!/bin/sh
# The answer that a user picked becomes a pair.
set -eu
. "$(dirname "$0")/lib.sh"
fill curl-feedback

expect 200 "$C/search" -H "$JSON" -d '{"text":"something to ride on","k":5}'
search=$(field search_id)
expect '200 201' "$C/feedback" -H "$JSON" \
    -d "{\"search_id\":\"$search\",\"item_id\":\"bicycle\"}"
expect 200 "$C/pairs"
must '"bicycle"'
expect 404 "$C/feedback" -H "$JSON" -d '{"search_id":"0","item_id":"bicycle"}'
