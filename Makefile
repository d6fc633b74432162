# The verbs of this repository. `make demo` and `make test` work on a fresh Debian or Ubuntu with Rust.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help commands commands-record demo build image image-push static package sbom chart-package test test-package test-rust test-clients test-chart test-k8s test-image test-limits test-applications test-redis-suite test-servers try-readme chart-values fmt lint docs book deny advisories bench fuzz fuzz-smoke soak settings metrics tools-demo tools-test tools-image tools-static tools-book tools-package tools-lint

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
FUZZ_SECONDS ?= 600
SOAK_SEEDS ?= 20000
SOAK_CASES ?= 20000
# target/debug/memstore, with the features that the tests of the workspace compile it with: alone it would compile most of its
# dependencies once more.
DEBUG_PROXY := cargo test --workspace --test trial --no-run
WITH_DEBUG_PROXY := MEMSTORE=$${CARGO_TARGET_DIR:-$(CURDIR)/target}/debug/memstore
# The test programs of one lane, each of which is in one of the two: see there.
LANE = cargo test --workspace $(or $(2),--all-targets) --config "target.\"cfg(all())\".runner = [\"$(CURDIR)/.ci/lane\", \"$(1)\"]"
# Those that start servers of Redis or Valkey.
WITH_SERVERS = --test command_table $(addprefix --test ,$(basename $(notdir $(shell grep -l '^mod servers;' proxy/tests/*.rs))))
# What runs on any Linux: the C library is in it, as in the image. MEMSTORE_STATIC names one that is there already.
STATIC_TARGET := $(shell uname -m)-unknown-linux-gnu
MEMSTORE_STATIC ?= $${CARGO_TARGET_DIR:-$(CURDIR)/target}/$(STATIC_TARGET)/image/memstore
IMAGE ?= memstore/memstore:$(VERSION)
COMMAND_TABLE := proxy/src/protocol/resp/command/table.rs

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: tools-demo ## real shards and the proxy, shown working; stays up until Ctrl-C
	cargo build --release -p memstore-proxy
	examples/demo/run

build: ## the release binary: target/release/memstore
	cargo build --release -p memstore-proxy

image: ## the container image memstore/memstore:VERSION, by the local engine
	docker buildx build --build-arg VERSION=$(VERSION) -t memstore/memstore:$(VERSION) --load .

image-push: ## the same for amd64 and arm64, with its SBOM and provenance, pushed as IMAGE; needs a builder for several platforms
	docker buildx build --platform linux/amd64,linux/arm64 --sbom=true --provenance=mode=max \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) --build-arg SOURCE=$(or $(SOURCE),https://github.com/memstore/memstore) \
		-t $(IMAGE) --metadata-file target/image.json --push .

static: tools-static ## a static binary: target/ARCH-unknown-linux-gnu/image/memstore
	RUSTFLAGS="-C target-feature=+crt-static" cargo auditable build --locked --profile image -p memstore-proxy --target $(STATIC_TARGET)

package: tools-package $(if $(filter environment command line,$(origin MEMSTORE_STATIC)),,static) ## a Debian package and an archive of a static binary: target/package
	packaging/build $(MEMSTORE_STATIC) $(STATIC_TARGET)

sbom: tools-package ## what the static binary is made of, as CycloneDX, beside the packages
	packaging/sbom $(MEMSTORE_STATIC) > target/package/memstore-$(VERSION)-$(firstword $(subst -, ,$(STATIC_TARGET)))-linux.cdx.json

chart-package: ## the chart as an archive: target/chart
	$$(.ci/helm) package chart --destination target/chart

test: test-rust ## all tests; installs what they need
	.ci/beside '$(MAKE) --no-print-directory test-chart' '$(MAKE) --no-print-directory test-clients'

test-rust: tools-test
	cargo test --workspace --all-targets --no-run
	.ci/beside '$(call LANE,works)' '$(call LANE,waits)'
	cargo test --workspace --doc
	python3 -B examples/client-side/python/test_vectors.py

test-clients: tools-test
	$(DEBUG_PROXY)
	$(WITH_DEBUG_PROXY) proxy/tests/clients/run
	$(WITH_DEBUG_PROXY) examples/session-store/run

test-servers: tools-test ## the tests with real servers, for each of SERVERS (programs of other versions of Redis and Valkey) in the place of redis-server
	@[ -n "$(SERVERS)" ] || { echo 'SERVERS="FOLDER/redis-server FOLDER/valkey-server" is missing'; exit 1; }
	cargo test --workspace --all-targets --no-run
	$(DEBUG_PROXY)
	for server in $(abspath $(SERVERS)); do \
		"$$server" --version && export TEST_REDIS="$$server" || exit 1; \
		.ci/beside '$(call LANE,works,$(WITH_SERVERS))' '$(call LANE,waits,$(WITH_SERVERS))' && $(WITH_DEBUG_PROXY) proxy/tests/clients/run \
			&& $(WITH_DEBUG_PROXY) examples/session-store/run || failed="$$failed $$server"; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

test-chart: tools-test
	$(DEBUG_PROXY)
	$(WITH_DEBUG_PROXY) chart/tests/run

test-k8s: ## the chart on a real Kubernetes control plane, its pods as processes in namespaces; needs root and Go
	cargo build --release -p memstore-proxy
	chart/tests/control-plane/run

try-readme: ## the README's first example as it stands, with the packages that it names; needs root
	@.ci/install iproute2 $$(sed -n 's/^It needs Rust and `apt-get install \(.*\)`\.$$/\1/p' README.md)
	examples/first

.PHONY: test-page tools-page

test-page: tools-page ## the page of the admin address in Chromium
	$(DEBUG_PROXY)
	$(WITH_DEBUG_PROXY) proxy/tests/page/run

test-image: tools-image ## the container image, built and run by a local engine; needs root
	proxy/tests/image/run

test-package: ## the Debian package of `make package` on a machine with systemd of its own: installed, reloaded, upgraded, purged; needs root
	@.ci/install redis-server redis-tools systemd man-db bash-completion curl iproute2
	packaging/tests/run

test-failures: tools-failures ## shards that fail under a load that checks every reply, ours and nutcracker; root loses packets too
	cargo build -p memstore-proxy
	proxy/tests/failure_load/run

test-limits: tools-test ## clients that ask for too much, in front of a proxy with 256 MiB
	cargo build --release -p memstore-proxy
	proxy/tests/limits/run target/release/memstore

test-applications: tools-applications ## Celery, RQ, Django, BullMQ, socket.io, Sidekiq, Laravel and Spring Session over three shards
	$(DEBUG_PROXY)
	$(WITH_DEBUG_PROXY) examples/applications/run

test-redis-suite: ## Redis' own tests over one shard; REDIS_SOURCE names a checkout of its repository, see there
	@.ci/install redis-server redis-tools tcl
	$(DEBUG_PROXY)
	$(WITH_DEBUG_PROXY) proxy/tests/redis_suite/run

.PHONY: conformance
conformance: ## the tests of Redis, redis-py, pymemcache and memcached against plain servers and the proxy; SUITES names a folder with their checkouts
	@.ci/install redis-server redis-tools memcached tcl perl python3 python3-venv
	$(DEBUG_PROXY)
	$(WITH_DEBUG_PROXY) SUITES=$(abspath $(SUITES)) proxy/tests/conformance/run

chart-values: ## what is written from values.yaml of the chart: its schema, defaults and table
	cargo build -q -p memstore-proxy
	chart/tests/values.py

fmt: ## format the code
	cargo fmt --all

lint: tools-lint deny ## formatting, clippy without warnings, licences and sources of dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

docs: ## the documentation builds without warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --document-private-items

book: tools-book ## the pages of docs/ as a book: target/book
	mdbook build docs --dest-dir $(CURDIR)/target/book

deny:
	cargo deny --offline check bans licenses sources 2>/dev/null || cargo deny check bans licenses sources

advisories: tools-lint ## known vulnerabilities of dependencies; needs the network
	cargo deny check advisories

bench: ## ours against nutcracker and a shard without a proxy
	benches/memtier/run

fuzz: ## every fuzz target for FUZZ_SECONDS (600), guided by coverage
	fuzz/run $(FUZZ_SECONDS)

fuzz-smoke: ## the kept inputs of every fuzz target, and mutations of them for some seconds; any compiler will do
	FUZZ_SECONDS=4 cargo test --workspace --test corpus

soak: tools-test tools-failures ## the simulation with SOAK_SEEDS (20000) seeds, SOAK_CASES (20000) against servers, clusters that move many slots, failing shards under load
	SIMULATION_SEEDS=$(SOAK_SEEDS) cargo test --release -p memstore-proxy --test simulation --test scripts --test redirects --test subscribers --test waiting --test wide_waiting --test watching --test confirming --test scanning -- --nocapture
	cargo test --release -p memstore-proxy --test scans -- --ignored --nocapture
	BLOCKED=10000 cargo test --release -p memstore-proxy --test blocking -- --ignored --nocapture
	cargo test --release -p memstore-proxy --test kept_values -- --ignored --nocapture
	ELEMENTS=1000000 cargo test --release -p memstore-proxy --test arrivals -- --nocapture
	DIFFERENTIAL_CASES=$(SOAK_CASES) cargo test --release -p memstore-proxy --test differential
	GROWN_PRIMARIES=5 cargo test --release -p memstore-proxy --test reconcile
	cargo build --release -p memstore-proxy
	proxy/tests/failure_load/run --seconds 10 --proxy target/release/memstore

commands: ## the table of commands, in the code and in docs/command-table.md, from the kept dumps of servers and the policy beside them
	proxy/commands/table.py > $(COMMAND_TABLE).new
	mv $(COMMAND_TABLE).new $(COMMAND_TABLE)
	UPDATE=1 cargo test -q --workspace --lib the_tables_in_the_docs

commands-record: ## what SERVER (redis-server; a program or HOST:PORT) publishes about its commands, kept for `make commands`
	proxy/commands/record.py $(or $(SERVER),redis-server)

settings: ## writes the tables of docs/settings.md, from the code
	UPDATE=1 cargo test -q --workspace --test configuration the_tables_of_settings

metrics: ## writes the table of docs/metrics.md, from what a proxy exposes
	UPDATE=1 cargo test -q --workspace --test cluster the_table_of_metrics

# --- what a fresh machine lacks -------------------------------------------------------------------------------------

tools-demo:
	@.ci/install redis-server redis-tools memcached

tools-test:
	@.ci/install build-essential redis-server redis-tools nutcracker memcached libmemcached-tools prometheus prometheus-redis-exporter bind9 bind9-dnsutils \
		libhiredis-dev python3-venv $$(command -v npm >/dev/null || echo npm)
	@.ci/node >/dev/null
	@.ci/helm >/dev/null

tools-applications:
	@echo "test-applications takes from Debian: redis-server redis-tools python3-venv npm ruby-sidekiq php-cli php-predis php-illuminate-queue"
	@echo "php-illuminate-redis php-illuminate-cache maven default-jdk-headless; from PyPI, npm and Maven Central what examples/applications pins"
	@.ci/install redis-server redis-tools python3-venv ruby-sidekiq php-cli php-predis php-illuminate-queue php-illuminate-redis \
		php-illuminate-cache $$(command -v npm >/dev/null || echo npm) $$(command -v mvn >/dev/null || echo maven) \
		$$(command -v javac >/dev/null || echo default-jdk-headless)
	@.ci/node >/dev/null

.PHONY: test-failures tools-failures

tools-failures:
	@.ci/install redis-server nutcracker iptables iproute2

tools-page:
	@.ci/install chromium redis-server redis-tools python3 $$(command -v npm >/dev/null || echo npm)
	@.ci/node >/dev/null

tools-image: tools-static
	@.ci/install redis-server redis-tools python3-venv
	@docker info >/dev/null 2>&1 || .ci/install docker.io

tools-static:
	@command -v cargo-auditable >/dev/null || cargo install --locked cargo-auditable

tools-book:
	@command -v mdbook >/dev/null || cargo install --locked mdbook

tools-package:
	@.ci/install dpkg-dev python3
	@command -v cargo-deb >/dev/null || cargo install --locked cargo-deb

tools-lint:
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
