# Two commands: `make demo` runs the main job, `make test` shows that it works. Both install what they need.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
CACHE := $(CURDIR)/.cache
TOOLS := $(CACHE)/tools
# What the set-up brings comes last: a machine's own programs win where they are new enough.
export PATH := $(PATH):$(HOME)/.cargo/bin:$(TOOLS)/bin
export NIGHTSHIFT_TOOLS := $(TOOLS)

.PHONY: help demo planted loops test test-cluster control-plane chart check fmt tools docs bench bench-cluster clean deny

help: ## This list; times are those of two cores, the first time (later ones build only what changed)
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: ## A simulated fleet, a real Prometheus and Alertmanager, and the engine: 4 minutes to the first story; DEMO_SECONDS=150 ends by itself
	@tools/demo.sh $(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS))

tools: ## What the tests use, into .cache/: Prometheus, Alertmanager, SMTP, Docker, compose, Helm, Node.js, OpenID providers (Keycloak where there is Maven), Chromium (8 minutes)
	@tools/fetch-packages.sh
	@tools/fetch-prometheus.sh >/dev/null
	@tools/fetch-python.sh >/dev/null
	@tools/fetch-schemathesis.sh >/dev/null
	@tools/fetch-docker.sh >/dev/null
	@tools/fetch-oidc-provider.sh >/dev/null
	@tools/fetch-dex.sh >/dev/null
	@tools/fetch-keycloak.sh >/dev/null
	@tools/fetch-chromium.sh >/dev/null
	@tools/fetch-helm.sh >/dev/null

test: tools ## Everything, with real Prometheus, Alertmanager and SMTP (25 minutes)
	cargo test --locked --workspace --lib --bins
	cargo test --locked --test it
	tools/check-rules.sh
	cargo run --locked --quiet -- check

planted: ## Switch on each planted bug in turn: a named test must catch it (8 minutes)
	@tools/planted.sh

loops: ## Long loops of kills, clock steps, I/O errors, full disks, restores and stops, counted at the target (2 hours; needs root)
	@tools/loops.sh

control-plane: ## Build etcd and a Kubernetes control plane once, outside this folder (10 minutes)
	@tools/build-control-plane.sh

test-cluster: control-plane ## The action battery, drains and faults on that control plane (8 minutes)
	@tools/fetch-helm.sh >/dev/null
	@tools/fetch-crds.sh >/dev/null
	cargo test --locked --test cluster

chart: ## Lint and render the Helm chart with a real Helm, and compare its rights with the catalog
	@tools/fetch-helm.sh >/dev/null
	cargo test --locked --test it -- chart::

check: fmt deny ## Format, lints, licenses, advisories (8 minutes)
	cargo clippy --locked --workspace --all-targets -- -D warnings

fmt:
	cargo fmt --all --check
	rustfmt --edition 2024 --check src/actions/*.rs # declared by a macro, into which cargo fmt does not look

deny: ## Licenses, bans, sources and known vulnerabilities of dependencies
	@tools/deny.sh

bench: tools ## Measure; the figures of record are in benches/RESULTS.md
	cargo bench --locked --bench ingest --bench engine --bench store --bench advance

bench-cluster: control-plane ## Measure against a real API server; the figures of record are in benches/RESULTS.md
	cargo bench --locked --bench cluster

docs: ## Write the generated pages again
	UPDATE_DOCS=1 cargo test --locked --workspace --lib --test it docs::
