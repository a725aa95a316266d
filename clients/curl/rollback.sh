#!/bin/sh
# Back to the previous generation, at once.
set -eu
. "$(dirname "$0")/lib.sh"
fresh curl-rollback-none
expect 409 -X POST "$A/rollback"

trained curl-rollback
expect 200 "$C/search" -H "$JSON" -d '{"text":"oak house"}'
must '"generation":2'
expect '200 202' -X POST "$A/rollback"
[ "$status" = 200 ] || finished "$U$(header | sed "s|^$U||")"
expect 200 "$C/search" -H "$JSON" -d '{"text":"oak house"}'
must '"generation":1'
