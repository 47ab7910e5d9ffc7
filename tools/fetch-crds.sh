#!/usr/bin/env bash
# Puts the Prometheus operator's definitions of ServiceMonitor and PrometheusRule into .cache/tools/crds, from its Go
# module. PROMETHEUS_OPERATOR_VERSION chooses another one.
set -euo pipefail

# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

folder=$tools/crds
version=${PROMETHEUS_OPERATOR_VERSION:-v0.85.0}
module=github.com/prometheus-operator/prometheus-operator

if [ ! -f "$folder/$version" ]; then
    go=$("$root/tools/fetch-go.sh")
    found=$(GOFLAGS=-mod=mod GOTOOLCHAIN=local "$go" mod download -json "$module@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    mkdir -p "$folder"
    for kind in servicemonitors prometheusrules; do
        install -m 644 "$found/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" "$folder/$kind.yaml"
    done
    touch "$folder/$version"
fi
printf '%s\n' "$folder"
