#!/bin/sh
# Make any generation that is kept live again.
set -eu
. "$(dirname "$0")/lib.sh"
trained curl-promote

expect '200 202' -X POST "$A/generations/1/promote"
[ "$status" = 200 ] || finished "$U$(header | sed "s|^$U||")"
expect '200 202' -X POST "$A/generations/2/promote"
[ "$status" = 200 ] || finished "$U$(header | sed "s|^$U||")"
expect 200 "$C/search" -H "$JSON" -d '{"text":"oak house"}'
must '"generation":2'
expect 404 -X POST "$A/generations/99/promote"
