//! The drop program: counts what the kernel drops behind the hooks.
//!
//! It is an object of its own, on the tracepoint `kfree_skb`. Packets that are not dropped never meet it, and
//! where the kernel refuses it, counting goes on without it.
//!
//! # Theory of operation
//!
//! Only what a classifier has counted can be subtracted: *delivered = counted - dropped*. So each drop is looked
//! at from both ends:
//!
//! 1. [`kinds`] says what the reason means: a group, no loss at all, or that the place must be asked.
//! 2. [`frame::Frame`] is read, and drops in other network namespaces are left out. So is what had reached the
//!    transport layer: it was delivered to the node itself.
//! 3. **Received side** ([`sides::received`]): the interface that the packet came in on (`skb_iif`) counted it
//!    on its ingress hook. Where a bridge's own interface or an ifb has taken that place, the source address
//!    decides.
//! 4. **Transmit side** ([`sides::transmitted`]): the interface that the packet was to leave by (`skb->dev`)
//!    counted it on its egress hook, if the packet has been through `__dev_queue_xmit`. Three marks of that
//!    function must be there: the bit `tc_at_ingress` is off, the link-layer header is in front, and
//!    `qdisc_skb_cb::pkt_len` holds the length.
//! 5. Each side that has counted the packet gets the drop, in the class of its own peer.
//!
//! A super-packet counts as its segments, by the arithmetic of the classifiers ([`segments`]). Where the kernel
//! frees a super-packet after it has dropped its segments one by one, or a packet after one of its fragments,
//! only the pieces count.
//!
//! Counters are added to atomically, because packets are dropped in any context.

#![no_std]
#![no_main]
// For one instruction, an atomic addition. The build enables it on any toolchain.
#![feature(asm_experimental_arch)]

#[path = "../atomic.rs"]
mod atomic;
#[path = "../class_table.rs"]
mod class_table;
mod count;
#[path = "../finding.rs"]
mod finding;
#[path = "../frame.rs"]
#[expect(dead_code, reason = "the path programs read packets at other places")]
mod frame;
#[path = "../headers.rs"]
mod headers;
#[path = "../interfaces.rs"]
mod interfaces;
#[path = "../kernel_layout.rs"]
mod kernel_layout;
mod kinds;
mod maps;
#[path = "../object.rs"]
mod object;
#[path = "../segments.rs"]
mod segments;
mod sides;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use traffic_common::{DropFault, drop_kind};

use crate::{frame::Frame, kernel_layout::of_kernel, segments::forgotten, sides::Addresses};

/// On `kfree_skb(skb, location, reason, ...)`.
#[btf_tracepoint(function = "kfree_skb")]
fn trafctl_drops(ctx: BtfTracePointContext) -> i32 {
    if maps::is_active() {
        dropped(&ctx);
    }
    0
}

#[inline(always)]
fn dropped(ctx: &BtfTracePointContext) -> Option<()> {
    let mut kind = if of_kernel!(has_reason) != 0 {
        #[expect(clippy::cast_possible_truncation, reason = "an enumeration of 32 bits in a wider field")]
        let reason = ctx.arg::<u64>(2) as u32;
        kinds::of_reason(reason)
    } else {
        kinds::WITHOUT_REASON
    };
    if kind & drop_kind::NO_LOSS != 0 {
        return None;
    }
    let frame = Frame::read(ctx.arg(0))?;
    if kind & drop_kind::UNSPECIFIED != 0 {
        let place = kinds::of_place(ctx.arg(1));
        // Its pieces were dropped already, one by one.
        if place & drop_kind::NO_LOSS != 0 || place & drop_kind::CUTS != 0 && frame.is_cut_by(place) {
            return None;
        }
        kind = place;
    }

    // From here on, the verifier sees one way through the program, however sides and kind were found.
    let received = sides::received(&frame, kind).forgotten();
    let transmitted = sides::transmitted(&frame, kind).forgotten();
    #[expect(clippy::cast_possible_truncation, reason = "it was a byte before")]
    let kind = forgotten(kind.into()) as u8;
    if !received.has_counted() && !transmitted.has_counted() {
        return None;
    }
    let layer_3 = frame.layer_3();
    let (tally, is_estimated) = frame.on_wire(layer_3);
    if is_estimated {
        count::fault(DropFault::Estimated, &tally);
    }
    let addresses = match Addresses::read(&frame, layer_3) {
        Ok(addresses) => addresses,
        Err(named) => {
            count::fault(named?, &tally);
            return None;
        }
    };
    if received.has_counted() && !(frame.is_multicast() || addresses.is_to_many()) {
        count::side(&received, &addresses, kind, &tally);
    }
    if transmitted.has_counted() {
        count::side(&transmitted, &addresses, kind, &tally);
    }
    Some(())
}
