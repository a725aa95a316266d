#!/bin/sh
# Everything of a collection as NDJSON.
set -eu
. "$(dirname "$0")/lib.sh"
fill curl-export

expect 200 "$A/export"
must '"red-apple"'
expect 200 "$A/export?vectors=true"
