#!/bin/sh
# The whole flow on a CUDA device against the same flow on the CPU backend: states, losses, adapters, results; a kill
# and a resume; too little memory. The device is that of VL_TEST_DEVICE: cuda_on_cpu, where the processor runs the CUDA
# sources, if nothing is said; `cuda` on a machine with a GPU.
. "$(dirname "$0")/check.sh"

model=$source/data/demo/model
here=$(cd "$(dirname "$0")" && pwd)
cd "$work" || exit 1
head -16 "$source/data/demo/samples.jsonl" >samples.jsonl
cat >run.yaml <<YAML
model: $model
precision: exact
output: lens
data: {samples: samples.jsonl, images: $source/data/demo, heldout: 0.4}
cache: {dir: cache, dtype: float32, batch_tokens: 256, positions: {image: 4}}
lens: {init: zero, layers: 0-5}
# as many rows a step as the states are wide: of fewer, Muon's orthogonalised step has directions that are rounding only
fit: {tokens_per_step: 160, tile_tokens: 96, steps: 20, validation: 0.2, early_stop: false}
eval: {bootstrap: 20}
YAML
device=${VL_TEST_DEVICE:-cuda_on_cpu}
gpu="--set device=$device"

expect 0 "device +$device" "$vlens" doctor --device "$device"
expect 0 'device memory' "$vlens" cache run.yaml $gpu --set cache.dir=cache-gpu
expect 0 'rows' "$vlens" cache run.yaml --set device=cpu
for optimizer in muon adam; do
    expect 0 'lens: cpu' "$vlens" train run.yaml --set device=cpu --set output=cpu-$optimizer \
        --set fit.optimizer=$optimizer
    expect 0 'device memory: .* weights .*, states .*, adapters .*, tiles' \
        "$vlens" train run.yaml $gpu --set output=gpu-$optimizer --set fit.optimizer=$optimizer
    python3 "$here/compare_fits.py" cpu-$optimizer gpu-$optimizer || fail "$optimizer: the fits differ"
done
expect 0 'vlens-eval' "$vlens" eval run.yaml --set device=cpu --lens cpu-muon --json --out cpu.json
expect 0 'vlens-eval' "$vlens" eval run.yaml $gpu --lens cpu-muon --json --out gpu.json --set cache.dir=cache-gpu
python3 - cpu.json gpu.json <<'PY' || fail "the evaluations differ"
import json, sys
cpu, gpu = (json.load(open(path)) for path in sys.argv[1:])
worst = 0
for a, b in zip(cpu["classes"], gpu["classes"]):
    assert a["class"] == b["class"]
    for x, y in zip(a["states"], b["states"]):
        for kind in ("logit", "tuned"):
            if kind in x:
                worst = max(worst, abs(x[kind]["kl"] - y[kind]["kl"]) / (1 + abs(x[kind]["kl"])))
print(f"eval: KL differs by {worst:.1e}")
assert worst < 2e-5
PY
prompt="What color is the square? Answer with one word."
image=$source/data/demo/images/000.png
"$vlens" topk --model "$model" --lens cpu-muon --image "$image" --prompt "$prompt" >cpu.txt 2>"$work/stderr"
expect 0 'purple' "$vlens" topk --device "$device" --model "$model" --lens cpu-muon --image "$image" --prompt "$prompt"
# the first token of each state: the weights are bf16, and devices round differently on the way
awk '{print $1, $2}' cpu.txt >a.txt
awk '{print $1, $2}' "$work/stdout" >b.txt
cmp -s a.txt b.txt || fail "topk differs between the devices"

# killed at any time and resumed: the same bits
"$vlens" train run.yaml $gpu --quiet --set output=killed --set fit.checkpoint_every=2 >/dev/null 2>"$work/stderr" &
pid=$!
while kill -0 "$pid" 2>/dev/null && [ -z "$(ls killed/checkpoint*.safetensors 2>/dev/null)" ]; do
    sleep 0.05
done
kill -KILL "$pid" 2>/dev/null
if wait "$pid" 2>/dev/null; then
    echo "the run ended before it could be killed"
    [ "$device" != cuda_on_cpu ] || fail "device cuda_on_cpu is slow enough to be killed" # a GPU may be too fast
else
    expect 0 'going on at step' "$vlens" train run.yaml $gpu --set output=killed --set fit.checkpoint_every=2
fi
python3 "$here/compare_fits.py" --bits gpu-muon killed || fail "the lens differs after a kill and a resume"

# few layers at once where memory is short, with the same bits; too little for one is an error that says what to do. A
# GPU gives memory out in pieces of 2 MiB: this model has nothing that would be short there.
if [ "$device" = cuda_on_cpu ]; then
    expect 0 'adapters .* \([1-5] layers at once\)' "$vlens" train run.yaml $gpu --set output=short \
        --set device_memory=3584KiB
    python3 "$here/compare_fits.py" --bits gpu-muon short || fail "the lens depends on how many layers fit"
    expect 1 'device memory: .*fit.tile_tokens' "$vlens" train run.yaml $gpu --set output=none \
        --set device_memory=2MiB
fi

for what in gemm kl; do
    expect 0 'library' "$vlens" bench $what --device "$device" --size 64x256 --rows 8 --rounds 2
done

# processes of one machine take its devices in turn; one that is named is taken by all
if [ "$device" = cuda_on_cpu ]; then
    expect 0 'device +cuda_on_cpu:1: ' env VL_CUDA_ON_CPU_DEVICES=2 OMPI_COMM_WORLD_LOCAL_RANK=3 "$vlens" doctor --device cuda_on_cpu
    expect 0 'device +cuda_on_cpu: ' env VL_CUDA_ON_CPU_DEVICES=2 SLURM_LOCALID=2 "$vlens" doctor --device cuda_on_cpu
fi
expect 2 'not known' "$vlens" doctor --device cuda@x
expect 1 'device cuda:77: ' "$vlens" doctor --device cuda:77
expect 2 'not known' "$vlens" doctor --device cuda:x
finish
