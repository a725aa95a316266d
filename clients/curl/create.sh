#!/bin/sh
# Make a collection; making it again with the same settings is fine, with
# other fixed settings it is refused. List, describe, delete.
set -eu
. "$(dirname "$0")/lib.sh"
C=$U/v1/collections/curl-create
ask -o /dev/null -X DELETE "$C"

expect 201 -X PUT "$C" -H "$JSON" -d '{"dims":256,"description":"an example"}'
expect 200 -X PUT "$C" -H "$JSON" -d '{"dims":256}'
expect 409 -X PUT "$C" -H "$JSON" -d '{"dims":128}'
expect 200 "$U/v1/collections"
must curl-create
expect 200 "$C"
expect 200 -X PATCH "$C" -H "$JSON" -d '{"description":"another example"}'
must 'another example'
expect '200 204' -X DELETE "$C"
expect 404 "$C"
