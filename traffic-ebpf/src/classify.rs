//! Finds the container and the class of a packet, which together name its counter.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, btf_maps::lpm_trie::Key};
use traffic_common::{Direction, Fault, interface_flags};

pub use crate::class_table::*;
use crate::{
    Parts,
    maps::{ADDRESSES_V4, ADDRESSES_V6},
    parse::{IPV4_HEADER_LEN, Ipv4Header, Ipv6Header, header},
};

/// Where a packet is counted.
#[derive(Clone, Copy)]
pub struct Place {
    /// Slot of the container.
    pub slot: u32,
    /// Column of the class.
    pub column: u32,
    /// Columns of each container.
    pub columns: u32,
}

/// The counter of an IPv4 packet whose header begins at `offset`.
#[inline(always)]
pub fn ipv4<P: Parts>(
    skb: *mut __sk_buff,
    offset: u32,
    direction: Direction,
    flags: u32,
    container_slot: u32,
) -> Result<Place, Fault> {
    let mut copy = MaybeUninit::<Ipv4Header>::uninit();
    let header = header(skb, offset, &mut copy).ok_or(Fault::Truncated)?;
    // SAFETY: `header` checked the bounds, which the verifier checks again; the fields are bytes.
    let (version_ihl, source, destination) =
        unsafe { ((*header).version_ihl, (*header).source, (*header).destination) };
    let header_len = Ipv4Header::len(version_ihl);
    if version_ihl >> 4 != 4 || header_len < IPV4_HEADER_LEN {
        return Err(Fault::Malformed);
    }
    // SAFETY: the context of a classifier is a valid `__sk_buff`.
    if unsafe { (*skb).len } < offset + header_len {
        return Err(Fault::Truncated);
    }
    let (peer, local) = match direction {
        Direction::In => (source, destination),
        Direction::Out => (destination, source),
    };
    let mut slot = container_slot;
    if flags & (interface_flags::SHARED | interface_flags::NO_SLOT) != 0 {
        if flags & interface_flags::NO_SLOT != 0 {
            return Err(Fault::ContainerTableFull);
        }
        slot = slot_of(ADDRESSES_V4.get(&Key::new(32, local)), flags)?;
    }
    let control = control()?;
    Ok(Place { slot, column: P::column_v4(control, peer)?, columns: control.columns })
}

/// The counter of an IPv6 packet whose header begins at `offset`.
#[inline(always)]
pub fn ipv6<P: Parts>(
    skb: *mut __sk_buff,
    offset: u32,
    direction: Direction,
    flags: u32,
    container_slot: u32,
) -> Result<Place, Fault> {
    let mut copy = MaybeUninit::<Ipv6Header>::uninit();
    let header = header(skb, offset, &mut copy).ok_or(Fault::Truncated)?;
    // SAFETY: `header` checked the bounds, which the verifier checks again; the fields are bytes.
    if unsafe { (*header).version_class_flow[0] >> 4 } != 6 {
        return Err(Fault::Malformed);
    }
    // SAFETY: as above; only addresses are computed here.
    let (source, destination) = unsafe { (&raw const (*header).source, &raw const (*header).destination) };
    let (peer, local) = match direction {
        Direction::In => (source, destination),
        Direction::Out => (destination, source),
    };
    // SAFETY: as above.
    let peer = unsafe { *peer };
    let mut slot = container_slot;
    if flags & (interface_flags::SHARED | interface_flags::NO_SLOT) != 0 {
        if flags & interface_flags::NO_SLOT != 0 {
            return Err(Fault::ContainerTableFull);
        }
        // Copied only here: sixteen bytes cost every packet more than the rest of the header.
        // SAFETY: as above.
        slot = slot_of(ADDRESSES_V6.get(&Key::new(128, unsafe { *local })), flags)?;
    }
    let control = control()?;
    Ok(Place { slot, column: P::column_v6(control, peer)?, columns: control.columns })
}
