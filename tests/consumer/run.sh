#!/bin/sh
# libvlens as others use it: installed under a prefix, found by pkg-config and by CMake, every public header alone in C
# and in C++, nothing exported that is not public. Usage: run.sh SOURCE BUILD
set -eu
source=$1
build=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix
die() { echo "FAILED: $*"; exit 1; }

cmake --install "$build" --prefix "$prefix" >"$work/install.log"
library=$(find "$prefix" -name 'libvlens.so.*.*.*')
[ -f "$library" ] || die "no versioned library was installed"
libdir=$(dirname "$library")

echo "== headers"
for header in "$prefix"/include/vlens/*.h; do
    name=vlens/$(basename "$header")
    printf '#include <%s>\n#include <%s>\n' "$name" "$name" >"$work/alone.c"
    cp "$work/alone.c" "$work/alone.cpp"
    cc -std=c11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I"$prefix/include" "$work/alone.c" || die "$name in C"
    c++ -std=c++11 -Wall -Wextra -Werror -fsyntax-only -I"$prefix/include" "$work/alone.cpp" || die "$name in C++"
    grep -q "include <$name>" "$prefix/include/vlens/vlens.h" || [ "$name" = vlens/vlens.h ] || die "vlens.h lacks $name"
done

echo "== symbols"
readelf -d "$library" | grep -q 'SONAME.*\[libvlens\.so\.0\]' || die "SONAME is not libvlens.so.0"
nm -D --defined-only "$library" | awk '{print $3}' | sort >"$work/exported"
grep -ohE '\bvl_[a-z0-9_]+\(' "$prefix"/include/vlens/*.h | tr -d '(' | sort -u >"$work/declared"
[ -s "$work/exported" ] || die "nothing is exported"
# benchmarks are the program's own: exported for it, in no public header
grep -ohE '\bvl_bench_[a-z0-9_]+\(' "$source/trainer/bench/bench.h" | tr -d '(' | sort -u >"$work/own"
extra=$(comm -23 "$work/exported" "$work/declared" | comm -23 - "$work/own")
[ -z "$extra" ] || die "exported, but in no public header:" $extra
# every declaration marked VL_API can be linked
grep -hE '^VL_API' "$prefix"/include/vlens/*.h | grep -oE 'vl_[a-z0-9_]+\(' | tr -d '(' | sort -u >"$work/promised"
lacking=$(comm -13 "$work/exported" "$work/promised")
[ -z "$lacking" ] || die "declared, but not exported:" $lacking
echo "$(wc -l <"$work/exported") symbols, all public"

echo "== pkg-config"
export PKG_CONFIG_PATH="$libdir/pkgconfig"
pkg-config --exists vlens || die "pkg-config does not find vlens"
for name in lens_on_prompt fit_lens; do
    # shellcheck disable=SC2046 # flags are words
    cc -std=c11 -Wall -Wextra -Werror "$source/examples/$name.c" $(pkg-config --cflags --libs vlens) -o "$work/$name"
done

echo "== CMake"
cmake -S "$source/tests/consumer/project" -B "$work/build" -DCMAKE_PREFIX_PATH="$prefix" \
    -DEXAMPLES="$source/examples" >"$work/cmake.log" || { cat "$work/cmake.log"; die "find_package"; }
cmake --build "$work/build" >"$work/cmake.log" || { cat "$work/cmake.log"; die "build with CMake"; }

echo "== run"
export GOMP_SPINCOUNT=3000
head -40 "$source/data/demo/samples.jsonl" >"$work/samples.jsonl"
LD_LIBRARY_PATH="$libdir" "$work/fit_lens" "$source/data/demo/model" "$work/samples.jsonl" "$work/lens" \
    "data.images=$source/data/demo" data.heldout=0.4 fit.tokens_per_step=128 cache.positions.image=4 eval.bootstrap=0 \
    >"$work/fit.txt" || die "fit_lens"
[ "$(grep -cE '^ +[0-9]+ +[0-9.]+ +[0-9.]+$' "$work/fit.txt")" -eq 12 ] || { cat "$work/fit.txt"; die "fit_lens: no table"; }
"$work/build/lens_on_prompt" "$source/data/demo/model" "$work/lens" "What color is the square? Answer with one word." \
    "$source/data/demo/images/000.png" >"$work/prompt.txt" || die "lens_on_prompt"
# at the last state both lenses are the model itself
tail -1 "$work/prompt.txt" | grep -qE '^state 12  logit "( ?[a-z]+)"  tuned "\1"$' || { cat "$work/prompt.txt"; die "last state"; }
"$prefix/bin/vlens" verify "$work/lens" --against "$work/lens/cache" >/dev/null || die "the installed program"

echo "== manual page and completion"
[ -f "$prefix/share/man/man1/vlens.1.gz" ] || die "no manual page"
[ -f "$prefix/share/bash-completion/completions/vlens" ] || die "no completion for bash"
[ -f "$prefix/share/zsh/site-functions/_vlens" ] || die "no completion for zsh"
echo "consumer: all well"
