#!/bin/sh
# Everything that needs a GPU, in one command, with one report: the CUDA backend built for the device that is there, every
# CUDA test on it, and its speed beside cuBLAS's peak and beside PyTorch.
#
# usage: tests/gpu/run.sh [FOLDER]     the report and all logs go to FOLDER (default build/gpu-report)
#
# PYTHON names an interpreter with torch (default python3; without torch that comparison is left out, and the report
# says so). Exit: 0 all passed, 1 something failed, 77 no CUDA device.
set -u
source=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-$source/build/gpu-report}
build=$source/build/gpu
python=${PYTHON:-python3}
failures=0

if ! command -v nvidia-smi >/dev/null 2>&1; then
    echo "no CUDA device: nvidia-smi is not installed, so there is no NVIDIA driver"
    exit 77
fi
if ! card=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>&1); then
    echo "no CUDA device: $card"
    exit 77
fi
mkdir -p "$out" || exit 1
report=$out/report.md

say() {
    printf '%s\n' "$*" | tee -a "$report"
}

# step NAME COMMAND...: runs it, its output to NAME.log, one line in the report
step() {
    name=$1
    shift
    if "$@" >"$out/$name.log" 2>&1; then
        say "| $name | passed |"
    else
        say "| $name | **failed**, exit $?: $name.log |"
        failures=$((failures + 1))
    fi
}

: >"$report"
say "# vlens on a GPU, $(date -u '+%Y-%m-%d %H:%M') UTC"
say
say "$card, commit $(git -C "$source" rev-parse --short HEAD 2>/dev/null || echo unknown)"
say
say "| step | outcome |"
say "|---|---|"
step configure cmake -S "$source" -B "$build" -G Ninja -DVLENS_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=native
step build ninja -C "$build"
[ "$failures" -eq 0 ] || exit 1
step doctor "$build/bin/vlens" doctor --device cuda
for test in "$build"/tests/ops/test_ops_*; do
    case $test in *_cpu | *_avx2 | *_x86_64) continue ;; esac # of the processor
    step "$(basename "$test")" "$test" cuda
done
step test_ops_linear_streamed "$build/tests/ops/test_ops_linear" cuda streamed
step parity "$build/tests/model/test_golden" cuda
step parity_streamed "$build/tests/model/test_golden" cuda streamed
step training_against_cpu env VL_TEST_DEVICE=cuda "$source/tests/cli/device.sh" "$build/bin/vlens" "$source"
if command -v compute-sanitizer >/dev/null 2>&1; then
    for tool in memcheck racecheck; do
        for family in attention distribution unembed_loss norm elementwise; do
            step "${tool}_$family" compute-sanitizer --tool $tool --error-exitcode 1 \
                "$build/tests/ops/test_ops_$family" cuda small
        done
    done
else
    say "| compute-sanitizer | left out: it is not installed |"
fi

sizes="--size 4096x32000 --size 4096x128256"
step bench_gemm "$build/bin/vlens" bench gemm --device cuda $sizes
step bench_kl "$build/bin/vlens" bench kl --device cuda $sizes
step bench_kl_json "$build/bin/vlens" bench kl --device cuda $sizes --json --quiet
if "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    step bench_torch "$python" "$source/tests/gpu/torch_step.py" --size 4096x32000 --size 4096x128256
else
    say "| bench_torch | left out: $python has no torch that sees the device |"
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
[ "$failures" -eq 0 ]
