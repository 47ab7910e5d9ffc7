#!/usr/bin/env bash
# Builds the program and fetches Prometheus and Alertmanager at the same time, then runs `nightshift demo` with what is given.
# Nothing else is needed. The profile `demo` is for a quick build, not for a quick program.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cd "$root"
log=$tools/fetch-prometheus.log
"$root/tools/fetch-prometheus.sh" >"$log" 2>&1 &
fetch=$!
say "building with the profile demo (first time: some 4 minutes on two cores); Prometheus and Alertmanager are fetched meanwhile"
built=0
cargo build --locked --profile demo || built=$?
fetched=0
wait "$fetch" || fetched=$?
[ "$built" = 0 ] || die "the build failed: see above"
[ "$fetched" = 0 ] || { cat "$log" >&2 && die "Prometheus and Alertmanager could not be had"; }
exec target/demo/nightshift demo --tools "$tools" "$@"
