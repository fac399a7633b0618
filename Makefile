# Every target does the set-up it needs first (tools/setup_env.py); once done, that takes no time.
#
#   PYTHON=python3.12   the Python to use; by default the first of those listed below that runs
#   VENV=folder         where the environment is; VENV=none uses $(PYTHON) as it is
#   DEVICE=cpu|cuda     overrides the detection of an NVIDIA GPU
#   ARGS="..."          further arguments of the doctor, the demo or pytest

VENV ?= .venv
DEVICE ?= auto
ARGS ?=

ifeq ($(VENV),none)
  candidates := python3 python
else
  candidates := python3.11 python3.12 python3.10 python3 python
endif
PYTHON ?= $(shell for p in $(candidates); do $$p -c '' 2>/dev/null && echo $$p && break; done)
run := $(if $(filter none,$(VENV)),$(PYTHON),$(VENV)/bin/python)

# Idle OpenMP threads must not spin: with another job on the cores they slow sparse layers 100-fold.
OMP_WAIT_POLICY ?= passive
export OMP_WAIT_POLICY

setup = @$(if $(PYTHON),,echo 'set-up: no Python found: install Python 3.11' >&2; exit 1;) \
  $(PYTHON) tools/setup_env.py --venv $(VENV) --device $(DEVICE) $(addprefix --extra ,$(1))

.PHONY: help setup doctor demo test lint format clean
.DEFAULT_GOAL := help

help:
	@echo 'make doctor  check that the environment works on the devices of this machine'
	@echo 'make demo    synthetic nuScenes, boxes, a plan, health of the sensors, official scores'
	@echo 'make test    all tests; ARGS="-m \"not slow\"" for the quick ones'
	@echo 'make lint    ruff; make format fixes what it can'
	@echo 'make setup   only the environment, in $(VENV); source $(VENV)/bin/activate to use it'
	@echo 'make clean   caches and build leftovers; data, runs and $(VENV) stay'

setup:
	$(call setup,)

doctor:
	$(call setup,)
	$(run) tools/doctor.py $(ARGS)

demo:
	$(call setup,)
	$(run) tools/demo.py $(ARGS)
	@$(if $(filter none,$(VENV)),:,echo 'demo: before the commands of README.md: source $(VENV)/bin/activate')

test:
	$(call setup,tests)
	$(run) -m pytest tests --numprocesses auto --dist loadfile --no-loadscope-reorder $(ARGS)

lint:
	$(call setup,dev)
	$(run) -m ruff check .
	$(run) -m ruff format --check .

format:
	$(call setup,dev)
	$(run) -m ruff check --fix .
	$(run) -m ruff format .

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
