#!/bin/sh
# throttle.sh RATE   limits what goes to a container, for an action of trafctl's quotas
# throttle.sh off    lifts that limit
#
# trafctl names the container in TRAFCTL_CONTAINER. Both may run more than once, and change nothing then. A shaper
# that somebody else has put on the interface is left alone: one with a handle, which the system gives to none of its own.
set -euf
handle=7fc:
found=
# Not by /sys, which may show another network namespace.
for interface in $(ip -o link show | sed -n 's/^[0-9]*: \([^:@]*\).*/\1/p'); do
    case $interface in
    veth"$TRAFCTL_CONTAINER".* | vme"$TRAFCTL_CONTAINER".*) found=yes ;;
    # Proxmox VE.
    veth"$TRAFCTL_CONTAINER"i* | tap"$TRAFCTL_CONTAINER"i*) found=yes ;;
    *) continue ;;
    esac
    # Older versions of tc cannot show the root alone.
    root=$(tc qdisc show dev "$interface" | grep "^qdisc [a-z_]* [0-9a-f]*: root " || true)
    ours=$(echo "$root" | grep -c "^qdisc tbf $handle " || true)
    case $1 in
    off) [ "$ours" = 0 ] || tc qdisc del dev "$interface" root ;;
    *)
        others=$(echo "$root" | grep -vc "^\(\|qdisc \([a-z_]* 0:\|tbf $handle\) .*\)$" || true)
        [ "$others" = 0 ] || { echo "$interface has a shaper of somebody else" >&2; exit 1; }
        tc qdisc replace dev "$interface" root handle $handle tbf rate "$1" burst 20kb latency 50ms ;;
    esac
done
# A container that is stopped has no interface. The limit is tried again until it has one, or with the next run by
# `again`.
[ -n "$found" ] || [ "$1" = off ] || [ -n "${TRAFCTL_AGAIN-}" ] || { echo "container $TRAFCTL_CONTAINER has no interface" >&2; exit 1; }
