//! Adding to the counters of this CPU.

use traffic_common::{Direction, Family, Fault, Tally, UNKNOWN_INTERFACE_SLOT};

use crate::maps::{CLASS_COUNTERS, FAULT_COUNTERS, INTERFACE_COUNTERS};

#[inline(always)]
fn add(to: &mut Tally, packets: u64, bytes: u64) {
    to.packets += packets;
    to.bytes += bytes;
}

/// Counts what passed the interface, before anything else is known of the packet.
#[inline(always)]
pub fn passed(slot: u32, direction: Direction, tally: &Tally, skb_len: u32) {
    let counters = INTERFACE_COUNTERS
        .get_ptr_mut(slot)
        .or_else(|| INTERFACE_COUNTERS.get_ptr_mut(UNKNOWN_INTERFACE_SLOT));
    if let Some(counters) = counters {
        // SAFETY: a per-CPU element, and no other program of ours runs on this CPU meanwhile.
        let passed = unsafe { &mut (*counters).passed[direction as usize] };
        add(&mut passed.wire, tally.packets, tally.bytes);
        passed.skbs += 1;
        passed.skb_bytes += u64::from(skb_len);
    }
}

/// Counts the packet for its container and class.
#[inline(always)]
pub fn class(index: u32, family: Family, direction: Direction, tally: &Tally) -> Result<(), Fault> {
    let counters = CLASS_COUNTERS.get_ptr_mut(index).ok_or(Fault::NoCounter)?;
    // SAFETY: as in `passed`.
    add(unsafe { &mut (*counters).tallies[family as usize][direction as usize] }, tally.packets, tally.bytes);
    Ok(())
}

/// Counts a packet that is in no class counter. Rare, so a function of its own.
#[inline(never)]
pub fn fault(slot: u32, direction: Direction, fault: Fault, packets: u64, bytes: u64) {
    let counters =
        FAULT_COUNTERS.get_ptr_mut(slot).or_else(|| FAULT_COUNTERS.get_ptr_mut(UNKNOWN_INTERFACE_SLOT));
    if let Some(counters) = counters {
        // SAFETY: as in `passed`.
        add(unsafe { &mut (*counters).faults[direction as usize][fault as usize] }, packets, bytes);
    }
}

/// Notes that the size of a packet, which is counted elsewhere, came from the plain rule.
#[inline(always)]
pub fn estimated(slot: u32, direction: Direction, tally: &Tally) {
    if let Some(counters) = FAULT_COUNTERS.get_ptr_mut(slot) {
        // SAFETY: as in `passed`.
        add(unsafe { &mut (*counters).estimated[direction as usize] }, tally.packets, tally.bytes);
    }
}
