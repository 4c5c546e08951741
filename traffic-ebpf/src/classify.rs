//! Finds the container and the class of a packet, and from them the index of its counter.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, btf_maps::lpm_trie::Key};
use traffic_common::{
    ADDRESS_WITHOUT_SLOT, CLASS_ZERO_COLUMN, Control, Direction, Fault, INDEX_ASK_TRIE, INDEX_V4_BLOCK_BITS,
    INDEX_V4_BLOCK_BYTES, INDEX_V6_BITS, INDEX_V6_BLOCK_ENTRIES, INDEX_V6_ENTRY_BITS, INDEX_V6_HEIGHT_SHIFT,
    INDEX_V6_MAX_HEIGHT, INDEX_V6_SPACE, RangeNode, interface_flags,
};

use crate::{
    Parts,
    maps::{
        ADDRESSES_V4, ADDRESSES_V6, CLASS_INDEX_V4, CLASS_INDEX_V6, CLASS_RANGES_V6, CLASSES_V4, CLASSES_V6,
        CONTROL,
    },
    parse::{IPV4_HEADER_LEN, Ipv4Header, Ipv6Header, header},
};

/// The index of the counter of an IPv4 packet whose header begins at `offset`.
#[inline(always)]
pub fn ipv4<P: Parts>(
    skb: *mut __sk_buff,
    offset: u32,
    direction: Direction,
    flags: u32,
    container_slot: u32,
) -> Result<u32, Fault> {
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
    Ok(slot * control.columns + P::column_v4(control, peer)?)
}

/// The column of an IPv4 peer: from the index, or else from the trie.
#[inline(always)]
pub fn column_v4(control: &Control, peer: [u8; 4]) -> Result<u32, Fault> {
    match indexed_v4(control, peer) {
        Some(column) => Ok(column),
        None => trie_v4(control, peer),
    }
}

/// The column of an IPv4 peer from the trie alone.
#[inline(always)]
pub fn trie_v4(control: &Control, peer: [u8; 4]) -> Result<u32, Fault> {
    let table = CLASSES_V4.get(control.active_table).ok_or(Fault::NoClassTable)?;
    Ok(table.get(&Key::new(32, peer)).copied().unwrap_or(CLASS_ZERO_COLUMN))
}

/// The column, unless the index sends the packet to the trie.
#[inline(always)]
fn indexed_v4(control: &Control, peer: [u8; 4]) -> Option<u32> {
    let prefix = u32::from_be_bytes(peer) >> 8;
    let block = CLASS_INDEX_V4.get(control.active_table)?.get(prefix >> INDEX_V4_BLOCK_BITS)?;
    let column = block[prefix as usize % INDEX_V4_BLOCK_BYTES];
    (column != INDEX_ASK_TRIE).then_some(u32::from(column))
}

/// The index of the counter of an IPv6 packet whose header begins at `offset`.
#[inline(always)]
pub fn ipv6<P: Parts>(
    skb: *mut __sk_buff,
    offset: u32,
    direction: Direction,
    flags: u32,
    container_slot: u32,
) -> Result<u32, Fault> {
    let mut copy = MaybeUninit::<Ipv6Header>::uninit();
    let header = header(skb, offset, &mut copy).ok_or(Fault::Truncated)?;
    // SAFETY: `header` checked the bounds, which the verifier checks again; the fields are bytes.
    let (version, source, destination) =
        unsafe { ((*header).version_class_flow[0] >> 4, (*header).source, (*header).destination) };
    if version != 6 {
        return Err(Fault::Malformed);
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
        slot = slot_of(ADDRESSES_V6.get(&Key::new(128, local)))?;
    }
    let control = control()?;
    Ok(slot * control.columns + P::column_v6(control, peer)?)
}

/// The column of an IPv6 peer: from the index, or else from the trie.
#[inline(always)]
pub fn column_v6(control: &Control, peer: [u8; 16]) -> Result<u32, Fault> {
    match indexed_v6(control, peer) {
        Some(column) => Ok(column),
        None => trie_v6(control, peer),
    }
}

/// The column of an IPv6 peer from the trie alone.
#[inline(always)]
pub fn trie_v6(control: &Control, peer: [u8; 16]) -> Result<u32, Fault> {
    let table = CLASSES_V6.get(control.active_table).ok_or(Fault::NoClassTable)?;
    Ok(table.get(&Key::new(128, peer)).copied().unwrap_or(CLASS_ZERO_COLUMN))
}

/// The column, unless the index sends the packet to the trie. Reads one entry, or walks a search tree of
/// ranges with one cache line per level.
#[inline(always)]
fn indexed_v6(control: &Control, peer: [u8; 16]) -> Option<u32> {
    let [a, b, c, d, e, f, g, h, ..] = peer;
    let upper = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    if upper >> INDEX_V6_BITS != INDEX_V6_SPACE {
        return None;
    }
    let address = upper & ((1 << INDEX_V6_BITS) - 1);
    let prefix = (address >> (INDEX_V6_BITS - INDEX_V6_ENTRY_BITS)) as usize;
    #[expect(clippy::cast_possible_truncation, reason = "INDEX_V6_ENTRY_BITS bits are left")]
    let block = CLASS_INDEX_V6.get(control.active_table)?.get((prefix / INDEX_V6_BLOCK_ENTRIES) as u32)?;
    let entry = block[prefix % INDEX_V6_BLOCK_ENTRIES];
    let height = entry >> INDEX_V6_HEIGHT_SHIFT;
    let mut column = entry;
    if height != 0 {
        let nodes = CLASS_RANGES_V6.get(control.active_table)?;
        let mut number = entry & ((1 << INDEX_V6_HEIGHT_SHIFT) - 1);
        column = u32::from(INDEX_ASK_TRIE);
        for level in 1..=INDEX_V6_MAX_HEIGHT {
            // SAFETY: a `RangeNode` is eight consecutive words, and so is the map's value.
            let node = unsafe { &*core::ptr::from_ref(nodes.get(number)?).cast::<RangeNode>() };
            let child = node.child(address);
            if level == height {
                column = node.column(child);
                break;
            }
            #[expect(clippy::cast_possible_truncation, reason = "the number of a node has 28 bits")]
            let first = node.children as u32;
            number = first + child;
        }
    }
    (column != u32::from(INDEX_ASK_TRIE)).then_some(column)
}

/// Read once per packet, so that the table in force and the row width belong together.
#[inline(always)]
fn control() -> Result<&'static Control, Fault> {
    CONTROL.get(0).ok_or(Fault::NoCounter)
}

#[inline(always)]
fn slot_of(found: Option<&u32>) -> Result<u32, Fault> {
    match found {
        None => Err(Fault::NoContainer),
        Some(&ADDRESS_WITHOUT_SLOT) => Err(Fault::ContainerTableFull),
        Some(&slot) => Ok(slot),
    }
}
