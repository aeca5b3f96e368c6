#!/bin/sh
# Bad input: one clear line, exit code 1 or 2, nothing half-written.
. "$(dirname "$0")/check.sh"

model=$source/data/demo/model
image=$source/data/demo/images/000.png
cd "$work" || exit 1

cat >good.yaml <<YAML
model: $model
output: lens
data: {samples: samples.jsonl, images: $source/data/demo, heldout: 0.4, max_samples: 8}
cache: {dir: cache}
YAML
head -8 "$source/data/demo/samples.jsonl" >samples.jsonl

# usage
expect 2 'is no command' "$vlens" trian
expect 2 'unknown option --jsn' "$vlens" eval good.yaml --jsn
expect 2 'an argument is missing' "$vlens" train
expect 2 'one argument too many' "$vlens" train good.yaml more.yaml
expect 2 'a value is missing' "$vlens" train good.yaml --set
expect 2 'an argument is missing' "$vlens" bench
expect 2 'nothing that it measures' "$vlens" bench speed
expect 2 'expected a size like' "$vlens" bench kl --size 64
expect 2 'rounds, at most' "$vlens" bench kl --size 64x256 --rows 8 --rounds 1000
expect 2 'expected --model' "$vlens" bench forward
expect 1 'nowhere' "$vlens" bench forward --model nowhere/
expect 2 '99 blocks, the model has' "$vlens" bench forward --model "$model" --blocks 99
expect 2 'samples of' "$vlens" bench forward --model "$model" --samples 1000
expect 0 'usage: vlens train' "$vlens" train --help

# configuration: line, column, nearest key
printf 'model: x\nlens:\n  los: kl\n' >bad.yaml
expect 2 'bad.yaml:3:3: unknown key "lens.los"; the nearest known key is "lens.loss"' "$vlens" train bad.yaml
expect 2 'fit.steps is "many", expected an integer' "$vlens" train good.yaml --set fit.steps=many
expect 2 'lens.loss is "l2", expected one of' "$vlens" train good.yaml --set lens.loss=l2
printf 'model: &a x\noutput: *a\n' >alias.yaml
expect 2 'alias.yaml:1:8: anchors' "$vlens" train alias.yaml
printf 'model: [\n' >broken.yaml
expect 2 'broken.yaml:[0-9]+:[0-9]+:' "$vlens" train broken.yaml
printf 'model: a\nmodel: b\n' >twice.yaml
expect 2 '"model" is given twice' "$vlens" train twice.yaml
expect 1 'nowhere.yaml: cannot open' "$vlens" train nowhere.yaml

# model
expect 1 'no-such-model' "$vlens" train good.yaml --set model=no-such-model
expect 1 'hf download some/model' "$vlens" train good.yaml --set model=some/model
cp -r "$model" truncated && chmod u+w truncated/model.safetensors
head -c 100000 "$model/model.safetensors" >truncated/model.safetensors
expect 1 'truncated/model.safetensors' "$vlens" info truncated
cp -r "$model" unknown && sed -i 's/"model_type": "llava"/"model_type": "fuyu"/' unknown/config.json
expect 1 'fuyu.*llama.*llava' "$vlens" info unknown

# pictures and prompts
echo 'not a picture' >text.png
expect 1 'text.png' "$vlens" topk --model "$model" --prompt hello --image text.png
expect 1 'missing.png' "$vlens" topk --model "$model" --prompt hello --image missing.png
expect 2 'image token' "$vlens" topk --model "$model" --prompt hello --image "$image" --raw-prompt
expect 2 'position 5000' "$vlens" topk --model "$model" --prompt hello --position 5000
printf '{"prompt": "a"}\n{"prompt": 3}\n' >bad.jsonl
expect 1 'bad.jsonl:2' "$vlens" cache good.yaml --set data.samples=bad.jsonl
printf '{"prompt": "a", "image": "../../etc/passwd"}\n' >outside.jsonl
expect 1 'outside.jsonl:1.*allow_outside' "$vlens" cache good.yaml --set data.samples=outside.jsonl
ln -s "$source/data/demo/images/000.png" link.png
printf '{"prompt": "a", "image": "link.png"}\n' >link.jsonl
expect 1 'link.jsonl:1.*link that leaves' "$vlens" cache good.yaml --set data.samples=link.jsonl --set data.images=.
expect 0 'dry_run' "$vlens" cache good.yaml --set data.samples=link.jsonl --set data.images=. --set data.heldout=0 \
    --allow-outside --dry-run --json
printf '{"prompt": "a", "image": "a\\nvlens: b.png"}\n' >newline.jsonl
expect 1 'newline.jsonl:1.*control characters' "$vlens" cache good.yaml --set data.samples=newline.jsonl
[ ! -e cache ] || fail "a failed command left a cache folder behind"

# cache and lens
expect 1 'cache' "$vlens" eval good.yaml
expect 0 'cache' "$vlens" cache good.yaml
expect 1 'cache.dtype' "$vlens" cache good.yaml --set cache.dtype=float32
expect 2 'max_bytes|bytes' "$vlens" cache good.yaml --set cache.dir=other --set cache.max_bytes=10KiB
expect 0 'lens: lens' "$vlens" train good.yaml --set fit.epochs=0 --set fit.validation=0
cp -r lens other-lens
python3 - other-lens/lens.safetensors <<'PY'
import sys
data = bytearray(open(sys.argv[1], "rb").read())
data[-5] ^= 1
open(sys.argv[1], "wb").write(data)
PY
expect 1 'sha256' "$vlens" verify other-lens
expect 1 'made for 12 layers of width 128' "$vlens" verify lens --against "$source/tests/golden/fixtures/models/llava-base-f32"
expect 2 'pickle.*npz' "$vlens" export lens --format pickle --out x
expect 1 'cannot create' "$vlens" export lens --format npz --out no/such/folder/x.npz
printf 'x' | dd of=cache/shard-00000.h5 bs=1 seek=4000 conv=notrunc 2>/dev/null
truncate -s 20000 cache/shard-00000.h5
expect 1 'shard-00000.h5' "$vlens" eval good.yaml

# a full disk: a file-size limit makes every write beyond 64 KiB fail, as ENOSPC would
full() {
    # HDF5 keeps the memory of a file that it could not close: no leak of ours
    (ulimit -f 128 && ASAN_OPTIONS=detect_leaks=0 exec "$@")
}
expect 1 'full/shard-00000.h5' full "$vlens" cache good.yaml --set cache.dir=full
[ ! -e full/index.h5 ] || fail "a cache that could not be written has an index"
expect 0 'full' "$vlens" cache good.yaml --set cache.dir=full
expect 1 'lens.npz' full "$vlens" export lens --format npz --out lens.npz
[ ! -e lens.npz ] || fail "a failed export left a file behind"

finish
