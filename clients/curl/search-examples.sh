#!/bin/sh
# More like these, less like those.
set -eu
. "$(dirname "$0")/lib.sh"
fill curl-search-examples

expect 200 "$C/search" -H "$JSON" \
    -d '{"examples":{"positive":["red-apple"],"negative":["bicycle"]},"k":3}'
must '"green-pear"'
