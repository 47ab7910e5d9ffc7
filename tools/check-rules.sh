#!/usr/bin/env bash
# Checks the Prometheus rules and runs their unit tests with a real promtool.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$("$root/tools/fetch-prometheus.sh")
cd "$root/rules/prometheus"
"$bin/promtool" check rules ./*.yml
"$bin/promtool" test rules tests/*.yml
