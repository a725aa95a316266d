#!/bin/sh
# Train on the pairs; the judge decides whether the new generation is served.
set -eu
. "$(dirname "$0")/lib.sh"

# Too few pairs are refused with both numbers.
fill curl-train-few
expect 422 "$U/v1/admin/collections/curl-train-few/train" -H "$JSON" -d '{}'

teach curl-train
expect 202 "$A/train" -H "$JSON" -d '{"pretext":"pairs","seed":1}'
job=$U$(header | sed "s|^$U||")
finished "$job"
case $state in
promoted | refused) must '"reason"' ;;
*) exit 1 ;;
esac
