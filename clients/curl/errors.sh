#!/bin/sh
# What is refused says why: a problem document that names the field.
set -eu
. "$(dirname "$0")/lib.sh"
fill curl-errors
expect 400 "$C/search" -H "$JSON" -d '{"text":'
expect '400 422' "$C/search" -H "$JSON" -d '{"text":"a","colour":"red"}'
must '/colour'
expect 422 "$C/search" -H "$JSON" -d '{"text":""}'
expect 404 "$U/v1/collections/nobody/search" -H "$JSON" -d '{"text":"a"}'
expect 405 -X DELETE "$C/search"
expect 415 "$C/search" -H 'Content-Type: text/plain' -d 'a'
expect 501 "$C/search" -H "$JSON" -d '{"text":"a","hybrid":{}}'
# A repeated request with the same Idempotency-Key is answered, not done again.
for again in 1 2; do
    expect '200 201' "$C/pairs" -H "$JSON" -H "Idempotency-Key: example-$$" \
        -d '[{"anchor":{"text":"orange root"},"positive":{"id":"carrot"}}]'
done
expect 422 "$C/pairs" -H "$JSON" -H "Idempotency-Key: example-$$" \
    -d '[{"anchor":{"text":"another"},"positive":{"id":"carrot"}}]'
