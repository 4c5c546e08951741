#!/bin/sh
# A billing script that keeps the last figures of a container and prints what came since.
# Usage: differences.sh ID FILE
set -eu
line=$(vznetstat -c 1 -v "$1" | tail -n 1 | awk '{ print $3 " " $5 }')
in=${line% *}
out=${line#* }
if [ -f "$2" ]; then
    read -r last_in last_out <"$2"
    echo "$1 $((in - last_in)) $((out - last_out))"
fi
echo "$in $out" >"$2"
