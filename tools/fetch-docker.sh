#!/usr/bin/env bash
# Makes a real Docker engine (dockerd, containerd, runc) and its command line available under .cache/tools/bin, without
# installing a daemon: the distribution's own packages, unpacked. Prints that folder.
#
# Docker Engine 20.10 (Debian 12) or newer. What it needs besides (libdevmapper) comes along.
set -euo pipefail

# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

dir=$tools/docker
programs=(dockerd docker containerd containerd-shim-runc-v2 runc)

# containerd-shim has no --version, only -v.
works() {
    [ -x "$1" ] || return 1
    case $1 in
    *shim*) "$1" -v >/dev/null 2>&1 ;;
    *) "$1" --version >/dev/null 2>&1 ;;
    esac
}

all_work() {
    local program
    for program in "${programs[@]}"; do works "$bin/$program" || return 1; done
}

fetch() {
    local deb program found packages=(docker.io containerd runc)
    needs_apt "docker, containerd and runc"
    # Newer suites have the command line in a package of its own.
    ! apt-cache show docker-cli >/dev/null 2>&1 || packages+=(docker-cli)
    ldconfig -p | grep -q libdevmapper.so || packages+=(libdevmapper1.02.1)
    mkdir -p "$dir/debs" "$bin"
    (cd "$dir/debs" && rm -f ./*.deb && apt-get -q -o APT::Sandbox::User= download "${packages[@]}" >"$dir/log" 2>&1) ||
        (apt-get -q update >>"$dir/log" 2>&1 && cd "$dir/debs" && apt-get -q -o APT::Sandbox::User= download "${packages[@]}" >>"$dir/log" 2>&1) ||
        die "could not download ${packages[*]}; the log is $dir/log"
    rm -rf "$dir/root"
    for deb in "$dir"/debs/*.deb; do
        dpkg-deb -x "$deb" "$dir/root"
        say "unpacked $(basename "$deb")"
    done
    for program in "${programs[@]}"; do
        found=$(find "$dir/root/usr/bin" "$dir/root/usr/sbin" -name "$program" | head -n 1)
        [ -n "$found" ] || die "$program is in none of ${packages[*]}"
        rm -f "$bin/$program"
        if [ -d "$dir/root/usr/lib/x86_64-linux-gnu" ]; then
            printf '#!/bin/sh\nLD_LIBRARY_PATH=%q:${LD_LIBRARY_PATH:-} exec %q "$@"\n' \
                "$dir/root/usr/lib/x86_64-linux-gnu" "$found" >"$bin/$program"
            chmod +x "$bin/$program"
        else
            ln -s "$found" "$bin/$program"
        fi
    done
    rm -rf "$dir/debs"
}

main() {
    all_work || fetch
    all_work || die "the programs do not start on this machine: try $bin/dockerd --version"
    say "$("$bin/dockerd" --version)"
    printf '%s\n' "$bin"
}

main
