# Everything from a bare Python 3.11:  make book  builds the book,  make test  runs the tests.
# Both make the virtual environment first (make setup does that alone).

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
# Snakemake for workflow/Snakefile, in an environment of its own: its packages and the book's exclude each other.
CLUSTER := .venv-cluster
EXTRAS := book,classical,search,pretrained,diffusion,download,parquet,test,lint
PROFILE ?= stored
CODE := fer_repro tests benchmarks _ext
# Threads that wait must not spin: chapters and tests share the cores with each other and with a browser.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: setup setup-cluster book front repository test lint audit format clean
.DEFAULT_GOAL := book

setup: $(STAMP)

# The constraint goes in as a variable, not as -c: pip then also obeys it where it builds a package in an environment of its
# own, and no constraint set up for this machine can slip in beside it.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11, 3.12 or 3.13 is needed, this is " + sys.version.split()[0] + ": make setup PYTHON=python3.11") if not (3, 11) <= sys.version_info[:2] <= (3, 13) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet -e '.[$(EXTRAS)]'
	touch $@

setup-cluster: $(CLUSTER)/.set-up

$(CLUSTER)/.set-up: workflow/requirements.txt workflow/constraints.txt
	test -x $(CLUSTER)/bin/python || $(PYTHON) -m venv $(CLUSTER)
	PIP_CONSTRAINT=workflow/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(CLUSTER)/bin/python -m pip install --quiet -r workflow/requirements.txt
	touch $@

book: setup
	$(BIN)/fer-repro book --profile $(PROFILE)

# The committed picture and table of the front page, from today's claims and results.
front: setup
	$(BIN)/python -m fer_repro.book.front

# The repository's address of _config.yml, into README.md, CITATION.cff and the first cell of every notebook.
repository: setup
	$(BIN)/python -m fer_repro.book.repository

# The suite executes every chapter's cells too (tests/notebooks runs nbval on them).
test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 4

# Format and rules, the direction of imports, types of the core, and what is imported against what is declared.
lint: setup
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/deptry fer_repro _ext

# Known weaknesses of what is installed here. Asks a database on the internet, so it is no part of the tests.
audit: setup
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet -e '.[audit]'
	$(BIN)/pip-audit --local --skip-editable --desc off

# The format that lint asks for.
format: setup
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

clean:
	rm -rf _build .pytest_cache .ruff_cache
	find fer_repro tests _ext benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
