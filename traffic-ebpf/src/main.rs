//! The kernel side of trafctl: two classifiers on the TC hooks of a container's host-side interface.
//!
//! # Theory of operation
//!
//! 1. The hook hands over a socket buffer: a packet, or a super-packet that will be segmented later.
//! 2. [`maps::interface`] finds the interface's entry by index: its container, where its totals are, how long its
//!    link-layer header is.
//! 3. [`parse::link_layer`] looks through at most two VLAN tags for the start of layer 3.
//! 4. [`gso::on_wire`] says what the buffer will be on the wire, in packets and layer-3 bytes.
//! 5. [`count::passed`] adds that to the interface's totals, whatever comes next.
//! 6. [`classify`] reads the addresses and finds the container (by interface, or by local address on a shared one) and
//!    the class of the peer; [`count::class`] adds to that counter. Anything that stopped on the way is a [`Fault`] and
//!    goes to [`count::fault`]. So classes + faults = passed can be checked from outside.
//!
//! Nothing is inserted into a map here, no packet is changed, and the verdict is always `TC_ACT_UNSPEC`: the next
//! program on the hook sees what we saw. The one exception is a program of its own, [`trafctl_ingress_mark`], loaded in place of
//! [`trafctl_ingress`] where that is configured: it writes a mark for a shaper ([`shaping`]). `traffic-common` holds the types and the arithmetic.
//!
//! Counters are per CPU and added to without atomics: both hooks run with bottom halves disabled, so no two of these
//! programs interleave on one CPU.
//!
//! The common path is kept flat, and what is rare ([`count::fault`], super-packets) stands in functions of its own, so
//! that the verifier of every supported kernel follows it and the CPU's caches hold it.

#![no_std]
#![no_main]

#[cfg(feature = "bench")]
mod bench;
mod classify;
mod count;
mod gso;
mod maps;
mod other;
mod parse;
mod shaping;

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use traffic_common::{
    Control, Direction, Family, Fault, InterfaceEntry, Tally, UNKNOWN_INTERFACE_SLOT, interface_flags,
};

use crate::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, LinkLayer};

/// The parts of the way that the benchmark puts others in place of, to measure what each costs, and what follows it.
trait Parts {
    /// The interface's entry.
    #[inline(always)]
    fn interface(ifindex: u32) -> Option<&'static InterfaceEntry> {
        maps::interface(ifindex)
    }

    /// The column of an IPv4 peer.
    #[inline(always)]
    fn column_v4(control: &Control, peer: [u8; 4]) -> Result<u32, Fault> {
        classify::column_v4(control, peer)
    }

    /// The column of an IPv6 peer.
    #[inline(always)]
    fn column_v6(control: &Control, peer: [u8; 16]) -> Result<u32, Fault> {
        classify::column_v6(control, peer)
    }

    /// Counts the packet for its container and class.
    #[inline(always)]
    fn count(index: u32, family: Family, direction: Direction, tally: &Tally) -> Result<(), Fault> {
        count::class(index, family, direction, tally)
    }

    /// What else is done with a packet that is counted in a class.
    #[inline(always)]
    fn counted(_skb: *mut __sk_buff, _index: u32) {}
}

/// All parts as they are.
struct Shipped;
impl Parts for Shipped {}

/// With a mark for a shaper on what is counted in a class.
struct Marking;

impl Parts for Marking {
    #[inline(always)]
    fn counted(skb: *mut __sk_buff, index: u32) {
        shaping::mark(skb, index);
    }
}

/// Host-side ingress: out of the container. On an uplink it hangs on egress: out of the node.
#[classifier]
fn trafctl_ingress(ctx: TcContext) -> i32 {
    account::<Shipped>(&ctx, Direction::Out);
    TC_ACT_UNSPEC
}

/// As [`trafctl_ingress`], and marks what a container sends. A program of its own, so that the mark costs nothing where it is
/// not wanted.
#[classifier]
fn trafctl_ingress_mark(ctx: TcContext) -> i32 {
    account::<Marking>(&ctx, Direction::Out);
    TC_ACT_UNSPEC
}

/// Host-side egress: in to the container. On an uplink it hangs on ingress: in to the node.
#[classifier]
fn trafctl_egress(ctx: TcContext) -> i32 {
    account::<Shipped>(&ctx, Direction::In);
    TC_ACT_UNSPEC
}

#[inline(always)]
fn account<P: Parts>(ctx: &TcContext, direction: Direction) {
    let skb = ctx.skb.skb;
    // SAFETY: the context of a classifier is a valid `__sk_buff`.
    let (ifindex, len, gso_size) = unsafe { ((*skb).ifindex, (*skb).len, (*skb).gso_size) };
    // Of an unknown interface nothing is known of the header either; Ethernet is by far the most common.
    let (flags, interface_slot, container_slot, link_header_len) = match P::interface(ifindex) {
        Some(entry) => (entry.flags, entry.interface_slot, entry.container_slot, entry.link_header_len),
        None => (0, UNKNOWN_INTERFACE_SLOT, 0, parse::ETHERNET_HEADER_LEN),
    };
    let LinkLayer { l3_offset, ethertype } = parse::link_layer(skb, link_header_len);
    let tally =
        gso::on_wire(skb, &LinkLayer { l3_offset, ethertype }, gso_size, len, (interface_slot, direction));
    count::passed(interface_slot, direction, &tally, len);

    let stopped = if flags & interface_flags::PRESENT != 0 {
        None
    } else {
        other::not_counted(skb, l3_offset, ethertype, direction, flags)
    };
    let counted = if let Some(fault) = stopped {
        Err(fault)
    } else if ethertype == ETHERTYPE_IPV4 {
        classify::ipv4::<P>(skb, l3_offset, direction, flags, container_slot).and_then(|index| {
            P::count(index, Family::Ipv4, direction, &tally).map(|()| P::counted(skb, index))
        })
    } else if ethertype == ETHERTYPE_IPV6 {
        classify::ipv6::<P>(skb, l3_offset, direction, flags, container_slot).and_then(|index| {
            P::count(index, Family::Ipv6, direction, &tally).map(|()| P::counted(skb, index))
        })
    } else {
        Err(parse::link_layer_fault(ethertype))
    };
    if let Err(fault) = counted {
        count::fault(interface_slot, direction, fault, tally.packets, tally.bytes);
        debug!(ctx, "interface {} direction {} fault {}", ifindex, direction as u32, fault as u32);
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers that read the kernel's `sk_buff` are open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
