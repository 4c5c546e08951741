//! The path programs: which way packets take through the node, for as long as somebody measures.
//!
//! # Theory of operation
//!
//! A packet's way has two ends: where it came in (`skb_iif`, 0 for what the node itself sends) and where it went: the
//! device that sent it, or the node. All interfaces of containers are one end, so the table stays small on any node.
//!
//! - **Sent.** `net_dev_start_xmit` is the last place where the packet may be read; only `net_dev_xmit` knows whether
//!   the device took it. So [`trafctl_begin`] notes what was handed over, and [`trafctl_sent`] counts it, also what the
//!   device refused. Both come behind the queueing disciplines: what a shaper drops is in neither.
//! - **Delivered to the node.** Netfilter's last input hook, or where programs cannot be there, the functions behind
//!   it. Fragments are one packet by then.
//! - **Behind a bridge or in a VRF**, `skb_iif` names these. [`trafctl_received`] notes where a packet came in first.
//!   Pieces that the node cuts from a super-packet have other buffers, and come from the bridge.
//! - **To many.** One packet becomes many, or none. What containers send to broadcast and multicast addresses is
//!   counted where it comes in, and kept apart everywhere else.
//!
//! Sizes follow the arithmetic of the classifiers ([`segments`]).

#![no_std]
#![no_main]
// For one instruction, an atomic addition. The build enables it on any toolchain.
#![feature(asm_experimental_arch)]

#[path = "../atomic.rs"]
mod atomic;
#[path = "../frame.rs"]
#[expect(dead_code, reason = "the drop program reads more of a packet")]
mod frame;
#[path = "../headers.rs"]
#[expect(dead_code, reason = "addresses are not read here")]
mod headers;
#[path = "../interfaces.rs"]
mod interfaces;
#[path = "../kernel_layout.rs"]
mod kernel_layout;
mod maps;
#[path = "../object.rs"]
mod object;
#[path = "../segments.rs"]
mod segments;

use core::ffi::c_void;

use aya_ebpf::{
    macros::{btf_tracepoint, fentry},
    programs::{BtfTracePointContext, FEntryContext},
};
use traffic_common::{
    PATH_CONTAINERS, PATH_HIDDEN, PATH_NODE, PATH_TO_MANY, PathKey, PathTally, Tally, interface_flags,
    path_flags,
};

use crate::{
    frame::{Frame, device_address, is_here},
    headers::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    interfaces::entry_of,
    maps::{
        CAME_THROUGH, GIVEN_BACK, HANDED_OVER, Handed, PATH_CONTROL, PATHS, PLACES, SENT_AGAIN, SHOWN_AS,
    },
    segments::{Buffer as _, forgotten},
};

/// Offsets of the destination in the headers.
const IPV4_DESTINATION: u32 = 16;
const IPV6_DESTINATION: u32 = 24;
/// `NETDEV_TX_BUSY`
const BUSY: u64 = 0x10;
/// `NET_XMIT_CN`: the packet was taken, and others wait.
const CONGESTED: u64 = 2;
/// `NF_ACCEPT`: netfilter goes on as if there were no program.
const ACCEPT: i32 = 1;
/// `BPF_NOEXIST`
const ONLY_NEW: u64 = 1;

/// On `net_dev_start_xmit(skb, dev)`.
#[btf_tracepoint(function = "net_dev_start_xmit")]
fn trafctl_begin(ctx: BtfTracePointContext) -> i32 {
    if is_active() {
        begin(&ctx);
    }
    0
}

#[inline(always)]
fn begin(ctx: &BtfTracePointContext) -> Option<()> {
    let (buffer, device) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1));
    // SAFETY: copied at once.
    if let Some(handed) = unsafe { GIVEN_BACK.get(buffer) }.copied() {
        let _gone = GIVEN_BACK.remove(buffer);
        if handed.device == device {
            note(handed);
            return None;
        }
    }
    let frame = Frame::read(ctx.arg(0))?;
    if flags_of(frame.device) & interface_flags::REPEATER != 0 {
        let _evicts = SENT_AGAIN.insert(buffer, 0, 0);
    }
    let from = if frame.came_from == frame.device && SENT_AGAIN.remove(buffer).is_ok() {
        PATH_HIDDEN
    } else {
        origin(ctx.arg(0), &frame)
    };
    note(Handed { buffer, device, ..described(&frame, from, end_of(frame.device)) });
    None
}

