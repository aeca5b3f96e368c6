#!/bin/sh
# A tarball of the sources that git knows, with one folder in it: dist.sh OUTPUT_FOLDER
set -eu
out=$1
cd "$(dirname "$0")/.."
version=$(sed -n 's/^project(vlens VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
mkdir -p "$out"
git archive --format=tar.gz --prefix="vlens-$version/" -o "$out/vlens-$version.tar.gz" HEAD
echo "$out/vlens-$version.tar.gz"
