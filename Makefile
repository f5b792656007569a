# What a developer types. Each target first makes .venv, once, and again when what must be in it has changed.

PYTHON ?= python3
DEMO_DIR ?= demo-run

VENV = .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed

RELEASED = build/released

.PHONY: help demo test slow lint docs cover sbom clean

help:
	@echo "make demo    synthetic CTs, a short training, masks, scores and a report in $(DEMO_DIR)"
	@echo "make test    the tests that need seconds"
	@echo "make slow    the tests that train a network or build the package"
	@echo "make lint    style, format and types"
	@echo "make docs    the documentation as a site, in build/site"
	@echo "make cover   the lines of the package that none of those tests runs"
	@echo "make sbom    what a user installs with the package, as build/sbom.json in CycloneDX"
	@echo "make clean   remove the environment, caches and builds; results stay"
	@echo ""
	@echo "PYTHON=$(PYTHON) and DEMO_DIR=$(DEMO_DIR) can be given, as in: make demo DEMO_DIR=elsewhere"

demo: $(INSTALLED)
	$(BIN)/liver-monai demo -o $(DEMO_DIR)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto

slow: $(INSTALLED)
	$(BIN)/python -m pytest -n auto -m slow

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

cover: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --cov=liver_monai --cov-report=term

sbom: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt -e ".[release]"
	$(PYTHON) -m venv --clear $(RELEASED)
	$(RELEASED)/bin/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt .
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml -o build/sbom.json $(RELEASED)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into $(VENV); this is done once and takes minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs]"
	@touch $@
