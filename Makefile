# make run: the default spec; make test: all tests; make help: the rest.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
# Empty is not set: where it is set every process that begins would compile all that it imports.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install run test lint bench results schema clean

help: ## show this
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(BIN)/codistill: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	# torch first and pinned: a bare request for it would take gigabytes of CUDA packages where there is no GPU; pip compiles
	# on one core, so that is done after it, on all
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e '.[test,dev]'
	$(BIN)/python -m compileall -q -j 0 -x '/tests?/' $(VENV)/lib > /dev/null 2>&1 || true # some packages ship files of Python 2
	@touch $@

install: $(BIN)/codistill ## make the environment in .venv

run: install ## run the default spec: twenty agents with two architectures on digits
	$(BIN)/codistill run fl/fedmd

test: install ## run the tests, on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: install ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy kernels graphs tasks specs flows

bench: install ## measure against the bare loops, side by side (about an hour on a quiet machine)
	$(BIN)/python -m codistill.tests.benchmarks.run

results: install ## regenerate docs/results.md (about an hour; finished runs are kept in results-runs)
	$(BIN)/python -m codistill.tests.benchmarks.results

schema: install ## write specs/spec.schema.json for editors
	$(BIN)/codistill schema > specs/spec.schema.json

clean: ## remove the environment and what tests left
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
