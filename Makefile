SHELL := /bin/bash
CACHE := $(or $(BAILIWICK_CACHE),$(HOME)/.cache/bailiwick)

.DEFAULT_GOAL := help
.PHONY: help demo test bench examples lint

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Run three gateways (EU, US, IN) on the examples' data
	@scripts/setup runtime
	@scripts/env cargo run --release --quiet -- demo

test: ## Run all tests
	@scripts/setup tests
	scripts/env cargo test --release

bench: ## Run the benchmarks
	@scripts/setup runtime
	scripts/env cargo bench --bench gateway

examples: ## Re-make the examples' data and models
	@scripts/setup examples
	$(CACHE)/examples-venv/bin/python scripts/examples/make.py

lint: ## Check formatting, and clippy without warnings
	@scripts/setup build
	cargo fmt --check
	scripts/env cargo clippy --all-targets -- -D warnings
