//! The kernel side of trafctl: classifiers on the TC hooks of a container's host-side interface.
//!
//! # Theory of operation
//!
//! The hook calls a classifier with a socket buffer: a packet, or a super-packet that is segmented later.
//! Nearly all packets are of one plain kind, for which [`usual`] does all that follows in a few tests. Any
//! other packet takes these steps, all in [`every_step`]:
//!
//! 1. [`maps::interface`] looks up the interface's entry by its index: its own slot, its container's slot,
//!    flags, and the length of the link-layer header.
//! 2. [`parse::link_layer`] finds the start of layer 3, behind up to two in-band VLAN tags.
//! 3. [`copies`] recognises a copy that no wire carries. It is noted, and nothing more is done.
//! 4. [`gso::on_wire`] computes what the buffer becomes on the wire, in packets and layer-3 bytes.
//! 5. [`count::passed`] adds that to the interface's totals. It does so before anything else is known, so
//!    every packet is in the totals.
//! 6. On an interface without an entry, and on an uplink, [`no_container::classified_by`] decides whether to
//!    continue.
//! 7. [`classify::ipv4`] or [`classify::ipv6`] reads the addresses. The container is that of the interface;
//!    on a shared interface, and on an uplink with devices of containers, that of the local address. The
//!    class is that of the peer's address, which [`traffic_common::lookup`] finds in the lines of a class
//!    table. Together they give one counter.
//! 8. [`count::add_tally`] adds to that counter. In [`trafctl_ingress_mark`], [`shaping::mark`] then writes
//!    the mark.
//!    Where there is a shadow class table, [`shadow`] counts the packet under that as well.
//! 9. Every step that cannot continue returns a [`Fault`], and [`count::fault`] counts the packet instead.
//! 10. The verdict is always `TC_ACT_UNSPEC`, so the next program on the hook sees the packet too.
//!
//! Because step 5 precedes all decisions, and steps 8 and 9 are alternatives, *classes + faults = passed*.
//! Userspace and the tests check this.
//!
//! # Rules
//!
//! - The program inserts nothing into maps and changes no packet. The one exception is the mark, which is
//!   written by a program of its own, [`trafctl_ingress_mark`], loaded in place of [`trafctl_ingress`] where
//!   `[shaping]` is enabled.
//! - Counters are per CPU and added to without atomics. Both hooks run with bottom halves disabled, so two of
//!   these programs never interleave on one CPU. On PREEMPT_RT they can. Then every packet takes the long
//!   way, and the additions are atomic ([`count`]).
//! - The short way is flat, and tests first what fails least. Rare cases ([`every_step`], [`count::fault`],
//!   super-packets, uplinks) are functions of their own. So the verifier of every supported kernel can follow
//!   them, and the short way stays in the CPU's caches.
//!
//! [`maps`] documents each map. `traffic-common` has the types and the arithmetic; `traffic-user/src/kernel`
//! loads and attaches the program.

#![no_std]
#![no_main]
// For one instruction, an atomic addition. The build enables it on any toolchain.
#![feature(asm_experimental_arch)]

#[cfg(feature = "bench")]
mod bench;
mod class_table;
mod classify;
mod copies;
mod count;
mod finding;
mod gso;
mod headers;
mod interfaces;
mod maps;
mod no_container;
mod object;
mod parse;
mod segments;
mod shadow;
mod shaping;
mod sk_buff;
mod usual;

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use traffic_common::{
    CARRIED_IPSEC, Control, Direction, Family, Fault, InterfaceEntry, Note, Tally, UNKNOWN_INTERFACE_SLOT,
    interface_flags,
};

use crate::classify::Place;
use crate::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, LinkLayer};

/// The steps that the benchmark replaces to measure their cost, and the step after counting.
trait Parts {
    /// Looks up the interface's entry.
    #[inline(always)]
    fn interface(ifindex: u32) -> Option<&'static InterfaceEntry> {
        maps::interface(ifindex)
    }

    /// Finds the column of an IPv4 peer.
    #[inline(always)]
    fn column_v4(control: &Control, peer: [u8; 4]) -> Result<u32, Fault> {
        classify::column_v4(control, peer)
    }

    /// Finds the column of an IPv6 peer.
    #[inline(always)]
    fn column_v6(control: &Control, peer: [u8; 16]) -> Result<u32, Fault> {
        classify::column_v6(control, peer)
    }

    /// Finds the counter of a container and class.
    #[inline(always)]
    fn counter(place: Place, family: Family, direction: Direction) -> Option<&'static mut Tally> {
        count::class_counter(place, family, direction)
    }

    /// Called for each packet that was counted in a class.
    #[inline(always)]
    fn counted(_skb: *mut __sk_buff, _place: Place) {}
}

/// The shipped steps.
struct Shipped;
impl Parts for Shipped {}

/// The shipped steps, and a mark for a shaper on each packet that was counted in a class.
struct Marking;

impl Parts for Marking {
    #[inline(always)]
    fn counted(skb: *mut __sk_buff, place: Place) {
        shaping::mark(skb, place);
    }
}

