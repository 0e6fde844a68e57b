SHELL := /bin/bash
CACHE := $(or $(BAILIWICK_CACHE),$(HOME)/.cache/bailiwick)

PYTHON := $(CACHE)/test-venv/bin/python
TARGET := $(or $(CARGO_TARGET_DIR),$(CACHE)/target)

.DEFAULT_GOAL := help
.PHONY: help demo test bench instructions crash powerloss planted deploy alerts compose netns examples lint

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Run three gateways (EU, US, IN) on the examples' data
	@scripts/setup runtime
	@scripts/env cargo run --release --quiet -- demo

test: ## Run all tests
	@scripts/setup tests
	scripts/env cargo test --release

bench: ## Run the benchmarks
	@scripts/setup runtime
	scripts/env cargo bench --bench gateway

instructions: ## Count the instructions of the way of a batch, and compare them with what is written down
	@scripts/setup instructions
	@scripts/env python3 scripts/instructions.py

crash: ## Kill a gateway under load N times, at random, at system calls and at each step of a release; fail and fill its disk, cut its connections; look for leaks
	@scripts/setup crash
	@scripts/env cargo build --release --quiet
	@scripts/env $(PYTHON) tests/crash/crash.py process --cycles $(or $(N),50) --bin $(TARGET)/release/bailiwick
	@scripts/env $(PYTHON) tests/crash/crash.py process --canaries --cycles $$(($(or $(N),50) / 5)) --bin $(TARGET)/release/bailiwick

powerloss: ## Cut the power of a gateway N times, on ext4 and XFS (root)
	@scripts/setup crash
	@scripts/env cargo build --release --quiet
	@scripts/env $(PYTHON) tests/crash/crash.py powerloss --cycles $(or $(N),30) --bin $(TARGET)/release/bailiwick

planted: ## Show that the crash harness and the runs of tests/policies/pooled.rs notice planted bugs (root)
	@scripts/setup crash
	@scripts/env cargo test --release --quiet --features planted-bugs --test policies --no-run
	@cp $(TARGET)/release/bailiwick $(TARGET)/release/bailiwick-planted
	@scripts/env $(PYTHON) tests/crash/supervised.py --bin $(TARGET)/release/bailiwick-planted
	@scripts/env $(PYTHON) tests/crash/planted.py --cycles $(or $(N),300) --bin $(TARGET)/release/bailiwick-planted
	@scripts/env cargo test --release --quiet --features planted-bugs --test policies each_planted_bug_is_found

deploy: ## Check the unit of systemd, the manifests of Kubernetes and the bill of materials
	@scripts/setup deploy
	@scripts/env cargo build --release --quiet
	@scripts/env $(CACHE)/deploy-venv/bin/python tests/deploy/check.py $(TARGET)/release/bailiwick

alerts: ## Inject a fault for each alert, and see it fire and clear in a real Prometheus (root, for strace)
	@scripts/setup deploy
	@scripts/env cargo build --release --quiet
	@scripts/env python3 tests/deploy/alerts.py $(TARGET)/release/bailiwick

compose: ## Build the image, bring docker-compose.yml up, break it, and hold the hub against an oracle (root, KAFKA_HOME)
	@scripts/compose-test

netns: ## The same services in network namespaces, without Docker (root, KAFKA_HOME)
	@scripts/compose-test --netns

examples: ## Make the data and models of the examples again
	@scripts/setup examples
	$(CACHE)/examples-venv/bin/python scripts/examples/make.py

lint: ## Check formatting, and clippy without warnings
	@scripts/setup build
	cargo fmt --check
	scripts/env cargo clippy --all-targets -- -D warnings
