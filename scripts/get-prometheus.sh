#!/bin/sh
# A real Prometheus and its promtool, for the tests of metrics, rules and dashboards: those of the
# machine, else Debian's or Ubuntu's packages unpacked into the folder named here, which needs no
# root. Without either the tests that need them are skipped, and say so.
set -eu
folder=${1:?usage: get-prometheus.sh FOLDER}

there() { command -v "$1" >/dev/null 2>&1 || [ -x "$folder/usr/bin/$1" ]; }

unpack() {
    apt-get download "$1" >/dev/null 2>&1 || return 1
    for package in "$1"_*.deb; do dpkg-deb --extract "$package" "$folder"; done
    rm -f "$1"_*.deb
}

if there prometheus && there promtool; then exit 0; fi
if command -v apt-get >/dev/null 2>&1; then
    mkdir -p "$folder"
    cd "$folder"
    folder=$PWD
    unpack prometheus || { apt-get update >/dev/null 2>&1 && unpack prometheus; } || true
    there promtool || unpack promtool || true  # Ubuntu has it apart
fi
if ! there prometheus || ! there promtool; then
    echo "Without prometheus and promtool the tests of metrics, rules and dashboards against them are" \
        "skipped: on Debian and Ubuntu, apt-get install prometheus" >&2
fi
