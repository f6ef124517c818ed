# Everything from a bare Python 3.11:  make book  builds the book,  make test  runs the tests.
# Both make the virtual environment first (make setup does that alone).

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
STAMP := $(VENV)/.set-up
# Snakemake for workflow/Snakefile, in an environment of its own: its packages and the book's exclude each other.
CLUSTER := .venv-cluster
EXTRAS := book,classical,search,pretrained,diffusion,download,parquet,test,lint
PROFILE ?= stored
CODE := fer_repro tests benchmarks _ext workflow
COLAB := .venv-colab
FORMS = $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
CORE := $(addprefix tests/,test_elsewhere.py test_claims.py test_contract.py test_golden_recipes.py test_reproduce.py test_results.py \
	data evaluation results training transforms)
PORTABLE := $(addprefix tests/,test_elsewhere.py test_claims.py test_contract.py test_durations.py test_golden_recipes.py \
	test_layers.py test_leaderboard.py test_logs.py test_parameters.py test_results.py test_workflows.py claims comparisons \
	evaluation local_learning page papers plots results transforms)
# Threads that wait must not spin: chapters and tests share the cores with each other and with a browser.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: setup setup-cluster book front repository test test-portable test-colab test-cluster lint actionlint links audit format clean
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

# The repository's address of _config.yml, into README.md, CITATION.cff and the notebooks.
repository: setup
	$(BIN)/python -m fer_repro.book.repository

# What `make book` does not execute is executed here: the smoke runs of chapters that show stored results, under nbval.
test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 4

# Those that need nothing of POSIX (signals between processes, named pipes, bash): what runs on Windows.
test-portable: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 4 $(PORTABLE)

# The core and the notebooks for Colab and Kaggle with the versions that Colab has installed, in an environment of its own, by
# the Python that is given.
test-colab:
	test -x $(COLAB)/bin/python || $(PYTHON) -m venv $(COLAB)
	PIP_CONSTRAINT=notebooks/colab-versions.txt $(COLAB)/bin/python -m pip install --quiet -e '.[chapter,download,pretrained,test]'
	$(COLAB)/bin/python -m pytest -n auto --maxprocesses 4 $(CORE) tests/notebooks/test_hosted.py

# workflow/Snakefile with Snakemake itself, which the other targets leave out where `make setup-cluster` was not run.
test-cluster: setup setup-cluster
	$(BIN)/python -m pytest -n auto --maxprocesses 4 tests/test_workflow.py

# Format and rules, the direction of imports, types of the core, what is imported against what is declared, and the files
# of GitHub and Docker.
lint: setup
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/deptry fer_repro _ext
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows $(wildcard .github/workflows/*.yml)
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms $(FORMS)
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/hadolint Dockerfile

# Workflows in depth: expressions, permissions, shells. Its package fetches the program from the page of its releases when
# it is installed, so this is no part of lint, which needs only the package index.
actionlint: setup
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet -e '.[actionlint]'
	$(BIN)/actionlint

# Every external link of the pages, one request each; a report of the dead ones.
links: setup
	$(BIN)/jupyter-book build . --builder linkcheck --path-output _build/links

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
