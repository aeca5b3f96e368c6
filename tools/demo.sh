#!/bin/sh
# The whole flow on the demo model: cache, train, evaluate, export, read. Usage: tools/demo.sh path/to/vlens
set -eu

vlens=$1
config=configs/demo.yaml
out=out/demo

say() {
    printf '\n== %s\n' "$1"
}

say "cache: every layer's states of the demo model on 640 rendered scenes"
"$vlens" cache "$config"

say "train: one affine adapter per layer"
"$vlens" train "$config"

say "train: a bias-only lens, to compare with"
"$vlens" train "$config" --set lens.kind=bias --set lens.init=mean --set output="$out/bias"

say "export: for other tools"
"$vlens" export "$out/lens" --format npz --out "$out/lens.npz"
"$vlens" verify "$out/lens" --against "$out/cache"

say "topk: what each layer would answer (the picture: data/demo/images/019.png)"
"$vlens" topk --model data/demo/model --lens "$out/lens" --image data/demo/images/019.png \
    --prompt "What shape is red? Answer with one word." --k 4

say "view: the same at every patch and token, as a page"
"$vlens" view --model data/demo/model --lens "$out/lens" --image data/demo/images/019.png \
    --prompt "What shape is red? Answer with one word." --out "$out/view.html"

say "eval: how far each lens is from the model itself, on pictures it never saw"
"$vlens" eval "$config" --out "$out/eval.json" --report "$out/report.html"

printf '\nWritten: %s (lens), %s (for NumPy), %s (the table above as JSON).\nPages to open in a browser: %s, %s\n' \
    "$out/lens" "$out/lens.npz" "$out/eval.json" "$out/view.html" "$out/report.html"
