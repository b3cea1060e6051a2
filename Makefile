# Every target sets up what it needs: no step has to come before another.
#
#   make demo   play a recording: words as they are understood, latencies
#   make test   lint, type check and tests
#
# PYTHON picks the interpreter (3.11 or newer), TORCH the requirement handed to pip.

PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   ?= .venv
JOBS   ?= 2

PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
BIN := $(VENV)/bin
SOURCES := $(wildcard tinyvoice training agents examples tests)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint format typecheck pytest venv clean

help:
	@echo "make demo   play a recording, words appear (sets up $(VENV) first)"
	@echo "make test   lint, type check and tests (sets up $(VENV) first)"
	@echo "make lint   ruff only          make format   let ruff rewrite"
	@echo "make venv   environment for development"
	@echo "make clean  remove $(VENV) and tool caches"

demo: $(VENV)/.ready-run
	@$(BIN)/tinyvoice demo --recording

test: lint typecheck pytest

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(VENV)/.ready-dev
	$(BIN)/mypy $(SOURCES)

# One torch thread for each worker: two workers on two cores beat one worker on both.
pytest: $(VENV)/.ready-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

venv: $(VENV)/.ready-dev

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "tinyvoice needs Python 3.11 or newer, and $(PYTHON) is older or missing:"; \
	  echo "run make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: on Debian and Ubuntu run"; \
	  echo "  sudo apt-get install python3-venv"; exit 1; }
	@echo "[1/3] virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# torch first and pinned: it is the bulk of the download, and everything after it is quick.
$(VENV)/.torch: $(VENV)/.created
	@echo "[2/3] $(TORCH)"
	@$(PIP) install --progress-bar on $(TORCH)
	@touch $@

$(VENV)/.ready-run: $(VENV)/.torch pyproject.toml
	@echo "[3/3] tinyvoice"
	@$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.torch pyproject.toml
	@echo "[3/3] tinyvoice, training and the test tools"
	@$(PIP) install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.ready-run
