#!/bin/sh
# clang-tidy over the sources that a change touches: check_tidy.sh BUILD_FOLDER [--all]
# A change is what differs from the main branch ($VLENS_BASE, origin/main or main), committed or not; on the main branch
# itself, from the commit before. --all: every source. Exit 77: no clang-tidy here, nothing was checked.
set -eu
cd "$(dirname "$0")/.."
build=$1
tidy=$(command -v clang-tidy-14 || command -v clang-tidy || true)
if [ -z "$tidy" ]; then
    echo "clang-tidy is not installed: apt-get install clang-tidy"
    exit 77
fi

# the commit that a change starts from; empty where git knows none
start() {
    for base in ${VLENS_BASE:-} origin/main main; do
        if git rev-parse -q --verify "$base^{commit}" >/dev/null 2>&1; then
            found=$(git merge-base "$base" HEAD) && [ "$found" != "$(git rev-parse HEAD)" ] && echo "$found" && return
        fi
    done
    git rev-parse -q --verify HEAD^ 2>/dev/null || true
}

sources() { grep -E '^(trainer|kernels)/.*\.c$' | sort -u; }
if [ "${2:-}" != --all ] && from=$(start) && [ -n "$from" ]; then
    files=$({ git diff --name-only --diff-filter=d "$from"; git ls-files -o --exclude-standard; } | sources || true)
    what="changed since $(git rev-parse --short "$from")"
else
    files=$(find trainer kernels -name '*.c' | sources)
    what="in all"
fi
if [ -z "$files" ]; then
    echo "clang-tidy: no source $what"
    exit 0
fi
echo "clang-tidy: $(echo "$files" | wc -l) sources $what"
output=$(mktemp)
trap 'rm -f "$output"' EXIT
# gcc's warnings are not clang's
echo "$files" | xargs -P "$(nproc)" -n 8 "$tidy" -p "$build" --quiet --extra-arg=-Wno-unknown-warning-option \
    >"$output" 2>/dev/null || true
# Functions of seven parameters that are older than the limit: the list may only become shorter.
found=$(grep -E '^/.*: error: ' "$output" | sort -u || true)
while read -r file name; do
    found=$(echo "$found" | grep -vE "/$file:[0-9:]+ error: function '$name' exceeds" || true)
done <tools/tidy_known.txt
if [ -n "$found" ]; then
    cat "$output"
    echo "$found"
    exit 1
fi
