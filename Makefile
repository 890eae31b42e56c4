# make run: the sample job against the built-in development server. make test: everything CI checks.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
endif

# Modules that no process keeps compiled are compiled by each of the thousands that tests start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test check fmt docs dist compat bench simulate bench-peers chaos cluster servers fuzz audit clean
.DEFAULT_GOAL := help

help:
	@echo "make run    install into .venv and run the sample job"
	@echo "make test   install what tests need and run lint, types, import directions and tests"
	@echo "make fmt    format the code"
	@echo "make docs   build the site of the documents into dist/site"
	@echo "make dist   build the wheel and the source archive into dist"
	@echo "make compat run tests with the lowest versions of the libraries, and with other versions of Python; SLICE=quick narrows it"
	@echo "make chaos  attack every promise and write the table of docs/reliability.md; CASE=, SEED=, TRY_SEED= narrow it"
	@echo "make cluster lose nodes of a Ray cluster in the middle of a run"
	@echo "make servers run against an OpenAI-compatible proxy that takes long to install"
	@echo "make audit  look the locked versions up among known vulnerabilities"
	@echo "make fuzz   feed every parser hostile bytes; TARGET=, SECONDS= (60 for each) narrow it"
	@echo "make bench  measure cost, pacing, memory and write the tables of docs/performance.md; ONLY=, FULL=1, ROUNDS= narrow or widen it"
	@echo "make simulate  one limit over 1,000 workers in virtual time, and write the tables of docs/scaling.md; ONLY= narrows it"
	@echo "make bench-peers  install other tools for make bench to compare with; PEERS= names some"

$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "batchchat needs Python 3.11 or newer, found " + sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.test: pyproject.toml .ci/requirements.lock $(VENV)/.run
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .ci/requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

# A model that runs here answers, where it installs within this time; else, or with BACKEND=echo, an echo does.
MODEL_WITHIN ?= 90s
BACKEND ?= local

run: $(VENV)/.run
	@sample() { $(BIN)/batchchat serve --port 0 --backend $$1 -- $(BIN)/batchchat run --job jobs/sample.yaml --show 3; }; \
	if [ "$(BACKEND)" = echo ]; then why="as BACKEND asks for"; \
	elif { $(BIN)/batchchat model path >/dev/null 2>&1 || echo "make run: installing a small model, for $(MODEL_WITHIN) at most" >&2; }; \
	  why=$$($(BIN)/batchchat model install --runtime --within $(MODEL_WITHIN) 2>&1); then \
	  sample local; code=$$?; [ $$code = 2 ] || exit $$code; why="as the model does not start here"; fi; \
	echo "make run: an echo answers, $$why" >&2; sample echo

check test: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(BIN)/pytest -n 0 --collect-only >/dev/null & $(BIN)/mypy && wait # so that no worker need compile the tests
	$(BIN)/lint-imports
	$(BIN)/pytest -m "not clocked and not slow"
	$(BIN)/pytest -m "clocked and not slow" -n 2

fmt: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.test
	$(BIN)/python docs/tools/build_site.py dist/site

dist: $(VENV)/.test
	$(BIN)/python -m build --no-isolation --outdir dist

compat: $(VENV)/.test
	@.ci/compat $(or $(SLICE),whole)

$(VENV)/plain/.done: pyproject.toml $(VENV)/.run
	@$(PYTHON) -m venv $(VENV)/plain
	@$(VENV)/plain/bin/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

bench: $(VENV)/.test $(VENV)/plain/.done
	BENCH_PYTHON=$(CURDIR)/$(VENV)/plain/bin/python $(BIN)/python -m tests.bench $(ONLY) --rounds $(or $(ROUNDS),3) $(if $(FULL),--full) --write

simulate: $(VENV)/.test
	$(BIN)/python -m tests.bench.desk_simulation $(ONLY) --write

bench-peers: $(VENV)/.test
	@$(BIN)/python -m tests.bench.peers.registry $(PEERS)

chaos: $(VENV)/.test
	$(BIN)/python -m tests.chaos $(CASE) --seed $(or $(SEED),1) $(if $(TRY_SEED),--try-seed $(TRY_SEED)) $(if $(CASE),,--write)

cluster: $(VENV)/.test
	$(BIN)/pytest -n 0 -m slow tests/process/test_ray_nodes.py

servers: $(VENV)/.test
	$(BIN)/pytest -n 0 -m slow tests/process/test_openai_real_servers.py

audit:
	@PYTHON=$(PYTHON) .ci/audit

fuzz: $(VENV)/.test
	nice $(BIN)/python -W ignore -m tests.fuzz $(TARGET) --seconds $(or $(SECONDS),60)

clean:
	rm -rf $(VENV) results dist
