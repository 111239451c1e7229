# `make` sets up; `make quickstart` runs the main job; `make test` the tests; `make docs` writes what is generated: rules, scenario keys, schema,
# the pages' tables; `make experiments` runs experiments/oil_and_water_federated and experiments/escapes again.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup quickstart test check format docs pictures experiments experiments-quick clean

setup: .venv/installed-dev

quickstart: .venv/installed
	$(BIN)/fl-testbed run configs/quickstart.yaml

# Some hundred processes start: bytecode is to be kept, whatever the environment says.
# On a machine of many cores more workers, each with its own Ray, would want its memory.
test: .venv/installed-dev
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/installed
	$(BIN)/python -m fl_testbed.report.rules_page docs/rules.md
	$(BIN)/python -m fl_testbed.report.scenario_page docs/scenario.md
	$(BIN)/fl-testbed schema > configs/scenario.schema.json
	$(BIN)/python -m experiments.pages

experiments: .venv/installed
	$(BIN)/python -m experiments.oil_and_water_federated.run
	$(BIN)/fl-testbed run experiments/escapes/*.yaml --resume
	$(BIN)/python -m experiments.escapes.table
	$(BIN)/python -m experiments.pages

experiments-quick: .venv/installed
	$(BIN)/python -m experiments.oil_and_water_federated.run --quick

pictures: .venv/installed-dev
	$(BIN)/python docs/pictures.py

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "fl-testbed needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ .venv/installed

clean:
	rm -rf .venv build *.egg-info .ruff_cache .pytest_cache .import_linter_cache
