//! The kernel side of trafctl: two classifiers on the TC hooks of a container's host-side interface.
//!
//! # Theory of operation
//!
//! 1. The hook hands over a socket buffer: a packet, or a super-packet that will be segmented later.
//! 2. [`maps::interface`] finds the interface's entry by index: its container, where its totals are, how long its
//!    link-layer header is.
//! 3. [`parse::parse`] looks through at most two VLAN tags and reads both addresses.
//! 4. [`gso::on_wire`] says what the buffer will be on the wire, in packets and layer-3 bytes.
//! 5. [`count::passed`] adds that to the interface's totals, whatever comes next.
//! 6. [`classify::classify`] finds the container (by interface, or by local address on a shared one) and the class of the peer's
//!    address; [`count::class`] adds to that counter. Anything that stopped on the way is a [`Fault`] and goes to
//!    [`count::fault`]. So classes + faults = passed can be checked from outside.
//!
//! Nothing is inserted into a map here, no packet is changed, and the verdict is always `TC_ACT_UNSPEC`: the next
//! program on the hook sees what we saw. `traffic-common` holds the types and the arithmetic.
//!
//! Counters are per CPU and added to without atomics: both hooks run with bottom halves disabled, so no two of these
//! programs interleave on one CPU.

#![no_std]
#![no_main]

mod classify;
mod count;
mod gso;
mod maps;
mod parse;

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use aya_log_ebpf::debug;
use traffic_common::{Direction, Fault, UNKNOWN_INTERFACE_SLOT, interface_flags};

/// Host-side ingress: out of the container.
#[classifier]
fn trafctl_ingress(ctx: TcContext) -> i32 {
    account(&ctx, Direction::Out);
    TC_ACT_UNSPEC
}

/// Host-side egress: in to the container.
#[classifier]
fn trafctl_egress(ctx: TcContext) -> i32 {
    account(&ctx, Direction::In);
    TC_ACT_UNSPEC
}

#[inline(always)]
fn account(ctx: &TcContext, direction: Direction) {
    let skb = ctx.skb.skb;
    // SAFETY: the context of a classifier is a valid `__sk_buff`.
    let ifindex = unsafe { (*skb).ifindex };
    let Some(interface) = maps::interface(ifindex) else {
        // Nothing is known of the device's header, so Ethernet, by far the most common, is assumed.
        let parsed = parse::parse(ctx, parse::ETHERNET_HEADER_LEN);
        let tally = gso::on_wire(ctx, &parsed, direction, UNKNOWN_INTERFACE_SLOT);
        count::passed(UNKNOWN_INTERFACE_SLOT, direction, &tally, ctx.len());
        count::fault(UNKNOWN_INTERFACE_SLOT, direction, Fault::UnknownInterface, &tally);
        return;
    };
    let slot = interface.interface_slot;
    let parsed = parse::parse(ctx, interface.link_header_len);
    let tally = gso::on_wire(ctx, &parsed, direction, slot);
    count::passed(slot, direction, &tally, ctx.len());

    let fault = match &parsed.addresses {
        Ok(addresses) if interface.flags & interface_flags::NO_SLOT == 0 => {
            match classify::classify(interface, addresses, direction) {
                Ok(index) => match count::class(index, addresses.family(), direction, &tally) {
                    Ok(()) => return,
                    Err(fault) => fault,
                },
                Err(fault) => fault,
            }
        }
        Ok(_) => Fault::ContainerTableFull,
        Err(fault) => *fault,
    };
    count::fault(slot, direction, fault, &tally);
    debug!(ctx, "interface {} direction {}: fault {}", ifindex, direction as u32, fault as u32);
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
