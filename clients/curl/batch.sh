#!/bin/sh
# Several queries in one request; a failed one has its problem in its place.
set -eu
. "$(dirname "$0")/lib.sh"
fill curl-batch

expect 200 "$C/search/batch" -H "$JSON" \
    -d '{"queries":[{"text":"fruit","k":1},{"id":"bicycle","k":2},{"id":"nobody"}]}'
must '"results"'
must '"status"'
