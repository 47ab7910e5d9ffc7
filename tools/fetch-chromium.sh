#!/usr/bin/env bash
# Makes a real Chromium available under .cache/tools/bin, for the walk through the pages, without installing it: taken
# from PATH if there is one that starts, else the distribution's own package and what it needs, unpacked. Prints that folder.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

dir=$tools/chromium

fetch() {
    local deb libs get
    needs_apt chromium
    mkdir -p "$dir/debs/partial"
    # Only what this machine lacks is downloaded.
    get=(apt-get -q -y -o Debug::NoLocking=1 -o APT::Sandbox::User= -o Dir::Cache::archives="$dir/debs"
        install --no-install-recommends --download-only chromium)
    say "downloading chromium and what it needs (some 100 MB)"
    "${get[@]}" >"$dir/log" 2>&1 || { apt-get -q update >>"$dir/log" 2>&1 && "${get[@]}" >>"$dir/log" 2>&1; } ||
        die "could not download chromium; the log is $dir/log"
    rm -rf "$dir/root"
    for deb in "$dir"/debs/*.deb; do
        dpkg-deb -x "$deb" "$dir/root"
    done
    [ -x "$dir/root/usr/lib/chromium/chromium" ] || die "the package chromium holds no /usr/lib/chromium/chromium"
    # Some libraries stand in folders of their own, which an installed program finds by its run path (libpulse's, say), and
    # some packages still use /lib.
    libs=$(find "$dir/root" -name "*.so*" -printf "%h\n" | sort -u | tr '\n' ':')
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%q${LD_LIBRARY_PATH:-} XDG_DATA_DIRS=%q:${XDG_DATA_DIRS:-/usr/share} exec %q "$@"\n' \
        "$libs" "$dir/root/usr/share" "$dir/root/usr/lib/chromium/chromium" >"$bin/chromium"
    chmod +x "$bin/chromium"
    rm -rf "$dir/debs"
}

if ! starts "$bin/chromium"; then
    rm -f "$bin/chromium"
    for name in chromium chromium-browser google-chrome; do
        found=$(command -v "$name" || true)
        if [ -n "$found" ] && starts "$found"; then
            ln -s "$found" "$bin/chromium"
            break
        fi
    done
    [ -e "$bin/chromium" ] || fetch
    starts "$bin/chromium" || die "$bin/chromium does not start: $("$bin/chromium" --version 2>&1 | head -n 1)"
fi
say "$("$bin/chromium" --version)"
printf '%s\n' "$bin"
