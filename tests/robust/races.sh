#!/bin/sh
# Does this build see races, and only races? races.sh PROGRAM (races.c)
failures=0
outcome() { # outcome PROGRAM KIND CODE
    out=$("$1" "$2" 2>&1)
    code=$?
    reports=$(printf '%s\n' "$out" | grep -c 'WARNING: ThreadSanitizer: data race')
    echo "$2: exit code $code, $reports reports"
    if [ "$code" -ne "$3" ] || { [ "$3" -eq 0 ] && [ "$reports" -ne 0 ]; } || { [ "$3" -ne 0 ] && [ "$reports" -eq 0 ]; }; then
        echo "FAILED: expected exit code $3"
        printf '%s\n' "$out" | head -20
        failures=$((failures + 1))
    fi
}
outcome "$1" sound 0
outcome "$1" openmp 66
outcome "$1" threads 66
exit "$failures"
