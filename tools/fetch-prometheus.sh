#!/usr/bin/env bash
# Makes a real prometheus, promtool, alertmanager and amtool available under .cache/tools/bin, without touching the
# system: taken from PATH if new enough, else unpacked from the distribution's own packages. Prints that folder.
#
# Where packages come from is read from this machine's apt sources: first the suite `testing`, whose versions are the
# ones we aim at, then the suite the machine runs. Set PROMETHEUS_SUITES to choose others, e.g. "bookworm".
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$root/.cache/tools
bin=$tools/bin
programs=(prometheus promtool alertmanager amtool)
packages=(prometheus prometheus-alertmanager)
# Newer suites have promtool in a package of its own, older ones inside prometheus.
apart=promtool

say() { printf 'fetch-prometheus: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# A program counts when it starts: one whose libraries are missing fails here and not in the middle of a test.
works() { "$1" --version >/dev/null 2>&1; }

all_work() {
    local program
    for program in "${programs[@]}"; do
        [ -x "$1/$program" ] && works "$1/$program" || return 1
    done
}

version() { "$1" --version 2>&1 | sed -n '1s/.*version \([0-9][0-9.]*\).*/\1/p'; }

# Prometheus 2.42 and Alertmanager 0.25 are the oldest that the demo's flags and rules are tested with.
new_enough() {
    local oldest=2.42
    case $1 in *alertmanager | *amtool) oldest=0.25 ;; esac
    [ "$(printf '%s\n%s\n' "$oldest" "$(version "$1")" | sort -V | head -n 1)" = "$oldest" ]
}

# Links the programs of PATH, if all four are there and new enough.
from_path() {
    local program found
    for program in "${programs[@]}"; do
        found=$(command -v "$program") && works "$found" && new_enough "$found" || return 1
    done
    mkdir -p "$bin"
    for program in "${programs[@]}"; do
        ln -sf "$(command -v "$program")" "$bin/$program"
    done
}

# The first package source of this machine that serves the distribution itself: `<uri> <signing key or ->`.
mirror() {
    local file
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -r "$file" ] || continue
        awk 'BEGIN { RS = ""; FS = "\n" }
            { uri = ""; key = "-"; suites = ""; off = 0
              for (i = 1; i <= NF; i++) {
                  if ($i ~ /^URIs:/) { split($i, w, /[ \t]+/); uri = w[2] }
                  if ($i ~ /^Signed-By:[ \t]*\//) { split($i, w, /[ \t]+/); key = w[2] }
                  if ($i ~ /^Suites:/) suites = $i
                  if ($i ~ /^Enabled:[ \t]*no/) off = 1
              }
              if (!off && uri ~ /\/debian\/?$/ && suites !~ /security/) print uri, key
            }' "$file"
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -r "$file" ] || continue
        sed -n 's/^deb[[:space:]]\{1,\}//p' "$file" | awk '
            { key = "-"
              if (match($0, /signed-by=[^] ]*/)) key = substr($0, RSTART + 10, RLENGTH - 10)
              sub(/^\[[^]]*\][ \t]*/, "")
              if ($1 ~ /\/debian\/?$/) print $1, key }'
    done
}

# apt with sources, lists and cache of its own.
private_apt() {
    local dir=$1
    shift
    apt-get -q -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null \
        -o Dir::Etc::PreferencesParts=/dev/null -o Dir::State="$dir/state" -o Dir::State::status="$dir/status" \
        -o Dir::Cache="$dir/cache" -o APT::Update::Post-Invoke-Success::= -o Acquire::Languages=none \
        -o Acquire::Retries=3 -o Debug::NoLocking=1 -o APT::Sandbox::User= "$@"
}

# Debian's alertmanager reads its default templates from a fixed place under /usr/share. In our copy that path, and no
# other byte, becomes one of the same length that leads through file descriptor 9, which a wrapper opens. So nothing has to
# be installed, and neither root nor a namespace is needed.
mend_alertmanager() {
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
    local suite=$1 uri=$2 key=$3 dir=$tools/apt-$1 options='' unpacked deb program found
    mkdir -p "$dir/state/lists/partial" "$dir/cache/archives/partial"
    : >"$dir/status"
    [ "$key" = - ] || options="[signed-by=$key] "
    printf 'deb %s%s %s main\n' "$options" "$uri" "$suite" >"$dir/sources.list"
    say "reading the package list of $suite"
    private_apt "$dir" update >"$dir/log" 2>&1 || return 1
    (
        cd "$dir" && rm -f ./*.deb
        private_apt "$dir" download "${packages[@]}" "$apart" >>"$dir/log" 2>&1 ||
            private_apt "$dir" download "${packages[@]}" >>"$dir/log" 2>&1
    ) || return 1
    unpacked=$dir/root
    rm -rf "$unpacked"
    for deb in "$dir"/*.deb; do
        dpkg-deb -x "$deb" "$unpacked" || return 1
        say "unpacked $(basename "$deb")"
    done
    mkdir -p "$bin"
    for program in "${programs[@]}"; do
        found=$unpacked/usr/bin/$program
        # Debian gives Alertmanager's two programs a prefix.
        [ -x "$found" ] || found=$unpacked/usr/bin/prometheus-$program
        if ! works "$found"; then
            ldd "$found" 2>/dev/null | grep 'not found' >&2 || true
            say "$program of $suite does not run on this machine"
            return 1
        fi
        ln -sf "$found" "$bin/$program"
    done
    mend_alertmanager "$(readlink "$bin/alertmanager")" "$unpacked/usr/share/prometheus/alertmanager" "$bin/alertmanager"
    serves "$bin/alertmanager" || return 1
    # The lists are large and read once.
    rm -rf "$dir/state" "$dir/cache" "$dir"/*.deb
}

main() {
    local suite uri key running
    if ! all_work "$bin"; then
        from_path || {
            { command -v apt-get && command -v dpkg-deb; } >/dev/null ||
                die "needs apt-get and dpkg-deb, or prometheus, promtool, alertmanager and amtool in PATH"
            # shellcheck disable=SC1091
            running=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-stable}")
            read -r uri key < <(mirror) || die "no package source ending in /debian under /etc/apt; install the four programs into PATH"
            for suite in ${PROMETHEUS_SUITES:-testing "$running"}; do
                from_suite "$suite" "$uri" "$key" && break
                say "nothing usable from $suite; its log is $tools/apt-$suite/log"
            done
        }
    fi
    all_work "$bin" || die "could not deliver ${programs[*]}; is the package mirror reachable?"
    say "prometheus $(version "$bin/prometheus"), alertmanager $(version "$bin/alertmanager")"
    printf '%s\n' "$bin"
}

main
