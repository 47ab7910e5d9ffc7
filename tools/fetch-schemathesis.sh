#!/usr/bin/env bash
# Fills .cache/tools/schemathesis with what tools/requirements-schemathesis.txt pins by version and hash. Prints the program.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

venv=$tools/schemathesis
pins=$root/tools/requirements-schemathesis.txt

if ! cmp -s "$pins" "$venv/requirements.txt" || ! starts "$venv/bin/st"; then
    command -v python3 >/dev/null || die "needs python3: tools/fetch-packages.sh installs it as root, or says how"
    say "installing schemathesis with pip (some 100 MB)"
    rm -rf "$venv"
    python3 -m venv "$venv" >&2
    "$venv/bin/pip" -q --disable-pip-version-check install --require-hashes --only-binary=:all: -r "$pins" >&2
    cp "$pins" "$venv/requirements.txt"
fi
"$venv/bin/st" --version >/dev/null || die "schemathesis does not start in $venv: remove that folder and try again"
say "$("$venv/bin/st" --version)"
printf '%s\n' "$venv/bin/st"
