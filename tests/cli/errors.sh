#!/bin/sh
# Damaged files and a full disk: one clear line, exit code 1, nothing half-written. (tests/cli/golden/*.md has every other
# kind of bad input, with its whole line.)
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

# cache and lens
expect 0 '^cache +cache$' "$vlens" cache good.yaml
expect 0 '^lens: lens$' "$vlens" train good.yaml --set fit.epochs=0 --set fit.validation=0
cp -r lens other-lens
python3 - other-lens/lens.safetensors <<'PY'
import sys
data = bytearray(open(sys.argv[1], "rb").read())
data[-5] ^= 1
open(sys.argv[1], "wb").write(data)
PY
expect 1 '^vlens: other-lens/lens.safetensors: damaged: sha256 of the tensors is [0-9a-f]*, the file says' \
    "$vlens" verify other-lens
printf 'x' | dd of=cache/shard-00000.h5 bs=1 seek=4000 conv=notrunc 2>/dev/null
truncate -s 20000 cache/shard-00000.h5
expect 1 '^vlens: cache/shard-00000.h5: cannot be opened as an HDF5 file: ' "$vlens" eval good.yaml

# a full disk: a file-size limit makes every write beyond 64 KiB fail, as ENOSPC would
full() {
    # HDF5 keeps the memory of a file that it could not close: no leak of ours
    (ulimit -f 128 && ASAN_OPTIONS=detect_leaks=0 exec "$@")
}
expect 1 '^vlens: full/shard-00000.h5.tmp-[0-9]+: cannot write /states, state [0-9]+: ' full "$vlens" cache good.yaml --set cache.dir=full
[ ! -e full/index.h5 ] || fail "a cache that could not be written has an index"
expect 0 '^cache +full$' "$vlens" cache good.yaml --set cache.dir=full
expect 1 '^vlens: lens.npz: write failed: ' full "$vlens" export lens --format npz --out lens.npz
[ ! -e lens.npz ] || fail "a failed export left a file behind"

finish
