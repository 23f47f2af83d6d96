#!/bin/sh
# Measures how the tokens of many jobs get to as many WebSockets, and those of one
# to a thousand, on a deployment of one process. Kafka and PostgreSQL are
# testenv's: run by `make bench-streams`. What it is given goes to `penstock bench
# streams`, which is run once with it in place of the two.
set -eu
cd "$(dirname "$0")/.."
penstock=.build/penstock
export PENSTOCK_KAFKA="$PENSTOCK_TEST_KAFKA" PENSTOCK_POSTGRES="$PENSTOCK_TEST_POSTGRES"
export PENSTOCK_LISTEN="${PENSTOCK_LISTEN:-127.0.0.1:18095}"
"$penstock" topic apply >/dev/null
"$penstock" migrate >/dev/null
"$penstock" run --sim --log-level warn --max-in-flight 4000 ${PROFILE:+--metrics-listen "$PROFILE"} &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null' EXIT
until curl -fsS "http://$PENSTOCK_LISTEN/readyz" >/dev/null 2>&1; do
	kill -0 "$server"
	sleep 0.2
done
if [ $# -gt 0 ]; then
	"$penstock" bench streams --server "http://$PENSTOCK_LISTEN" "$@"
	exit
fi
"$penstock" bench streams --server "http://$PENSTOCK_LISTEN"
"$penstock" bench streams --server "http://$PENSTOCK_LISTEN" --streams 1 --watchers 1000 --rate 20
