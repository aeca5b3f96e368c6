#!/bin/sh
# The whole flow on a few demo scenes: cache, train, eval, export, topk; resume after SIGINT and SIGKILL.
. "$(dirname "$0")/check.sh"

model=$source/data/demo/model
cd "$work" || exit 1
head -60 "$source/data/demo/samples.jsonl" >samples.jsonl
cat >flow.yaml <<YAML
model: $model
output: lens
data: {samples: samples.jsonl, images: $source/data/demo, heldout: 0.4}
cache: {dir: cache, shard_tokens: 512, batch_tokens: 256, positions: {image: 16}}
fit: {tokens_per_step: 128, epochs: 2, validation: 0.1}
eval: {bootstrap: 100}
YAML

expect 0 '"dry_run": true' "$vlens" cache flow.yaml --dry-run --json
[ ! -e cache ] || fail "a dry run wrote something"
expect 0 'rows' "$vlens" cache flow.yaml
expect 0 'whole' "$vlens" verify cache
expect 0 'states +13' "$vlens" info cache
expect 0 'lens: lens' "$vlens" train flow.yaml
expect 0 'class all-text' "$vlens" eval flow.yaml
expect 0 '"format": "vlens-eval"' "$vlens" eval flow.yaml --json
python3 - "$work/stdout" <<'PY' || fail "the JSON of eval does not hold what it promises"
import json, sys
result = json.load(open(sys.argv[1]))
classes = {c["class"]: c for c in result["classes"]}
assert {"text", "image", "last", "all-text", "all"} <= set(classes), classes.keys()
for c in classes.values():
    assert len(c["states"]) == result["n_layers"] + 1
    for s in c["states"][:-1]:
        # two dozen pictures are too few for the image class, and for late layers, where the logit lens is good already
        assert c["class"] != "all-text" or s["state"] > 6 or s["tuned"]["kl"] < s["logit"]["kl"], (s["state"], s["tuned"], s["logit"])
    last = c["states"][-1]
    assert abs(last["logit"]["kl"]) < 1e-5 and last["logit"]["top1"] == 1
    # an answer's rows have a partner only where another answer says the same
    assert c["class"].startswith("answer") or last["wrong_picture"]["kl"] > 0
PY
expect 0 'held-out KL' "$vlens" info lens
expect 0 'belongs to cache' "$vlens" verify lens --against cache
expect 0 'wrote lens.npz' "$vlens" export lens --format npz --out lens.npz
# exported files are read again and their logits recomputed, on rows of the cache and of the model
for format in safetensors hdf5 tuned-lens; do
    "$vlens" export lens --format $format --dtype bfloat16 --out out-$format.h5 --cache cache >/dev/null
done
mv out-safetensors.h5 out.safetensors && mv out-tuned-lens.h5 out-tuned
for file in lens.npz out.safetensors out-tuned out-hdf5.h5; do
    expect 0 '^lens: largest KL' "$vlens" verify $file --against cache --lens lens
    expect 0 'belongs to /' "$vlens" verify $file --against "$model"
done
"$vlens" train flow.yaml --quiet --set output=other --set fit.seed=7 --set lens.loss=reverse_kl >/dev/null || fail "no other lens"
expect 1 'are not those of other: KL' "$vlens" verify lens.npz --against cache --lens other
expect 2 'none' "$vlens" verify cache --against "$model"
[ -e lens/metrics.json ] && cp -r lens again
expect 0 'wrote again' "$vlens" import lens.npz --out again --cache cache
[ ! -e again/metrics.json ] || fail "the metrics of another fit stayed beside an imported lens"
expect 0 'purple' "$vlens" topk --model "$model" --lens lens --image "$source/data/demo/images/000.png" \
    --prompt "What color is the square? Answer with one word."
expect 0 '"vlens-topk"' "$vlens" topk --cache cache --sample 0 --lens lens --json