/// Host-side ingress: from the container. On an uplink it is attached to egress: from the node.
#[classifier]
fn trafctl_ingress(ctx: TcContext) -> i32 {
    account::<Shipped>(&ctx, Direction::Out);
    TC_ACT_UNSPEC
}

/// As [`trafctl_ingress`], and marks what a container sends. A program of its own, so that the mark costs
/// nothing where it is not configured.
#[classifier]
fn trafctl_ingress_mark(ctx: TcContext) -> i32 {
    account::<Marking>(&ctx, Direction::Out);
    TC_ACT_UNSPEC
}

/// Host-side egress: to the container. On an uplink it is attached to ingress: to the node.
#[classifier]
fn trafctl_egress(ctx: TcContext) -> i32 {
    account::<Shipped>(&ctx, Direction::In);
    TC_ACT_UNSPEC
}

#[inline(always)]
fn account<P: Parts>(ctx: &TcContext, direction: Direction) {
    let skb = ctx.skb.skb;
    if usual::counted::<P>(skb, direction).is_none() {
        match direction {
            Direction::In => every_step::<P, true>(skb),
            Direction::Out => every_step::<P, false>(skb),
        }
    }
}

/// All steps, for every kind of packet. A function of its own, so that it does not displace the usual
/// packet's values from the registers.
#[inline(never)]
fn every_step<P: Parts, const IS_IN: bool>(skb: *mut __sk_buff) {
    let direction = if IS_IN { Direction::In } else { Direction::Out };
    let ctx = TcContext::new(skb);
    // SAFETY: the context of a classifier is a valid `__sk_buff`.
    let (ifindex, len, gso_size) = unsafe { ((*skb).ifindex, (*skb).len, (*skb).gso_size) };
    let (flags, interface_slot, container_slot, link_header_len) = match P::interface(ifindex) {
        Some(entry) => (entry.flags, entry.interface_slot, entry.container_slot, entry.link_header_len),
        None => (0, UNKNOWN_INTERFACE_SLOT, 0, no_container::link_header_len(skb)),
    };
    let LinkLayer { l3_offset, ethertype } = parse::link_layer(skb, link_header_len & !CARRIED_IPSEC);
    let carried_ipsec = link_header_len & CARRIED_IPSEC != 0;
    if copies::is_copy(skb, direction, flags)
        || carried_ipsec && copies::comes_in(direction, flags) && copies::is_inner(skb)
    {
        count::note(interface_slot, direction, Note::Copies, 1, u64::from(len));
        return;
    }
    let tally =
        gso::on_wire(skb, &LinkLayer { l3_offset, ethertype }, gso_size, len, (interface_slot, direction));
    count::passed(interface_slot, direction, &tally, len);
    if flags & (interface_flags::PRESENT | interface_flags::UPLINK) != 0
        && !carried_ipsec
        && copies::comes_in(direction, flags)
        && parse::is_maybe_ipsec(skb, l3_offset, ethertype)
    {
        maps::note_ipsec(ifindex);
    }

    let flags = if flags & interface_flags::PRESENT != 0 {
        Ok(flags)
    } else {
        no_container::classified_by(skb, l3_offset, ethertype, direction, flags)
    };
    let counted = match flags {
        Err(fault) => Err(fault),
        Ok(flags) if ethertype == ETHERTYPE_IPV4 => {
            classify::ipv4::<P>(skb, l3_offset, direction, flags, container_slot)
                .and_then(|place| add::<P>(skb, place, (Family::Ipv4, direction), &tally))
        }
        Ok(flags) if ethertype == ETHERTYPE_IPV6 => {
            classify::ipv6::<P>(skb, l3_offset, direction, flags, container_slot)
                .and_then(|place| add::<P>(skb, place, (Family::Ipv6, direction), &tally))
        }
        Ok(_) => Err(parse::link_layer_fault(ethertype)),
    };
    let fault = match counted {
        Ok(slot) => {
            if let Ok(control) = classify::control() {
                shadow::counted(control, skb, (l3_offset, direction), slot, &tally);
            }
            return;
        }
        Err(fault) => fault,
    };
    count::fault(interface_slot, direction, fault, tally.packets, tally.bytes);
    // Copies, because the macro's closure borrows: a borrowed direction would be kept on the stack, where the
    // verifier does not see that it is a constant.
    let (ifindex, direction, fault) = (ifindex, direction as u32, fault as u32);
    debug!(&ctx, "interface {} direction {} fault {}", ifindex, direction, fault);
}

/// Adds a packet to the counter of its container and class. Returns the container's slot.
#[inline(always)]
fn add<P: Parts>(
    skb: *mut __sk_buff,
    place: Place,
    (family, direction): (Family, Direction),
    tally: &Tally,
) -> Result<u32, Fault> {
    let counter = P::counter(place, family, direction).ok_or(Fault::NoCounter)?;
    count::add_tally(counter, tally);
    P::counted(skb, place);
    Ok(place.slot)
}
