# `make` says what there is.
.DEFAULT_GOAL := help
.PHONY: help test simulate mutations bench generate lint deny need-cargo

CARGO ?= cargo

help: ## Say what there is.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Everything is built before the first test runs: the servers of the tests, and the operator, which
# the suites start as a process. Both cargo commands are about the whole workspace: for one package
# alone, cargo would build the dependencies once more, with the features of that package.
test: need-cargo ## Run every test. Needs Rust, Go, Python 3 and a C compiler, and nothing else.
	tests/tools/build.sh >/dev/null
	$(CARGO) build --workspace
	$(CARGO) test --workspace

SEEDS ?= 100000
simulate: need-cargo ## Run SEEDS (100000) seeds of the simulation; SEED=7 runs that one and tells what happens.
	SEEDS=$(SEEDS) SEED=$(SEED) $(CARGO) test --release --test simulation the_guarantees -- --nocapture

mutations: need-cargo ## Plant faults in a copy of the sources, and see how many seeds catch each.
	$(CARGO) run --quiet --bin mutations

# One after the other. Criterion would leave its figures beside the sources if the folder were relative.
bench: export CRITERION_HOME = $(abspath $(or $(CARGO_TARGET_DIR),target))/criterion
bench: need-cargo ## Measure what docs/performance.md tells: 20 minutes, on a machine that does nothing else.
	$(CARGO) bench --workspace --bench filter --bench catch_up --bench pace --bench fan_out

generate: need-cargo ## Write what is generated: the CustomResourceDefinition, and the chart's copy.
	mkdir -p crds
	$(CARGO) run --quiet -- crd > crds/streamnotifiers.yaml.new
	mv crds/streamnotifiers.yaml.new crds/streamnotifiers.yaml
	cp crds/streamnotifiers.yaml charts/stream-notifier/files/streamnotifiers.yaml

lint: need-cargo ## Check the formatting, and run clippy.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

deny: need-cargo ## Check dependencies: known faults, licences, bans, sources.
	@$(CARGO) deny --version >/dev/null 2>&1 || { \
		echo "cargo-deny is missing on this machine: cargo install cargo-deny --locked"; exit 1; }
	$(CARGO) deny check

need-cargo:
	@command -v $(CARGO) >/dev/null 2>&1 || { \
		echo "$(CARGO) is missing on this machine: Rust builds the operator and its tests (https://rustup.rs)."; exit 1; }
