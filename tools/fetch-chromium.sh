#!/usr/bin/env bash
# Makes a real Chromium available under .cache/tools/bin, for the walk through the pages, without installing it: taken
# from PATH if there is one that starts, else the distribution's own package and what it needs, unpacked. Prints that folder.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

dir=$tools/chromium

fetch() {
    needs_apt chromium
    unpack_missing "$dir" chromium
    [ -x "$dir/root/usr/lib/chromium/chromium" ] || die "the package chromium holds no /usr/lib/chromium/chromium"
    # Without a font its pages crash; a machine without a desktop has neither fonts nor their configuration.
    wrap chromium "$dir/root/usr/lib/chromium/chromium" "$dir/root" \
        "FONTCONFIG_PATH=$dir/root/etc/fonts" "XDG_DATA_HOME=$dir/root/usr/share"
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
