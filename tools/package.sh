#!/bin/sh
# Debian packages of a build: package.sh BUILD_FOLDER OUTPUT_FOLDER. Prints their paths.
set -eu
build=$1
out=$(mkdir -p "$2" && cd "$2" && pwd)
cpack --config "$build/CPackConfig.cmake" -G DEB -B "$out" >"$out/cpack.log" 2>&1 || { cat "$out/cpack.log"; exit 1; }
rm -rf "$out/_CPack_Packages" "$out/cpack.log"
ls "$out"/*.deb
