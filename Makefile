# Two commands for a fresh machine with Python 3.10 to 3.12, make and git:
#   make demo    install into .venv, and take a supernet from ONNX to a verified smaller ONNX
#   make test    install the development extras, and run the whole test suite
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
CORPUS ?= $(HOME)/.cache/onnx-asgnas/corpus

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install demo test check corpus converters bench-env bench-pruning format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed ## make .venv and install the package with its CPU runtime

demo: $(VENV)/installed ## the main job on embedded data, ending with a table full against compact
	rm -rf $(DEMO)
	$(BIN)/onnx-asgnas convert "models:stackedunets?width=8" -o $(DEMO)/stackedunets.onnx
	$(BIN)/onnx-asgnas search $(DEMO)/stackedunets.onnx --data fashion-mnist-mini --remove-groups 0.5 --epochs 8 -o $(DEMO)/run

test: $(VENV)/installed-dev ## run the whole suite; fails below 90 % branch coverage
	$(BIN)/python -m pytest --cov --cov-report=term --cov-fail-under=90 $(ARGS)

check: $(VENV)/installed-dev ## lint, format, types of the installed package, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build
	$(INSTALL) --no-deps --no-build-isolation --target build/typed .
	cd build/typed && MYPYPATH= $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p onnx_asgnas
	$(BIN)/python -m pytest -q tests/test_layering.py

# 12 GB of environments and models, and hours on two cores; what is there already is not made again.
corpus: $(VENV)/installed $(CORPUS)/exporters/installed $(CORPUS)/newest/installed ## export some 220 networks, cut and check them all, write docs/coverage.md
	OMP_NUM_THREADS=1 $(CORPUS)/exporters/bin/python -m tools.corpus.export $(CORPUS)/models
	$(BIN)/python benchmarks/coverage.py $(CORPUS)/models --newest $(CORPUS)/newest/bin/python --docs docs/coverage.md $(ARGS)

bench-env: $(CORPUS)/peers/installed ## make the environment in which pruners are compared, 6 GB

# 6 GB of environments.
converters: $(VENV)/installed ## convert, compare and prune networks of every framework, in environments that it makes
	for name in torch keras sklearn jax tensorflow paddle; do \
	  $(BIN)/onnx-asgnas env list --json | grep -q "\"$$name\": {\"state\": \"ready\"" || $(BIN)/onnx-asgnas env create $$name || exit; \
	done
	$(BIN)/python -m tests.converters.measure --docs docs/converting.md $(ARGS)

# Figures are worth something only on a machine that does nothing else.
bench-pruning: bench-env ## analysis, cut, depth and latency against torch-pruning and onnxsim; write docs/pruning.md
	$(CORPUS)/peers/bin/python benchmarks/analysis.py $(CORPUS)/models --scaling
	$(CORPUS)/peers/bin/python benchmarks/depth.py $(CORPUS)/models
	$(CORPUS)/peers/bin/python benchmarks/pruned_latency.py $(CORPUS)/models

format: $(VENV)/installed-dev ## put the code into its one form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what the targets above have made
	rm -rf $(VENV) build runs .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info

# The stamps: an install runs again only when what it installs from has changed.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v < (3, 13) else \
	  "onnxruntime-training has wheels for Python 3.10 to 3.12, this is %d.%d; choose one: make PYTHON=python3.11 ..." % v)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[cpu]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(INSTALL) -e '.[cpu,dev]'
	@touch $@

# Environments beside the corpus: what exports it, the pruners to compare with, and the newest onnxruntime.
$(CORPUS)/exporters/installed: tools/corpus/requirements.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check --quiet install -r $<
	@touch $@

$(CORPUS)/peers/installed: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check --quiet install -r $<
	@touch $@

$(CORPUS)/newest/installed: tools/corpus/newest-runtime.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check --quiet install -r $<
	@touch $@
