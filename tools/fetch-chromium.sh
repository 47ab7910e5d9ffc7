#!/usr/bin/env bash
# Makes a real Chromium available under .cache/tools/bin, for the walk through the pages, without installing it: taken
# from PATH if there is one that starts, else the distribution's own package and what it needs, unpacked. Prints that folder.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${1:-$root/.cache/tools}
bin=$tools/bin
dir=$tools/chromium

say() { printf 'fetch-chromium: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

works() { [ -x "$1" ] && "$1" --version >/dev/null 2>&1; }

fetch() {
    local deb libs
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        die "needs a chromium in PATH, or apt-get and dpkg-deb to fetch one"
    mkdir -p "$dir/debs/partial"
    # Only what this machine lacks is downloaded.
    local get=(apt-get -q -y -o Debug::NoLocking=1 -o APT::Sandbox::User= -o Dir::Cache::archives="$dir/debs"
        install --no-install-recommends --download-only chromium)
    "${get[@]}" >"$dir/log" 2>&1 || { apt-get -q update >>"$dir/log" 2>&1 && "${get[@]}" >>"$dir/log" 2>&1; } ||
        die "could not download chromium; the log is $dir/log"
    rm -rf "$dir/root"
    for deb in "$dir"/debs/*.deb; do
        dpkg-deb -x "$deb" "$dir/root"
        say "unpacked $(basename "$deb")"
    done
    [ -x "$dir/root/usr/lib/chromium/chromium" ] || die "the package chromium holds no /usr/lib/chromium/chromium"
    libs=$(find "$dir/root/usr/lib" -maxdepth 1 -type d -name '*-linux-gnu' | head -n 1)
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%q:${LD_LIBRARY_PATH:-} exec %q "$@"\n' \
        "${libs:-/usr/lib}" "$dir/root/usr/lib/chromium/chromium" >"$bin/chromium"
    chmod +x "$bin/chromium"
}

mkdir -p "$bin"
if ! works "$bin/chromium"; then
    rm -f "$bin/chromium"
    for name in chromium chromium-browser google-chrome; do
        found=$(command -v "$name" || true)
        if [ -n "$found" ] && works "$found"; then
            ln -s "$found" "$bin/chromium"
            break
        fi
    done
    [ -e "$bin/chromium" ] || fetch
    works "$bin/chromium" || die "$bin/chromium does not start"
fi
echo "$bin"
