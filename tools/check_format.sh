#!/bin/sh
# Every source as .clang-format has it. check_format.sh [--fix]. Exit 77: no clang-format 14 here, nothing was checked.
set -eu
cd "$(dirname "$0")/.."
format=$(command -v clang-format-14 || command -v clang-format || true)
case "$([ -n "$format" ] && "$format" --version)" in
*" 14."*) ;;
*)
    echo "clang-format 14 is not installed (other versions format otherwise): apt-get install clang-format"
    exit 77 ;;
esac
if [ "${1:-}" = --fix ]; then
    mode=-i
else
    mode="--dry-run --Werror"
fi
# shellcheck disable=SC2086 # two words
find trainer kernels include tests examples -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' | sort |
    xargs "$format" $mode --ferror-limit=20 || { echo "\`make format\` mends it"; exit 1; }
