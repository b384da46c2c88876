# The commands for people and CI jobs. `make help` lists them.

REPO ?= $(CURDIR)
REF ?= HEAD
ROOT ?= $(CURDIR)/target/demo
IMAGE ?= git-volume-reloader:0.1.0
UPDATES ?= 200
VALUES ?= tests/charts/values/minimal.yaml
FUZZ_SECONDS ?= 60
TARGETS ?= $(sort $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs))))
# The container engine: ENGINE=, or else the first of these that is installed.
ENGINE ?= $(firstword $(foreach engine,docker podman buildah,$(if $(shell command -v $(engine)),$(engine))))

TARGET := $(shell uname -m)-unknown-linux-gnu
COMMIT := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
BINARY := target/debug/git-volume-reloader

.DEFAULT_GOAL := help
.PHONY: help setup run test k8s-check chart alerts docs lint audit bench fuzz soak reliability release dist \
	reproducible image image-check

help: ## Print this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## Install the packages for building and testing (with apt-get), or list them
	@scripts/setup test

run: ## Sync a repository once and show the result: REPO= REF= ROOT=
	@scripts/setup build
	cargo build --locked --quiet
	@scripts/demo "$(BINARY)" "$(REPO)" "$(REF)" "$(ROOT)"

test: ## Run all tests, and check the manifests against the Kubernetes schemas
	@scripts/setup test
	@scripts/timed scripts/k8s-tools
	@scripts/timed cargo test --locked --no-run
	@scripts/timed cargo test --locked
	@scripts/timed $(MAKE) --no-print-directory k8s-check

k8s-check: ## Render every kustomization and the chart, and check the result
	@scripts/k8s-tools
	@target/k8s-tools/venv/bin/python scripts/check-manifests

chart: ## Print the objects of the Helm chart: VALUES= (tests/charts/values/minimal.yaml)
	@scripts/k8s-tools
	@target/k8s-tools/venv/bin/python scripts/render-chart charts/git-volume-reloader $(VALUES)

alerts: ## Run the unit tests of the alerts
	@scripts/k8s-tools
	@target/k8s-tools/venv/bin/python scripts/check-alerts

docs: ## Build the documentation site in target/site
	@scripts/k8s-tools
	NO_MKDOCS_2_WARNING=1 target/k8s-tools/venv/bin/mkdocs build --strict --quiet

lint: ## Check formatting, clippy warnings, licences, workflows, Dockerfile and shell scripts
	@scripts/setup test
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --manifest-path fuzz/Cargo.toml --target-dir target --all-targets -- -D warnings
	@scripts/lint-files
	@if command -v cargo-deny >/dev/null; then \
		cargo deny --offline check bans licenses sources; \
	else echo "lint: cargo-deny is not installed ('make audit' installs it): licences and bans not checked"; fi

audit: ## Check advisories, licences and bans of all dependencies; installs cargo-deny (takes minutes)
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check

bench: ## Run the benchmarks, as ratios to git on the same machine: UPDATES= (200)
	@scripts/setup test
	cargo bench --locked --bench sync -- --updates $(UPDATES)

fuzz: ## Run each fuzz target, or TARGETS=, for FUZZ_SECONDS= (60); installs cargo-fuzz, needs a nightly toolchain
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	@for target in $(TARGETS); do mkdir -p "fuzz/corpus/$$target"; \
		cargo +nightly fuzz run "$$target" "fuzz/corpus/$$target" "fuzz/seeds/$$target" -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 || exit 1; done

soak: ## Run the long tests: 480 power cuts, every kill point, 10,000 flips, 50,000 polls (about an hour)
	@scripts/setup test
	GVR_TEST_SOAK=1 cargo test --locked --test it -- --nocapture --test-threads 1 \
		power_cuts:: kill_points:: contract::no_reader soak:: faults::http::a_stale features::large

reliability: ## Generate the tables of docs/explanation/reliability.md from the tests
	GVR_TEST_UPDATE_DOCS=1 cargo test --locked --test it -- reliability::

release: ## Build the static binary of the image
	@scripts/setup build
	GVR_COMMIT=$(COMMIT) RUSTFLAGS="-C target-feature=+crt-static" \
		cargo build --locked --release --bin git-volume-reloader --target $(TARGET)

dist: ## Build the tarball, checksum and SBOM of this machine's architecture in target/dist
	@scripts/setup build
	scripts/dist

reproducible: ## Show that two builds of HEAD are byte-identical (takes two release builds)
	@scripts/setup build
	scripts/check-reproducible

image: ## Build the container image: IMAGE= ENGINE=docker|podman|buildah
	@if [ -z "$(ENGINE)" ]; then \
		echo "image: needs docker, podman or buildah; 'make image-check' checks the contents without them" >&2; exit 1; fi
	@if [ "$(ENGINE)" = docker ] && ! docker info >/dev/null 2>&1; then \
		echo "image: the docker daemon does not answer; try ENGINE=podman or ENGINE=buildah, or 'make image-check'" >&2; exit 1; fi
	$(ENGINE) build --build-arg GVR_COMMIT=$(COMMIT) -t $(IMAGE) .

image-check: ## Check size, static linking and a sync in a chroot with the files of the image; needs root
	@scripts/image-check
