#!/bin/sh
# What the linker and the compiler were asked for is in the files that are installed: hardening.sh PROGRAM LIBRARY TYPE
set -u
failures=0
need() {
    what=$1
    shift
    "$@" >/dev/null || { echo "FAILED: $what"; failures=$((failures + 1)); }
}
holds() { readelf -W "$1" "$2" 2>/dev/null | grep -qE -- "$3"; }
holds_not() { ! holds "$@"; }

for file in "$1" "$2"; do
    need "$file: position independent (PIE)" holds -hW "$file" 'Type:.*DYN'
    need "$file: RELRO" holds -lW "$file" 'GNU_RELRO'
    need "$file: bound at once (now)" holds -dW "$file" '(BIND_NOW|FLAGS.*NOW)'
    need "$file: no executable stack" holds -lW "$file" 'GNU_STACK.* RW '
    need "$file: no relocations in its text" holds_not -dW "$file" 'TEXTREL'
    need "$file: stack protector" holds --dyn-syms "$file" '__stack_chk_fail'
    [ "$3" = Debug ] || need "$file: checked library calls (_FORTIFY_SOURCE)" holds --dyn-syms "$file" '__[a-z]+_chk(@|$)'
done
[ "$failures" -eq 0 ] && echo "PIE, RELRO, now, no executable stack, stack protector, fortified: $1, $2"
exit "$failures"
