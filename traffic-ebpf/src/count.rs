//! Adds to this CPU's copy of a counter.
//!
//! Which counter is decided in [`crate::classify`]; the amounts come from [`crate::gso`].

use core::arch::asm;

use traffic_common::{
    BLOCK_COLUMNS, DIRECTIONS, Direction, FAULT_PLACES, Family, Fault, Note, Passed, Tally,
    UNKNOWN_INTERFACE_SLOT, blocks_of,
};

use crate::classify::Place;
use crate::maps::{CLASS_COUNTERS, FAULT_COUNTERS, INTERFACE_COUNTERS, of_kernel};

/// Adds to one counter of this CPU.
///
/// Usually both hooks run with bottom halves disabled, and two programs never interleave on one CPU. On
/// PREEMPT_RT from 6.18 they can: a program may be preempted between reading a counter and writing it. There
/// the addition is atomic. Elsewhere the verifier removes the branch.
#[inline(always)]
fn add(counter: &mut u64, amount: u64) {
    if of_kernel!(interleaves) != 0 {
        // The target has no atomic types in `core`, but the instruction exists in every kernel.
        // SAFETY: adds to an aligned u64 that this function holds exclusively.
        unsafe {
            asm!("lock *(u64 *)({at} + 0) += {amount}", at = in(reg) counter, amount = in(reg) amount);
        }
    } else {
        *counter = counter.wrapping_add(amount);
    }
}

/// Adds packets and bytes to one counter of this CPU.
#[inline(always)]
pub fn add_tally(counter: &mut Tally, amount: &Tally) {
    add(&mut counter.packets, amount.packets);
    add(&mut counter.bytes, amount.bytes);
}

/// The totals of an interface slot for one direction, if there is such a slot.
#[inline(always)]
pub fn passed_of(slot: u32, direction: Direction) -> Option<&'static mut Passed> {
    let counters = INTERFACE_COUNTERS.get_ptr_mut(slot)?;
    // SAFETY: a per-CPU element; what another program of ours does to it on this CPU meanwhile is up to
    // `add`.
    Some(unsafe { &mut (*counters).passed[direction as usize] })
}

/// Adds a buffer to the totals of its interface.
#[inline(always)]
pub fn add_passed(passed: &mut Passed, tally: &Tally, skb_len: u32) {
    add_tally(&mut passed.wire, tally);
    add(&mut passed.skbs, 1);
    add(&mut passed.skb_bytes, u64::from(skb_len));
}

/// Adds a buffer to the totals of its interface, before anything else is known of the packet.
#[inline(always)]
pub fn passed(slot: u32, direction: Direction, tally: &Tally, skb_len: u32) {
    let passed = passed_of(slot, direction).or_else(|| passed_of(UNKNOWN_INTERFACE_SLOT, direction));
    if let Some(passed) = passed {
        add_passed(passed, tally, skb_len);
    }
}

/// The counter of a container and class.
#[inline(always)]
pub fn class_counter(place: Place, family: Family, direction: Direction) -> Option<&'static mut Tally> {
    // With one block a container, its address does not depend on the column. So the processor has it while it
    // still waits for the class.
    let index = if place.columns <= BLOCK_COLUMNS {
        place.slot
    } else {
        place.slot * blocks_of(place.columns) + place.column / BLOCK_COLUMNS
    };
    let block = CLASS_COUNTERS.get_ptr_mut(index)?;
    let column = bounded::<{ BLOCK_COLUMNS as usize }>(u64::from(place.column));
    // SAFETY: as in `passed_of`.
    Some(unsafe { &mut (*block).tallies[family as usize][direction as usize][column] })
}

/// Adds a packet that belongs to no class to the counter of its fault. Rare, so a function of its own.
#[inline(never)]
pub fn fault(slot: u32, direction: Direction, fault: Fault, packets: u64, bytes: u64) {
    rare(slot, direction, fault as usize, packets, bytes);
}

/// Adds packets that are reported apart.
#[inline(never)]
pub fn note(slot: u32, direction: Direction, note: Note, packets: u64, bytes: u64) {
    rare(slot, direction, note as usize, packets, bytes);
}

#[inline(always)]
fn rare(slot: u32, direction: Direction, place: usize, packets: u64, bytes: u64) {
    let counters =
        FAULT_COUNTERS.get_ptr_mut(slot).or_else(|| FAULT_COUNTERS.get_ptr_mut(UNKNOWN_INTERFACE_SLOT));
    if let Some(counters) = counters {
        let (direction, place) =
            (bounded::<DIRECTIONS>(direction as u64), bounded::<FAULT_PLACES>(place as u64));
        // SAFETY: as in `passed_of`.
        let counter = unsafe { &mut (*counters).faults[direction][place] };
        add_tally(counter, &Tally { packets, bytes });
    }
}

/// The same index, with a bound that the verifier sees. The compiler knows that an index is in bounds and
/// removes any check, but the verifier may have lost its value on the stack. `BOUND` is a power of two.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the mask leaves less than `BOUND`")]
pub fn bounded<const BOUND: usize>(mut index: u64) -> usize {
    // SAFETY: changes one register, after which the assertion holds.
    unsafe {
        asm!("{index} &= {mask}", index = inout(reg) index, mask = const BOUND - 1, options(pure, nomem));
        core::hint::assert_unchecked((index as usize) < BOUND);
    }
    index as usize
}

/// Records that the size of a packet came from the plain rule. The packet itself is counted by the functions
/// above.
#[inline(always)]
pub fn estimated(slot: u32, direction: Direction, tally: &Tally) {
    if let Some(counters) = FAULT_COUNTERS.get_ptr_mut(slot) {
        // SAFETY: as in `passed_of`.
        let counter = unsafe { &mut (*counters).estimated[bounded::<DIRECTIONS>(direction as u64)] };
        add_tally(counter, tally);
    }
}
