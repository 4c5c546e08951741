#!/bin/sh
# A monitoring script that stops at any row that is not six fields.
set -eu
pnetstat -t all | {
    read -r header
    case $header in UUID*) ;; *) echo "no header: $header" >&2; exit 1 ;; esac
    while read -r id class in_bytes in_packets out_bytes out_packets rest; do
        [ -z "$rest" ] || { echo "more than six fields: $id" >&2; exit 1; }
        # Not numbers: the shell's own arithmetic fails.
        echo "$id/$class $((in_bytes + out_bytes)) $((in_packets + out_packets))"
    done
}
