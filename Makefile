# make reproduce, make test: both make .venv on first use. Needs Python 3.11.5 or newer and make; `make help` lists the rest.
PYTHON ?= python3
JOBS ?= 2
PY = .venv/bin/python
BUILD = $(PY) -m trmlib.build
OPTIONS = --jobs $(JOBS) $(if $(PROFILE),--profile $(PROFILE)) $(if $(filter-out 0,$(TRAIN)),--train) $(if $(CHAPTER),--chapter $(CHAPTER))

.DEFAULT_GOAL := help
.PHONY: help reproduce figures medium site test test-browser lint pairs lab clean

help: ## these lines
	@echo "make TARGET [OPTION=value ...]"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-13s %s\n", $$1, $$2 }'

reproduce: .venv/.ready ## execute the notebooks, rebuild figures/ and article/ (PROFILE=smoke, TRAIN=1, CHAPTER=02, JOBS=2)
	$(BUILD) reproduce $(OPTIONS)

figures: reproduce ## the same: the notebooks make the figures

medium: .venv/.ready ## dist/medium: the article, its pictures, captions and a checklist, to upload from
	$(BUILD) medium

site: reproduce ## dist/site: article, figures, executed notebooks and all results, opened from disk
	$(BUILD) site

test: .venv/.ready ## lint, pytest, smoke reproduction, pairs in sync, a rebuild from the records changes nothing
	@echo "== lint"
	$(PY) -m ruff check .
	@echo "== tests"
	$(PY) -m pytest -n $(JOBS) --dist worksteal --durations 10
	@echo "== pairs in sync"
	$(BUILD) pair --check
	@echo "== smoke reproduction: trains every code path"
	$(BUILD) reproduce --profile smoke --jobs $(JOBS) --build build/test
	@echo "== a rebuild from the records leaves figures/ and article/ unchanged"
	$(BUILD) reproduce --check --jobs $(JOBS)
	@echo "== all passed"

test-browser: site ## site and notebooks in headless Chromium; no part of `make test`, for pip cannot bring a browser
	$(PY) -m pytest tests/browser_site.py tests/browser_lab.py

lint: .venv/.ready ## ruff
	$(PY) -m ruff check .

pairs: .venv/.ready ## write each notebook's .ipynb from its .py
	$(BUILD) pair

lab: .venv/.ready ## JupyterLab on the notebooks
	$(PY) -m jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_overview.ipynb

clean: ## remove build/ and caches of tools; never records, weights or data
	rm -rf build dist .pytest_cache .ruff_cache trmlib.egg-info
	find trmlib tests notebooks -name __pycache__ -prune -exec rm -rf {} + -o -name .ipynb_checkpoints -prune -exec rm -rf {} +

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' 2>/dev/null || \
	  { echo "error: Python 3.11.5 or newer is needed, and '$(PYTHON)' is not that; name one: make PYTHON=python3.11 ..." >&2; exit 1; }
	@echo "== .venv: the locked packages (once)"
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --disable-pip-version-check -r requirements.lock
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
