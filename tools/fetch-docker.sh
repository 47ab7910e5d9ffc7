#!/usr/bin/env bash
# Makes a real Docker engine (dockerd, containerd, runc) and its command line available under .cache/tools/bin, without
# installing a daemon: the distribution's own packages and what they need, unpacked. Prints that folder.
#
# Docker Engine 20.10 (Debian 12) or newer.
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
    local program found packages=(docker.io containerd runc)
    needs_apt "docker, containerd and runc"
    # Newer suites have the command line in a package of its own.
    ! apt-cache show docker-cli >/dev/null 2>&1 || packages+=(docker-cli)
    unpack_missing "$dir" "${packages[@]}"
    for program in "${programs[@]}"; do
        found=$(find "$dir/root/usr/bin" "$dir/root/usr/sbin" -name "$program" | head -n 1)
        [ -n "$found" ] || die "$program is in none of ${packages[*]}"
        wrap "$program" "$found" "$dir/root"
    done
}

main() {
    all_work || fetch
    all_work || die "the programs do not start on this machine: try $bin/dockerd --version"
    say "$("$bin/dockerd" --version)"
    awk '$5 == "/" { found = 1 } END { exit !found }' /proc/self/mountinfo ||
        say "NOT TESTED here: this is a chroot, where no container can be started; the four tests of Docker are left out"
    printf '%s\n' "$bin"
}

main
