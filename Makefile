# Every target makes what it needs, from a fresh clone: a virtual environment in .venv, filled by pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/demo

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint format models docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("senet needs Python 3.11 or newer; name one with make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all,dev]'
	@touch $@

setup: $(VENV)/.installed  ## create .venv and install the package with everything for development

demo: setup  ## train SE-ResNet-20 on handwritten digits, evaluate it, predict, and draw two pictures (about a minute)
	rm -rf $(RUN)
	$(BIN)/senet train se_resnet20 --data digits --recipe digits --output $(RUN)
	$(BIN)/senet evaluate $(RUN)/best.safetensors --data digits
	$(BIN)/senet predict $(RUN)/best.safetensors examples/digits --grid $(RUN)/predictions.png
	@echo "the run's curves: $(RUN)/curves.png    predictions: $(RUN)/predictions.png"

test: setup  ## run the tests on all cores, with coverage
	$(BIN)/pytest -n auto -m 'not slow' --cov --cov-report=term-missing

test-slow: setup  ## run the tests that take longer: the large networks
	$(BIN)/pytest -m slow

lint: setup  ## check format, style, types and the floors that imports go down
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## format the code and mend what can be mended by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

models: setup  ## write docs/models.md anew: every network, what it costs, and the paper's figures
	$(BIN)/python docs/generate_models.py

docs: setup  ## build the documentation into site/
	$(BIN)/mkdocs build --strict

clean:  ## remove everything that the other targets make
	rm -rf $(VENV) runs site build dist .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