# caching: killed when a part of the states is written, the same command ends with the same states
stop KILL 'killed/shard-00000.h5' "$vlens" cache flow.yaml --quiet --set cache.dir=killed
[ "$code" -eq 137 ] || fail "SIGKILL ended with exit code $code"
[ ! -e killed/index.h5 ] || fail "the cache was whole before it was killed"
expect 0 'rows' "$vlens" cache flow.yaml --set cache.dir=killed
for shard in cache/shard-*.h5; do
    cmp -s "$shard" "killed/${shard#cache/}" || fail "${shard#cache/} differs after a kill"
done

# training: interrupted and resumed, the same bits (more epochs, so that the signal comes in the middle)
expect 0 'lens: whole' "$vlens" train flow.yaml --set output=whole --set fit.epochs=6
stop INT 'resumed/checkpoint*.safetensors' "$vlens" train flow.yaml --quiet --set output=resumed --set fit.epochs=6 \
    --set fit.checkpoint_every=1
[ "$code" -eq 130 ] || fail "SIGINT ended with exit code $code"
# A handler's frame on a computing thread's stack destroys what oneDNN keeps below it: nothing may be caught (bits 2
# and 15 of the mask), only waited for.
[ -n "$caught" ] && [ $((0x$caught & 0x4002)) -eq 0 ] || fail "SIGINT or SIGTERM has a handler: \"$caught\""
expect 0 'lens: resumed' "$vlens" train flow.yaml --set output=resumed --set fit.epochs=6
python3 - whole/lens.safetensors resumed/lens.safetensors <<'PY' || fail "the resumed lens differs"
import json, struct, sys
def tensors(path):
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    return {k: data[8 + n:][slice(*v["data_offsets"])] for k, v in header.items() if k != "__metadata__"}
a, b = map(tensors, sys.argv[1:])
assert a.keys() == b.keys() and all(a[k] == b[k] for k in a)
PY

# benchmarks: every line counts work and time, and names its share of the first
for what in gemm kl; do
    expect 0 'library' "$vlens" bench $what --size 64x256 --size 96x300 --rows 8 --rounds 2 --json
    python3 - "$work/stdout" <<'PY' || fail "the JSON of bench $what does not hold what it promises"
import json, sys
results = json.load(open(sys.argv[1]))["results"]
assert [r["title"].split(", ")[1] for r in results] == ["d=64 V=256", "d=96 V=300"], results
for r in results:
    assert len(r["lines"]) >= 3 and r["lines"][0]["share"] == 1
    for line in r["lines"]:
        assert 0 < line["best_seconds"] <= line["median_seconds"] and line["best"] >= line["median"] > 0
        assert abs(line["share"] - line["median"] / r["lines"][0]["median"]) < 1e-3 * max(1, line["share"])
PY
done
expect 0 'peak_anonymous_bytes' "$vlens" bench forward --model "$source/data/demo/model" --samples 2 --tokens 30 \
    --rounds 2 --blocks 2 --json
python3 - "$work/stdout" <<'PY' || fail "the JSON of bench forward does not hold what it promises"
import json, sys
result = json.load(open(sys.argv[1]))
lines = {(line["name"], line["unit"]): line for line in result["forward"]["results"][0]["lines"]}
assert list(lines)[0] == ("library's product, packed", "GFLOP/s"), lines
for samples in (1, 2):
    flops, tokens = (lines[f"{samples} x 30 tokens", unit] for unit in ("GFLOP/s", "tokens/s"))
    assert flops["share"] > 0 and abs(tokens["median"] * tokens["median_seconds"] - 30 * samples) < 0.1
assert 0 < result["memory"]["anonymous_bytes"] < 1 << 30, result["memory"]
PY
expect 0 'in order' "$vlens" bench cache cache
expect 0 'no reading ahead' "$vlens" bench train flow.yaml --steps 1
expect 1 'no_such' "$vlens" bench cache no_such

finish
