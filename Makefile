# make help lists the targets. The first target makes .venv and installs into it; later ones start at once.
# PYTHON: the first interpreter that runs and is new enough, since a version manager's shim may exist and not run.
PYTHON ?= $(firstword $(shell for python in python3.12 python3.11 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python; done))
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check
LOCKED ?=
LOCK := requirements.lock
# The tests start many Python processes: without compiled modules each would compile the library anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup lock train study test test-slow faults lint typecheck speedrun best bench tensorboard clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml
	@test -n "$(PYTHON)" || { echo "fer needs Python 3.11 or newer, and found none; name one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "installing into $(VENV) with $$($(PYTHON) --version): several minutes and about 6 GB, once"
	$(PYTHON) -m venv $(VENV)
	$(if $(LOCKED),$(PIP) --require-hashes --requirement $(LOCK))
	$(PIP) --editable '.[test]'
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	@echo "installing the tools for development into $(VENV)"
	$(PIP) --editable '.[dev]'
	@touch $@

setup: $(INSTALLED)  ## make .venv and install (LOCKED=1: the versions of requirements.lock, by hash)
	@echo "ready: $(RUN) -m fer.train model=cnn"

# from what is installed here and has passed the tests; for every platform and Python that the project supports
lock: $(INSTALLED_DEV)  ## write requirements.lock: the installed versions, with hashes
	$(PIP) 'uv>=0.9'
	$(RUN) -m pip freeze --exclude-editable --exclude uv > $(VENV)/installed.txt
	$(RUN) -m uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --quiet \
		--constraint $(VENV)/installed.txt --custom-compile-command "make lock" --output-file $(LOCK)

train: $(INSTALLED)  ## train a CNN on FER2013, or on drawn faces where there is none (ARGS="key=value ...")
	$(RUN) -m fer.train model=cnn $(ARGS)

test: $(INSTALLED)  ## run the quick tests in two processes (ARGS="-k name")
	$(RUN) -m pytest -m "not slow" -n 2 --dist worksteal $(ARGS)

# no reordering: the files with the most tests are not the longest
test-slow: $(INSTALLED)  ## run the slow tests, two files at a time: whole trainings, faults, the wheel
	$(RUN) -m pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

faults: $(INSTALLED)  ## kill, signal and feed damaged files by the thousand; writes outputs/faults.json row by row (ARGS="fuzz --inputs 1000")
	PYTHONPATH=tests $(RUN) -m faults $(ARGS)

lint: $(INSTALLED_DEV)  ## check style and formatting
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

typecheck: $(INSTALLED_DEV)  ## check types, strictly
	$(RUN) -m mypy

STUDY := outputs/study
WEIGHTS := null
VGG16 = experiment=study/vgg16 model.weights=$(WEIGHTS) seed=0,1,2 data.split=holdout,official
# $(1): folder of a sweep, $(2): its overrides; an interrupted sweep is resumed
sweep_in = $(RUN) -m fer.train -m $(2) $(if $(wildcard $(1)/sweep.json),sweep.resume=$(1),hydra.sweep.dir=$(1)) $(ARGS)

study: $(INSTALLED)  ## run the founding study's experiments and print its table; hours on a CPU, resumes itself (WEIGHTS=imagenet or a file)
	$(call sweep_in,$(STUDY)/networks,sweep=study); networks=$$?; \
	$(call sweep_in,$(STUDY)/vgg16_$(if $(filter null,$(WEIGHTS)),random,pretrained),$(VGG16)); vgg16=$$?; \
	$(RUN) -m fer.study $(STUDY) && exit $$((networks || vgg16))

SPEEDRUN := outputs/speedrun
SEEDS := 0,1,2,3,4,5,6,7,8,9
BARS := 63,speedrun/70,speedrun/73

speedrun: $(INSTALLED)  ## measure the time to 63.08, 70 and 73 % of val, one run at a time; 73 needs a GPU; resumes itself (SEEDS=0,1,2 BARS=63)
	$(call sweep_in,$(SPEEDRUN),experiment=speedrun/$(BARS) seed=$(SEEDS) sweep.jobs=1)

HOURS := 2

best: $(INSTALLED)  ## train the best networks for HOURS=2: an ensemble, three students, a small network (DATA=path/to/fer2013.csv)
	$(RUN) -m fer.best --hours $(HOURS) $(if $(DATA),--data "$(DATA)") $(ARGS)

bench: $(INSTALLED)  ## measure speed beside its targets; writes outputs/bench/latest.json row by row (DATA=path/to/fer2013.csv)
	$(RUN) -m fer.bench $(if $(DATA),--data "$(DATA)") $(ARGS)

tensorboard: $(INSTALLED)  ## open all runs in TensorBoard
	$(VENV)/bin/tensorboard --logdir outputs --samples_per_plugin images=50,pr_curves=50 $(ARGS)

clean:  ## remove .venv, caches and build products; data/ and outputs/ stay
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