/// On `net_dev_xmit(skb, rc, dev, len)`. The buffer may be gone: only its address is used.
#[btf_tracepoint(function = "net_dev_xmit")]
fn trafctl_sent(ctx: BtfTracePointContext) -> i32 {
    let (buffer, device) = (ctx.arg::<u64>(0), ctx.arg::<u64>(2));
    if let Some(mut handed) = take(buffer, device) {
        #[expect(clippy::cast_possible_truncation, reason = "a C int in a wider field")]
        let answer = u64::from(ctx.arg::<u64>(1) as u32);
        if answer == BUSY {
            let _evicts = GIVEN_BACK.insert(buffer, handed, 0);
        } else if handed.is_dropped == 0 {
            // What was dropped at the device is in the drop counters, whatever it answered.
            if answer != 0 && answer != CONGESTED {
                handed.key.flags |= path_flags::REFUSED;
            }
            count(&handed);
        }
    } else if is_active() && is_here(ctx.arg(2)) {
        lost();
    }
    0
}

/// On `kfree_skb(skb, ...)`: notes that a packet which a device was handed is dropped there.
#[btf_tracepoint(function = "kfree_skb")]
fn trafctl_dropped(ctx: BtfTracePointContext) -> i32 {
    if is_active() {
        let (buffer, device) = (ctx.arg::<u64>(0), device_address(ctx.arg(0)));
        if let Some(at) = place_of(buffer, device) {
            // SAFETY: see `note`.
            unsafe { (*at).is_dropped = 1 };
        }
    }
    0
}

/// Puts a packet into an empty place.
#[inline(always)]
fn note(handed: Handed) {
    for place in 0..PLACES {
        let Some(at) = HANDED_OVER.get_ptr_mut(place) else { break };
        // SAFETY: a value of this CPU's, which only these programs use, one after the other.
        unsafe {
            if (*at).buffer == 0 {
                *at = handed;
                return;
            }
        }
    }
    lost();
}

/// Takes a packet out of its place. `None` for one that was not put there.
#[inline(always)]
fn take(buffer: u64, device: u64) -> Option<Handed> {
    let at = place_of(buffer, device)?;
    // SAFETY: see `note`.
    unsafe {
        let handed = *at;
        (*at).buffer = 0;
        Some(handed)
    }
}

#[inline(always)]
fn place_of(buffer: u64, device: u64) -> Option<*mut Handed> {
    for place in 0..PLACES {
        let at = HANDED_OVER.get_ptr_mut(place)?;
        // SAFETY: see `note`.
        if unsafe { (*at).buffer == buffer && (*at).device == device } {
            return Some(at);
        }
    }
    None
}

/// On netfilter's hook for what is delivered to the node (`bpf_nf_ctx`: state, skb), behind all its rules.
///
/// aya knows no such programs; userspace loads this one as what it is. aya's macros would return 0, which is a verdict
/// here: to drop the packet.
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry/netfilter")]
extern "C" fn trafctl_local(ctx: *mut c_void) -> i32 {
    delivered(FEntryContext::new(ctx).arg(1));
    ACCEPT
}

/// On `ip_local_deliver_finish(net, sk, skb)`, where there is no such hook for programs.
#[fentry(function = "ip_local_deliver_finish")]
fn trafctl_local4(ctx: FEntryContext) -> i32 {
    delivered(ctx.arg(2));
    0
}

/// On `ip6_input_finish(net, sk, skb)`.
#[fentry(function = "ip6_input_finish")]
fn trafctl_local6(ctx: FEntryContext) -> i32 {
    delivered(ctx.arg(2));
    0
}

/// On `netif_receive_skb(skb)`.
#[btf_tracepoint(function = "netif_receive_skb")]
fn trafctl_received(ctx: BtfTracePointContext) -> i32 {
    if is_active()
        && let Some(frame) = Frame::received(ctx.arg(0))
    {
        let from = end_of(frame.device);
        let shown = shown_as(frame.device);
        let first = if frame.came_from == 0 { frame.device } else { frame.came_from };
        if shown != first {
            let _evicts = CAME_THROUGH.insert(ctx.arg::<u64>(0), [shown, end_of(first)], 0);
        }
        if from == PATH_CONTAINERS {
            let described = described(&frame, from, PATH_TO_MANY);
            if described.key.has(path_flags::TO_MANY) {
                count(&described);
            }
        }
    }
    0
}

