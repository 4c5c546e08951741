//! Finds the container and the class of a packet, which together name its counter.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, btf_maps::lpm_trie::Key};
use traffic_common::{
    ADDRESS_WITHOUT_SLOT, ARRAY_WORDS, Control, Direction, Fault, LINE_WORDS, Line, TableWord,
    interface_flags,
    lookup::{self, Lines},
};

use crate::{
    Parts,
    maps::{ADDRESSES_V4, ADDRESSES_V6, CLASS_CONTROL, CLASS_LINES},
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
        slot = slot_of(ADDRESSES_V4.get(&Key::new(32, local)))?;
    }
    let control = control()?;
    Ok(Place { slot, column: P::column_v4(control, peer)?, columns: control.columns })
}

/// The column of an IPv4 peer.
#[inline(always)]
pub fn column_v4(control: &Control, peer: [u8; 4]) -> Result<u32, Fault> {
    let word = TableWord(control.active_table);
    lookup::column_v4(&Table(word), word.is_wide(), u32::from_be_bytes(peer)).ok_or(Fault::NoClassTable)
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
        slot = slot_of(ADDRESSES_V6.get(&Key::new(128, unsafe { *local })))?;
    }
    let control = control()?;
    Ok(Place { slot, column: P::column_v6(control, peer)?, columns: control.columns })
}

/// The column of an IPv6 peer.
#[inline(always)]
pub fn column_v6(control: &Control, peer: [u8; 16]) -> Result<u32, Fault> {
    lookup::column_v6(&Table(TableWord(control.active_table)), peer).ok_or(Fault::NoClassTable)
}

/// The class table in force.
struct Table(TableWord);

impl Lines for Table {
    #[inline(always)]
    fn line_of(&self, array: u32, within: u32) -> Option<&Line> {
        // With `get_value(_, &0)` the key is a constant in a section of its own, which some objects do not reach.
        let words = CLASS_LINES.get(self.0.first_array() + array)?.get(0)?;
        let first = within as usize * LINE_WORDS + self.0.offset_words() as usize;
        if first > ARRAY_WORDS - LINE_WORDS {
            return None;
        }
        // SAFETY: `first` and the words behind it are within the array, as checked above and again by the
        // verifier. Userspace does not write to an array of the table in force.
        Some(unsafe { &*words.as_ptr().add(first).cast::<Line>() })
    }
}

/// Read once per packet, so that the table in force and the row width belong together.
#[inline(always)]
pub fn control() -> Result<&'static Control, Fault> {
    CLASS_CONTROL.get(0).ok_or(Fault::NoCounter)
}

#[inline(always)]
fn slot_of(found: Option<&u32>) -> Result<u32, Fault> {
    match found {
        None => Err(Fault::NoContainer),
        Some(&ADDRESS_WITHOUT_SLOT) => Err(Fault::ContainerTableFull),
        Some(&slot) => Ok(slot),
    }
}
