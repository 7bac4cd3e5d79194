# Everything a developer runs. Each target makes the virtual environment it needs; only Python 3.11, pip and make must be there.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
OLD := .venv-4.57
TF := .venv-tf
TORCH := torch==2.13.0

# Tests and scripts start many processes: without its compiled modules on disk, each would compile transformers anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-tf test-full fuzz check format graphs bench int8 frameworks attack clean

# torch is pinned here, where the environment is made. Python compiles the modules it imports when it first does so; compiling
# all of torch's beforehand would take a minute.
$(VENV)/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile $(TORCH) --editable '.[dev]'
	touch $@

$(OLD)/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(OLD)
	$(OLD)/bin/pip install --quiet --disable-pip-version-check --no-compile $(TORCH) 'transformers==4.57.*' pytest --editable .
	touch $@

$(TF)/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(TF)
	$(TF)/bin/pip install --quiet --disable-pip-version-check --no-compile $(TORCH) pytest pytest-xdist --editable '.[tf]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python scripts/demo.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest -m 'not slow' -n 2

test-tf: $(TF)/.installed
	$(TF)/bin/python -m pytest tests/tensorflow -n 2

test-full: $(VENV)/.installed $(OLD)/.installed test-tf
	$(BIN)/python -m pytest
	$(BIN)/python scripts/coverage.py
	$(BIN)/python scripts/splice.py
	$(BIN)/python scripts/mutate_guards.py

$(VENV)/.fuzz: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --editable '.[fuzz]'
	touch $@

# SECONDS is a variable of bash too, but not one that it exports.
SECONDS ?= 600
fuzz: $(VENV)/.fuzz
	$(BIN)/python scripts/fuzz.py $(SECONDS)

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy fusions models
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

graphs: $(VENV)/.installed
	$(BIN)/python scripts/draw_graphs.py

bench: $(VENV)/.installed
	$(BIN)/python scripts/bench.py

int8: $(VENV)/.installed
	$(BIN)/python scripts/make_checkpoints.py build/checkpoints
	$(BIN)/python scripts/measure_int8.py build/checkpoints

attack: $(VENV)/.installed
	$(BIN)/python scripts/attack.py $(ATTACK)

frameworks: $(TF)/.installed
	$(TF)/bin/python scripts/measure_frameworks.py

clean:
	rm -rf $(VENV) $(OLD) $(TF) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache onnx
