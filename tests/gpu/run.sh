#!/bin/sh
# Everything that needs a GPU, in one command, with one report: the CUDA backend's tests on the device that is there, and its
# speed beside cuBLAS's peak and beside PyTorch. The most valuable steps come first, and none may hold up those that follow.
#
# usage: tests/gpu/run.sh [RESULTS]               builds here for the device that is there (default build/gpu-report)
#        tests/gpu/run.sh --pack DIR [RESULTS]    runs what pack.sh packed, on a machine without any -dev package
#
# PYTHON names an interpreter with torch (default python3): its libraries serve a pack, and its speed is compared; without
# torch that comparison is left out, and the report says so. All logs go to RESULTS, with report.md and results.tar beside
# them. Exit: 0 all passed, 1 something failed, 77 no CUDA device.
set -u
source=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
device=${VLENS_PACK_DEVICE:-cuda}
pack=
if [ "${1:-}" = --pack ]; then
    [ -n "${2:-}" ] || { echo "run.sh: --pack needs the folder of a pack" >&2; exit 2; }
    pack=$(cd "$2" && pwd) || exit 2
    shift 2
fi
out=${1:-$source/build/gpu-report}
failures=0

card="the simulated device"
if [ "$device" = cuda ]; then
    if ! command -v nvidia-smi >/dev/null 2>&1; then
        echo "no CUDA device: nvidia-smi is not installed, so there is no NVIDIA driver"
        exit 77
    fi
    if ! card=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>&1); then
        echo "no CUDA device: $card"
        exit 77
    fi
fi
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
report=$out/report.md

say() {
    printf '%s\n' "$*" | tee -a "$report"
}

# step NAME SECONDS COMMAND...: runs it, its output to NAME.log, one line in the report
step() {
    name=$1 limit=$2
    shift 2
    began=$(date +%s)
    timeout "$limit" "$@" >"$out/$name.log" 2>&1
    code=$?
    took=$(($(date +%s) - began))
    if [ "$code" -eq 0 ]; then
        say "| $name | passed | $took s |"
    else
        [ "$code" -ne 124 ] || echo "stopped after $limit s" >>"$out/$name.log"
        say "| $name | **failed**, exit $code: $name.log | $took s |"
        failures=$((failures + 1))
    fi
}

# steps SECONDS ARGS -- PROGRAM...: each with ARGS, side by side; then their lines
steps() {
    limit=$1 args=
    shift
    while [ "$1" != -- ]; do args="$args $1" && shift; done
    shift
    for program in "$@"; do
        # shellcheck disable=SC2086
        (timeout "$limit" "$program" $args >"$out/$(basename "$program").log" 2>&1; echo $? >"$out/$(basename "$program").exit") &
    done
    wait
    for program in "$@"; do
        name=$(basename "$program")
        code=$(cat "$out/$name.exit")
        rm -f "$out/$name.exit"
        [ "$code" -eq 0 ] && say "| $name | passed | |" && continue
        say "| $name | **failed**, exit $code: $name.log | |"
        failures=$((failures + 1))
    done
}

: >"$report"
say "# vlens on a GPU, $(date -u '+%Y-%m-%d %H:%M') UTC"
say
if [ -n "$pack" ]; then
    commit=$(cat "$pack/commit")
    vlens=$pack/bin/vlens tests=$pack/tests golden=$pack/tests/test_golden
    nvidia=$("$python" -c 'import nvidia, os
print(":".join(r for b in nvidia.__path__ for r, _, f in os.walk(b) if any(".so" in x for x in f)))' 2>/dev/null)
    LD_LIBRARY_PATH=$pack/lib${nvidia:+:$nvidia}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
    compiled=$(cat "$pack/source-path")
    [ -e "$compiled" ] || { mkdir -p "$(dirname "$compiled")" && ln -s "$pack/source" "$compiled"; }
else
    commit=$(git -C "$source" rev-parse --short HEAD 2>/dev/null || echo unknown)
    build=$source/build/gpu
    vlens=$build/bin/vlens tests=$build/tests/kernels/ops golden=$build/tests/model/test_golden
fi
say "$card, commit $commit"
say
say "| step | outcome | time |"
say "|---|---|---|"
if [ -z "$pack" ]; then
    step configure 600 cmake -S "$source" -B "$build" -G Ninja -DVLENS_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=native
    step build 3600 ninja -C "$build"
    [ "$failures" -eq 0 ] || exit 1
fi
step doctor 60 "$vlens" doctor --device "$device"

# Numbers first: without them no time means anything.
set --
for test in "$tests"/test_ops_*; do
    case $test in *_cpu | *_avx2 | *_x86_64 | *.log) continue ;; esac # of the processor
    set -- "$@" "$test"
done
small=
[ "$device" = cuda ] || small=small
# shellcheck disable=SC2086
steps 600 "$device" $small -- "$@"
step test_ops_linear_streamed 300 "$tests/test_ops_linear" "$device" streamed $small
step parity 300 "$golden" "$device"
step parity_streamed 300 "$golden" "$device" streamed
sizes="--size 4096x32064 --size 4096x128256"
[ "$device" = cuda ] || sizes="--size 64x256 --rows 8 --rounds 2"
# shellcheck disable=SC2086
step bench_gemm 300 "$vlens" bench gemm --device "$device" $sizes
# shellcheck disable=SC2086
step bench_kl 300 "$vlens" bench kl --device "$device" $sizes
# shellcheck disable=SC2086
step bench_kl_json 300 "$vlens" bench kl --device "$device" $sizes --json --quiet
if [ "$device" = cuda ] && "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    step bench_torch 300 "$python" "$source/tests/gpu/torch_step.py" --size 4096x32064 --size 4096x128256
else
    say "| bench_torch | left out: $python has no torch that sees the device | |"
fi
step training_against_cpu 900 env VL_TEST_DEVICE="$device" "$source/tests/cli/device.sh" "$vlens" "$source"
if [ "$device" = cuda ] && command -v compute-sanitizer >/dev/null 2>&1; then
    for tool in memcheck racecheck; do
        for family in attention distribution unembed_loss norm elementwise step cast; do
            step "${tool}_$family" 600 compute-sanitizer --tool $tool --error-exitcode 1 "$tests/test_ops_$family" cuda small
        done
    done
else
    say "| compute-sanitizer | left out: it is not installed | |"
fi
for log in doctor bench_gemm bench_kl bench_torch; do
    [ -e "$out/$log.log" ] || continue
    say
    say "## $log"
    say
    sed 's/^/    /' "$out/$log.log" | tee -a "$report"
done
say
say "$failures failed"
(cd "$out" && tar cf results.tar report.md ./*.log)
[ "$failures" -eq 0 ]
