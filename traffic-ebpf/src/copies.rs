//! Packets that pass a hook although no wire carries them there: copies, which belong to nobody.
//!
//! - An ifb (a shaper for several interfaces) gets a packet by a redirect, queues it, and sends it once more
//!   on the interface that it came from. It passes the egress hook twice, and is transmitted once. On the
//!   ingress hook the kernel itself skips the second pass.
//! - The host decrypts an IPsec tunnel, and the inner packet comes in on the device on which the outer one
//!   came. The wire carried the outer one.
//! - The host loops its own broadcasts and multicasts back to itself, on the ingress hook of the interface
//!   that it sent them on.
//!
//! A packet that another interface redirects to ours is no copy: ours transmits it, and no hook of ours saw
//! it before. The kernel's bit for such packets (`redirected`) is therefore of no use here.

use aya_ebpf::bindings::__sk_buff;
use traffic_common::{Direction, INTERFACE_INDEX_ENTRIES, interface_flags};

use crate::{
    maps::{INTERFACE_BY_INDEX, of_kernel},
    sk_buff,
};

/// `PACKET_LOOPBACK`
const LOOPED_BACK: u32 = 5;

/// Whether the hook for `direction` is that of packets which come in to the host.
#[inline(always)]
pub fn comes_in(direction: Direction, flags: u32) -> bool {
    let is_reversed = flags & (interface_flags::UPLINK | interface_flags::REVERSED) != 0;
    matches!(direction, Direction::Out) != is_reversed
}

/// Whether a packet is the inside of one that came in before. Only on an interface that has carried IPsec,
/// because the question costs a helper.
#[inline(never)]
pub fn is_inner(skb: *mut __sk_buff) -> bool {
    sk_buff::is_decrypted(skb).unwrap_or(false)
}

/// Whether a packet is such a copy, on the hook for `direction` of an interface with these flags.
#[inline(always)]
pub fn is_copy(skb: *mut __sk_buff, direction: Direction, flags: u32) -> bool {
    if comes_in(direction, flags) {
        // SAFETY: the context of a classifier is a valid `__sk_buff`.
        return unsafe { (*skb).pkt_type } == LOOPED_BACK;
    }
    // SAFETY: as above.
    let came_from = unsafe { (*skb).ingress_ifindex };
    // What the host itself sends came from nowhere. What an ifb sends came from the ifb.
    came_from != 0 && may_repeat(came_from) && is_sent_again(skb, came_from)
}

/// Whether userspace has not registered the interface as one that sends nothing again. Costs a nanosecond,
/// and spares nearly every packet the helper that [`is_sent_again`] needs.
#[inline(always)]
fn may_repeat(ifindex: u32) -> bool {
    const NEVER: u32 = interface_flags::PRESENT | interface_flags::UPLINK | interface_flags::ORDINARY;
    flags_of(ifindex) & NEVER == 0
}

#[inline(always)]
fn flags_of(ifindex: u32) -> u32 {
    if ifindex >= INTERFACE_INDEX_ENTRIES {
        return 0;
    }
    INTERFACE_BY_INDEX.get(ifindex).map_or(0, |entry| entry.flags)
}

/// The kernel's bit decides, because below a bridge or a VLAN device the packet still names the ifb on its
/// first pass. Where the bit cannot be read, what userspace knows of the interface must do.
#[inline(never)]
fn is_sent_again(skb: *mut __sk_buff, came_from: u32) -> bool {
    if of_kernel!(known) == 0 {
        return flags_of(came_from) & interface_flags::REPEATER != 0;
    }
    sk_buff::is_sent_again(skb).unwrap_or(false)
}
