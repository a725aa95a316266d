#!/bin/sh
# A published encoder: in from the folder of a sentence-transformers model, used
# by a collection, out again as a folder.
#
# KINDRED_MODEL   the folder; without one, only the list is shown
set -eu
. "$(dirname "$0")/lib.sh"

expect 200 "$U/v1/encoders"
must '"families"'
[ -n "${KINDRED_MODEL:-}" ] || exit 0

# -h: what links lead to is packed, as the caches of model hubs are made of them
tar -C "$KINDRED_MODEL" -chf "$tmp/model.tar" .
expect '201 200' -X PUT "$U/v1/admin/encoders/curl-model" \
    -H 'Content-Type: application/x-tar' -T "$tmp/model.tar"
must '"fingerprint"'
expect 200 "$U/v1/encoders/curl-model"
fresh curl-encoders '{"encoder":"curl-model"}'
expect 201 -X PUT "$C/items/a" -H "$JSON" -d '{"text":"a red fruit"}'
expect 200 "$C/search" -H "$JSON" -d '{"text":"fruit"}'
must '"id":"a"'
expect 409 -X DELETE "$U/v1/admin/encoders/curl-model"

expect 200 "$C/generations/1/folder"
mkdir "$tmp/exported"
tar -C "$tmp/exported" -xf "$body"
[ -s "$tmp/exported/model.safetensors" ] || { echo "$0: no weights" >&2; exit 1; }
expect 204 -X DELETE "$C"
expect 204 -X DELETE "$U/v1/admin/encoders/curl-model"
