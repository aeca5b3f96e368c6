#!/bin/sh
# A tiny run of everything under valgrind: no wrong access, no use of what was never set, no lost block.
. "$(dirname "$0")/../cli/check.sh"
cd "$work" || exit 1
for i in 1 2 3 4 5 6 7 8; do
    echo "{\"prompt\": \"sentence number $i of a dozen\"}"
done >samples.jsonl
cat >run.yaml <<YAML
model: $source/tests/golden/fixtures/models/llama-base-f32
output: lens
precision: exact
threads: 1
data: {samples: samples.jsonl, heldout: 0.3}
fit: {steps: 3, tokens_per_step: 16, validation: 0.2}
eval: {bootstrap: 10}
YAML
checked() {
    valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
        "$vlens" "$@"
}
expect 0 'lens: lens' checked train run.yaml --quiet
expect 0 'class all-text' checked eval run.yaml --quiet
expect 0 'wrote lens.npz' checked export lens --format npz --out lens.npz
expect 0 'logit lens' checked topk --cache lens/cache --sample 0 --lens lens
expect 1 'cannot open' checked info nowhere.safetensors
finish
