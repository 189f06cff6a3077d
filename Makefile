# Every command that people and CI use; the programs behind the longer ones are in scripts/.
PG_CONFIG ?= /usr/lib/postgresql/15/bin/pg_config
export PG_CONFIG
export CARGO_TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
# Where pgrx finds the server's headers.
export PGRX_PG_CONFIG_PATH := $(PG_CONFIG)
export DESTDIR
export PATH := $(PATH):/usr/sbin
unexport RUST_BACKTRACE
# A registry that falters for a moment ends nothing.
export CARGO_NET_RETRY ?= 10
# Cargo's profile for `make run` and the tests: dev compiles in a fraction of the time. What is installed, packaged, measured or
# tested at full size is always optimized.
PROFILE ?= dev
BIN = $(CARGO_TARGET_DIR)/$(patsubst dev,debug,$(PROFILE))
RELEASE := $(CARGO_TARGET_DIR)/release
# Of the installation that test-installation makes, known once that has run.
PRIVATE_PG_CONFIG = $$(readlink -f .run/test)/pg_config
# The end-to-end tests that have a full size: files or folders below tests/end_to_end/tests, as TESTS names them.
CHAOS := twilio_signature key_rotation wrong_url outage quarantine flood replayed_callback slow_clients sending unanswered sending_killed \
	fallback_killed acknowledgement consent opt_out handler relay dump_restore purge replay held_snapshot limits unanalyzed
FILES := $(filter-out %/main.rs,$(wildcard tests/end_to_end/tests/*/*.rs))
# The files of these names, and how cargo is asked for their tests.
find_tests = $(foreach name,$1,$(or $(filter %/$(name).rs,$(FILES)),$(filter tests/end_to_end/tests/$(name)/%,$(FILES)),$(error no end-to-end test is called $(name))))
ask_for = $(addprefix --test ,$(sort $(notdir $(patsubst %/,%,$(dir $1))))) -- $(addsuffix ::,$(basename $(notdir $1)))

.NOTPARALLEL:
.PHONY: build install uninstall help run stop test test-rust test-sql test-isolation test-readme test-end-to-end chaos bench \
	accept programs package schema format lint audit verify lock check clean free-ports setup-programs setup-build setup-run \
	setup-test setup-bench test-installation libraries

build: setup-build ## Build the extension, optimized (this is what `make` alone does)
	@echo "==> building the extension (the first time 4 min)"
	@scripts/build release

install: ## Copy the built extension into the server of PG_CONFIG, or below DESTDIR
	@scripts/is-built release || $(MAKE) --no-print-directory build
	@scripts/install release

uninstall: ## Remove the extension's files from the server of PG_CONFIG
	@scripts/uninstall

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: free-ports setup-run ## Start a private PostgreSQL, the shim and the sandbox, and send some messages; SHIM_PORT, SHIM_OPS_PORT and SANDBOX_PORT choose ports
	@echo "==> building the extension, the shim and the sandbox (2 s; the first time 2 min)"
	@scripts/build $(PROFILE) shim sandbox
	@scripts/run $(PROFILE)

stop: ## End what `make run` started, keeping its data
	scripts/stop

test: setup-test libraries test-rust test-sql test-isolation test-readme test-end-to-end ## Run all tests

test-rust: ## Test the crates that need no PostgreSQL, and, where rustdoc is installed, their examples
	cargo test --workspace --exclude twilio_callback --exclude end_to_end --lib --bins --tests
	if command -v rustdoc >/dev/null; then cargo test -p protocol -p sender -p daemon --doc; fi

test-sql: test-installation ## Run tests/regress on a throwaway cluster; TESTS="one other" picks some
	scripts/test-sql sql $(TESTS)

test-isolation: test-installation ## Run tests/isolation on a throwaway cluster; TESTS as above
	scripts/test-sql isolation $(TESTS)

test-readme: test-installation ## Run every SQL example of README.md in a new cluster
	scripts/test-readme

test-end-to-end: test-installation libraries ## Test the real processes together, with Twilio's own libraries signing; TESTS="send purge" picks some
	PG_CONFIG=$(PRIVATE_PG_CONFIG) TWILIO_CALLBACK_BIN=$(BIN) SIGNERS=$(CARGO_TARGET_DIR)/signers \
	  cargo test -p end_to_end $(if $(TESTS),$(call ask_for,$(call find_tests,$(TESTS))))

chaos: libraries ## Run the long end-to-end tests at full size (about 30 min); TESTS="purge replay" picks some
	@$(MAKE) --no-print-directory test-installation PROFILE=release
	PG_CONFIG=$(PRIVATE_PG_CONFIG) TWILIO_CALLBACK_BIN=$(RELEASE) SIGNERS=$(CARGO_TARGET_DIR)/signers SCALE=full \
	  cargo test --release -p end_to_end --no-fail-fast \
	  $(call ask_for,$(call find_tests,$(or $(TESTS),$(CHAOS)))) --nocapture

bench: setup-bench ## Measure callbacks a second beside what others build; BENCH=--long for more
	@$(MAKE) --no-print-directory test-installation PROFILE=release
	cargo build --release -p load
	@scripts/libraries bench/peers $(CARGO_TARGET_DIR)/bench
	PG_CONFIG=$(PRIVATE_PG_CONFIG) bench/run $(BENCH)

accept: ## Take the last results of test-sql and test-isolation over as expected; TESTS as above
	scripts/accept $(TESTS)

programs: setup-programs ## Build the shim, the relay and the sandbox, optimized, into target/release
	@echo "==> building the shim, the relay and the sandbox (1 s; the first time 3 min)"
	cargo build --release -p shim -p relay -p sandbox

package: build ## Gather the files of an installation below target/release/twilio_callback-pg15
	@rm -rf "$(RELEASE)/twilio_callback-pg15"
	@DESTDIR="$(RELEASE)/twilio_callback-pg15" scripts/install release

schema: ## Print the SQL that `create extension` runs
	@scripts/install-script

format: ## Format the Rust code
	cargo fmt --all

lint: setup-run ## Check formatting, clippy's advice and, where shellcheck is installed, the scripts
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	if command -v shellcheck >/dev/null; then shellcheck -x -P scripts .ci/run scripts/*; fi

audit: ## Check dependencies against deny.toml; needs cargo-deny
	cargo deny check

verify: ## Check what releases promise: versions agree, released scripts stay as they are
	scripts/verify

lock: ## Renew the locked versions of what tests and benchmarks download; to be run on Debian 12
	scripts/lock

check: lint test verify ## All that CI runs

clean: stop ## Remove everything built, and the data of `make run`
	scripts/clean

# First of all, since building may take long.
free-ports:
	@scripts/check-ports

# These only check; the others install what is missing.
setup-programs:
	@scripts/setup programs

setup-build:
	@scripts/setup build

setup-run:
	@scripts/setup run

setup-test:
	@scripts/setup test

setup-bench:
	@scripts/setup bench

libraries: setup-test
	@scripts/libraries tests/end_to_end/signers $(CARGO_TARGET_DIR)/signers

test-installation: setup-test
	@echo "==> building the extension, the shim, the relay and the sandbox (2 s; the first time 3 min)"
	@scripts/build $(PROFILE) shim relay sandbox
	@scripts/install-private test $(PROFILE)
