# `make demo` and `make test` do all the set-up that they need: a virtual environment in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PAGE_PACKAGES := web/node_modules/.ready
MIN_COVERAGE ?= 95
# Processes that run test files side by side.
TEST_WORKERS ?= 2
# Threads of many small processes would fight over few cores: the tests run better with one thread per process.
TEST_ENVIRONMENT := OMP_NUM_THREADS=1
# An environment without torch.
LIGHT := build/light

PYTEST := $(TEST_ENVIRONMENT) $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder --durations=10

.PHONY: help demo web web-packages test test-slow test-all test-faults test-processors test-light lint audit docs dist clean

help:
	@echo "make demo   a made-up data set through every step, in a few minutes"
	@echo "make web    the page of export_model --format web, from web/ (needs Node.js 20.19, or 22.12 and later, with npm)"
	@echo "make test   the quick tests, in a few minutes"
	@echo "make test-slow  the tests that the quick ones leave out"
	@echo "make test-all   all tests, with coverage"
	@echo "make test-faults   whole commands for many minutes: killed, starved (a few of each kind of benchmarks/fault_campaign.py), as in nnU-Net's scripts"
	@echo "make test-processors   tests of networks and training with the kernels of other processors"
	@echo "make test-light   prediction without torch, in a fresh environment that has none (requirements-light.txt)"
	@echo "make lint   ruff and mypy"
	@echo "make audit  known vulnerabilities of the versions in constraints.txt (asks a database on the internet)"
	@echo "make dist   wheel and source distribution in dist/"
	@echo "make docs   the documentation as a site in documentation/_build/html; warnings are errors"
	@echo "make clean  remove the virtual environment, caches and the demo's files"

# torch goes first and without its own index: pip then takes the CPU build where one is on hand, and the default elsewhere.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 13) else "error: seg25d needs Python 3.11 to 3.13, this is " + sys.version.split()[0] + "; say which with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

$(VENV)/.ready-docs: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

# What the lockfile names; in a step of its own, as it alone needs a network.
$(PAGE_PACKAGES): web/package.json web/package-lock.json
	cd web && npm ci --no-audit --no-fund
	touch $@

web-packages: $(PAGE_PACKAGES)

# Type-checked and built into the package; and its checks for tests/web.
web: $(PAGE_PACKAGES)
	cd web && npm run check && npm run build && npm run build:checks

demo: $(READY)
	$(BIN)/seg25d demo --workspace demo

test: $(READY)
	$(PYTEST) -m "not slow"

test-slow: $(READY)
	$(PYTEST) -m "slow and not campaign"

test-all: $(READY) test-faults
	$(PYTEST) -m "not campaign" --cov --cov-fail-under=$(MIN_COVERAGE) --cov-report=term-missing:skip-covered

# One process: what all attempts start from is made once, in some minutes.
test-faults: $(READY)
	$(TEST_ENVIRONMENT) $(BIN)/python -m pytest -m campaign

test-processors: $(READY)
	$(TEST_ENVIRONMENT) $(BIN)/python tests/run_on_processors.py

# A fresh environment, in which nothing is installed but what is named there.
$(LIGHT)/.ready: requirements-light.txt pyproject.toml $(shell find seg25d -name "*.py")
	$(PYTHON) -m venv --clear $(LIGHT)
	$(LIGHT)/bin/python -m pip install --quiet --no-deps .
	$(LIGHT)/bin/python -m pip install --quiet -r requirements-light.txt
	touch $@

# Models are written here, and predicted with there.
test-light: $(READY) $(LIGHT)/.ready
	SEG25D_LIGHT_PYTHON=$(CURDIR)/$(LIGHT)/bin/python $(TEST_ENVIRONMENT) $(BIN)/python -m pytest tests/sharing/test_without_torch.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# In an environment of its own, as nothing else needs pip-audit. --strict: a package that the database does not know, or
# a database that cannot be reached, is a failure, not silence.
audit:
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet pip-audit
	build/audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r constraints.txt

# In an environment of its own, as nothing else needs `build`. Wheels have the page.
dist: web
	rm -rf build dist
	$(PYTHON) -m venv build/tools
	build/tools/bin/python -m pip install --quiet build
	build/tools/bin/python -m build

# Every reference to a name of ours is looked up (nitpicky in conf.py), and every link between pages.
docs: $(VENV)/.ready-docs
	$(BIN)/python -m sphinx --builder html --fresh-env --fail-on-warning --keep-going documentation documentation/_build/html

clean:
	rm -rf $(VENV) documentation/_build documentation/reference/api demo build dist seg25d.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
