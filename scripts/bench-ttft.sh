#!/bin/sh
# Measures the time to the first token of a deployment of one process, on a
# Kafka and a PostgreSQL of its own: run by `make bench-ttft`, within testenv.
# What it is given goes to `penstock bench ttft`.
set -eu
cd "$(dirname "$0")/.."
penstock=.build/penstock
export PENSTOCK_KAFKA="$PENSTOCK_TEST_KAFKA" PENSTOCK_POSTGRES="$PENSTOCK_TEST_POSTGRES"
export PENSTOCK_LISTEN="${PENSTOCK_LISTEN:-127.0.0.1:18099}"
"$penstock" topic apply >/dev/null
"$penstock" migrate >/dev/null
"$penstock" run --sim --log-level warn ${PROFILE:+--metrics-listen "$PROFILE"} &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null' EXIT
until curl -fsS "http://$PENSTOCK_LISTEN/readyz" >/dev/null 2>&1; do
	kill -0 "$server"
	sleep 0.2
done
"$penstock" bench ttft --server "http://$PENSTOCK_LISTEN" "$@"
