#!/bin/sh
# What is similar to this item?
set -eu
. "$(dirname "$0")/lib.sh"
fill curl-search-id

expect 200 "$C/search" -H "$JSON" -d '{"id":"red-apple","k":3}'
must '"green-pear"'
# An item that is not there.
expect '404 422' "$C/search" -H "$JSON" -d '{"id":"nobody"}'
