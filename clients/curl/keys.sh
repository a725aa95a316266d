#!/bin/sh
# A key goes into the Authorization header. Without keys the daemon listens on
# loopback only and ignores the header; with keys the right one is needed.
set -eu
. "$(dirname "$0")/lib.sh"
plain=$(curl -sS -o /dev/null -w '%{http_code}' "$U/v1/collections")
case $plain in
200)
    echo "this daemon has no keys"
    expect 200 -H 'Authorization: Bearer anything' "$U/v1/collections"
    ;;
401)
    echo "this daemon wants a key"
    wrong=$(curl -sS -o /dev/null -w '%{http_code}' -H 'Authorization: Bearer wrong' "$U/v1/collections")
    [ "$wrong" = 401 ] || [ "$wrong" = 403 ] || exit 1
    [ -n "${KINDRED_KEY:-}" ] || { echo "$0: set KINDRED_KEY" >&2; exit 1; }
    expect 200 "$U/v1/collections"
    ;;
*) exit 1 ;;
esac
