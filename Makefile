# Two commands to know: `make demo` and `make test`. Nothing else has to be installed than Python, git and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1
# A process per core, whole files each; within a process torch has one thread, or they would wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help env demo test test-all test-ops test-pages sbom lint up down clean

help:  ## these lines
	@grep -hE '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

env: $(VENV)/.made  ## the virtual environment, versions pinned by constraints.txt

$(VENV)/.made: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is %d.%d; try make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: env  ## one whole refresh on the embedded text, minutes on two cores
	$(BIN)/ratoon refresh

test: env lint  ## what must always pass
	$(PYTEST) -m 'not slow'

test-all: env lint  ## the slow ones too
	$(PYTEST)

test-ops: env  ## docker/: published schemas, and the same servers natively (Debian's PostgreSQL is needed)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,ops]'
	$(BIN)/python -m pytest tests/tasks/test_production_form.py tests/tasks/test_kubernetes_form.py \
		tests/tasks/test_production_topology.py tests/tasks/test_services_access.py

test-pages: env  ## a refresh from the form to the report in headless Chromium (apt install chromium)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,pages]'
	$(BIN)/python -m pytest tests/flows/test_refresh_in_the_page.py

sbom: env  ## what is installed, as CycloneDX, and whether it is what constraints.txt says
	$(BIN)/python -m tasks.inventory sbom.json constraints.txt

lint: env  ## style, imports, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy -p ratoon -p tasks -p flows

up down: env  ## Prefect and MLflow pages and a worker on this machine; and stop them
	$(BIN)/ratoon $@

clean:  ## remove what was made here, editions, models and runs included
	-$(BIN)/ratoon down
	rm -rf .ratoon data/documents data/scores data/clean data/rows models/tokenizers .dvc/cache .dvc/tmp dvc.lock
	find models/weights -mindepth 1 ! -name .gitignore -delete
