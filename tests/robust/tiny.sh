#!/bin/sh
# A tiny run of everything under a tool that looks at each access: tiny.sh VLENS SOURCE THREADS [TOOL ARGUMENT...]
# The tool is a program in front of vlens (valgrind), or compiled in (ThreadSanitizer); either ends with an exit code of
# its own when it has something to say, and its words are shown.
. "$(dirname "$0")/../cli/check.sh"
threads=$3
shift 3
if [ $# -gt 0 ] && ! command -v "$1" >/dev/null; then
    echo "$1 is not installed: nothing was looked at"
    exit 77
fi
cd "$work" || exit 1
tool=$*
checked() {
    # shellcheck disable=SC2086 # a command of several words
    $tool "$vlens" "$@"
}

config() { # config FOLDER MODEL PRECISION
    cat >"$1.yaml" <<YAML
model: $source/tests/golden/fixtures/models/$2
output: $1
precision: $3
threads: $threads
data: {samples: samples.jsonl, images: $source/tests/golden/fixtures/images, heldout: 0.3}
cache: {shard_tokens: 60, batch_tokens: 30, positions: {image: 4, generated: 2}}
fit: {steps: 4, tokens_per_step: 16, validation: 0.2, checkpoint_every: 2}
eval: {bootstrap: 10}
YAML
}
flow() { # flow FOLDER SAMPLE
    expect 0 '' checked cache "$1.yaml" --quiet
    expect 0 "lens: $1" checked train "$1.yaml" --quiet
    expect 0 'class all-text' checked eval "$1.yaml" --quiet
    expect 0 'logit lens' checked topk --cache "$1/cache" --sample "$2" --lens "$1"
    expect 0 'page.html' checked view --cache "$1/cache" --sample "$2" --lens "$1" --out "$1/page.html"
    expect 0 "wrote $1.npz" checked export "$1" --format npz --out "$1.npz"
    expect 0 "$1/cache" checked verify "$1/cache"
}

for i in 1 2 3 4 5 6 7 8; do
    echo "{\"prompt\": \"sentence number $i of a dozen\"}"
done >samples.jsonl
config words llama-base-f32 exact
flow words 0
echo '{"image": "small.png", "prompt": "What?", "answer": "a"}
{"image": "gray.png", "prompt": "Which?"}' >>samples.jsonl
config pictures llava-base-f32 fast
flow pictures 8 # the first with a picture
expect 0 'logit lens' checked topk --model "$source/tests/golden/fixtures/models/llava-base-f32" --prompt 'What?' \
    --image "$source/tests/golden/fixtures/images/small.png" --lens pictures --threads "$threads"
expect 1 'cannot open' checked info nowhere.safetensors
finish
