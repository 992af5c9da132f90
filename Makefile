# Two commands: `make demo` shows it at work, `make test` checks everything.
# Both need a python3 (3.11 or later, with venv) and nothing else. Another interpreter: make test PYTHON=python3.13

PYTHON ?= python3
VENV ?= .venv
TESTERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: help demo test lint types suite bench clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    install into $(VENV) and run examples/demo.py"
	@echo "make test    ruff (make lint), mypy (make types) and the whole test suite (make suite)"
	@echo "make bench   the benchmarks, Ray beside them where it can be installed"
	@echo "make clean   remove $(VENV), caches and builds"

demo: $(VENV)/.package
	@$(BIN)/python examples/demo.py

test: lint types suite

lint: $(VENV)/.dev
	$(BIN)/ruff check

types: $(VENV)/.dev
	$(BIN)/mypy

# Two processes share the tests, file by file: tests wait often, for each other's processes too. By hand one will do.
suite: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses=$(TESTERS) --dist=loadfile

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find asyncray tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp is as new as the pyproject.toml that it was installed from. The install is editable, so that a change
# of the code needs none.
$(VENV)/.package: pyproject.toml | $(BIN)/python
	$(PIP) install --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[dev]'
	@touch $(VENV)/.package $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "asyncray needs Python 3.11 or later; $(PYTHON) is `$(PYTHON) --version 2>&1`." >&2; \
	    echo "Name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments: its venv or ensurepip module is missing." >&2; \
	    echo "On Debian and Ubuntu: apt install python3-venv. Or name another: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
