#!/bin/sh
# Measures Penstock's gateway, Centrifugo's library and Mercure's by turns under the
# same load: memory of connections with one subscription, one stream to 1,000
# watchers, and many streams of one watcher each. Each row is a process of its own.
# Run by `make bench-hubs`, within testenv, which gives Penstock a real Kafka and
# PostgreSQL; the others keep all in memory, and are fed within their own process.
set -eu
cd "$(dirname "$0")/.."
. scripts/services.sh
(cd internal/bench/rivals && go build -o "$work/" ./hub ./watch)
deployment

# start NAME: starts that server, $server, at $url with its figures at $metrics.
start() {
	case $1 in
	penstock)
		metrics=http://127.0.0.1:$(free_port)
		url=http://$PENSTOCK_LISTEN
		serve --max-in-flight 4000 --metrics-listen "${metrics#http://}"
		;;
	*)
		url=http://127.0.0.1:$(free_port)
		metrics=$url
		"$work/hub" -kind "$1" -listen "${url#http://}" 2>"$work/$1.log" &
		server=$!
		pids="$pids $server"
		ready "$metrics/metrics" "$server" "$work/$1.log"
		;;
	esac
}

# row FLAG...: one row of every server.
row() {
	for contender in "penstock ws" "centrifuge ws" "penstock sse" "centrifuge sse" "mercure sse"; do
		start "${contender% *}"
		"$work/watch" -server "${contender% *}" -via "${contender#* }" -url "$url" -metrics "$metrics" "$@" || echo "| ${contender% *} | ${contender#* } | failed |"
		kill "$server"
		wait "$server" 2>/dev/null || :
		pids=
	done
}

if [ "${HELD:=5000}" -gt 0 ]; then # HELD=0: none
	echo "| server | over | held | resident each | of it heap and stacks | goroutines each |"
	echo "|---|---|---|---|---|---|"
	row -idle "$HELD"
fi
for round in $(seq "${ROUNDS:-1}"); do
	echo
	echo "| server | over | streams × watchers | offered a second | delivered | p50 | p99 | server's CPU a token | watchers' CPU a token | resident |"
	echo "|---|---|---|---|---|---|---|---|---|---|"
	row -streams 1 -watchers 1000 -rate 20
	row -streams 200 -watchers 1 -rate 50
done
