# Two environments, so that the demo shows what serving needs: no torch in the first.
PYTHON ?= python3
SERVE := .venv
DEVELOP := .venv-dev
# One torch for everything: installed first, so that nothing else chooses another build.
TORCH := torch==2.13.0
# Processes that test: two more than two cores, as one waits for a Milvus server, and others for processes they start.
JOBS ?= 4
# Files to processes, in the order of tests/conftest.py, which also says what one process runs.
PYTEST := pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo check test coverage docs dist format clean

help:  ## the targets, and what each does
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(SERVE)/.ready  ## render songs, ingest, query, evaluate
	$(SERVE)/bin/python -m bytecover2_milvus demo --out demo

check: $(DEVELOP)/.ready  ## style, types and the fast tests: for every change, under a minute
	$(DEVELOP)/bin/python -m ruff check .
	$(DEVELOP)/bin/python -m ruff format --check .
	$(DEVELOP)/bin/python -m mypy
	$(DEVELOP)/bin/python -m $(PYTEST) -m "not slow" -q

test: $(DEVELOP)/.ready docs  ## everything that CI runs
	$(DEVELOP)/bin/python -m pip check
	$(DEVELOP)/bin/python -m ruff check .
	$(DEVELOP)/bin/python -m ruff format --check .
	$(DEVELOP)/bin/python -m mypy
	$(DEVELOP)/bin/python -m $(PYTEST) --durations 25

coverage: $(DEVELOP)/.ready  ## the tests, and which lines no test runs
	$(DEVELOP)/bin/python -m $(PYTEST) --cov --cov-report term:skip-covered --cov-report xml

# Not --quiet: MkDocs then counts no warnings.
docs: $(DEVELOP)/.ready  ## the documentation as pages, in site/; a warning is an error
	$(DEVELOP)/bin/python -m mkdocs build --strict

dist: $(DEVELOP)/.ready  ## wheel and source archive, in dist/, checked
	rm -rf dist
	$(DEVELOP)/bin/python -m build --quiet
	$(DEVELOP)/bin/python -m twine check --strict dist/*

format: $(DEVELOP)/.ready  ## mend style
	$(DEVELOP)/bin/python -m ruff check --fix .
	$(DEVELOP)/bin/python -m ruff format .

$(SERVE)/.ready: pyproject.toml
	$(PYTHON) -m venv $(SERVE)
	$(SERVE)/bin/python -m pip install --quiet --editable ".[cpu,lite]"
	touch $@

$(DEVELOP)/.ready: pyproject.toml
	$(PYTHON) -m venv $(DEVELOP)
	$(DEVELOP)/bin/python -m pip install --quiet "$(TORCH)"
	$(DEVELOP)/bin/python -m pip install --quiet --editable ".[cpu,lite,train,test,docs]" "$(TORCH)"
	$(DEVELOP)/bin/python -m benchmarks.compiled
	touch $@

clean:  ## what `make` made; .cache holds the features of training tracks
	rm -rf $(SERVE) $(DEVELOP) demo build dist site *.egg-info .mypy_cache .pytest_cache coverage.xml .coverage
