# Everything that README promises. `make demo` and `make test` set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := .stamps
RUST := $(shell find src_rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt

.PHONY: demo test openapi package dist torture check fmt prices reference dashboards bench clean

demo: $(STAMPS)/core ## Ask the embedded models a question through the cascade
	@$(BIN)/cascaded demo

test: $(STAMPS)/core $(STAMPS)/checks $(STAMPS)/prometheus.done ## Every test, Rust and Python
	cargo test --workspace --locked --quiet
	$(BIN)/pytest -n 2 --cov --cov-report=term:skip-covered --cov-fail-under=90 --ignore tests/packaging

package: $(STAMPS)/core $(STAMPS)/checks ## Build sdist and wheel, install, run, uninstall; manifests
	$(BIN)/pytest -q tests/packaging

dist: $(STAMPS)/core $(STAMPS)/dist ## What is published: sdist and wheels for x86_64 and aarch64
	rm -rf dist
	$(BIN)/maturin sdist --out dist
	for machine in x86_64 aarch64; do PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/maturin build --release --locked \
		--zig --compatibility manylinux_2_28 --target $$machine-unknown-linux-gnu --out dist || exit 1; done

openapi: $(STAMPS)/core $(STAMPS)/checks ## Try every route with many made-up requests
	CASCADED_OPENAPI_EXAMPLES=500 $(BIN)/pytest -q -p no:cacheprovider tests/conformance/test_openapi.py

torture: $(STAMPS)/core $(STAMPS)/checks ## Kill daemons for minutes, cut the power of simulated disks
	CASCADED_TORTURE_KILLS=$${CASCADED_TORTURE_KILLS:-100} $(BIN)/pytest -q -s -p no:cacheprovider \
		tests/integration/test_torture.py tests/integration/test_hostile_state.py
	CASCADED_SIMULATION_SEEDS=$${CASCADED_SIMULATION_SEEDS:-1000} $(BIN)/pytest -q -s -p no:cacheprovider \
		tests/property/test_money_simulation.py -k many
	JOURNAL_POWER_CUT_SCHEDULES=4000 JOURNAL_KILLS=200 CASCADED_LEDGER_CASES=20000 \
		cargo test --release --locked -p cascaded-journal -p cascaded-core -- --nocapture ledger power_cut kill

check: $(STAMPS)/core $(STAMPS)/checks ## Formats, lints, types, contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/stubtest cascaded._core
	$(BIN)/lint-imports
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet -- -D warnings

fmt: $(STAMPS)/checks ## Put everything into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cargo fmt --all

prices: $(STAMPS)/core $(STAMPS)/checks ## Build the price snapshot anew from the lists of the day
	PYTHONPATH=. $(BIN)/python scripts/build_prices.py

reference: $(STAMPS)/core $(STAMPS)/checks ## Write docs/reference anew from the code
	PYTHONPATH=. $(BIN)/python scripts/build_reference.py

dashboards: $(STAMPS)/checks ## Write dashboards anew
	PYTHONPATH=. $(BIN)/python scripts/build_dashboards.py

bench: $(STAMPS)/core $(STAMPS)/checks ## The daemon beside a bare pass-through; the quality rules
	$(BIN)/python -m benches.overhead
	$(BIN)/python -m benches.quality

clean: ## Forget everything that was built
	rm -rf $(VENV) $(STAMPS) target

$(STAMPS)/venv: scripts/check-tools.sh
	@sh scripts/check-tools.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/core: $(STAMPS)/venv pyproject.toml constraints.txt $(RUST)
	$(BIN)/pip install --quiet maturin
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --locked --extras embedded
	@touch $@

$(STAMPS)/checks: $(STAMPS)/venv pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --group checks
	@touch $@

$(STAMPS)/prometheus.done: scripts/get-prometheus.sh
	@mkdir -p $(STAMPS) && sh scripts/get-prometheus.sh $(STAMPS)/prometheus && touch $@

$(STAMPS)/dist: $(STAMPS)/venv pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --group dist
	rustup target add x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu
	@touch $@
