#!/usr/bin/env bash
# Creates the secrets of compose.yaml in secrets/, once: existing ones are kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
mkdir -p secrets
# The services run under users of their own and must be able to read their file; the folder is closed to other users.
chmod 0700 secrets
for name in alertmanager-token metrics-token grafana-password; do
    file=secrets/$name
    if [ ! -s "$file" ]; then
        head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \n' >"$file"
        chmod 0444 "$file"
        printf 'made %s\n' "$file"
    fi
done
