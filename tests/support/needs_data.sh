#!/bin/sh
# needs_data.sh VARIABLE: some tests also compare with data that is too large to commit, where VARIABLE names its folder.
# This one stands for them in CTest's summary: skipped (77) without the variable, failed where it names no folder.
variable=$1
eval "folder=\${$variable:-}"
here=$(cd "$(dirname "$0")/.." && pwd)
users=$(grep -rl --include='*.c' "getenv(\"$variable\")" "$here" | sed 's|.*/||; s|\.c$||' | sort | tr '\n' ' ')
if [ -z "$folder" ]; then
    echo "$variable is not set: $users compared with committed fixtures only"
    exit 77
fi
[ -d "$folder" ] || { echo "$variable: $folder is no folder"; exit 1; }
echo "$variable: used by $users"
