#!/bin/sh
# The Debian packages that vlens needs. Idempotent: with nothing missing it prints one line and ends.
#   install-deps.sh            installs what the build needs
#   install-deps.sh --check    only says what is missing and how to install it (exit 1); changes nothing
#   install-deps.sh --group G  installs what the tests need beyond that: G is test or long
#   install-deps.sh PACKAGE... installs these
set -eu

build="python3 build-essential cmake ninja-build pkg-config
libhdf5-dev libdnnl-dev libopenblas0-openmp libopenblas-openmp-dev libjansson-dev libyaml-dev libpcre2-dev
libutf8proc-dev libstb-dev libjpeg-dev libwebp-dev libxxhash-dev zlib1g-dev libjs-chart.js libcmocka-dev
libcairo2-dev libmicrohttpd-dev fonts-dejavu-core"
test="libopenmpi-dev openmpi-bin clang-format clang-tidy"
long="debootstrap valgrind lintian"

check=false
packages=$build
case "${1:-}" in
--check) check=true ;;
--group)
    case "${2:-}" in
    test) packages=$test ;;
    long) packages="$test $long" ;;
    *) echo "install-deps: expected --group test or --group long" >&2; exit 2 ;;
    esac ;;
"") ;;
*) packages=$* ;;
esac

if ! command -v dpkg-query >/dev/null; then
    echo "install-deps: no Debian here; CMake will say which library it misses. The packages, by Debian's names:" \
        $packages >&2
    exit 0
fi
missing=""
for package in $packages; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    if [ "$status" != installed ]; then
        missing="$missing $package"
    fi
done
[ -n "$missing" ] || exit 0
if $check; then
    echo "These Debian packages are missing:$missing" >&2
    echo "\`make deps\` installs them, or: sudo apt-get install$missing" >&2
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
