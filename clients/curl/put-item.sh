#!/bin/sh
# One item: write, read, change its metadata, delete. An ETag guards a change.
set -eu
. "$(dirname "$0")/lib.sh"
fresh curl-put

# The id is percent-encoded: this package is called g++.
expect 201 -X PUT "$C/items/g%2B%2B" -H "$JSON" \
    -d '{"title":"C++ compiler","text":"turns programs into machine code","metadata":{"lang":"en"}}'
expect 200 "$C/items/g%2B%2B"
must '"g++"'
etag=$(header)
expect 200 -X PATCH "$C/items/g%2B%2B" -H "$JSON" -H "If-Match: $etag" \
    -d '{"metadata":{"lang":"de"}}'
expect 412 -X PUT "$C/items/g%2B%2B" -H "$JSON" -H "If-Match: $etag" \
    -d '{"text":"too late"}'
expect 412 -X PUT "$C/items/g%2B%2B" -H "$JSON" -H 'If-None-Match: *' \
    -d '{"text":"only if it were new"}'
expect '200 204' -X DELETE "$C/items/g%2B%2B"
expect 404 "$C/items/g%2B%2B"
