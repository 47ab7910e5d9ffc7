#!/usr/bin/env bash
# Makes a real, certified OpenID provider available in .cache/tools/oidc, as tests/oidc/package-lock.json pins it, and
# prints that folder. Node.js and npm are those of tools/fetch-python.sh.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

dir=$tools/oidc

# What is installed is what is pinned, and it starts.
works() {
    cmp -s "$root/tests/oidc/package-lock.json" "$dir/package-lock.json" &&
        (cd "$dir" && "$bin/node" --input-type=module --eval 'await import("oidc-provider")') >/dev/null 2>&1
}

"$root/tools/fetch-python.sh" >/dev/null
if ! works; then
    mkdir -p "$dir"
    cp "$root/tests/oidc/package.json" "$root/tests/oidc/package-lock.json" "$dir/"
    (cd "$dir" && "$bin/npm" ci --no-audit --no-fund --ignore-scripts >&2)
fi
works || die "$dir does not start with node $("$bin/node" --version)"
printf '%s\n' "$dir"
