# What the fetch scripts share: messages, and packages of the distribution that are unpacked beside the system.
# Sourced, never run. Invariant: nothing here changes what is installed on the machine.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$root/.cache/tools
bin=$tools/bin
mkdir -p "$bin"

# A message names the script that prints it.
say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# A program counts when it starts: one whose libraries are missing fails here and not in the middle of a test.
starts() { [ -x "$1" ] && "$1" --version >/dev/null 2>&1; }

# at_least OLDEST VERSION
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

needs_apt() {
    { command -v apt-get && command -v dpkg-deb; } >/dev/null ||
        die "needs apt-get and dpkg-deb to fetch $1; or install $1 yourself, so that it is in PATH"
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

# The suite that this machine runs.
running_suite() {
    # shellcheck disable=SC1091
    (. /etc/os-release && printf '%s' "${VERSION_CODENAME:-stable}")
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

# unpack_suite SUITE PACKAGE...: unpacks packages of a suite, without what they depend on, into $tools/apt-SUITE/root. A
# package written `NAME?` may be missing in that suite.
unpack_suite() {
    local suite=$1 dir=$tools/apt-$1 uri key options='' package deb wanted=()
    shift
    read -r uri key < <(mirror) || die "found no package source ending in /debian under /etc/apt"
    mkdir -p "$dir/state/lists/partial" "$dir/cache/archives/partial"
    : >"$dir/status"
    [ "$key" = - ] || options="[signed-by=$key] "
    printf 'deb %s%s %s main\n' "$options" "$uri" "$suite" >"$dir/sources.list"
    if [ ! -e "$dir/.updated" ]; then
        say "reading the package list of $suite (some 15 MB)"
        private_apt "$dir" update >"$dir/log" 2>&1 || return 1
        touch "$dir/.updated"
    fi
    for package in "$@"; do
        case $package in
        *\?) ! private_apt "$dir" download --print-uris "${package%\?}" >>"$dir/log" 2>&1 || wanted+=("${package%\?}") ;;
        *) wanted+=("$package") ;;
        esac
    done
    say "downloading ${wanted[*]} of $suite"
    (
        cd "$dir" || exit 1
        rm -f ./*.deb
        private_apt "$dir" download "${wanted[@]}" >>"$dir/log" 2>&1
    ) || return 1
    for deb in "$dir"/*.deb; do
        dpkg-deb -x "$deb" "$dir/root" || return 1
        say "unpacked $(basename "$deb")"
    done
    rm -f "$dir"/*.deb
}

# The lists are large; what is unpacked stays.
forget_lists() { rm -rf "$tools/apt-$1/state" "$tools/apt-$1/cache" "$tools/apt-$1/.updated"; }

# unpack_missing DIR PACKAGE...: downloads packages of this machine's own suite with whatever they depend on that is not
# installed, and unpacks them into DIR/root.
unpack_missing() {
    local dir=$1 deb get
    shift
    mkdir -p "$dir/debs/partial"
    get=(apt-get -q -y -o Debug::NoLocking=1 -o APT::Sandbox::User= -o Dir::Cache::archives="$dir/debs"
        install --reinstall --no-install-recommends --download-only "$@")
    say "downloading $* and what they need"
    "${get[@]}" >"$dir/log" 2>&1 || { apt-get -q update >>"$dir/log" 2>&1 && "${get[@]}" >>"$dir/log" 2>&1; } ||
        die "could not download $*; the log is $dir/log"
    rm -rf "$dir/root"
    for deb in "$dir"/debs/*.deb; do
        dpkg-deb -x "$deb" "$dir/root"
    done
    rm -rf "$dir/debs"
}

# wrap NAME PROGRAM ROOT [VARIABLE=VALUE...]: $bin/NAME starts PROGRAM with the libraries under ROOT. Some stand in folders of their own, which an
# installed program finds by its run path, and some packages still use /lib.
wrap() {
    local libs name=$1 program=$2 from=$3
    shift 3
    libs=$(find "$from" -name '*.so*' -printf '%h\n' | sort -u | tr '\n' ':')
    rm -f "${bin:?}/$name"
    {
        printf '#!/bin/sh\n'
        [ $# = 0 ] || printf 'export %q\n' "$@"
        printf 'LD_LIBRARY_PATH=%q${LD_LIBRARY_PATH:-} exec %q "$@"\n' "$libs" "$program"
    } >"$bin/$name"
    chmod +x "$bin/$name"
}
