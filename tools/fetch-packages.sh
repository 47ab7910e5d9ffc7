#!/usr/bin/env bash
# Makes sure that the machine has the small programs that the tests use, and links each into .cache/tools/bin: installs the
# distribution's packages as root, and otherwise prints the one command that does. Quiet where all are there.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# program:package
needed=(python3:python3 openssl:openssl ps:procps pkill:procps ip:iproute2)
# library:package. Docker's daemon starts itself again without the environment in which it was started, so this one must be
# where the system looks for it.
libraries=(libdevmapper.so.1.02.1:libdevmapper1.02.1)

# The distribution's own first: what another installer has put before it may lack parts.
where() {
    local folder
    for folder in /usr/bin /usr/sbin /bin /sbin; do
        [ ! -x "$folder/$1" ] || { printf '%s/%s\n' "$folder" "$1" && return; }
    done
    command -v "$1"
}

lacking() {
    local pair
    for pair in "${needed[@]}"; do
        where "${pair%%:*}" >/dev/null || printf '%s\n' "${pair##*:}"
    done
    for pair in "${libraries[@]}"; do
        "$(where ldconfig)" -p | grep -qF "${pair%%:*}" || printf '%s\n' "${pair##*:}"
    done
    # Debian's python3 comes without what a virtual environment needs.
    "$(where python3 || echo false)" -c 'import venv, ensurepip' >/dev/null 2>&1 || printf 'python3-venv\n'
}

mapfile -t missing < <(lacking | sort -u)
if [ "${#missing[@]}" -gt 0 ]; then
    command -v apt-get >/dev/null ||
        die "needs the programs of these Debian packages: ${missing[*]}; install them with this system's package manager"
    [ "$(id -u)" = 0 ] ||
        die "needs packages that only root can install: sudo apt-get install --no-install-recommends ${missing[*]}"
    say "installing ${missing[*]}"
    log=$tools/packages.log
    install=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${missing[@]}")
    "${install[@]}" >"$log" 2>&1 || { apt-get -q update >>"$log" 2>&1 && "${install[@]}" >>"$log" 2>&1; } ||
        die "apt-get could not install ${missing[*]}; its log is $log"
fi
for pair in "${needed[@]}"; do
    found=$(where "${pair%%:*}") || die "${pair%%:*} is still missing after installing ${pair##*:}"
    ln -sf "$found" "$bin/${pair%%:*}"
done
