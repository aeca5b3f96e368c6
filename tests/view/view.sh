#!/bin/sh
# `vlens view` and `vlens topk --svg` on the command line: what they refuse, and that no half page is left behind.
. "$(dirname "$0")/../cli/check.sh"

model=$source/data/demo/model
image=$source/data/demo/images/000.png
cd "$work" || exit 1

expect 2 'either --model with --prompt' "$vlens" view
expect 2 'either --model with --prompt' "$vlens" view --model "$model"
expect 2 'either --model with --prompt' "$vlens" view --cache cache
expect 2 'either --model with --prompt' "$vlens" view --cache cache --sample 0 --prompt hello
expect 1 'missing.png' "$vlens" view --model "$model" --prompt hello --image missing.png
[ ! -e page.html ] || fail "a failed view left a page"
expect 1 'nowhere' "$vlens" view --model "$model" --prompt hello --image "$image" --out nowhere/page.html
expect 2 'no single token is "hippopotamus"' "$vlens" view --model "$model" --prompt hello --image "$image" \
    --track hippopotamus
expect 0 'page.html: [0-9]+ positions, 13 states, top-5, logit lens' "$vlens" view --model "$model" --prompt hello \
    --image "$image"
[ -s page.html ] || fail "page.html was not written"
expect 0 'one.html: .* top-2' "$vlens" view --model "$model" --prompt hello -k 2 --generate 0 --out one.html
expect 0 '"vlens-topk"' "$vlens" view --model "$model" --prompt hello --generate 0 --json --quiet
[ ! -s "$work/stderr" ] || fail "--quiet is not quiet"
expect 2 'compare needs --model and --image' "$vlens" view --model "$model" --prompt hello --compare "$image"
expect 1 'missing.png' "$vlens" view --model "$model" --prompt hello --image "$image" --compare missing.png
expect 2 'one position' "$vlens" topk --model "$model" --prompt hello --position all --svg map.svg
expect 2 'expected an integer, or all' "$vlens" topk --model "$model" --prompt hello --position some
expect 2 'expected table, csv, json or json-v2' "$vlens" topk --model "$model" --prompt hello --format xml
expect 0 'position' "$vlens" topk --model "$model" --prompt hello --svg map.svg
grep -q '</svg>' map.svg || fail "map.svg is not whole"
finish
