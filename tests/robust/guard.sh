#!/bin/sh
# Caches that crash libhdf5 1.10.8, keep it busy for ever, or ask for all memory: one line and exit code 1.
. "$(dirname "$0")/../cli/check.sh"
cd "$work" || exit 1

# patched NAME OFFSET OCTAL: a copy of a sound cache with one byte changed
patched() {
    cp "$source/tests/fuzz/corpus/cache/$1" "$4" && chmod u+w "$4"
    printf "\\$3" | dd of="$4" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
patched chunked.h5 1424 001 crash.h5 # the number of levels of a chunk index: signal 11
patched plain.h5 8040 377 loop.h5    # the size of a text in the global heap: never comes back
cp "$source/tests/robust/malformed/cache/rows-many.h5" many.h5

expect 0 'position 5' "$vlens" topk --cache "$source/tests/fuzz/corpus/cache/plain.h5" --sample 0
expect 1 'crash.h5: the HDF5 library crashed on it \(signal 11\)' "$vlens" topk --cache crash.h5 --sample 0
expect 1 'crash.h5: the HDF5 library crashed on it \(signal 11\)' "$vlens" verify crash.h5
expect 1 'loop.h5: not opened after 1 s' "$vlens" topk --cache loop.h5 --sample 0
expect 1 'loop.h5: not opened after 1 s' "$vlens" info loop.h5
expect 1 'loop.h5: not opened after 1 s' "$vlens" verify loop.h5
# a loaded machine may need more than the usual second to come to the memory that is refused
VLENS_GUARD_SECONDS=60
export VLENS_GUARD_SECONDS
expect 1 'many.h5: opening it needs more than 256 MiB' "$vlens" topk --cache many.h5 --sample 0
expect 1 'out of memory: /tokens' "$vlens" verify many.h5
unset VLENS_GUARD_SECONDS

# the same in the place of a cache that is trained on or gone on with
mkdir -p lens/cache && cp loop.h5 lens/cache/index.h5 && cp crash.h5 lens/cache/shard-00000.h5
printf 'output: lens\ndata: {samples: none.jsonl}\n' >run.yaml
expect 1 'lens/cache: not opened after 1 s' "$vlens" train run.yaml
expect 1 'lens/cache: not opened after 1 s' "$vlens" eval run.yaml
rm lens/cache/index.h5
expect 1 'lens/cache: the HDF5 library crashed' "$vlens" cache run.yaml --set model="$source/data/demo/model"

# limits by hand
VLENS_GUARD_SECONDS=2
export VLENS_GUARD_SECONDS
expect 1 'loop.h5: not opened after 2 s' "$vlens" info loop.h5
finish
