#!/bin/sh
# Vectors as OpenAI's API gives them: any client of it works, with the
# collection (or an encoder) as the model.
set -eu
. "$(dirname "$0")/lib.sh"
fresh curl-embeddings

expect 200 "$U/v1/embeddings" -H "$JSON" \
    -d '{"model":"curl-embeddings","input":["one text","another text"]}'
must '"usage"'
expect 200 "$U/v1/embeddings" -H "$JSON" \
    -d '{"model":"static","input":"one text","encoding_format":"base64","dimensions":64}'
expect '400 422' "$U/v1/embeddings" -H "$JSON" -d '{"model":"static","input":""}'
must '"error"'
expect 404 "$U/v1/embeddings" -H "$JSON" -d '{"model":"nobody","input":"a"}'
