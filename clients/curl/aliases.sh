#!/bin/sh
# A name that points to a collection, switched at once.
set -eu
. "$(dirname "$0")/lib.sh"
fill curl-alias-one
fresh curl-alias-two
ask -o /dev/null -X DELETE "$U/v1/aliases/curl-current"

expect '200 201' -X PUT "$U/v1/aliases/curl-current" -H "$JSON" \
    -d '{"collection":"curl-alias-one"}'
expect 200 "$U/v1/collections/curl-current/search" -H "$JSON" -d '{"text":"fruit"}'
must '"red-apple"'
expect 200 -X PUT "$U/v1/aliases/curl-current" -H "$JSON" \
    -d '{"collection":"curl-alias-two"}'
expect 200 "$U/v1/aliases/curl-current"
must 'curl-alias-two'
expect 200 "$U/v1/collections/curl-current/search" -H "$JSON" -d '{"text":"fruit"}'
must '"hits":[]'
