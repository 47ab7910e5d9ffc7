#!/usr/bin/env bash
# Makes a real SMTP server (aiosmtpd) available and prints the Python that can run it: `python -m aiosmtpd`.
#
# The system's Python if it has the package; else a virtual environment under .cache/tools, filled by pip.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.cache/tools/venv

has_it() { "$1" -c 'import aiosmtpd.controller' >/dev/null 2>&1; }

main() {
    local python
    for python in "$venv/bin/python" /usr/bin/python3 python3; do
        if command -v "$python" >/dev/null && has_it "$python"; then
            command -v "$python"
            return
        fi
    done
    mkdir -p "$root/.cache/tools"
    if python3 -m venv --clear "$venv" >&2 && "$venv/bin/pip" -q install 'aiosmtpd>=1.4,<2' >&2 && has_it "$venv/bin/python"; then
        printf '%s\n' "$venv/bin/python"
        return
    fi
    printf '%s\n' "fetch-aiosmtpd: could not install aiosmtpd with pip; install the package python3-aiosmtpd instead" >&2
    return 1
}

main
