# Every command that people and CI run; the programs behind the longer ones are in scripts/.
PG_CONFIG ?= /usr/lib/postgresql/15/bin/pg_config
export PG_CONFIG
export CARGO_TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
# pgrx's configuration lies with the build, so that nobody's own is changed.
export PGRX_HOME := $(CARGO_TARGET_DIR)/pgrx
unexport RUST_BACKTRACE
.NOTPARALLEL:

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test-sql: test-installation ## Run tests/regress, or TESTS="one other", on a throwaway cluster
	scripts/test-sql sql $(TESTS)

test-isolation: test-installation ## Run tests/isolation, or TESTS="one other", on a throwaway cluster
	scripts/test-sql isolation $(TESTS)

test-installation: setup
	scripts/install-private test

setup:
	scripts/setup
.PHONY: help test-sql test-isolation test-installation setup
