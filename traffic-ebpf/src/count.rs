//! Adds to this CPU's copy of a counter.
//!
//! Which counter is decided in [`crate::classify`]; the amounts come from [`crate::gso`].

use traffic_common::{Direction, Family, Fault, Tally, UNKNOWN_INTERFACE_SLOT};

use crate::maps::{CLASS_COUNTERS, FAULT_COUNTERS, INTERFACE_COUNTERS};

/// Adds a buffer to the totals of its interface, before anything else is known of the packet.
#[inline(always)]
pub fn passed(slot: u32, direction: Direction, tally: &Tally, skb_len: u32) {
    let counters = INTERFACE_COUNTERS
        .get_ptr_mut(slot)
        .or_else(|| INTERFACE_COUNTERS.get_ptr_mut(UNKNOWN_INTERFACE_SLOT));
    if let Some(counters) = counters {
        // SAFETY: a per-CPU element; bottom halves are disabled, so no other program of ours runs on this CPU
        // meanwhile.
        let passed = unsafe { &mut (*counters).passed[direction as usize] };
        passed.wire.count(tally.packets, tally.bytes);
        passed.skbs += 1;
        passed.skb_bytes += u64::from(skb_len);
    }
}

/// Adds a packet to the counter of its container and class.
#[inline(always)]
pub fn class(index: u32, family: Family, direction: Direction, tally: &Tally) -> Result<(), Fault> {
    let counters = CLASS_COUNTERS.get_ptr_mut(index).ok_or(Fault::NoCounter)?;
    // SAFETY: as in `passed`.
    let counter = unsafe { &mut (*counters).tallies[family as usize][direction as usize] };
    counter.count(tally.packets, tally.bytes);
    Ok(())
}

/// Adds a packet that belongs to no class to the counter of its fault. Rare, so a function of its own.
#[inline(never)]
pub fn fault(slot: u32, direction: Direction, fault: Fault, packets: u64, bytes: u64) {
    let counters =
        FAULT_COUNTERS.get_ptr_mut(slot).or_else(|| FAULT_COUNTERS.get_ptr_mut(UNKNOWN_INTERFACE_SLOT));
    if let Some(counters) = counters {
        // SAFETY: as in `passed`.
        let counter = unsafe { &mut (*counters).faults[direction as usize][fault as usize] };
        counter.count(packets, bytes);
    }
}

/// Records that the size of a packet came from the plain rule. The packet itself is counted by the functions
/// above.
#[inline(always)]
pub fn estimated(slot: u32, direction: Direction, tally: &Tally) {
    if let Some(counters) = FAULT_COUNTERS.get_ptr_mut(slot) {
        // SAFETY: as in `passed`.
        let counter = unsafe { &mut (*counters).estimated[direction as usize] };
        counter.count(tally.packets, tally.bytes);
    }
}
