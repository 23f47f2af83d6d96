# What the scripts that start services beside Penstock have in common: to be read
# with `.` by a script that stands at the repository's root.

work=$(mktemp -d)
pids=
# finish ends whatever was started, and removes $work.
finish() {
	trap - EXIT
	for pid in $pids; do kill "$pid" 2>/dev/null || :; done
	for pid in $pids; do wait "$pid" 2>/dev/null || :; done
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

# python_env DIR WHAT PACKAGE...: a virtual environment that holds the packages,
# made once.
python_env() {
	[ ! -e "$1/ready" ] || return 0
	env_dir=$1
	echo "installing $2 into $env_dir" >&2
	shift 2
	python3 -m venv "$env_dir"
	MAKEFLAGS=-j2 nice "$env_dir/bin/pip" install --quiet "$@"
	touch "$env_dir/ready"
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# ready URL PID LOG: waits until the URL is answered.
ready() {
	tries=0
	until curl -fsS "$1" >/dev/null 2>&1; do
		tries=$((tries + 1))
		if [ "$tries" -gt 300 ] || ! kill -0 "$2" 2>/dev/null; then
			echo "$1 does not answer:" >&2
			tail -20 "$3" >&2
			exit 1
		fi
		sleep 0.4
	done
}

# deployment: topics and schema on testenv's Kafka and PostgreSQL, for the
# processes that serve starts.
deployment() {
	penstock=.build/penstock
	export PENSTOCK_KAFKA="$PENSTOCK_TEST_KAFKA" PENSTOCK_POSTGRES="$PENSTOCK_TEST_POSTGRES"
	export PENSTOCK_LISTEN="${PENSTOCK_LISTEN:-127.0.0.1:$(free_port)}"
	"$penstock" topic apply >/dev/null
	"$penstock" migrate >/dev/null
}

# serve FLAG...: starts a process of all roles, $server, and waits until it is ready.
serve() {
	"$penstock" run --sim --log-level warn "$@" &
	server=$!
	pids="$pids $server"
	ready "http://$PENSTOCK_LISTEN/readyz" "$server" /dev/null
}
