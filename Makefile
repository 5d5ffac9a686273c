# Two targets do everything on a fresh Debian-like machine: `make demo` and `make test`. Both install what is missing
# where the package manager can do so as root, and else say exactly what to run.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# What scripts/require installs for this tree alone lies in .tools.
export PATH := $(CURDIR)/.tools/cargo/bin:$(PATH):$(HOME)/.cargo/bin
PYTHON := .tools/venv/bin/python
PYTHON_SOURCES := python tests examples bench/compare.py bench/scaling.py bench/profiling.py bench/training.py bench/workers.py bench/page.py bench/comparison bench/xslt bench/applications $(wildcard crates/daemun/src/*/*.py)

# No crate of its own (build.rs builds it), so cargo's tools do not see it.
ACCELERATOR := crates/daemun/accelerator/lib.rs

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## build, make a real Django site, serve it on port 8000 (or PORT)
	@scripts/require rust python
	@scripts/demo

.PHONY: demo-check
demo-check: require-test build ## make the demo site, look at it with curl's eyes and a browser's; pictures in .demo/shots
	@DEMO_SHOTS=$(CURDIR)/.demo/shots $(PYTHON) -m pytest tests/system/test_demo.py

.PHONY: test
test: require-test lint test-rust test-python ## everything: formatting, lints, dependencies, all tests

.PHONY: require-test
require-test:
	@scripts/require rust lint venv collect frameworks pypy telemetry fastcgi kubernetes chromium peers acme cgi bench

.PHONY: build
build: ## the debug binary
	cargo build --locked --workspace

.PHONY: lint
lint: ## formatting, lints, types, dependencies; a warning is an error
	cargo fmt --all --check
	rustfmt --edition 2024 --check $(ACCELERATOR)
	cargo clippy --locked --workspace --all-targets -- -D warnings
	scripts/lint-accelerator $(ACCELERATOR)
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items --quiet
	cargo deny --log-level error check bans licenses sources
	$(PYTHON) -m ruff check $(PYTHON_SOURCES)
	$(PYTHON) -m ruff format --check $(PYTHON_SOURCES)
	$(PYTHON) -m mypy
	rustfmt --edition 2024 --check fuzz/src/lib.rs fuzz/fuzz_targets/fuzz.rs
	bash -n scripts/require scripts/demo scripts/fuzz scripts/guided scripts/lint-accelerator .ci/run

.PHONY: test-rust
test-rust: ## unit tests, wire tests, gates
	cargo test --locked --workspace

.PHONY: test-python
test-python: build ## the shim's tests and the tests of the whole program
	$(PYTHON) -m pytest

.PHONY: acceptance
acceptance: require-test require-acceptance ## what takes minutes: three installations, Wagtail in a browser, every Python, reloads under load, random deaths, slow clients, crowds, fuzzing
	cargo build --locked --release
	DAEMUN_BINARY=$(CURDIR)/target/release/daemun $(PYTHON) -m pytest -s tests/acceptance
	DAEMUN_BINARY=$(CURDIR)/target/release/daemun DAEMUN_KILL_SECONDS=60 $(PYTHON) -m pytest -s tests/system/test_killing.py
	DAEMUN_BINARY=$(CURDIR)/target/release/daemun DAEMUN_INJECT=all $(PYTHON) -m pytest -s tests/system/test_injected_roles.py tests/system/test_injected_start.py tests/system/test_injected_errands.py
	DAEMUN_BINARY=$(CURDIR)/target/release/daemun DAEMUN_FUZZ_TIMES=50 $(PYTHON) -m pytest -s tests/system/test_forwarding.py
	scripts/fuzz 60

.PHONY: fuzz
fuzz: ## the fuzz targets under libFuzzer; FUZZ='60 request_head', scripts/fuzz
	@scripts/require rust lint
	scripts/fuzz $(or $(FUZZ),60)

.PHONY: require-acceptance
require-acceptance:
	@scripts/require bench guided cgi-sites wikis dav systemd containers

.PHONY: compare-http
compare-http: build ## the same bytes to nginx, Apache, lighttpd, h2o, and daemun: docs/conformance/http-peers.md
	@scripts/require venv http-peers
	$(PYTHON) tests/system/compare_http.py

.PHONY: compare-proxy
compare-proxy: build ## servers that fail behind nginx, HAProxy, Caddy and daemun: docs/conformance/proxy-peers.md
	@scripts/require venv proxy-peers
	$(PYTHON) tests/system/compare_proxy.py

.PHONY: compare-cgi
compare-cgi: build ## the same CGI scripts under Apache, lighttpd, nginx with fcgiwrap, and daemun: docs/conformance/cgi-peers.md
	@scripts/require venv cgi-peers
	$(PYTHON) tests/system/compare_cgi.py

.PHONY: compare-wsgi
compare-wsgi: build ## the same WSGI application under gunicorn, waitress, uWSGI, mod_wsgi, Granian, daemun: docs/conformance/wsgi-peers.md
	@scripts/require venv wsgi-peers
	$(PYTHON) tests/system/compare_wsgi.py

.PHONY: bench
bench: ## figures beside thirteen other servers; BENCH='--scenario hello --rounds 9', see bench/README.md
	@scripts/require rust python bench guided
	scripts/guided
	python3 bench/compare.py --daemun target/guided/daemun --json .bench/figures.json --markdown .bench/figures.md $(BENCH)
	@# One scenario was asked for, or all: then the pictures too.
	$(if $(findstring --,$(BENCH)),,python3 bench/scaling.py --daemun target/guided/daemun --json .bench/scaling.json --plots .bench/plots)

.PHONY: bench-publish
bench-publish: ## put what `make bench` measured (all .bench/figures*.json and scaling*.json) into the papers and the pictures
	@test -n "$(wildcard .bench/figures*.json)" || { echo "nothing was measured yet; run:  make bench" >&2; exit 1; }
	python3 bench/compare.py --from $(sort $(wildcard .bench/figures*.json)) --markdown bench/README.md --extract README.md README.ko.md
	$(if $(wildcard .bench/scaling*.json),python3 bench/scaling.py --draw $(sort $(wildcard .bench/scaling*.json)) --plots docs/plots)

.PHONY: bench-collect
bench-collect: ## what deploying Wagtail's static files costs, beside collectstatic; BENCH='--rounds 5'
	@$(MAKE) bench BENCH="--scenario collect $(BENCH)"

.PHONY: fmt
fmt: ## format everything
	@scripts/require rust lint venv
	cargo fmt --all
	rustfmt --edition 2024 $(ACCELERATOR)
	$(PYTHON) -m ruff format $(PYTHON_SOURCES)
	$(PYTHON) -m ruff check --fix $(PYTHON_SOURCES)

.PHONY: wheel
wheel: ## the wheel in dist/, its program guided by a profile
	@scripts/require rust venv guided
	scripts/guided --wheel dist

.PHONY: guided
guided: ## the program as wheels carry it in target/guided/daemun: what runs often lies together, scripts/guided
	@scripts/require rust python guided
	scripts/guided

.PHONY: clean
clean: ## remove what was built and the demo; .tools stays
	cargo clean
	rm -rf .bench .demo dist .mypy_cache .ruff_cache .pytest_cache
