# Everything a newcomer needs. Only Python 3.11 or later, make and a package index are assumed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
TOOLS  := $(VENV)/.tools

.PHONY: help run demo test test-fast test-long check fmt bench clean

help:            ## Show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

run: $(RUNTIME)  ## Start Bursar: the demo, or `bursar serve` if a provider's key is in the environment
	@$(BIN)/python -m proxy.cli.run

demo: $(RUNTIME) ## Start the demo: no key and no network needed
	@$(BIN)/bursar demo

test: $(TOOLS)   ## Run all tests
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not long"

test-fast: $(TOOLS) ## Run the half of the tests that takes under two minutes
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not long"

test-long: $(TOOLS) ## Run the long tests: minutes each, bounded
	@$(BIN)/python -m pytest -q -m long --timeout 1800

check: $(TOOLS)  ## Lint, types, import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-logo && $(BIN)/hadolint Dockerfile

fmt: $(TOOLS)    ## Format
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format .

bench: $(TOOLS)  ## Measure Bursar beside its peers
	@$(BIN)/python -m tests.bench

clean:           ## Forget the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Bursar needs Python 3.11 or later; call make with PYTHON=...") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -U "pip>=25.1"

$(RUNTIME): pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(TOOLS): pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e . --group test --group check
	@touch $@ $(RUNTIME)
