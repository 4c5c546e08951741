//! Counts a packet under the shadow class table, beside the table in force.
//!
//! Exactly the packets that were counted in a class are counted here, with the same amounts. While there is no shadow,
//! a packet pays for one test of a word that is read anyway. All else is a function of its own.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use traffic_common::{
    BLOCK_COLUMNS, Control, DIRECTIONS, Direction, Family, Line, SHADOW_BLOCKS, TableWord, Tally, blocks_of,
    lookup::{self, Lines},
};

use crate::{
    class_table::line_in,
    count::{add_tally, bounded},
    maps::{SHADOW_CONTROL, SHADOW_COUNTERS, SHADOW_LINES},
    parse::header,
};

/// Offsets of the source in the headers. The destination follows it.
const IPV4_SOURCE: u32 = 12;
const IPV6_SOURCE: u32 = 8;
/// Above the offset of any layer 3 that is found.
const L3_OFFSETS: usize = 64;

/// Counts a packet that was counted in a class of this container, if there is a shadow.
#[inline(always)]
pub fn counted(
    control: &Control,
    skb: *mut __sk_buff,
    (l3_offset, direction): (u32, Direction),
    slot: u32,
    tally: &Tally,
) {
    if TableWord(control.active_table).has_shadow() {
        // A function of the kernel takes five arguments.
        count(skb, l3_offset << 1 | direction as u32, slot, tally.packets, tally.bytes);
    }
}

#[inline(never)]
fn count(skb: *mut __sk_buff, offset_and_direction: u32, slot: u32, packets: u64, bytes: u64) {
    let _counted = try_count(skb, offset_and_direction, slot, &Tally { packets, bytes });
}

#[inline(always)]
fn try_count(skb: *mut __sk_buff, offset_and_direction: u32, slot: u32, tally: &Tally) -> Option<()> {
    let direction = bounded::<DIRECTIONS>(u64::from(offset_and_direction & 1));
    #[expect(clippy::cast_possible_truncation, reason = "below `L3_OFFSETS`")]
    let l3_offset = bounded::<L3_OFFSETS>(u64::from(offset_and_direction >> 1)) as u32;
    let control = SHADOW_CONTROL.get(0)?;
    let (word, pairs) = (TableWord(control.table), control.pairs);
    // The peer is the source of what comes to the container, and the destination of what it sends.
    let is_destination = u32::from(direction == Direction::Out as usize);
    let mut copy = Aligned(MaybeUninit::<[u8; 4]>::uninit());
    // SAFETY: `header` checked the bounds, which the verifier checks again; the same for those below.
    let [version, ..] = unsafe { *header(skb, l3_offset, &mut copy.0)? };
    let (family, pair) = if version >> 4 == 4 {
        let mut copy = Aligned(MaybeUninit::<[u8; 4]>::uninit());
        let peer = header(skb, l3_offset + IPV4_SOURCE + is_destination * 4, &mut copy.0)?;
        // SAFETY: as above.
        let peer = u32::from_be_bytes(unsafe { *peer });
        (Family::Ipv4, lookup::column_v4(&Shadow(word), word.is_wide(), peer)?)
    } else {
        let mut copy = Aligned(MaybeUninit::<[u8; 16]>::uninit());
        let peer = header(skb, l3_offset + IPV6_SOURCE + is_destination * 16, &mut copy.0)?;
        // SAFETY: as above.
        (Family::Ipv6, lookup::column_v6(&Shadow(word), unsafe { *peer })?)
    };
    let index = slot * blocks_of(pairs) + pair / BLOCK_COLUMNS;
    let block = SHADOW_COUNTERS.get(index / SHADOW_BLOCKS)?.get_ptr_mut(index % SHADOW_BLOCKS)?;
    let within = bounded::<{ BLOCK_COLUMNS as usize }>(u64::from(pair));
    // SAFETY: a per-CPU element; what another program of ours does to it on this CPU meanwhile is up to
    // `add_tally`.
    add_tally(unsafe { &mut (*block).tallies[family as usize][direction][within] }, tally);
    Some(())
}

/// The verifier wants words on the stack aligned.
#[repr(align(8))]
struct Aligned<T>(MaybeUninit<T>);

/// The shadow's table.
struct Shadow(TableWord);

impl Lines for Shadow {
    #[inline(always)]
    fn line_of(&self, array: u32, within: u32) -> Option<&Line> {
        line_in(&SHADOW_LINES, self.0, array, within)
    }
}
