#!/usr/bin/env bash
# Makes a Go of at least the version that Helm and the control plane need available as .cache/tools/bin/go and prints its
# path: taken from PATH if new enough, else the packages of Debian's suite `testing`, unpacked.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The newest `go` line of what is built with it: Helm 3.22 and Kubernetes 1.37.
oldest=1.26
release=1.26

version() { "$1" env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//'; }
new_enough() { "$1" version >/dev/null 2>&1 && at_least "$oldest" "$(version "$1")"; }

if ! new_enough "$bin/go"; then
    rm -f "$bin/go"
    for found in "$(command -v go || true)" /usr/local/go/bin/go; do
        if [ -n "$found" ] && new_enough "$found"; then
            ln -s "$(readlink -f "$found")" "$bin/go"
            break
        fi
    done
    if [ ! -e "$bin/go" ]; then
        needs_apt "go $oldest"
        unpack_suite testing "golang-$release-go" "golang-$release-src" ||
            die "could not unpack golang-$release of testing; its log is $tools/apt-testing/log"
        ln -s "$tools/apt-testing/root/usr/lib/go-$release/bin/go" "$bin/go"
    fi
    new_enough "$bin/go" || die "$bin/go does not start"
fi
say "go $(version "$bin/go")"
printf '%s\n' "$bin/go"
