#!/bin/sh
# Many items in one request: NDJSON line by line, or an array all or nothing.
set -eu
. "$(dirname "$0")/lib.sh"
fresh curl-bulk

# Each line has its outcome; a bad line does not stop the others.
expect 200 "$C/items" -H "$NDJSON" --data-binary @- <<'ITEMS'
{"id":"1","text":"the first text"}
{"id":"2","text":"the second text","metadata":{"year":2024}}
this is no JSON
{"id":"4","text":"the fourth text"}
ITEMS
must '"errors":true'

# Only the failures are reported, whatever the length of the file.
awk 'BEGIN { for (i = 1; i <= 2000; i++) printf "{\"id\":\"n%d\",\"text\":\"text number %d of many\"}\n", i, i }' |
    expect 200 "$C/items?outcomes=errors" -H "$NDJSON" -T - -X POST
must '"lines":2000'
must '"errors":false'

# An array is stored whole or not at all.
expect '200 201' "$C/items" -H "$JSON" \
    -d '[{"id":"a","text":"one"},{"id":"b","text":"two"}]'
expect 422 "$C/items" -H "$JSON" -d '[{"id":"c","text":"three"},{"text":"no id"}]'
expect 404 "$C/items/c"

# Walk through all of them, and delete some.
expect 200 "$C/items?limit=3"
expect 200 "$C/items/delete" -H "$JSON" -d '{"ids":["a","b"]}'
