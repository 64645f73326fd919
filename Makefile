# Every target sets up what it needs in .venv; all it asks of the machine is Python >= 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt
# Two at a time, each with a Prefect server of its own; what stays together says tests/conftest.py.
# A busy machine can outlast a test's patience with a real server: it is tried once more, and reported as RERUN.
BESIDE := -n 2 --dist loadscope --no-loadscope-reorder --reruns 1

.DEFAULT_GOAL := help
.PHONY: help up test browser slow check docs fuzz chaos bench clean

help:  ## what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: .venv/.runtime  ## run everything on this machine: Prefect, worker, gateway, the rules
	@$(BIN)/proactive up

test: .venv/.dev  ## run the tests
	$(BIN)/python -m pytest -m "not slow" $(BESIDE) --durations 15

browser:  ## install Debian's chromium, without which the tests of the page are skipped
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium; }

slow: .venv/.dev  ## run the tests that take minutes: bursts, near ticks, kills, other workers
	$(BIN)/python -m pytest -m slow

check: .venv/.dev  ## lint, types, import floors, and the coverage of the fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py
	$(BIN)/python -m pytest -q -m "not server and not slow" $(BESIDE) --cov=proactive_prefect/rules \
		--cov=proactive_prefect/deploy --cov=proactive_prefect/firing --cov-report=term:skip-covered --cov-fail-under=60

docs: .venv/.dev  ## write the generated reference pages and build the site in site/
	$(BIN)/python -m docs.generate
	$(BIN)/mkdocs build --strict --quiet

fuzz: .venv/.dev  ## fuzz the gateway's routes, and what reads strangers' bytes for five minutes each
	PROACTIVE_TEST_FUZZ=long $(BIN)/python -m pytest -q tests/security/test_openapi.py
	$(BIN)/python -m tests.security.fuzz all -max_total_time=300 -max_len=4000 -print_final_stats=1

chaos: .venv/.dev  ## the long form of the chaos tests
	PROACTIVE_TEST_CHAOS=long $(BIN)/python -m pytest tests/chaos

bench: .venv/.dev  ## all benchmarks, in their short form
	$(BIN)/python -m benchmarks all --quick

clean:  ## remove what the other targets made; .proactive/, the state of `up`, stays
	rm -rf .venv site .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 up"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv

.venv/.runtime: pyproject.toml constraints.txt | .venv/bin/uv
	$(UV) --editable .
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/uv
	$(UV) --editable '.[dev]'
	@touch $@ .venv/.runtime
