# The commands of this checkout. `make` alone lists them.
SHELL := /bin/bash
PYTHON_OF_VENV := .venv/bin/python
ENVIRONMENT := .venv/.complete

.DEFAULT_GOAL := help
.PHONY: help quickstart down test lint bench soak servers clean

help:  ## list the commands
	@echo "Headwater: one definition, one number, everywhere."
	@echo
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## */  make \1|/' | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

$(ENVIRONMENT): requirements.lock pyproject.toml .ci/environment hatch_build.py $(wildcard headwater/native/*.c headwater/native/*.h)
	@PYTHON="$(PYTHON)" .ci/environment

servers:  ## install what pip cannot bring (redis-server, Java, Maven), or name it
	@.ci/servers

quickstart: $(ENVIRONMENT)  ## the whole way on real events: Kafka to Redis, training set, check, catalog (DATA=FILE, BROKER=mock: no Java)
	@.ci/servers $(if $(filter mock,$(BROKER)),--mock)
	@$(PYTHON_OF_VENV) -m pipelines.quickstart $(if $(DATA),--data "$(DATA)") $(if $(BROKER),--broker "$(BROKER)")

down: $(ENVIRONMENT)  ## stop all that quickstart left running; data stays
	@$(PYTHON_OF_VENV) -m headwater -C feature_repo down

test: $(ENVIRONMENT)  ## every test, with real Kafka, Redis, Spark and Chromium (TESTS=tests/online: those alone)
	@.ci/servers --tests
	$(PYTHON_OF_VENV) -m pytest $(TESTS)

lint: $(ENVIRONMENT)  ## ruff, mypy --strict, the directions of imports
	$(PYTHON_OF_VENV) -m ruff check .
	$(PYTHON_OF_VENV) -m ruff format --check .
	$(PYTHON_OF_VENV) -m mypy
	.venv/bin/lint-imports

bench: $(ENVIRONMENT) servers  ## the benchmarks, each beside its peer in the same run
	@$(PYTHON_OF_VENV) -m benchmarks.stream --events 400000 --peer-events 100000 --runs 3
	@$(PYTHON_OF_VENV) -m benchmarks.online
	@$(PYTHON_OF_VENV) -m benchmarks.history --rows 500000 --runs 3

soak: $(ENVIRONMENT) servers  ## what takes longer than `make test`: all events, kills, faults
	$(PYTHON_OF_VENV) -m pytest -m soak --timeout=7200
	$(PYTHON_OF_VENV) -m tests.campaign --rounds 3 --kills 200 --kill-every 3 --customers 4000 --receipts 1000000 --receipts-a-second 2000

clean:  ## remove the environment and all caches; the data of feature_repo stays
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
