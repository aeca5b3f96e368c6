#!/bin/sh
# The manual page and the completions know every command, option and key that the program's own help knows.
# Usage: describe.sh VLENS SOURCE FOLDER_OF_GENERATED_FILES
. "$(dirname "$0")/check.sh"
share=$3

holds() { # FILE FIXED_STRING
    grep -qF -- "$2" "$1" || fail "no \"$2\" in $(basename "$1")"
}

# troff writes hyphens as \-
sed 's/\\-/-/g; s/\\f[A-Z]//g' "$share/vlens.man" >"$work/man"
: >"$work/stderr"
"$vlens" --help | sed -n 's/^  \([a-z]*\) .*/\1/p' | grep -v '^bench$' >"$work/commands"
"$vlens" bench --help | sed -n 's/^  \([a-z]*\) .*/bench \1/p' >>"$work/commands"
[ "$(wc -l <"$work/commands")" -ge 14 ] || fail "--help lists too few commands"
options=0
while read -r command; do
    pattern="'$command"
    [ "${command#* }" != "$command" ] && pattern="$pattern'" || pattern="$pattern '\*"
    awk -v head=".SS vlens $command " '/^\.S[SH]/ { on = index($0, head) == 1 } on' "$work/man" >"$work/section"
    [ -s "$work/section" ] || fail "the manual page lacks vlens $command"
    # shellcheck disable=SC2086 # a command may have a subject
    for option in $("$vlens" $command --help | sed -n 's/^  .\{4\}--\([a-z0-9-]*\).*/\1/p; s/^  -., --\([a-z0-9-]*\).*/\1/p' | grep -v '^help$'); do
        options=$((options + 1))
        grep -qE -- "--$option( |\$)" "$work/section" || fail "the manual page lacks vlens $command --$option"
        grep -qE "^        $pattern\) words=.* --$option[ \"]" "$share/vlens.bash" || fail "bash lacks $command --$option"
        sed -n "/^        $pattern) _arguments/,/;;/p" "$share/vlens.zsh" | grep -qF -- "--$option[" ||
            fail "zsh lacks $command --$option"
    done
done <"$work/commands"
[ "$options" -ge 60 ] || fail "only $options options were found in the help texts"
keys=0
"$vlens" init "$work/all.yaml" >/dev/null
for key in $(python3 - "$work/all.yaml" <<'PY'
import re, sys
path = []
for line in open(sys.argv[1], encoding="utf-8"):
    found = re.match(r"( *)([a-z_]+):(.*)", line)
    if not found:
        continue
    depth, name, rest = len(found.group(1)) // 2, found.group(2), found.group(3).split("#")[0].strip()
    path[depth:] = [name]
    if rest:
        print(".".join(path))
PY
); do
    keys=$((keys + 1))
    holds "$work/man" "$key ("
    grep -qE "[ \"]$key=" "$share/vlens.bash" || fail "bash lacks the key $key"
    grep -qE "^ +$key=\$" "$share/vlens.zsh" || fail "zsh lacks the key $key"
done
[ "$keys" -ge 40 ] || fail "only $keys keys were found in what init writes"

"$vlens" help --markdown | cmp -s - "$source/docs/reference/options.md" ||
    fail "docs/reference/options.md is not what vlens help --markdown prints (make golden)"

# bash: what a person gets who presses the key
complete() { bash -c 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); compopt() { :; }; _vlens; echo "${COMPREPLY[*]}"' "$share/vlens.bash" "$@"; }
[ "$(complete vlens tra)" = train ] || fail "tra: $(complete vlens tra)"
[ "$(complete vlens train my.yaml --fre)" = --fresh ] || fail "--fre: $(complete vlens train my.yaml --fre)"
[ "$(complete vlens train my.yaml --set fit.learn)" = fit.learning_rate= ] || fail "--set fit.learn"
[ "$(complete vlens export lens --format tuned)" = tuned-lens ] || fail "--format tuned"
[ "$(complete vlens bench for)" = forward ] || fail "bench for: $(complete vlens bench for)"
[ "$(complete vlens help tra)" = train ] || fail "help tra: $(complete vlens help tra)"
[ "$(complete vlens ver | tr ' ' '\n' | sort | tr '\n' ' ')" = "verify version " ] || fail "ver: $(complete vlens ver)"
if command -v groff >/dev/null; then
    groff -man -Tutf8 -ww -z "$share/vlens.man" 2>"$work/stderr"
    [ ! -s "$work/stderr" ] || fail "groff warns"
fi
finish
