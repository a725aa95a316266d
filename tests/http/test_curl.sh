#!/bin/sh
# Goal: every curl example in clients/curl does what its comments say.
# Method: run them all against the daemon at KINDRED_URL; each ends with an
#   error at the first status that it does not expect.
set -u
: "${KINDRED_URL:?the daemon to test}"
tmp=$(mktemp -d "${TMPDIR:-/tmp}/kindred-model-XXXXXX")
trap 'rm -rf "$tmp"' EXIT
sh "$(dirname "$0")/../support/tiny_model.sh" "$tmp/model"
KINDRED_MODEL=$tmp/model
export KINDRED_MODEL
sh "$(dirname "$0")/../../clients/curl/run.sh" "$KINDRED_URL"
