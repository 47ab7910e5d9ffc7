#!/usr/bin/env bash
# Makes a real helm available as .cache/tools/bin/helm and prints its path: taken from PATH if new enough, else built
# once through the Go module proxy. HELM_VERSION chooses another one.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$root/.cache/tools/bin
version=${HELM_VERSION:-v3.22.0}
# The minor version of Kubernetes that charts are rendered for where no cluster is asked.
kubernetes=37

say() { printf 'fetch-helm: %s\n' "$*" >&2; }

works() { "$1" version --template '{{.Version}}' >/dev/null 2>&1; }

# 3.14 is the oldest that the chart was written for.
new_enough() {
    local found
    found=$("$1" version --template '{{.Version}}' 2>/dev/null | tr -d v)
    [ "$(printf '%s\n3.14\n' "$found" | sort -V | head -n 1)" = 3.14 ]
}

main() {
    local found package flags='-s -w'
    mkdir -p "$bin"
    if ! works "$bin/helm"; then
        if found=$(command -v helm) && works "$found" && new_enough "$found"; then
            ln -sf "$found" "$bin/helm"
        elif command -v go >/dev/null; then
            say "building helm $version (some minutes, once)"
            # As its own Makefile does: without these it takes every cluster for a 1.20.
            for package in pkg/lint/rules pkg/chartutil; do
                flags+=" -X helm.sh/helm/v3/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/$package.k8sVersionMinor=$kubernetes"
            done
            flags+=" -X helm.sh/helm/v3/internal/version.version=$version"
            GOBIN=$bin GOFLAGS=-mod=mod CGO_ENABLED=0 go install -trimpath -ldflags "$flags" "helm.sh/helm/v3/cmd/helm@$version"
        else
            say "needs go, or a helm of at least 3.14 in PATH"
            return 1
        fi
    fi
    works "$bin/helm" || { say "helm does not run"; return 1; }
    say "helm $("$bin/helm" version --template '{{.Version}}')"
    printf '%s\n' "$bin/helm"
}

main
