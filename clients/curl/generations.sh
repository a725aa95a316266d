#!/bin/sh
# The lineage of a collection's encoder, and its weights as safetensors.
set -eu
. "$(dirname "$0")/lib.sh"
trained curl-generations

expect 200 "$C/generations"
must '"live"'
expect 200 "$C/generations/2"
ask -o "$tmp/weights" "$C/generations/2/weights"
[ "$(wc -c <"$tmp/weights")" -gt 1000 ] || { echo "$0: no weights" >&2; exit 1; }
expect 404 "$C/generations/99"
