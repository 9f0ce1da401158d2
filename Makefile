# Two commands need nothing but Python >= 3.11, make and a package index: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A test process more than there are cores, since some wait for others; a file's tests stay together, and all that start a Ray.
# A process that dies ends the run: what it still had to do, pytest-xdist would wait for without end.
# What takes longest begins first (tests/conftest.py), which no plugin may sort anew.
PROCESSES := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST := $(BIN)/python -m pytest -n $(PROCESSES) --maxprocesses 5 --dist loadgroup --no-loadscope-reorder --max-worker-restart 0
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml setup.py constraints.txt Makefile | cksum | cut -d' ' -f1)

.PHONY: help setup demo test test-all lint format clean

help:  ## show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'error: Python >= 3.11 is needed, $(PYTHON) is older; call make PYTHON=python3.11 ...' >&2; exit 2; }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { echo 'error: python3 -m venv does not work; on Debian and Ubuntu install python3-venv' >&2; exit 2; }
	@echo 'Installing dependencies into $(VENV) (about 7 GB with torch; a few minutes, once)' >&2
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@rm -f $(VENV)/.installed-*
	@touch $@

setup: $(STAMP)  ## make the virtual environment with everything in it

demo: setup  ## a small search for the best freezing period on generated scenes
	$(BIN)/python -m jobs.demo

test: setup  ## the default tests
	$(PYTEST) -m 'not slow and not gpu'

test-all: setup  ## all tests, slow ones too
	$(PYTEST)

lint: setup  ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy dbf_ray jobs search_spaces benchmarks

format: setup  ## mend style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
