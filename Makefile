# Two commands set up everything on a fresh machine: `make demo` and `make test`. Needed: Python 3.11+, pip, make.
PYTHON ?= python3
BIN := .venv/bin
# Idle threads sleep, see llm_pipeline/waiting.py; this also serves the tests.
export OMP_WAIT_POLICY := PASSIVE
export OPENBLAS_THREAD_TIMEOUT := 4

.PHONY: venv demo test test-slow lint theory bench report gpu clean

venv: .venv/complete

# Everything that the main job needs.
.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[llm,report]'
	touch $@

# And everything that the tests need.
.venv/complete: .venv/ready
	$(BIN)/python -m pip install --quiet --editable '.[llm,report,test]'
	touch $@

demo: .venv/ready
	$(BIN)/python -m benchmarks run demo --out runs/demo
	$(BIN)/python -m reports build runs/demo/magnitude-50 runs/demo/wanda-50 runs/demo/maiht-50 --out runs/demo/report.html

# One process a core, of one thread each; a file stays in one process, so that its fixtures are made once.
test: venv lint
	HYPOTHESIS_PROFILE=ci OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -m 'not slow' \
		-n auto --dist loadfile --durations=10 --cov --cov-report=term --cov-fail-under=95
	$(BIN)/python -m reports check

test-slow: venv
	HYPOTHESIS_PROFILE=ci $(BIN)/python -m pytest -q

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

theory: venv
	$(BIN)/python -m theory_checks
	$(BIN)/python -m theory_checks mutants

bench: venv
	$(BIN)/python -m benchmarks run demo --out runs/demo

report: venv
	$(BIN)/python -m reports check --write

# The checks that need a CUDA device; without one it says so.
gpu: venv
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; \
	then $(BIN)/python -m pytest -q -m gpu; else echo "no CUDA device: 0 GPU checks run"; fi

clean:
	rm -rf .venv runs
