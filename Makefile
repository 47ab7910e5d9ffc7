# Two commands: `make demo` runs the main job, `make test` shows that it works. Both install what they need.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
CACHE := $(CURDIR)/.cache
TOOLS := $(CACHE)/tools
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help demo planted test test-cluster control-plane chart check fmt tools docs bench bench-cluster clean deny

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

tools: ## Fetch Prometheus, Alertmanager, an SMTP server, Docker, compose, Helm, an OpenID provider and Chromium into .cache/
	@tools/fetch-prometheus.sh "$(TOOLS)"
	@tools/fetch-aiosmtpd.sh "$(TOOLS)"
	@tools/fetch-docker.sh "$(TOOLS)" >/dev/null
	@tools/fetch-compose.sh "$(TOOLS)" >/dev/null
	@tools/fetch-helm.sh
	@tools/fetch-oidc-provider.sh "$(TOOLS)" >/dev/null
	@tools/fetch-chromium.sh "$(TOOLS)" >/dev/null

chart: ## Lint and render the Helm chart with a real Helm, and compare its rights with the catalog
	@tools/fetch-helm.sh
	NIGHTSHIFT_TOOLS="$(TOOLS)" cargo test --locked --test it -- chart::

demo: tools ## A simulated fleet, a real Prometheus and Alertmanager, and the engine; DEMO_SECONDS=90 ends by itself
	cargo build --locked --quiet
	target/debug/nightshift demo --tools "$(TOOLS)" $(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS))

test: tools ## Everything, with real Prometheus, Alertmanager and SMTP
	cargo test --locked --lib --bins
	cargo test --locked -p nvml-imitation
	NIGHTSHIFT_TOOLS="$(TOOLS)" cargo test --locked --test it
	tools/check-rules.sh "$(TOOLS)"
	cargo run --locked --quiet -- check

planted: ## Switch on each planted bug in turn: a named test must catch it
	@tools/planted.sh

control-plane: ## Build etcd and a Kubernetes control plane once, outside this folder (some ten minutes)
	@tools/build-control-plane.sh

test-cluster: control-plane ## The action battery, drains and faults on that control plane
	@tools/fetch-helm.sh
	@tools/fetch-crds.sh
	cargo test --locked --test cluster

check: fmt deny ## Format, lints, licences
	cargo clippy --locked --all-targets -- -D warnings

fmt:
	cargo fmt --check

deny: ## Licences, bans and sources of dependencies
	@command -v cargo-deny >/dev/null || cargo install cargo-deny --locked --root "$(CACHE)/cargo" --quiet
	PATH="$(CACHE)/cargo/bin:$$PATH" cargo deny --log-level error check bans licenses sources

bench: tools ## Measure; the figures of record are in benches/RESULTS.md
	NIGHTSHIFT_TOOLS="$(TOOLS)" cargo bench --locked --bench ingest --bench engine --bench store --bench advance

bench-cluster: control-plane ## Measure against a real API server; the figures of record are in benches/RESULTS.md
	cargo bench --locked --bench cluster

docs: ## Write the generated pages again
	UPDATE_DOCS=1 cargo test --locked --test it docs::
