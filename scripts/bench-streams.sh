#!/bin/sh
# Measures how the tokens of many jobs get to as many WebSockets, and those of one
# to a thousand, on a deployment of one process. Kafka and PostgreSQL are
# testenv's: run by `make bench-streams`. What it is given goes to `penstock bench
# streams`, which is run once with it in place of the two.
set -eu
cd "$(dirname "$0")/.."
. scripts/services.sh
deployment
serve --max-in-flight 4000 ${PROFILE:+--metrics-listen "$PROFILE"}
if [ $# -gt 0 ]; then
	"$penstock" bench streams --server "http://$PENSTOCK_LISTEN" "$@"
	exit
fi
warm=30s # by then the broker's own compiler leaves the cores alone
"$penstock" bench streams --server "http://$PENSTOCK_LISTEN" --warm "$warm"
"$penstock" bench streams --server "http://$PENSTOCK_LISTEN" --warm "$warm" --streams 1 --watchers 1000 --rate 20
