#!/bin/sh
# suspend.sh on     stops a container or a machine, for an action of trafctl's quotas
# suspend.sh off    starts it again, if it was this script that stopped it
#
# trafctl names it in TRAFCTL_CONTAINER. Both may run more than once, and change nothing then. The platform is the
# first of Proxmox VE (pct, qm), Virtuozzo (prlctl) and libvirt (virsh) that knows it. What somebody else has stopped
# is left alone, and is not started either: a file in STATE remembers what this script has stopped.
set -eu
id=$TRAFCTL_CONTAINER
state=${TRAFCTL_SUSPENDED:-/var/lib/trafctl/suspended}
case $id in
'' | -* | *[!A-Za-z0-9._{}-]*) echo "container $id has no id that a platform knows" >&2; exit 1 ;;
esac
case ${1-} in
on | off) ;;
*) echo "usage: suspend.sh on|off" >&2; exit 2 ;;
esac

has() { command -v "$1" >/dev/null 2>&1; }
# Whether it runs: "running", "stopped", or nothing if no platform knows it. Sets start and stop.
platform() {
    if has pct && text=$(pct status "$id" 2>/dev/null); then
        start="pct start $id" stop="pct shutdown $id --forceStop 1 --timeout 60"
    elif has qm && text=$(qm status "$id" 2>/dev/null); then
        start="qm start $id" stop="qm shutdown $id --forceStop 1 --timeout 60"
    elif has prlctl && text=$(prlctl list -H -o status "$id" 2>/dev/null); then
        start="prlctl start $id" stop="prlctl stop $id"
    elif has virsh && text=$(virsh -q domstate "$id" 2>/dev/null); then
        # Not `destroy`: whoever ignores this fails, and it is tried again.
        start="virsh -q start $id" stop="virsh -q shutdown $id --mode acpi"
    else
        echo "no platform here knows $id" >&2
        return 1
    fi
    case $text in
    *running*) now=running ;;
    *stopped* | *"shut off"*) now=stopped ;;
    *) echo "$id is neither running nor stopped: $text" >&2; return 1 ;;
    esac
}
# Waits until it is so: `virsh shutdown` returns at once.
until_it_is() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        platform
        [ "$now" != "$1" ] || return 0
        sleep 1
    done
    echo "$id is still $now" >&2
    return 1
}

if [ "$1" = off ] && [ ! -e "$state/$id" ]; then
    # Nothing was stopped here, or it was started again since.
    exit 0
fi
platform
case $1 in
on)
    [ "$now" = running ] || exit 0
    # Before it is stopped: whoever is killed in between starts what runs, and nothing happens.
    mkdir -p "$state"
    : >"$state/$id"
    $stop >&2
    until_it_is stopped
    ;;
off)
    [ "$now" = running ] || { $start >&2; until_it_is running; }
    rm -f "$state/$id"
    ;;
esac
