# Sourced by the scripts beside it: runs the program, and says what was expected when it is not what came.
set -u
vlens=$1
source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
    failures=$((failures + 1))
    echo "FAILED: $*"
    sed 's/^/    /' "$work/stderr" | head -5
}

# expect CODE PATTERN COMMAND...: exit code, and a pattern (grep -E) on stderr or stdout.
# An error must be one line, beginning with "vlens".
expect() {
    code=$1
    pattern=$2
    shift 2
    "$@" >"$work/stdout" 2>"$work/stderr" </dev/null
    got=$?
    [ "$got" -eq "$code" ] || fail "exit code $got, expected $code: $*"
    grep -qE -- "$pattern" "$work/stderr" "$work/stdout" || fail "no \"$pattern\" in the output of: $*"
    if [ "$code" -ne 0 ]; then
        lines=$(grep -c '' "$work/stderr")
        [ "$lines" -eq 1 ] || fail "$lines lines on stderr, expected one: $*"
        grep -q '^vlens' "$work/stderr" || fail "the error does not say that it is vlens': $*"
    fi
}

finish() {
    [ "$failures" -eq 0 ] || { echo "$failures failures"; exit 1; }
    echo "all as expected"
}
