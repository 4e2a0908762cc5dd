# Every target that needs packages makes the environment first, from Python alone:
# `make demo` and `make test` work on a fresh machine. BUILD.md explains each target.

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python

.PHONY: setup demo test test-slow test-addons test-engines test-web check fix clean

setup: $(VENV)/.ready

demo: setup
	$(PY) -m trainers demo

test: setup
	$(PY) -m pytest -q -rs -n 2 --dist loadfile -m "not slow and not addons and not engines and not web"

test-slow: setup
	$(PY) -m pytest -q -rs -n 2 --dist loadfile -m "slow and not engines and not web"

test-addons: setup
	$(PY) -m pytest -q -rs -s -m addons

test-engines: setup
	$(PY) -m pip install --disable-pip-version-check -e ".[dev,engines]"
	$(PY) -m pytest -q -rs -m engines

test-web: setup
	cd examples/web && npm install
	$(PY) -m pytest -q -rs -m web

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

fix: setup
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache

$(VENV)/.ready: setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	"error: Python 3.11, 3.12 or 3.13 is needed, but $(PYTHON) is %d.%d. " % v + \
	"Name another one: make PYTHON=python3.12 ...")'
	@echo "Making the environment in $(VENV) (about 3 GB on disk, once)"
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --disable-pip-version-check -e ".[dev]"
	@touch $@
