#!/bin/sh
# Take in what an export wrote, into another collection.
set -eu
. "$(dirname "$0")/lib.sh"
fill curl-import-from
ask -o "$tmp/export" "$A/export"
fresh curl-import-to
expect 200 "$A/import" -H "$NDJSON" --data-binary "@$tmp/export"
must '"errors":false'
expect 200 "$C/items/red-apple"
