#!/usr/bin/env bash
# Prints a PATH with what a bare Debian has and nothing else: the packages that every Debian has, those that README asks for
# (git, make, a C compiler), and the Rust toolchain. `PATH=$(tools/bare-path.sh) make test` fails where a target uses a
# program that the set-up did not bring, although this machine may have it.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

dir=$root/.cache/bare-path
# What README asks for, with what their packages need themselves.
asked=(git make gcc g++ cpp binutils pkg-config pkgconf pkgconf-bin ca-certificates)
rust=(cargo rustc rustup rustfmt cargo-fmt cargo-clippy clippy-driver)

command -v dpkg-query >/dev/null || die "needs dpkg, to tell which programs a bare Debian has"

# Packages of every Debian (apt with gpgv, by which it verifies a list), and those of `asked` under the names that carry a version (gcc-12, binutils-x86-64-linux-gnu).
packages() {
    dpkg-query -W -f '${db:Status-Abbrev}${Essential} ${Priority} ${Package}\n' |
        sed -n 's/^ii *yes [a-z]* \(.*\)$/\1/p; s/^ii *no required \(.*\)$/\1/p; s/^ii *no [a-z]* \(apt\|gpgv\)$/\1/p'
    dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' | sed -n 's/^ii *//p' |
        grep -E "^($(IFS='|'; echo "${asked[*]//+/\\+}"))(-[0-9a-z-]+)?$" || true
}

rm -rf "$dir"
mkdir -p "$dir"
while read -r program; do
    [ -x "$program" ] && [ ! -d "$program" ] && ln -sf "$program" "$dir/"
done < <(packages | xargs dpkg-query -L 2>/dev/null | grep -E '^(/usr)?/s?bin/' | sort -u)
# Alternatives are links that no package owns.
for name in awk which c++ cc pager; do
    found=$(readlink -e "/usr/bin/$name" || true)
    [ -z "$found" ] || ln -sf "/usr/bin/$name" "$dir/$name"
done
for name in "${rust[@]}"; do
    found=$(command -v "$name" || true)
    [ -z "$found" ] || ln -sf "$found" "$dir/$name"
done
printf '%s\n' "$dir"
