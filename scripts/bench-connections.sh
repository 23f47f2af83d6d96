#!/bin/sh
# Measures what idle connections cost a process in memory, one kind after the
# other, each on a process of its own, since what one has had is not given back at
# once. Kafka and PostgreSQL are testenv's: run by `make bench-connections`. What it
# is given goes to `penstock bench connections`.
set -eu
cd "$(dirname "$0")/.."
. scripts/services.sh
deployment
metrics="${METRICS:-127.0.0.1:$(free_port)}"
for kind in ws ws-watching sse sse-http2; do
	serve --metrics-listen "$metrics"
	"$penstock" bench connections --server "http://$PENSTOCK_LISTEN" --metrics "http://$metrics" --kind "$kind" "$@"
	kill "$server"
	wait "$server" || :
	pids=
done
