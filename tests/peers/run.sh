#!/bin/sh
# Lenses go to other programs and come back: tuned-lens, NumPy, safetensors, against vlens. Usage: run.sh path/to/vlens
# VLENS_PEERS_PYTHON names a Python that has everything already; otherwise build/peers is made with pip.
set -eu

vlens=$(realpath "$1")
source=$(cd "$(dirname "$0")/../.." && pwd)
python=${VLENS_PEERS_PYTHON:-$source/build/peers/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

if [ -z "${VLENS_PEERS_PYTHON:-}" ] && [ ! -e "$source/build/peers/ready" ]; then
    python3 -m venv "$source/build/peers"
    "$python" -m pip install --quiet -r "$source/tests/peers/requirements.txt"
    "$python" -m pip install --quiet --no-deps tuned-lens==0.2.0
    touch "$source/build/peers/ready"
fi

cd "$work"
ln -s "$source/tests/golden/fixtures/models/llama-base-f32" model
ln -s "$source/data/demo/model" vlm
ln -s "$source/tests/golden/fixtures/models/mllama-base-bf16" mllama
seq -f 'Line %g of a text that stays as it is, so that the split does too.' 1 7 9999 >corpus.txt
head -80 "$source/data/demo/samples.jsonl" >samples.jsonl
cat >run.yaml <<YAML
model: model
precision: exact
output: lens
data: {text: corpus.txt, max_tokens: 64, max_samples: 64, heldout: 0.3}
cache: {dir: cache, dtype: float32}
fit: {tokens_per_step: 512, epochs: 2}
eval: {bootstrap: 10}
YAML
cat >vlm-run.yaml <<YAML
model: vlm
precision: exact
output: vlm-lens
data: {samples: samples.jsonl, images: $source/data/demo, heldout: 0.4}
cache: {dir: vlm-cache, dtype: float32, positions: {image: 16}}
fit: {tokens_per_step: 256, epochs: 2}
eval: {bootstrap: 10}
YAML
sed 's/^model: .*/model: mllama/; s/^output: lens/output: mllama-lens/; s/dir: cache/dir: mllama-cache/' run.yaml >mllama-run.yaml

echo "== vlens trains and exports"
for p in "" vlm- mllama-; do
    "$vlens" train "${p}run.yaml" --quiet >/dev/null
    for type in float32 float16 bfloat16; do
        "$vlens" export "${p}lens" --format tuned-lens --out "${p}lens-$type" --cache "${p}cache" --dtype "$type"
    done
    mv "${p}lens-float32" "${p}lens-tuned"
done
"$vlens" export lens --format npz --out lens.npz
for type in bfloat16 float16 float32; do
    "$vlens" export lens --format hdf5 --out lens.h5 --dtype $type
    "$vlens" import lens.h5 --out "lens-h5-$type" --cache cache
done
"$vlens" export lens --format jlens --out lens.pt --dtype float16
columns=eval.metrics=kl,ce,entropy,top1,top5,rank,js,tv,bias,ece
"$vlens" eval run.yaml --quiet --json --set $columns >text.json
"$vlens" eval vlm-run.yaml --quiet --json --set $columns >vlm.json
"$vlens" eval mllama-run.yaml --quiet --json --set $columns >mllama.json

echo "== every column of vlens eval, in NumPy"
"$python" "$source/tests/peers/metrics.py" "$source" cache lens/lens.safetensors text.json
"$python" "$source/tests/peers/metrics.py" "$source" vlm-cache vlm-lens/lens.safetensors vlm.json
"$python" "$source/tests/peers/metrics.py" "$source" mllama-cache mllama-lens/lens.safetensors mllama.json

echo "== the snippets of docs/reference/interop.md"
"$python" "$source/tests/peers/snippets.py" "$source/docs/reference/interop.md"
"$vlens" import vlm-lens-saved --out vlm-lens-again --model vlm

echo "== where cross-attention looks, in transformers"
"$python" "$source/tests/peers/attention.py" "$source" "$vlens"

echo "== what vlens wrote, in tuned-lens"
"$python" "$source/tests/peers/exported.py" "$source" "$vlens"

echo "== what tuned-lens trained and saved, in vlens"
"$python" "$source/tests/peers/train_peer.py"
for p in "" vlm- mllama-; do
    for type in float32 float16 bfloat16; do
        "$vlens" import "${p}peer-$type" --out "${p}here-$type" --cache "${p}cache"
        "$vlens" eval "${p}run.yaml" --quiet --json --set output="${p}here-$type" >"${p}peer-$type.json"
    done
done
"$python" "$source/tests/peers/imported.py"
echo "== caches of families that vlens does not run"
"$python" "$source/tests/peers/byo.py" "$source" "$vlens"
echo "peers: all equal"
