#!/bin/bash
# Runs the fuzz programs one after the other: run.sh FOLDER SECONDS [TARGET...]
# FOLDER is the build with the preset fuzz. What grows (corpora, findings, logs) lies in FOLDER/grown.
# A finding in our own code ends with exit code 1; a crash inside libhdf5 is counted and kept (docs/reference/limits.md).
set -u
folder=$1
seconds=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(safetensors index config tokenizer image yaml jsonl cache lens ask)
each=$((seconds / ${#targets[@]}))
bad=0

# The innermost frames of a crash decide whose it is.
inside_hdf5() {
    "$folder/tests/fuzz/fuzz_$1" -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 "$2" 2>&1 |
        awk '/#[0-9]+ 0x.*libhdf5/ {print "yes"; exit} /#[0-9]+ 0x.*\/(trainer|kernels)\// {exit}' | grep -q yes
}

printf '%-12s %12s %10s %10s %8s %9s %9s\n' target executions edges features corpus findings "in HDF5"
for name in "${targets[@]}"; do
    grown=$folder/grown/$name
    mkdir -p "$grown/corpus" "$grown/findings"
    options=(-max_total_time="$each" -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 -print_final_stats=1
        -artifact_prefix="$grown/findings/" -max_len=65536)
    leaks=1
    # a crash inside the library must not end the run
    [ "$name" = cache ] && leaks=0 && options+=(-fork=1 -ignore_crashes=1 -ignore_ooms=1 -ignore_timeouts=1)
    ASAN_OPTIONS=detect_leaks=$leaks "$folder/tests/fuzz/fuzz_$name" "${options[@]}" \
        "$grown/corpus" "$here/corpus/$name" >"$grown/log" 2>&1
    code=$?
    ours=0
    theirs=0
    for file in "$grown"/findings/*; do
        [ -e "$file" ] || continue
        if [ "$name" = cache ] && inside_hdf5 "$name" "$file"; then
            theirs=$((theirs + 1))
        else
            ours=$((ours + 1))
        fi
    done
    [ "$ours" -eq 0 ] && { [ "$code" -eq 0 ] || [ "$name" = cache ]; } || bad=1
    last=$(grep -E 'cov: [0-9]+' "$grown/log" | tail -n 1)
    number() { sed -n "s/.*$1: *\([0-9]*\).*/\1/p" <<<"$last"; }
    done_=$(sed -n 's/^stat::number_of_executed_units: *//p' "$grown/log" | tail -n 1)
    [ -n "$done_" ] || done_=$(sed -n 's/^#\([0-9]*\).*/\1/p' "$grown/log" | tail -n 1)
    printf '%-12s %12s %10s %10s %8s %9s %9s\n' "$name" "$done_" "$(number cov)" "$(number ft)" \
        "$(find "$grown/corpus" -type f | wc -l)" "$ours" "$theirs"
done
exit $bad
