#!/bin/sh
# `make dist`: the tarball holds what git knows, and builds by itself. Usage: dist.sh SOURCE
set -eu
source=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
tarball=$("$source/tools/dist.sh" "$work/dist" | tail -1)
tar xzf "$tarball"
cd vlens-*
cmake -S . -B build -G Ninja -DVLENS_TESTS=OFF -DVLENS_CUDA=OFF >cmake.log
cmake --build build >build.log 2>&1 || { tail -20 build.log; exit 1; }
build/bin/vlens --version | head -1
GOMP_SPINCOUNT=3000 build/bin/vlens cache configs/demo.yaml --dry-run --json --quiet | grep -q '"samples"'
echo "dist: builds by itself"
