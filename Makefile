# Every target sets up .venv first, from nothing but Python 3.11 and a package index.
.PHONY: demo test explore dev lint bench soak docs install
.NOTPARALLEL:

BIN := .venv/bin
export PYTHON

demo: install ## the demo shop through the whole graph, ending with a summary; ARGS='--events 5000' for less
	$(BIN)/cdp demo $(ARGS)

test: install ## every test but the soaks; ARGS='tests/unit -k identity' for some
	@.ci/sdks
	@.ci/install-test-servers
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadscope -m "not soak" $(ARGS)

explore: install ## the property tests on new examples; those of `make test` are always the same
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadscope --hypothesis-profile=default tests/property $(ARGS)

dev: install ## collector, Dagster UI and a stand-in vendor in one terminal, until Ctrl-C
	$(BIN)/cdp dev $(ARGS)

lint: install ## formatting, style, types, and the shipped declarations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cdp validate

bench: install ## events per second, memory and bytes of this machine; ARGS='--events 10000000' for more
	$(BIN)/cdp bench $(ARGS)

soak: install ## ten minutes of load with kills, restarts, a full disk and a clock that jumps: acknowledged is stored, exactly
	$(BIN)/python -m pytest -m soak -s tests/e2e/test_soak.py $(ARGS)

docs: install ## write docs/config.md, docs/schemas, docs/tables.md and docs/benchmarks.md again
	$(BIN)/python -m cdp_cli.config_reference
	$(BIN)/python -m cdp_cli.tables_reference
	$(BIN)/python -m demo.bench.page

install:
	@.ci/install
