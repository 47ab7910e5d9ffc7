#!/usr/bin/env bash
# Makes a real Keycloak available in .cache/tools/keycloak, prepared for a quick start, and prints that folder. The machine's
# own Maven (with the Java that it needs) brings the distribution, 177 MB, once for this user. Where there is no Maven, or it
# cannot reach it, this says so, prints nothing and succeeds: its test is then not run, and says that.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=${KEYCLOAK_VERSION:-26.7.3}
dir=$tools/keycloak

# Both may stand beside the PATH of the tests, which has only what a bare Debian has.
program() { command -v "$1" || { [ -x "/usr/bin/$1" ] && printf '/usr/bin/%s\n' "$1"; }; }

works() { [ "$(cat "$dir/.version" 2>/dev/null)" = "$version" ] && [ -x "$dir/bin/kc.sh" ] && [ -x "$(cat "$dir/.java")" ]; }

not_here() {
    rm -rf "$dir"
    say "NOT HERE: $*; its test is not run"
    exit 0
}

if ! works; then
    mvn=$(program mvn) && java=$(program java) || not_here "Keycloak comes by Maven, and this machine has no mvn and java"
    java=$(readlink -f "$java")
    home=${java%/bin/java}
    rm -rf "$dir" "$tools/keycloak-new"
    mkdir -p "$tools/keycloak-new"
    say "downloading Keycloak $version with Maven (177 MB, once)"
    # It leaves marks in the folder where it runs.
    (cd "$tools/keycloak-new" && JAVA_HOME=$home PATH=$PATH:/usr/bin "$mvn" -q -B \
        org.apache.maven.plugins:maven-dependency-plugin:3.8.1:unpack \
        -Dartifact="org.keycloak:keycloak-quarkus-dist:$version:zip" -DoutputDirectory="$tools/keycloak-new" \
        >"$tools/keycloak.log" 2>&1) || not_here "Maven does not bring Keycloak $version (the log is $tools/keycloak.log)"
    mv "$tools/keycloak-new/keycloak-$version" "$dir"
    rm -rf "$tools/keycloak-new"
    chmod +x "$dir"/bin/*.sh
    # Prepared once, so that a start takes seconds: in memory, alone, without what our tests do not look at.
    say "preparing Keycloak (half a minute, once)"
    JAVA_HOME=$home JAVA_OPTS_KC_HEAP='-Xms64m -Xmx512m' "$dir/bin/kc.sh" build --db=dev-mem --cache=local \
        --features-disabled=admin,account >"$tools/keycloak.log" 2>&1 ||
        not_here "Keycloak does not start (the log is $tools/keycloak.log)"
    printf '%s\n' "$java" >"$dir/.java"
    printf '%s\n' "$version" >"$dir/.version"
fi
say "keycloak $version"
printf '%s\n' "$dir"
