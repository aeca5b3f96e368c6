#!/bin/sh
# What travels to a machine with a GPU and little else: program, library, plug-in, tests, and the libraries they are linked
# with that a bare system lacks. cuBLASLt and the CUDA runtime are taken from the PyTorch that is there (run.sh --pack).
#
# usage: tests/gpu/pack.sh BUILD OUT.tar.xz
#   BUILD: a release build with the plug-in (-DVLENS_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=90-real for an H100 or H200).
#   VLENS_PACK_DEVICE=cuda_on_cpu packs the simulated device in its place, to try the pack where there is no GPU.
# There: tar xf OUT.tar.xz && vlens-pack/source/tests/gpu/run.sh --pack vlens-pack RESULTS
set -eu
[ $# -eq 2 ] || { sed -n '5,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
source=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
out=$2
device=${VLENS_PACK_DEVICE:-cuda}
plugin=$build/libvlens_$device.so
[ -e "$plugin" ] || { echo "pack.sh: $plugin is not built" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pack=$work/vlens-pack
mkdir -p "$pack/bin" "$pack/lib" "$pack/tests" "$pack/source/data"

cp "$build/bin/vlens" "$pack/bin/"
cp -L "$build/libvlens.so.0" "$plugin" "$pack/lib/"
for test in "$build"/tests/kernels/ops/test_ops_* "$build/tests/model/test_golden"; do
    case $test in *_cpu | *_avx2 | *_x86_64) continue ;; esac
    [ -x "$test" ] && cp "$test" "$pack/tests/"
done
strip -g "$pack"/bin/* "$pack"/lib/*.so* "$pack"/tests/*

# Every library but the C library's own and NVIDIA's.
for file in "$pack"/bin/* "$pack"/tests/* "$plugin"; do ldd "$file"; done | awk '$2 == "=>" && $3 ~ "^/" {print $3}' | sort -u |
    while read -r library; do
        case $(basename "$library") in
        libc.so* | libm.so* | libresolv.so* | libdl.so* | librt.so* | libpthread.so* | ld-linux* | libvlens* | libcuda* | libcublas*) ;;
        *) cp -Ln "$library" "$pack/lib/" ;;
        esac
    done

# Tests look for their fixtures where they were compiled: run.sh makes that path lead here.
echo "$source" >"$pack/source-path"
git -C "$source" rev-parse --short HEAD >"$pack/commit" 2>/dev/null || echo unknown >"$pack/commit"
(cd "$source" && tar cf - tests/gpu tests/golden/fixtures tests/cli/check.sh tests/cli/compare_fits.py tests/cli/device.sh \
    tests/bench data/demo tools/timeline) | tar xf - -C "$pack/source"

tar cf - -C "$work" vlens-pack | xz -1 -T0 >"$out"
size=$(($(wc -c <"$out") / 1048576 + 1))
echo "$out: $size MiB"
[ "$size" -le 60 ] || { echo "pack.sh: more than the 60 MiB that may travel" >&2; exit 1; }
