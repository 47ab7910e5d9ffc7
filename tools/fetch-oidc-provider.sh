#!/usr/bin/env bash
# Makes a real, certified OpenID provider available in .cache/tools/oidc, as tests/oidc/package-lock.json pins it, and
# prints that folder. It needs node (20.19 or newer) and npm.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=${1:-$root/.cache/tools}/oidc

# What is installed is what is pinned, and it starts.
works() {
    cmp -s "$root/tests/oidc/package-lock.json" "$dir/package-lock.json" &&
        (cd "$dir" && node --input-type=module --eval 'await import("oidc-provider")') >/dev/null 2>&1
}

if ! works; then
    { command -v node && command -v npm; } >/dev/null ||
        { printf 'fetch-oidc-provider: needs node and npm; install the packages nodejs and npm\n' >&2; exit 1; }
    mkdir -p "$dir"
    cp "$root/tests/oidc/package.json" "$root/tests/oidc/package-lock.json" "$dir/"
    (cd "$dir" && npm ci --no-audit --no-fund --ignore-scripts >&2)
fi
works || { printf 'fetch-oidc-provider: %s does not start with node %s\n' "$dir" "$(node --version)" >&2; exit 1; }
printf '%s\n' "$dir"
