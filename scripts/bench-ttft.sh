#!/bin/sh
# Measures the time to the first token of a deployment of one process, on a
# Kafka and a PostgreSQL of its own: run by `make bench-ttft`, within testenv.
# What it is given goes to `penstock bench ttft`.
set -eu
cd "$(dirname "$0")/.."
. scripts/services.sh
deployment
serve ${PROFILE:+--metrics-listen "$PROFILE"}
"$penstock" bench ttft --server "http://$PENSTOCK_LISTEN" "$@"
