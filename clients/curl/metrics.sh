#!/bin/sh
# Probes, figures for Prometheus, and what the daemon is.
set -eu
. "$(dirname "$0")/lib.sh"
expect 200 "$U/healthz"
expect 200 "$U/livez"
expect 200 "$U/readyz"
expect 200 "$U/metrics"
must '# TYPE'
expect 200 "$U/v1/info"
must '"version"'
expect 200 "$U/openapi.json"
must '"openapi"'
