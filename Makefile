# Every target makes what it needs, from a fresh clone with only python3 (3.11 or newer) and make.

PYTHON ?= python3
WORKERS ?= 2
OUT ?= demo-report

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip

EXAMPLES := examples/concurrency-target
DISTRIBUTIONS := . $(sort $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))) $(EXAMPLES)
PROJECTS := $(patsubst ./%,%,$(addsuffix /pyproject.toml,$(DISTRIBUTIONS)))

# A stamp is newer than everything that says what is installed, or the install is run again.
RUNTIME := $(VENV)/.installed
DEVELOPMENT := $(VENV)/.installed-dev

# Editable installs of all distributions in one command, so that each finds the others in this tree; built with the pinned
# backend rather than with whatever is newest; settings that would send packages elsewhere are switched off.
EDITABLE = $(addprefix -e ,$(filter-out .,$(DISTRIBUTIONS)))
INSTALL := PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 $(PIP) install --quiet --no-input --disable-pip-version-check -c constraints.txt

unexport PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z][a-z-]*:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  PYTHON=python3.12 chooses the interpreter, WORKERS=4 the test processes, ONLY=name one benchmark, OUT=dir the report."

.PHONY: demo
demo: $(RUNTIME) ## Replay an hour of real traffic on a simulated fleet; writes demo-report/
	@$(BIN)/wva simulate examples/scenarios/azure-conv-demo.yaml --out $(OUT)

.PHONY: check
check: $(DEVELOPMENT) ## Format, lint, types, import contracts, unit and contract tests
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -q -n $(WORKERS) tests/unit tests/contract

.PHONY: test
test: check ## Everything in check, then integration, plugin, example and documentation tests
	$(BIN)/python -m pytest -q -n $(WORKERS) --ignore=tests/unit --ignore=tests/contract

.PHONY: bench
bench: $(DEVELOPMENT) ## Speed, each case as a ratio to a plain-loop oracle in the same run
	@$(BIN)/python -m tests.benchmarks $(ONLY)

.PHONY: format
format: $(DEVELOPMENT) ## Format and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: clean
clean: ## Remove the virtual environment, caches and reports
	rm -rf $(VENV) $(OUT) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUNTIME): constraints.txt $(PROJECTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "error: Python 3.11 or newer is needed, and '$(PYTHON)' is not: name one with make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "error: '$(PYTHON)' cannot make virtual environments: install its venv module (on Debian: python3-venv)" >&2; exit 1; }
	@$(PIP) --version >/dev/null 2>&1 || { echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing $(words $(DISTRIBUTIONS)) distributions into $(VENV)"
	@$(INSTALL) hatchling editables
	@$(INSTALL) --no-build-isolation -e . $(EDITABLE)
	@touch $@

$(DEVELOPMENT): $(RUNTIME)
	@echo "installing development tools into $(VENV)"
	@$(INSTALL) --no-build-isolation -e '.[dev]'
	@touch $@
