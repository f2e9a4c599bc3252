# Every target has one line of help after `##`.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false
SEEDS ?= 0..4
JOBS ?= 2
TRIALS ?= 20
PROCESSES ?= 2
# What else is given on make's own command line (trainer.max_steps=5 model=exp10) goes on to train.py.
TYPED = $(filter-out PY=% PYTHON=% MACHINE=% HAVE=% GPU_CHECK_DEVICE=% SEEDS=% JOBS=% OSR=% STUDY=% TRIALS=% PROCESSES=% BENCH=% SEED=% FUZZ=% STATUS=% TEXT=% BLOCKS=% SPECTRA_OUTPUTS=%,$(MAKEOVERRIDES))
LAUNCH = $(if $(filter launch=% hydra/launcher=%,$(TYPED)),,$(if $(filter 1,$(JOBS)),,launch=parallel launch.jobs=$(JOBS)))
# What is launched until it is decided adds its own seeds.
SEED_WORDS = $(if $(filter launch.until_decided=%,$(TYPED)),$(if $(filter SEEDS=%,$(MAKEOVERRIDES)),seed=$(SEEDS)),seed=$(SEEDS))
STUDY_RUN = $(PY) train.py $(1) $(SEED_WORDS) $(LAUNCH) $(TYPED)
# A study by its file: sweeps/, ablations/ or replications/NAME.yaml. What would be ignored is refused.
STUDY_FILE = $(wildcard $(foreach kind,sweeps ablations replications,$(kind)/$(strip $(1)).yaml))
HAS_OSR = $(shell grep -l 'osr:' $(STUDY_FILE))
LAUNCH_STUDY = $(if $(STUDY_FILE),,echo "error: STUDY: give the name of a study (docs/studies.md)" >&2; exit 2; )$(if $(OSR),$(if \
	$(HAS_OSR),,echo "error: OSR: this study has no osr; drop it" >&2; exit 2; ))$(call \
	STUDY_RUN,$(patsubst %/,%,$(dir $(STUDY_FILE)))=$(strip $(1)) $(if $(OSR),osr=$(OSR)) $(2))

# A comma that $(call) does not take for its own.
, := ,

.DEFAULT_GOAL := help
.PHONY: help setup demo train-distributed test test-full test-lowest test-random fuzz tables analysis overhead figures report paper replications wheel lint clean-cache status study ablations baselines scaling design-choices \
	sweep-a sweep-b sweep-c sweep-d sweep-e temperature aa temperature-demo temperature-reference search bench bench-gpu gpu-check bundle studies-page reference-pages docs

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-18s %s\n", $$1, $$2}'

# PY=PYTHON: another environment, which is taken as it is.
setup: $(if $(filter command,$(firstword $(origin PY))),,$(STAMP))  ## .venv with the locked dependencies

# torch first and alone: any later resolution would otherwise pull its CUDA build.
$(STAMP): constraints.txt pyproject.toml
	@echo "installing into $(VENV) (about three minutes) ..."
	@test -x $(PY) || $(patsubst 3.%,python3,$(PYTHON)) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

demo: DEMO_SEEDS = $(if $(filter SEEDS=%,$(MAKEOVERRIDES)),$(SEEDS),0,1,2)
demo: setup  ## a small study: SPECTRA, one ablation, Switch top-2; 3 seeds; its table, pictures and report
	$(PY) train.py -m study=demo debug=demo ablation=none,no_gru seed=$(DEMO_SEEDS) launch=parallel launch.jobs=$(JOBS)
	$(PY) train.py -m study=demo debug=demo baseline=switch_top2 seed=$(DEMO_SEEDS) launch=parallel launch.jobs=$(JOBS)
	@$(PY) -m spectra_exp tables study=demo
	@$(PY) -m spectra_exp figures study=demo
	@$(PY) -m spectra_exp report study=demo

# Studies: SEEDS=0..4 OSR=paper|causal JOBS=2, and any override: make sweep-a OSR=causal trainer.max_steps=50
train-distributed: setup  ## one small run by PROCESSES=2 processes that share every batch (deepspeed: trainer.deepspeed=zero2 optim=adamw)
	$(PY) train.py $(if $(filter debug=%,$(TYPED)),,debug=smoke) trainer.processes=$(PROCESSES) $(TYPED)

study: setup  ## any study: STUDY=a_quota (docs/studies.md)
	$(call LAUNCH_STUDY,$(STUDY))

