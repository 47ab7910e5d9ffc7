#!/usr/bin/env bash
# Makes etcd, kube-apiserver, kube-controller-manager and kube-scheduler available and prints the folder they are in.
#
# KUBEBUILDER_ASSETS is honoured if it holds all four (envtest's archives hold only two). Otherwise they are built once
# from the Go module tests/cluster/control-plane, which takes about ten minutes on two cores, and kept under
# ${XDG_CACHE_HOME:-~/.cache}/nightshift, outside the source tree, so that every clone on this machine finds them.
# `--where` only prints the folder, built or not.
set -euo pipefail

# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

module=$root/tests/cluster/control-plane
programs=(etcd kube-apiserver kube-controller-manager kube-scheduler)

missing() {
    local program
    for program in "${programs[@]}"; do
        [ -x "$1/$program" ] || printf '%s ' "$program"
    done
}

version() { sed -n 's#^\tk8s.io/kubernetes \(v[0-9.]*\)$#\1#p' "$module/go.mod"; }

# The version and what it is built from, so that a change of either is built anew.
folder() {
    local sources
    sources=$(cat "$module"/go.mod "$module"/go.sum "$module"/*.go "${BASH_SOURCE[0]}" | sha256sum | cut -c1-12)
    printf '%s/nightshift/control-plane/%s-%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}" "$(version)" "$sources"
}

build() {
    local folder=$1 begun=$SECONDS program go name=k8s.io/component-base/version.gitVersion
    go=$("$root/tools/fetch-go.sh") ||
        die "Kubernetes is built with go: see above, or set KUBEBUILDER_ASSETS to a folder with ${programs[*]}"
    say "building $(basename "$folder"); the first time takes about ten minutes"
    # Two at a time: the larger packages need a GiB each to compile.
    (cd "$module" && GOTOOLCHAIN=local GOFLAGS=-buildvcs=false "$go" build -p 2 -trimpath -ldflags "-s -w -X $name=$(version)" -o "$folder/new" .) ||
        die "the build failed; is the Go module proxy ($("$go" env GOPROXY)) reachable?"
    mv "$folder/new" "$folder/control-plane"
    for program in "${programs[@]}"; do
        ln -sf control-plane "$folder/$program"
    done
    say "built in $((SECONDS - begun)) s"
}

main() {
    local folder lacks
    if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
        lacks=$(missing "$KUBEBUILDER_ASSETS")
        [ -z "$lacks" ] || die "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS lacks ${lacks% }: add them, or unset it and they are built"
        printf '%s\n' "$KUBEBUILDER_ASSETS"
        return
    fi
    folder=$(folder)
    if [ "${1:-}" != --where ] && [ -n "$(missing "$folder")" ]; then
        mkdir -p "$folder"
        exec 8>"$folder/lock"
        flock 8
        # Somebody else may have built it while we waited.
        [ -z "$(missing "$folder")" ] || build "$folder"
    fi
    printf '%s\n' "$folder"
}

main "$@"
