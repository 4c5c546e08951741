#!/bin/sh
# throttle-by-mark.sh DEVICE RATE   limits what a container sends over DEVICE, for an action of trafctl's quotas
# throttle-by-mark.sh DEVICE off    lifts that limit
#
# DEVICE is an uplink, such as eth0. The container's packets are found by the mark that trafctl sets with `[shaping]
# enabled = true`, all classes of it. trafctl names the container in TRAFCTL_CONTAINER. Both may run more than once,
# and change nothing then.
#
# Each container gets an HTB class of its own. Where DEVICE has no queueing discipline of anybody, the tree is made for
# the first one and removed after the last, and all other packets pass it at full speed. In an HTB tree of somebody
# else, only the class and its filter are added. Any other shaper is left alone.
set -euf
own=7fd: pref=1
device=${1-} rate=${2-} id=$TRAFCTL_CONTAINER
state=${TRAFCTL_STATE_DIR:-/var/lib/trafctl}
fail() { echo "$*" >&2; exit 1; }
[ -n "$device" ] && [ -n "$rate" ] || { echo "usage: throttle-by-mark.sh DEVICE RATE|off" >&2; exit 2; }
case $id in
0* | *[!0-9]* | ??????????*) mark=0 ;;
*) mark=$((${id:-0} * 32)) ;;
esac
# The mark is 27 bits of the id and 5 of the class.
if [ "$mark" -le 0 ] || [ "$mark" -gt 4294967264 ]; then
    fail "container $id has no mark: only numbers from 1 to 134217727 have one"
fi
if [ "$rate" != off ] && trafctl config show 2>/dev/null | grep -q '^shaping.enabled  *false'; then
    fail "packets have no mark to throttle by: write enabled = true under [shaping], and reload trafctl"
fi

# Actions for several containers run at once.
exec 9>>"$state/throttle-by-mark.lock"
flock -w 20 9 || fail "another throttle-by-mark.sh does not end"
root=$(tc qdisc show dev "$device") || fail "there is no $device"
# Older versions of tc cannot show the root alone.
root=$(echo "$root" | grep "^qdisc [a-z_]* [0-9a-f]*: root " || true)
case $root in
"qdisc htb "*) tree=${root#qdisc htb } tree=${tree%% *} ;;
# What the system has put there has no handle.
"" | "qdisc "*" 0: root "*) tree= ;;
*) [ "$rate" != off ] || exit 0; fail "$device has a shaper of somebody else: $root" ;;
esac
filters() { tc filter show dev "$device" parent "$1" pref $pref; }
classes() { tc class show dev "$device" | sed -n "s/^class htb $1\([0-9a-f]*\) .*/\1/p"; }
# In a tree of ours, a class without a filter was left by a script that was killed. An empty tree serves nobody.
tidy() {
    [ "$tree" = $own ] || return 0
    for one in $(classes $own); do
        filters $own | grep -q " $own$one\( \|\$\)" || tc class del dev "$device" classid "$own$one"
    done
    [ -n "$(classes $own)" ] || tc qdisc del dev "$device" root
}
trap tidy EXIT

# The filter as `tc` prints it: by the mark, or by a program that compares it where the kernel has no cls_fw. Classes
# of ours have numbers from 8000 on.
handle=$(printf '0x%x/0xffffffe0' "$mark")
number=$(printf '0x%x' "$id")
class=
if [ -n "$tree" ]; then
    class=$(filters "$tree" |
        sed -n "s,.* handle \($handle\|$number\) .*\(classid\|flowid\) $tree\([89a-f][0-9a-f]\{3\}\)\( .*\)\?$,\3,p")
fi
filter="dev $device parent ${tree:-$own} protocol all pref $pref"

if [ "$rate" = off ]; then
    [ -n "$class" ] || exit 0
    tc filter del $filter handle "$handle" fw 2>/dev/null || tc filter del $filter handle "$number" bpf
    tc class del dev "$device" classid "$tree$class"
    exit 0
fi
if [ -n "$class" ]; then
    tc class replace dev "$device" parent "$tree" classid "$tree$class" htb rate "$rate" ceil "$rate" quantum 6000
    exit 0
fi
if [ -z "$tree" ]; then
    # Without a default class, what has no filter is not delayed.
    tc qdisc add dev "$device" root handle $own htb
    tree=$own
fi
taken=" $(classes "$tree" | tr '\n' ' ')"
next=32768
while class=$(printf %x $next) && case $taken in *" $class "*) ;; *) false ;; esac; do
    next=$((next + 1))
    [ $next -lt 65536 ] || fail "$device has no place for another class"
done
tc class add dev "$device" parent "$tree" classid "$tree$class" htb rate "$rate" ceil "$rate" quantum 6000
# A short queue: a second of traffic helps nobody.
tc qdisc add dev "$device" parent "$tree$class" fq_codel 2>/dev/null ||
    tc qdisc add dev "$device" parent "$tree$class" bfifo limit 256kb
compare="5,32 0 0 4294963220,84 0 0 4294967264,21 0 1 $mark,6 0 0 4294967295,6 0 0 0"
if ! why=$(tc filter add $filter handle "$handle" fw classid "$tree$class" 2>&1) &&
    ! tc filter add $filter handle "$number" bpf bytecode "$compare" flowid "$tree$class" 2>/dev/null; then
    tc class del dev "$device" classid "$tree$class"
    fail "cannot put a filter before those of $device; give them a pref above $pref: $why"
fi
