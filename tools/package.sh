#!/bin/sh
# Debian packages of a build: package.sh BUILD_FOLDER OUTPUT_FOLDER. Prints their paths.
set -eu
build=$1
out=$(mkdir -p "$2" && cd "$2" && pwd)
cpack --config "$build/CPackConfig.cmake" -G DEB -B "$out" >"$out/cpack.log" 2>&1 || { cat "$out/cpack.log"; exit 1; }
rm -rf "$out/_CPack_Packages" "$out/cpack.log"
# CPack calls ldconfig in scripts of the package, where Debian's policy has a trigger.
for package in "$out"/*.deb; do
    rm -rf "$out/unpacked"
    dpkg-deb -R "$package" "$out/unpacked"
    [ -e "$out/unpacked/DEBIAN/postinst" ] || continue
    rm "$out/unpacked/DEBIAN/postinst" "$out/unpacked/DEBIAN/postrm"
    case "$package" in
    */vlens_*) echo "activate-noawait ldconfig" >"$out/unpacked/DEBIAN/triggers" ;; # plug-ins are opened by their path
    esac
    dpkg-deb --root-owner-group -b "$out/unpacked" "$package" >/dev/null
done
rm -rf "$out/unpacked"
ls "$out"/*.deb
