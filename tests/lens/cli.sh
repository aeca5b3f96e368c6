#!/bin/sh
# vlens export and import on a small text model: what goes out comes back, and what is refused says why.
. "$(dirname "$0")/../cli/check.sh"

model=$source/tests/golden/fixtures/models/llama-base-f32
other=$source/tests/golden/fixtures/models/llama-bias-f32
cd "$work" || exit 1
seq -f 'Line %g of a text that stays as it is.' 1 7 9999 >corpus.txt # so that the split does too
cat >run.yaml <<YAML
model: $model
output: lens
data: {text: corpus.txt, max_tokens: 32, max_samples: 96, heldout: 0.3}
cache: {dir: cache}
fit: {tokens_per_step: 128, epochs: 1}
YAML
expect 0 'lens: lens' "$vlens" train run.yaml

tensors() {
    python3 -c 'import json, sys
data = open(sys.argv[1], "rb").read()
n = int.from_bytes(data[:8], "little")
header = json.loads(data[8:8 + n])
about = header.pop("__metadata__")
for key in ("fingerprint", "tokens_seen", "heldout_kl", "bias_only", "d_model", "n_layers", "sha256"):
    print(key, about.get(key))
for name in sorted(header):
    print(name, header[name]["dtype"], data[8 + n:][slice(*header[name]["data_offsets"])].hex())' "$1/lens.safetensors"
}

tensors lens >expected
for case in tuned-lens:tuned npz:lens.npz hdf5:lens.h5 safetensors:copy; do
    path=${case#*:}
    expect 0 "wrote $path" "$vlens" export lens --format "${case%%:*}" --out "$path" --cache cache
    expect 0 'wrote back' "$vlens" import "$path" --out back --model "$model"
    expect 0 'belongs to' "$vlens" verify back --against cache
    tensors back >found
    [ "$path" = lens.npz ] && sed -i '/^tokens_seen\|^heldout_kl/d' found expected # an archive of arrays alone
    cmp -s expected found || fail "$path came back as another lens"
    tensors lens >expected
done
expect 0 'bfloat16' "$vlens" export lens --format tuned-lens --out half --dtype bfloat16 --model "$model"
expect 0 'wrote back' "$vlens" import half/params.pt --out back --cache cache
tensors back >found
grep -q BF16 found || fail "bfloat16 did not come back as bfloat16"
expect 0 'no room for biases' "$vlens" export lens --format jlens --out lens.pt

# refused
expect 2 'one of --model and --cache' "$vlens" import tuned --out back
expect 2 'one of --model and --cache' "$vlens" import tuned --out back --model "$model" --cache cache
expect 2 'expected one of them' "$vlens" export lens --format npz --out x --model "$model" --cache cache
expect 1 'fingerprint' "$vlens" import tuned --out x --model "$other"
expect 1 'fingerprint' "$vlens" export lens --format tuned-lens --out x --model "$other"
expect 0 'names another model' "$vlens" import tuned --out back --model "$other" --allow-other-model
expect 1 'expected a folder' "$vlens" import run.yaml --out x --cache cache
expect 1 'No such file' "$vlens" import missing.npz --out x --cache cache
expect 1 'float32' "$vlens" export lens --format npz --out x --dtype float16

# a pickle that is a program
python3 - <<'PY'
import pickle, zipfile
class Program:
    def __reduce__(self):
        return (print, ("this must never run",))
with zipfile.ZipFile("tuned/params.pt", "w") as z:
    z.writestr("archive/data.pkl", pickle.dumps({"0.weight": Program()}, protocol=2))
PY
expect 1 'the pickle names __builtin__.print' "$vlens" import tuned --out x --cache cache
[ ! -e x ] || fail "a refused lens left something behind"

finish
