#!/bin/sh
# cache -> train -> eval -> topk -> view on one tiny model of each vision family: pictures of several sizes, several
# pictures in a prompt, and none.
. "$(dirname "$0")/check.sh"

shift 2
fixtures=$source/tests/golden
cd "$work" || exit 1
for i in 0 1 2; do
    for name in scene wide tall square; do
        echo "{\"prompt\": \"What is the colour of circle $i?\", \"image\": \"$name.png\"}"
    done
    echo "{\"prompt\": \"Which of the two is red, $i?\", \"image\": [\"small.png\", \"gray.png\"]}"
    echo "{\"prompt\": \"The lens reads the state of each layer, $i.\"}"
done >samples.jsonl

for model in "$@"; do
    name=$(basename "$model")
    cat >run.yaml <<YAML
model: $fixtures/vision/$model
output: $name
data: {samples: samples.jsonl, images: $fixtures/fixtures/images, heldout: 0.4}
cache: {dir: $name-cache}
fit: {tokens_per_step: 64, epochs: 2, validation: 0.1}
eval: {bootstrap: 20}
YAML
    expect 0 'rows' "$vlens" cache run.yaml
    expect 0 'whole' "$vlens" verify "$name-cache"
    expect 0 "lens: $name" "$vlens" train run.yaml
    expect 0 'class image' "$vlens" eval run.yaml
    picture="--image $fixtures/fixtures/images/wide.png --prompt What?"
    # shellcheck disable=SC2086
    expect 0 'vlens-topk' "$vlens" topk --model "$fixtures/vision/$model" --lens "$name" $picture --json
    # shellcheck disable=SC2086
    expect 0 '' "$vlens" view --model "$fixtures/vision/$model" --lens "$name" $picture --out "$name.html"
    grep -q '</html>' "$name.html" || fail "$name.html is no whole page"
done
finish
