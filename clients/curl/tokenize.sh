#!/bin/sh
# How the encoder cuts a text.
set -eu
. "$(dirname "$0")/lib.sh"
fresh curl-tokenize
expect 200 "$U/v1/tokenize" -H "$JSON" \
    -d '{"inputs":"Similar, but not the same.","model":"curl-tokenize"}'
