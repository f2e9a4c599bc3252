# Every target has one line of help after `##`.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false
SEEDS ?= 0,1,2
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test tables lint clean-cache

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP)  ## .venv with the locked dependencies

# torch first and alone: any later resolution would otherwise pull its CUDA build.
$(STAMP): constraints.txt pyproject.toml
	@echo "installing into $(VENV) (about three minutes) ..."
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

demo: setup  ## a small study: SPECTRA, one ablation, Switch top-2; 3 seeds; its table
	$(PY) train.py -m study=demo debug=demo ablation=none,no_gru seed=$(SEEDS) launch=parallel launch.jobs=$(JOBS)
	$(PY) train.py -m study=demo debug=demo baseline=switch_top2 seed=$(SEEDS) launch=parallel launch.jobs=$(JOBS)
	$(PY) -m spectra_exp.analysis.tables --study demo

test: setup  ## everything that needs no GPU, in two processes
	$(PY) -m pytest -n 2 --dist worksteal

lint: setup  ## ruff
	$(PY) -m ruff check .

tables: setup  ## outputs/tables/ from the finished runs (STUDY=name for one study)
	$(PY) -m spectra_exp.analysis.tables $(if $(STUDY),--study $(STUDY))

clean-cache:  ## delete the tokenised data; runs rebuild what they need
	rm -rf "$${SPECTRA_OUTPUTS:-outputs}/cache"
