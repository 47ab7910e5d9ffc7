#!/usr/bin/env bash
# Checks dependencies with cargo-deny: licenses, bans and sources always; known vulnerabilities where the database can be had.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=0.20.2
own=$root/.cache/cargo

# Another version reads deny.toml in another way, or decides differently: only this one counts.
is_pinned() { starts "$1" && [ "$("$1" --version)" = "cargo-deny $version" ]; }

cd "$root"
deny=$(command -v cargo-deny || true)
if ! is_pinned "$deny"; then
    deny=$own/bin/cargo-deny
    if ! is_pinned "$deny"; then
        say "building cargo-deny $version (some minutes, once)"
        cargo install cargo-deny --version "$version" --locked --force --root "$own" --quiet
    fi
fi
"$deny" --log-level error check bans licenses sources
if timeout 120 "$deny" --log-level error fetch db >"$tools/deny.log" 2>&1; then
    "$deny" --log-level error check --disable-fetch advisories
else
    say "NOT CHECKED: advisories; the database could not be fetched: see $tools/deny.log"
fi