# Short names of studies.
sweep-a: STUDY := a_quota  ## sweep A: top-k against quota
sweep-b: STUDY := b_sinkhorn  ## sweep B: Sinkhorn's epsilon, iterations, domain
sweep-c: STUDY := c_repulsion  ## sweep C: weight of the repulsion
sweep-d: STUDY := d_sharpness  ## sweep D: entropy loss
sweep-e: STUDY := e_context  ## sweep E: length of context
ablations: STUDY := core  ## every ablation of SPECTRA
baselines: STUDY := baselines  ## SPECTRA beside every baseline
temperature: STUDY := temperature  ## the 13-run temperature study
aa: STUDY := aa  ## noise floors of a claim: one configuration as two arms, and on two threads
# Two arms of three seeds.
aa: SEEDS := 0..5
design-choices: STUDY := design_choices  ## encoder, similarity, orthogonality, k and D, one at a time
sweep-a sweep-b sweep-c sweep-d sweep-e ablations baselines temperature design-choices aa: setup
	$(call LAUNCH_STUDY,$(STUDY))

temperature-demo: setup  ## three of its temperatures: 0.7, 1, 2
	$(call LAUNCH_STUDY,temperature,temperature=t0_7$(,)t1_0$(,)t2_0)

# 13 runs of 96 x 512 tokens a step on one GPU; the same command goes on, run by run, where it was cut. A rehearsal on the
# CPU (trainer.device=cpu and tiny sizes) has runs and page of its own.
# Settings but for those that are given on the command line as well.
UNTYPED = $(foreach word,$(1),$(if $(filter $(firstword $(subst =, ,$(word)))=%,$(TYPED)),,$(word)))
DEVICE = $(patsubst trainer.device=%,%,$(filter trainer.device=%,$(TYPED)))
REFERENCE = $(or $(SPECTRA_OUTPUTS),outputs)/temperature-reference$(addprefix -,$(DEVICE))
REFERENCE_PAGE = $(if $(DEVICE),$(REFERENCE),docs/results/gpu)/temperature.md
temperature-reference: JOBS := $(if $(filter JOBS=%,$(MAKEOVERRIDES)),$(JOBS),1)
temperature-reference: setup  ## the temperature study at its reference scale (TEXT=folder of the real text; JOBS=4 at once on a GPU)
	@for name in train validation; do [ -f "$(TEXT)/$$name.jsonl" ] || \
		{ echo "error: TEXT: no $$name.jsonl in '$(TEXT)'; give the folder of train.jsonl and validation.jsonl" >&2; exit 2; }; done
	@$(PY) train.py -m sweeps=temperature model=exp10 seed=$(if $(filter SEEDS=%,$(MAKEOVERRIDES)),$(SEEDS),0) \
		data=files data.train=$(TEXT)/train.jsonl data.validation=$(TEXT)/validation.jsonl data.domain_field=domain \
		$(call UNTYPED,data.vocabulary_size=16384 model.vocabulary_size=16384 trainer.precision=bf16 trainer.eval_every=100 \
		trainer.checkpoint_every=250 trainer.device=cuda) outputs=$(REFERENCE) $(LAUNCH) $(if $(LAUNCH),$(if $(filter cpu,$(DEVICE)),,launch.per_gpu=$(JOBS))) $(TYPED); status=$$?; \
	[ $$status -eq 2 ] || { $(PY) -m spectra_exp tables outputs=$(REFERENCE) && \
	$(PY) tools/temperature_page.py $(REFERENCE) > $(REFERENCE)/page.md && mv $(REFERENCE)/page.md $(REFERENCE_PAGE); } || exit 1; exit $$status

scaling: setup  ## SPECTRA and Switch over numbers of experts and sizes of model
	@status=0; \
	$(call LAUNCH_STUDY,scaling_experts) || status=$$?; \
	$(call LAUNCH_STUDY,scaling_model) || status=$$?; \
	exit $$status

search: setup  ## a stored search over SPECTRA's main knobs (TRIALS=20); again goes on
	$(if $(filter SEEDS=%,$(MAKEOVERRIDES)),@echo "error: SEEDS: a search has one seed; give seed=N" >&2; exit 2)
	$(PY) train.py -m $(if $(filter search=%,$(TYPED)),,search=spectra) $(if $(OSR),osr=$(OSR)) hydra.sweeper.n_trials=$(TRIALS) $(LAUNCH) $(TYPED)

status: setup  ## expected, done, running, failed, missing runs of every study
	@$(PY) -m spectra_exp study status

bench: setup  ## benchmarks (BENCH=name for one) against their targets: outputs/bench/summary.json
	@$(PY) -m spectra_exp bench $(if $(BENCH),only=$(BENCH))

bench-gpu: setup  ## the benchmarks that need a GPU
	@$(PY) -m spectra_exp bench only=layer_gpu,step_gpu,updates_gpu,attention_gpu,layer_peers_gpu,tiny_step_gpu

