# Two commands set up everything on a fresh machine: `make demo` and `make test`. Needed: Python 3.11+, pip, make.
PYTHON ?= python3
BIN := .venv/bin
# Idle threads sleep, see llm_pipeline/waiting.py; this also serves the tests.
export OMP_WAIT_POLICY := PASSIVE
export OPENBLAS_THREAD_TIMEOUT := 4

.PHONY: venv demo test test-slow coverage lint theory bench report gpu clean

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
		-n auto --dist loadfile --durations=25
	$(BIN)/python -m reports check

test-slow: venv
	HYPOTHESIS_PROFILE=ci $(BIN)/python -m pytest -q

# The same tests under the tracer, which makes them half as slow again.
coverage: venv
	HYPOTHESIS_PROFILE=ci OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -m 'not slow' \
		-n auto --dist loadfile --cov --cov-report=term --cov-fail-under=95

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

# Conformance and measurements on a CUDA device, in at most nine minutes; without one it says so. Where .venv cannot be
# built, `make gpu PYTHON=python3 GPU_ENV=none` takes that Python with its torch, Triton and CuPy, and this checkout.
GPU_ENV ?= venv
GPU_SECONDS ?= 150
GPU_MINUTES ?= 5.5
GPU_PYTHON := $(if $(filter none,$(GPU_ENV)),PYTHONPATH=.:$(PYTHONPATH) $(PYTHON),$(BIN)/python)

gpu: $(if $(filter none,$(GPU_ENV)),,venv)
	@if ! $(GPU_PYTHON) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; \
	then echo "no CUDA device: 0 GPU checks run"; exit 0; fi; \
	export TRITON_INTERPRET=0; checked=0; \
	OMP_NUM_THREADS=4 timeout $(GPU_SECONDS) sh -c \
		'$(GPU_PYTHON) -m pytest -q -m gpu -n 4 --dist loadfile tests/solvers tests/llm_pipeline/test_judging.py' || checked=$$?; \
	$(GPU_PYTHON) -m benchmarks run gpu --minutes $(GPU_MINUTES) --out reports/reference/gpu.jsonl && exit $$checked

clean:
	rm -rf .venv runs
