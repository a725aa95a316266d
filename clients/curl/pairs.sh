#!/bin/sh
# Say what belongs together. Pairs of one group stay on one side of the split.
set -eu
. "$(dirname "$0")/lib.sh"
fill curl-pairs

expect '200 201' "$C/pairs" -H "$JSON" -d '[
    {"anchor":{"text":"keeps the doctor away"},"positive":{"id":"red-apple"},"group":"sayings"},
    {"anchor":{"id":"red-apple"},"positive":{"id":"green-pear"},"negatives":[{"id":"bicycle"}],"weight":2}]'
expect 200 "$C/pairs" -H "$NDJSON" --data-binary @- <<'PAIRS'
{"anchor":{"text":"rabbits like it"},"positive":{"id":"carrot"}}
{"anchor":{"text":"no such item"},"positive":{"id":"nobody"}}
PAIRS
must '"errors":true'
expect 200 "$C/pairs"
must '"split"'
pair=$(field pair)
expect '200 204' -X DELETE "$C/pairs/$pair"
