#!/bin/sh
# Installs the Debian packages that vlens builds with. Idempotent: with nothing missing it prints one line and ends.
# `install-deps.sh --check` only says what is missing (exit 1), and changes nothing.
# `install-deps.sh PACKAGE...` installs those in their place: what only some tests need.
set -eu

packages="python3 build-essential cmake ninja-build pkg-config
libhdf5-dev libdnnl-dev libopenblas0-openmp libopenblas-openmp-dev libjansson-dev libyaml-dev libpcre2-dev
libutf8proc-dev libstb-dev libjpeg-dev zlib1g-dev libjs-chart.js libcmocka-dev
libopenmpi-dev openmpi-bin debootstrap"

check=false
if [ "${1:-}" = --check ]; then
    check=true
    shift
fi
[ $# -eq 0 ] || packages=$*

missing=""
for package in $packages; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    if [ "$status" != installed ]; then
        missing="$missing $package"
    fi
done
if [ -z "$missing" ]; then
    echo "install-deps: everything is there"
    exit 0
fi
if $check; then
    echo "install-deps: missing:$missing"
    exit 1
fi

sudo=""
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "install-deps: missing:$missing" >&2
        echo "install-deps: needs root or sudo to install them" >&2
        exit 1
    fi
    sudo="sudo"
fi
echo "install-deps: installing$missing"
$sudo apt-get update -qq
# shellcheck disable=SC2086 # one word per package
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
echo "install-deps: done"
