#!/bin/sh
# What is similar to a text?
set -eu
. "$(dirname "$0")/lib.sh"
fill curl-search

expect 200 "$C/search" -H "$JSON" \
    -d '{"text":"red fruit","k":3,"with":["text","metadata"]}'
must '"red-apple"'
must '"probability"'
# Only what is near enough.
expect 200 "$C/search" -H "$JSON" -d '{"text":"red fruit","min_cosine":0.99}'
must '"hits":[]'
# A limit that is refused says what is allowed.
expect '400 422' "$C/search" -H "$JSON" -d '{"text":"red fruit","k":0}'
must '/k'
