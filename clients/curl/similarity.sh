#!/bin/sh
# How similar is one sentence to others?
set -eu
. "$(dirname "$0")/lib.sh"
fresh curl-similarity
expect 200 "$U/v1/similarity" -H "$JSON" -d '{"model":"curl-similarity","inputs":{
    "source_sentence":"a man rides a horse",
    "sentences":["a man is riding a horse","the soup is too hot"]}}'
