#!/bin/sh
# Says what is missing before anything fails halfway: Python 3.11+, a C compiler, cargo.
set -u
python=${1:-python3}
missing=""

if ! command -v "$python" >/dev/null 2>&1; then
    missing="$missing
  - Python 3.11 or newer ('$python' is not there): your system's package, or make PYTHON=/path/to/python3.12"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    missing="$missing
  - Python 3.11 or newer ('$python' is $("$python" -V 2>&1)): make PYTHON=/path/to/python3.12"
elif ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    missing="$missing
  - Python's venv module: on Debian and Ubuntu, apt-get install python3-venv"
fi
if ! command -v cc >/dev/null 2>&1; then
    missing="$missing
  - a C compiler ('cc' is not there): on Debian and Ubuntu, apt-get install build-essential"
fi
if ! command -v cargo >/dev/null 2>&1; then
    missing="$missing
  - Rust 1.85 or newer with cargo: https://rustup.rs"
fi

if ! command -v systemd-analyze >/dev/null 2>&1; then
    echo "Without systemd-analyze the tests of the systemd units are skipped: on Debian and Ubuntu, apt-get install systemd" >&2
fi

if [ -n "$missing" ]; then
    printf 'cascaded cannot be built here yet. Please install:%s\n' "$missing" >&2
    exit 1
fi