test: setup  ## everything that needs no GPU, in two processes
	$(PY) -m pytest -n 2 --dist worksteal

test-full: setup  ## all of these and what is left out of them for its length
	$(PY) -m pytest -n 2 --dist worksteal -m "full or not full"

test-lowest:  ## everything with the lowest versions that pyproject.toml admits, in .venv-lowest; torch stays as it is
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python .ci/lowest.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet torch==2.13.0
	.venv-lowest/bin/python -m pip install --quiet -c .venv-lowest/constraints.txt -e '.[test]'
	.venv-lowest/bin/python -m pytest -n 2 --dist worksteal

test-random: setup  ## the same in a random order; SEED=number for that one again
	@seed=$(or $(SEED),$(shell date +%s)); echo "SEED=$$seed"; SPECTRA_TEST_ORDER=$$seed $(PY) -m pytest -n 2 --dist worksteal

fuzz: setup  ## random configurations, damaged run folders and kills, in full (about half an hour; FUZZ=folder for one)
	@for name in $(or $(FUZZ),config folder kill); do \
		PYTHONPATH=tests/config:tests/end_to_end:tests/reporting:tests/training $(PY) tests/fuzz/$${name}_fuzz.py || status=1; \
	done; exit $$status

gpu-check: setup  ## proves the code on a GPU in some minutes (GPU_CHECK_DEVICE=cpu rehearses it): outputs/gpu-check
	@$(PY) -m spectra_exp gpu-check $(if $(GPU_CHECK_DEVICE),device=$(GPU_CHECK_DEVICE)) $(TYPED)

wheel: setup  ## dist/: the package as a wheel and as sources, for pip install
	$(PY) -m hatchling build -d dist

bundle: setup  ## dist/bundle-PYTHON: an install without network (PYTHON=3.12; HAVE=output of the target's pip list; MACHINE=aarch64)
	@$(PY) tools/bundle.py --python $(PYTHON) $(if $(MACHINE),--machine $(MACHINE)) $(if $(HAVE),--have $(HAVE)) $(TYPED)

studies-page: setup  ## docs/studies.md, from the files of the studies
	$(PY) -m spectra_exp study page > docs/studies.md

reference-pages: setup  ## docs/reference and the list in docs/metrics.md, from the schemas
	$(PY) tools/reference_pages.py
	$(PY) tests/measure/metrics_page.py

docs: setup  ## dist/docs: the pages of docs/ to read in a browser
	@$(PY) -c "import material" 2>/dev/null || $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo "dist/docs/index.html"

lint: setup  ## ruff (rules and form), types, and the layers of imports
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-cache

tables: setup  ## outputs/tables/ from the finished runs (STUDY=name for one study)
	$(PY) -m spectra_exp tables $(if $(STUDY),study=$(STUDY))

paper: setup  ## the paper's results: runs, archive, docs/results/paper (TEXT=folder of the real text; DOWNSTREAM=folder of tasks; STATUS=1; BLOCKS=a,b)
	$(PY) -m spectra_exp paper $(if $(STATUS),status=true) $(if $(TEXT),text=$(TEXT)) $(if $(DOWNSTREAM),downstream=$(DOWNSTREAM)) $(if $(BLOCKS),blocks=$(BLOCKS)) $(TYPED)

replications: setup  ## effects that others published: runs, verdicts, docs/results/replications.md (TEXT=folder; STATUS=1; JOBS=2)
	$(PY) -m spectra_exp replications processes=$(JOBS) $(if $(STATUS),status=true) $(if $(TEXT),text=$(TEXT)) $(if $(filter SEEDS=%,$(MAKEOVERRIDES)),seed=$(SEEDS)) $(TYPED)

overhead: setup  ## table 9: time and FLOPs of each part of routing, SPECTRA beside Switch
	$(PY) -m spectra_exp overhead $(TYPED)

report: setup  ## outputs/report/index.html and a page per run (STUDY=name for one study)
	$(PY) -m spectra_exp report $(if $(STUDY),study=$(STUDY))

analysis: setup  ## what the experts do: the newest finished run of each method of the core study (STUDY=name)
	$(PY) -m spectra_exp interpret study=$(or $(STUDY),core) $(TYPED)

figures: setup  ## outputs/figures/ from the finished runs (STUDY=name for one study)
	$(PY) -m spectra_exp figures $(if $(STUDY),study=$(STUDY))

clean-cache:  ## delete the tokenised data and the drawn charts; runs and reports rebuild what they need
	rm -rf "$${SPECTRA_OUTPUTS:-outputs}/cache"
