# Two environments, so that the demo shows what serving needs: no torch in the first.
PYTHON ?= python3
SERVE := .venv
DEVELOP := .venv-dev
# One torch for everything: installed first, so that nothing else chooses another build.
TORCH := torch==2.13.0

.PHONY: demo test format clean

demo: $(SERVE)/.ready  ## render songs, ingest, query, evaluate
	$(SERVE)/bin/python -m bytecover2_milvus demo --out demo

test: $(DEVELOP)/.ready  ## everything that CI runs
	$(DEVELOP)/bin/python -m pip check
	$(DEVELOP)/bin/python -m ruff check .
	$(DEVELOP)/bin/python -m ruff format --check .
	$(DEVELOP)/bin/python -m pytest -n 2 --dist loadfile --durations 25

format: $(DEVELOP)/.ready
	$(DEVELOP)/bin/python -m ruff check --fix .
	$(DEVELOP)/bin/python -m ruff format .

$(SERVE)/.ready: pyproject.toml
	$(PYTHON) -m venv $(SERVE)
	$(SERVE)/bin/python -m pip install --quiet --editable ".[cpu,lite]"
	touch $@

$(DEVELOP)/.ready: pyproject.toml
	$(PYTHON) -m venv $(DEVELOP)
	$(DEVELOP)/bin/python -m pip install --quiet "$(TORCH)"
	$(DEVELOP)/bin/python -m pip install --quiet --editable ".[cpu,lite,train,test]" "$(TORCH)"
	touch $@

clean:  ## what `make` made; .cache holds the features of training tracks
	rm -rf $(SERVE) $(DEVELOP) demo build *.egg-info
