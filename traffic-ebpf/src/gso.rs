//! How many packets and bytes a buffer becomes on the wire.
//!
//! Nearly every buffer is a single packet, and the first test returns. What a super-packet becomes is computed in
//! [`segments`](crate::segments). For it, the segmentation type is read from the kernel's own `sk_buff`
//! ([`sk_buff`](crate::sk_buff)).

use aya_ebpf::bindings::__sk_buff;
use traffic_common::{Direction, Note, Tally, gso, wire};

use crate::{
    count,
    maps::of_kernel,
    parse::{self, LinkLayer},
    segments::{Buffer, super_packet, unpack},
    sk_buff,
};

/// Packets and layer-3 bytes of this buffer on the wire.
#[inline(always)]
pub fn on_wire(
    skb: *mut __sk_buff,
    link: &LinkLayer,
    gso_size: u32,
    len: u32,
    (interface_slot, direction): (u32, Direction),
) -> Tally {
    if gso_size == 0 {
        return wire::unsegmented(len.saturating_sub(link.l3_offset));
    }
    let (tally, is_estimated) = unpack(super_packet(Hooked(skb), link.l3_offset, link.ethertype));
    if is_estimated {
        count::estimated(interface_slot, direction, &tally);
    }
    if gso_size < gso::SMALLEST_SEGMENT && tally.packets > 1 {
        count::note(interface_slot, direction, Note::SmallSegments, tally.packets, tally.bytes);
    }
    tally
}

/// The buffer at a TC hook.
#[derive(Clone, Copy)]
struct Hooked(*mut __sk_buff);

impl Buffer for Hooked {
    #[inline(always)]
    fn sizes(self) -> (u32, u32, u32) {
        // SAFETY: the context of a classifier is a valid `__sk_buff`.
        unsafe { ((*self.0).len, (*self.0).gso_size, (*self.0).gso_segs) }
    }

    #[inline(always)]
    fn protocol_and_linear(self) -> (u32, u32) {
        // SAFETY: as above.
        let (protocol, linear) = unsafe { ((*self.0).protocol, (*self.0).data_end - (*self.0).data) };
        #[expect(clippy::cast_possible_truncation, reason = "a be16 in a wider field")]
        let protocol = u16::from_be(protocol as u16);
        (u32::from(protocol), linear)
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> Option<T> {
        parse::load(self.0, offset)
    }

    #[inline(always)]
    fn gso_type(self) -> Option<u32> {
        sk_buff::gso_type(self.0)
    }

    #[inline(always)]
    fn transport(self) -> Option<u32> {
        sk_buff::transport(self.0)
    }

    #[inline(always)]
    fn inner_transport(self) -> Option<u32> {
        sk_buff::inner_transport(self.0)
    }

    #[inline(always)]
    fn jumbo_is_removed(self) -> bool {
        of_kernel!(jumbo_is_removed) != 0
    }
}
