#!/bin/sh
# Measures what idle connections cost a process in memory, one kind after the
# other, each on a process of its own, since what one has had is not given back at
# once. Kafka and PostgreSQL are testenv's: run by `make bench-connections`. What it
# is given goes to `penstock bench connections`.
set -eu
cd "$(dirname "$0")/.."
penstock=.build/penstock
export PENSTOCK_KAFKA="$PENSTOCK_TEST_KAFKA" PENSTOCK_POSTGRES="$PENSTOCK_TEST_POSTGRES"
export PENSTOCK_LISTEN="${PENSTOCK_LISTEN:-127.0.0.1:18097}"
metrics="${METRICS:-127.0.0.1:18096}"
"$penstock" topic apply >/dev/null
"$penstock" migrate >/dev/null
server=
finish() {
	[ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || :
	server=
}
trap finish EXIT
for kind in ws ws-watching sse; do
	"$penstock" run --sim --log-level warn --metrics-listen "$metrics" &
	server=$!
	until curl -fsS "http://$PENSTOCK_LISTEN/readyz" >/dev/null 2>&1; do
		kill -0 "$server"
		sleep 0.2
	done
	"$penstock" bench connections --server "http://$PENSTOCK_LISTEN" --metrics "http://$metrics" --kind "$kind" "$@"
	finish
done
