# `make` lists the commands.
.DEFAULT_GOAL := help
.PHONY: help test test-charts test-node chaos image image-local simulate faults bench generate lint deny need-cargo

CARGO ?= cargo

help: ## List the commands.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# This builds everything before the first test runs, including the servers and the operator that the
# suites start as processes. Both cargo commands use the whole workspace, because cargo builds the
# dependencies of a single package again with other features.
test: need-cargo ## Run every test. Needs only Rust, Go, Python 3 and a C compiler.
	tests/tools/build.sh >/dev/null
	$(CARGO) build --workspace
	$(CARGO) test --workspace

test-charts: need-cargo ## Install, upgrade, roll back and uninstall the chart with Helm 3 and Helm 4.
	tests/tools/build.sh etcd kube-apiserver kube-controller-manager kubectl helm helm3 >/dev/null
	$(CARGO) build --workspace
	$(CARGO) test --test releases -- --ignored

test-node: need-cargo ## Test image and chart on a real cluster: a node on this machine (needs root), or that of KUBECONFIG.
	CARGO=$(CARGO) tests/node/run.sh

chaos: need-cargo ## Disrupt the operator on a node of this machine, with 50 clients: about 6 minutes.
	CARGO=$(CARGO) tests/node/run.sh --ignored --nocapture chaos

# The tag that the chart uses by default.
APP_VERSION := $(shell sed -n "s/^appVersion: //p" charts/stream-notifier/Chart.yaml)
IMAGE ?= stream-notifier:$(APP_VERSION)
image: need-cargo ## Build the operator's image as IMAGE, with docker, podman or buildah. ARCHIVE=file also writes an archive.
	hack/image.sh operator $(IMAGE)

LOCAL_IMAGE ?= stream-notifier-local:$(APP_VERSION)
image-local: need-cargo ## Build the image of local mode as LOCAL_IMAGE.
	hack/image.sh local $(LOCAL_IMAGE)

SEEDS ?= 100000
simulate: need-cargo ## Run SEEDS (100000) seeds of the simulation; SEED=7 replays that seed and prints its events.
	SEEDS=$(SEEDS) SEED=$(SEED) $(CARGO) test --release --test simulation keeps_the_guarantees -- --nocapture

# A release build, so that it does not replace the operator's debug binary, which the suites start.
faults: need-cargo ## Run the simulation with every planted fault, which it must detect; FAULT=name runs one.
	$(CARGO) run --quiet --release --features stream-notifier-tests/planted-faults --bin faults -- $(FAULT)

# The benchmarks run one after the other. With a relative folder, criterion would write into the sources.
bench: export CRITERION_HOME = $(abspath $(or $(CARGO_TARGET_DIR),target))/criterion
bench: need-cargo ## Repeat the measurements of docs/performance.md: about 20 minutes on an idle machine.
	$(CARGO) bench --workspace --bench filter --bench catch_up --bench delivery_latency --bench fan_out

generate: need-cargo ## Write the generated files: the CustomResourceDefinition, pages of docs/ and deploy/install.yaml.
	mkdir -p crds
	$(CARGO) run --quiet -- crd > crds/streamnotifiers.yaml.new
	mv crds/streamnotifiers.yaml.new crds/streamnotifiers.yaml
	cp crds/streamnotifiers.yaml charts/stream-notifier/files/streamnotifiers.yaml
	$(CARGO) run --quiet --bin generate

lint: need-cargo ## Check the format and run clippy.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --workspace --all-targets --features stream-notifier-tests/planted-faults -- -D warnings
	$(CARGO) clippy --package stream-notifier-tests --test node -- -D warnings
	$(CARGO) clippy --package stream-notifier --no-default-features -- -D warnings

deny: need-cargo ## Check dependencies: advisories, licences, bans and sources.
	@$(CARGO) deny --version >/dev/null 2>&1 || { \
		echo "cargo-deny is missing: install it with cargo install cargo-deny --locked"; exit 1; }
	$(CARGO) deny check

need-cargo:
	@command -v $(CARGO) >/dev/null 2>&1 || { \
		echo "$(CARGO) is missing: install Rust to build the operator and its tests (https://rustup.rs)."; exit 1; }