/// Counts a packet that is delivered to the node.
#[inline(always)]
fn delivered(skb: *const u8) {
    if is_active()
        && let Some(frame) = Frame::read(skb)
    {
        count(&described(&frame, origin(skb, &frame), PATH_NODE));
    }
}

/// Where a packet came in. An entry of a buffer that is long gone shows another interface, or was overwritten when the
/// packet of now came in.
#[inline(always)]
fn origin(skb: *const u8, frame: &Frame) -> u32 {
    // SAFETY: copied at once.
    match unsafe { CAME_THROUGH.get(skb as u64) }.copied() {
        Some([shown, end]) if shown == frame.came_from || shown == shown_as(frame.came_from) => {
            forgotten(end)
        }
        _ => end_of(frame.came_from),
    }
}

/// The interface under which the kernel shows what comes in on this one.
#[inline(always)]
fn shown_as(interface: u32) -> u32 {
    // SAFETY: copied at once.
    forgotten(unsafe { SHOWN_AS.get(interface) }.copied().unwrap_or(interface))
}

/// A packet, by its way and size.
#[inline(always)]
fn described(frame: &Frame, from: u32, to: u32) -> Handed {
    let layer_3 = frame.layer_3();
    let (on_wire, _) = frame.on_wire(layer_3);
    let mut flags = 0;
    if matches!(layer_3.1, ETHERTYPE_IPV4 | ETHERTYPE_IPV6) {
        flags |= path_flags::IP;
    }
    if frame.is_multicast() || is_to_many(frame, layer_3) {
        flags |= path_flags::TO_MANY;
    }
    let key = PathKey { from, to, flags, reserved: 0 };
    let buffers = Tally { packets: 1, bytes: frame.skb_len.into() };
    Handed { buffer: 0, device: 0, is_dropped: 0, key, tally: PathTally { on_wire, buffers } }
}

/// Whether the destination is a broadcast or multicast address. Without a link-layer header, nothing else says so.
#[inline(always)]
fn is_to_many(frame: &Frame, (offset, ethertype): (u32, u32)) -> bool {
    let at = match ethertype {
        ETHERTYPE_IPV4 => IPV4_DESTINATION,
        ETHERTYPE_IPV6 => IPV6_DESTINATION,
        _ => return false,
    };
    // As one word: the verifier wants loads from the stack aligned.
    frame
        .load(offset + at)
        .is_some_and(|begin| frame::is_to_many(u32::from_be(begin), ethertype == ETHERTYPE_IPV4))
}

/// One end of a way: the interface, or all those of containers.
#[inline(always)]
fn end_of(interface: u32) -> u32 {
    let is_containers = flags_of(interface) & interface_flags::PRESENT != 0;
    forgotten(if is_containers { PATH_CONTAINERS } else { interface })
}

#[inline(always)]
fn flags_of(interface: u32) -> u32 {
    entry_of(interface).map_or(0, |entry| entry.flags)
}

#[inline(always)]
fn count(handed: &Handed) {
    if PATHS.get_ptr_mut(handed.key).is_none() {
        // Another CPU may be faster.
        let _exists = PATHS.insert(handed.key, PathTally::default(), ONLY_NEW);
    }
    match PATHS.get_ptr_mut(handed.key) {
        Some(tally) => {
            // SAFETY: two fields of a map's value, each added to atomically.
            unsafe {
                atomic::add(&raw mut (*tally).on_wire, &handed.tally.on_wire);
                atomic::add(&raw mut (*tally).buffers, &handed.tally.buffers);
            }
        }
        None => lost(),
    }
}

/// Notes that something could not be counted.
#[inline(never)]
fn lost() {
    if let Some(control) = PATH_CONTROL.get_ptr_mut(0) {
        // SAFETY: a field of a map's value. Two at the same moment may be one: what matters is that it is not 0.
        unsafe { (&raw mut (*control).lost).write_volatile((*control).lost.wrapping_add(1)) };
    }
}

/// Whether somebody measures.
#[inline(always)]
fn is_active() -> bool {
    // SAFETY: volatile, because userspace changes it.
    PATH_CONTROL.get(0).is_some_and(|control| unsafe { (&raw const control.is_active).read_volatile() } != 0)
}
