#!/usr/bin/env bash
# Builds a real Dex, an OpenID provider, as .cache/tools/bin/dex and prints its path: what tests/oidc/dex pins, through the Go
# module proxy, once. Where it cannot be had it says so, prints nothing and succeeds: its test is then not run, and says that.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

module=$root/tests/oidc/dex
dir=$tools/dex

# What is built is what is pinned, and it starts: without arguments it says how it is called.
works() { diff -rq "$module" "$dir" >/dev/null 2>&1 && { "$bin/dex" 2>&1 || true; } | grep -q 'dex PORT REDIRECT SECRET'; }

build() {
    local go
    go=$("$root/tools/fetch-go.sh") || return 1
    say "building dex (a minute or two, once)"
    (cd "$module" && GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS='-buildvcs=false -mod=readonly' \
        "$go" build -p 2 -trimpath -ldflags '-s -w' -o "$bin/dex" .) 2>"$tools/dex.log" || return 1
    rm -rf "$dir"
    cp -r "$module" "$dir"
}

if ! works; then
    build && works || {
        rm -rf "$dir" "${bin:?}/dex"
        say "NOT HERE: dex could not be built, so its test is not run; the log is $tools/dex.log"
        exit 0
    }
fi
say "dex $(sed -n 's/^.*dexidp\/dex \(v[^ ]*\).*/\1/p' "$dir/go.mod" | head -n 1)"
printf '%s\n' "$bin/dex"
