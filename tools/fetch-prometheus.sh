#!/usr/bin/env bash
# Makes a real prometheus, promtool, alertmanager and amtool available under .cache/tools/bin, without touching the
# system: taken from PATH if new enough, else unpacked from the distribution's own packages. Prints that folder.
#
# Where packages come from is read from this machine's apt sources: first the suite `testing`, whose versions are the
# ones we aim at, then the suite the machine runs. Set PROMETHEUS_SUITES to choose others, e.g. "bookworm".
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

programs=(prometheus promtool alertmanager amtool)

all_work() {
    local program
    for program in "${programs[@]}"; do
        starts "$1/$program" || return 1
    done
}

version() { "$1" --version 2>&1 | sed -n '1s/.*version \([0-9][0-9.]*\).*/\1/p'; }

# Prometheus 2.42 and Alertmanager 0.25 are the oldest that the demo's flags and rules are tested with.
new_enough() {
    local oldest=2.42
    case $1 in *alertmanager | *amtool) oldest=0.25 ;; esac
    at_least "$oldest" "$(version "$1")"
}

# Links the programs of PATH, if all four are there and new enough.
from_path() {
    local program found
    for program in "${programs[@]}"; do
        found=$(command -v "$program") && starts "$found" && new_enough "$found" || return 1
    done
    for program in "${programs[@]}"; do
        ln -sf "$(command -v "$program")" "$bin/$program"
    done
}

# Debian's alertmanager reads its default templates from a fixed place under /usr/share. In our copy that path, and no
# other byte, becomes one of the same length that leads through file descriptor 9, which a wrapper opens. So nothing has to
# be installed, and neither root nor a namespace is needed.
fix_alertmanager() {
    local binary=$1 templates=$2 wrapper=$3
    local fixed=/usr/share/prometheus/alertmanager
    local ours=/proc/self/fd/9///////////////////
    [ -r "$templates/default.tmpl" ] || return 0
    LC_ALL=C sed -i "s#$fixed\\([^/]\\)#$ours\\1#g" "$binary"
    rm -f "$wrapper"
    printf '#!/bin/bash\nexec 9<%q && exec %q "$@"\n' "$templates" "$binary" >"$wrapper"
    chmod +x "$wrapper"
}

# Whether it not only prints its version but loads a configuration, which needs the templates: it listens only after that.
serves() {
    local dir pid turn
    dir=$(mktemp -d)
    : >"$dir/log"
    printf 'route: {receiver: x}\nreceivers: [{name: x}]\n' >"$dir/config.yml"
    "$1" --config.file="$dir/config.yml" --storage.path="$dir" --web.listen-address=127.0.0.1:0 \
        --cluster.listen-address= >"$dir/log" 2>&1 &
    pid=$!
    for turn in {1..50}; do
        if grep -q 'Listening on' "$dir/log" || ! kill -0 "$pid" 2>/dev/null; then break; fi
        sleep 0.1
    done
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    if grep -q 'Listening on' "$dir/log"; then
        rm -rf "$dir"
        return 0
    fi
    say "alertmanager does not start (look $turn of 50):"
    cat "$dir/log" >&2
    rm -rf "$dir"
    return 1
}

from_suite() {
    local suite=$1 unpacked=$tools/apt-$1/root program found
    # Newer suites have promtool in a package of its own, older ones inside prometheus.
    unpack_suite "$suite" prometheus prometheus-alertmanager 'promtool?' || return 1
    for program in "${programs[@]}"; do
        found=$unpacked/usr/bin/$program
        # Debian gives Alertmanager's two programs a prefix.
        [ -x "$found" ] || found=$unpacked/usr/bin/prometheus-$program
        if ! starts "$found"; then
            ldd "$found" 2>/dev/null | grep 'not found' >&2 || true
            say "$program of $suite does not run on this machine"
            return 1
        fi
        ln -sf "$found" "$bin/$program"
    done
    fix_alertmanager "$(readlink "$bin/alertmanager")" "$unpacked/usr/share/prometheus/alertmanager" "$bin/alertmanager"
    serves "$bin/alertmanager"
}

main() {
    local suite
    if ! all_work "$bin"; then
        from_path || {
            needs_apt "prometheus, promtool, alertmanager and amtool"
            for suite in ${PROMETHEUS_SUITES:-testing "$(running_suite)"}; do
                from_suite "$suite" && break
                say "nothing usable from $suite; its log is $tools/apt-$suite/log"
            done
        }
    fi
    all_work "$bin" || die "could not deliver ${programs[*]}; is the package mirror reachable?"
    say "prometheus $(version "$bin/prometheus"), alertmanager $(version "$bin/alertmanager")"
    printf '%s\n' "$bin"
}

main
