#!/usr/bin/env bash
# Makes a real helm available as .cache/tools/bin/helm and prints its path: taken from PATH if new enough, else built
# once through the Go module proxy. HELM_VERSION chooses another one.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=${HELM_VERSION:-v3.22.0}
# The minor version of Kubernetes that charts are rendered for where no cluster is asked.
kubernetes=37

number() { "$1" version --template '{{.Version}}' 2>/dev/null | tr -d v; }

# 3.14 is the oldest that the chart was written for.
new_enough() { [ -n "$(number "$1")" ] && at_least 3.14 "$(number "$1")"; }

build() {
    local go package flags='-s -w'
    go=$("$root/tools/fetch-go.sh")
    say "building helm $version (some minutes, once)"
    # As its own Makefile does: without these it takes every cluster for a 1.20.
    for package in pkg/lint/rules pkg/chartutil; do
        flags+=" -X helm.sh/helm/v3/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/$package.k8sVersionMinor=$kubernetes"
    done
    flags+=" -X helm.sh/helm/v3/internal/version.version=$version"
    GOBIN=$bin GOFLAGS=-mod=mod GOTOOLCHAIN=local CGO_ENABLED=0 \
        "$go" install -trimpath -ldflags "$flags" "helm.sh/helm/v3/cmd/helm@$version" 2>"$tools/helm.log" ||
        die "could not build helm; the log is $tools/helm.log"
}

if ! new_enough "$bin/helm"; then
    rm -f "$bin/helm"
    if found=$(command -v helm) && new_enough "$found"; then
        ln -s "$found" "$bin/helm"
    else
        build
    fi
    new_enough "$bin/helm" || die "helm does not run"
fi
say "helm $(number "$bin/helm")"
printf '%s\n' "$bin/helm"
