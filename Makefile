# Every target makes what it needs, from a fresh clone: a virtual environment in .venv, filled by pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/demo

.DEFAULT_GOAL := help
.PHONY: help setup demo check test coverage test-slow fuzz sweep fuse-sweep test-page vendor lint format models pictures reproduce tutorials docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("senet needs Python 3.11 or newer; name one with make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all,dev]'
	@touch $@

setup: $(VENV)/.installed  ## create .venv and install the package with everything for development

demo: setup  ## train SE-ResNet-20 on handwritten digits, evaluate it, predict, and look at its gates (about a minute)
	rm -rf $(RUN)
	$(BIN)/senet train se_resnet20 --data digits --recipe digits --output $(RUN)
	$(BIN)/senet evaluate $(RUN)/best.safetensors --data digits
	$(BIN)/senet predict $(RUN)/best.safetensors examples/digits --grid $(RUN)/predictions.png
	$(BIN)/senet gates $(RUN)/best.safetensors --data digits --output $(RUN)/gates
	@echo "the run's curves: $(RUN)/curves.png    predictions: $(RUN)/predictions.png    gates: $(RUN)/gates/gates.html"

# Tests that load inference engines have processes of their own: engines keep threads and native state.
ENGINES := tests/deployment tests/benchmarks/test_deploy.py tests/benchmarks/test_quantization.py
ENGINES += tests/cli/test_export.py tests/cli/test_exported.py tests/test_engine_benchmark.py
PARALLEL := $(BIN)/pytest -n auto --dist worksteal
# Where this is set, as in many container images, each process rewrites and compiles all tests.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(PARALLEL) -m 'not slow'

test: setup  ## run the tests on all cores
	$(PYTEST) $(ENGINES)
	$(PYTEST) $(ENGINES:%=--ignore=%)

coverage: setup  ## run the tests and list the lines that they do not run; fails below 95 % (a quarter slower)
	$(PYTEST) --cov --cov-report= --cov-fail-under=0 $(ENGINES)
	$(PYTEST) --cov --cov-append --cov-report=term-missing $(ENGINES:%=--ignore=%)

test-slow: setup  ## run the slow tests: large networks, whole runs in several processes, further cases of tests
	$(PARALLEL) -m slow $(ENGINES)
	$(PARALLEL) -m slow $(ENGINES:%=--ignore=%)

# The browser that test-page drives; name another with make test-page BROWSER=/path/to/it.
BROWSER ?= $(firstword $(foreach name,chromium chromium-browser google-chrome google-chrome-stable chrome,$(shell command -v $(name) 2>/dev/null)))

fuzz: setup  ## run hundreds of invalid command lines and damaged files through the command line (about 6 minutes)
	$(BIN)/python -m tests.fuzz

sweep: setup  ## deploy every SE network of timm and compare it with the original; resumes (hours on one core, 12 GiB)
	$(BIN)/python benchmarks/deploy_sweep.py --output runs/sweep.jsonl --memory 12 --write docs/deploy.md

fuse-sweep: setup  ## fuse an SE network of each group of timm, compare a training step, write docs/fused.md; resumes (ten minutes)
	$(BIN)/python benchmarks/fuse_sweep.py --output runs/fused.jsonl --write docs/fused.md

test-page: setup  ## open the gates page in a headless Chromium, click through it, take screenshots into runs/page
	@test -x "$(BROWSER)" || { echo "make test-page needs Chromium or Chrome, and found none: install it (Debian, Ubuntu: apt-get install chromium; macOS: brew install --cask chromium), or name it: make test-page BROWSER=/path/to/chrome" >&2; exit 1; }
	SENET_BROWSER="$(BROWSER)" SENET_SCREENSHOTS=runs/page $(BIN)/pytest tests/page/browser.py
	@echo "screenshots: runs/page"

vendor: setup  ## compare the page's plotting library with what npm has of the same versions (needs npm and the network)
	$(BIN)/python tests/page/vendor.py

check: lint docs  ## everything that has to pass but the long tests: lint, documentation with its links, packages
	$(BIN)/pytest -q tests/test_language.py tests/test_markdown.py tests/test_packaging.py

lint: setup  ## check format, style, types and the layers that imports go down
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## format the code and apply automatic fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

models: setup  ## write docs/models.md, docs/cards/ and docs/placements/ anew: networks, costs, the paper's figures, weights
	$(BIN)/python docs/generate_models.py
	$(BIN)/python docs/generate_cards.py
	$(BIN)/python docs/placements.py

pictures: setup  ## draw the pictures of the documentation again, for light and dark, wide and narrow pages
	$(BIN)/python docs/pictures.py

reproduce: setup  ## write docs/reproduce.md anew: the paper's tables, what is measured, and commands
	$(BIN)/python docs/generate_reproduce.py

# A page that has run is marked in runs/tutorials, so that the next call runs what is missing or was changed.
TUTORIALS := $(patsubst docs/%.md,runs/%.done,$(wildcard docs/tutorials/*.md))

tutorials: $(TUTORIALS)  ## run the tutorials and write their outputs; resumes; all again with make -B (15 minutes on one core)

runs/tutorials/%.done: docs/tutorials/%.md docs/run_tutorials.py | setup
	$(BIN)/python docs/run_tutorials.py $<
	@mkdir -p $(@D) && touch $@

docs: setup  ## build the documentation into site/, and check its navigation, links and docstrings
	$(BIN)/pytest -q tests/documentation/test_site.py
	$(BIN)/zensical build --strict --clean

clean:  ## remove everything that the other targets make
	rm -rf $(VENV) runs site build dist .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
