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
# An error must be one line, the last one, and the only one that begins with "vlens".
expect() {
    code=$1
    pattern=$2
    shift 2
    "$@" >"$work/stdout" 2>"$work/stderr" </dev/null
    got=$?
    [ "$got" -eq "$code" ] || fail "exit code $got, expected $code: $*"
    grep -qE -- "$pattern" "$work/stderr" "$work/stdout" || fail "no \"$pattern\" in the output of: $*"
    if [ "$code" -ne 0 ]; then
        lines=$(grep -c '^vlens' "$work/stderr")
        [ "$lines" -eq 1 ] || fail "$lines error lines, expected one: $*"
        tail -n 1 "$work/stderr" | grep -q '^vlens' || fail "the error is not the last line: $*"
    fi
}

# stop SIGNAL PATTERN COMMAND...: runs it, sends the signal as soon as a file matches the pattern, and sets $code to its exit
# code. A command that was faster than the signal would prove nothing: that is a failure.
stop() {
    signal=$1
    pattern=$2
    shift 2
    "$@" >/dev/null 2>"$work/stderr" &
    pid=$!
    # shellcheck disable=SC2086 # the pattern is expanded here
    while kill -0 "$pid" 2>/dev/null && ! ls $pattern >/dev/null 2>&1; do
        sleep 0.01
    done
    caught=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$pid/status" 2>/dev/null)
    kill -"$signal" "$pid" 2>/dev/null # by number: the same test may be running from another checkout
    wait "$pid" 2>/dev/null
    code=$?
    [ "$code" -ne 0 ] || fail "ended before the signal came: $*"
}

finish() {
    [ "$failures" -eq 0 ] || { echo "$failures failures"; exit 1; }
    echo "all as expected"
}
