#!/bin/sh
# Measures LiteLLM's proxy and Penstock on the same instant model server, beside
# that server itself, in one run: run by `make bench-litellm`, within testenv, which
# gives Penstock a real Kafka and PostgreSQL. LiteLLM keeps all in memory, in one
# worker. Ends whatever it started. What it is given goes to chatbench.
set -eu
cd "$(dirname "$0")/.."
. scripts/services.sh
version=1.106.0
venv="${XDG_CACHE_HOME:-$HOME/.cache}/penstock/litellm-$version"
python_env "$venv" "LiteLLM $version" "litellm[proxy]==$version"

upstream=127.0.0.1:$(free_port)
.build/chatbench -upstream "$upstream" &
pids="$pids $!"

cat >"$work/litellm.yaml" <<EOF
model_list:
  - model_name: instant
    litellm_params: {model: openai/instant, api_base: "http://$upstream/v1", api_key: none}
EOF
litellm=127.0.0.1:$(free_port)
# Without a key, as Penstock here: neither spends time on who asks, and both listen
# on this machine alone, for this run.
LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY=true \
	LITELLM_LOCAL_MODEL_COST_MAP=True LITELLM_LOG=ERROR "$venv/bin/litellm" --config "$work/litellm.yaml" \
	--host "${litellm%:*}" --port "${litellm#*:}" --num_workers 1 --telemetry False >"$work/litellm.log" 2>&1 &
litellm_pid=$!
pids="$pids $litellm_pid"

penstock=127.0.0.1:$(free_port)
PENSTOCK_UPSTREAM="http://$upstream/v1" .build/penstock dev --listen "$penstock" ${PROFILE:+--metrics-listen "$PROFILE"} \
	--kafka "$PENSTOCK_TEST_KAFKA" --postgres "$PENSTOCK_TEST_POSTGRES" >"$work/penstock.log" 2>&1 &
penstock_pid=$!
pids="$pids $penstock_pid"

ready "http://$litellm/health/liveliness" "$litellm_pid" "$work/litellm.log"
ready "http://$penstock/readyz" "$penstock_pid" "$work/penstock.log"
.build/chatbench "$@" straight="http://$upstream" litellm="http://$litellm" penstock="http://$penstock"
