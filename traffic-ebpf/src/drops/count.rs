//! Adds a drop to its counter.

use traffic_common::{DropFault, DropKey, Family, Tally, drop_kind};

use crate::{
    atomic::add,
    class_table,
    finding::CONTAINERS,
    maps::{DROP_COUNTERS, DROP_FAULT_COUNTERS},
    sides::{Addresses, Side, v4, v6},
};

/// `BPF_NOEXIST`
const ONLY_NEW: u64 = 1;

/// Adds a drop that is in no counter of a container.
#[inline(never)]
pub fn fault(fault: DropFault, tally: &Tally) {
    if let Some(counter) = DROP_FAULT_COUNTERS.get_ptr_mut(fault as u32) {
        add(counter, tally);
    }
}

/// Adds a drop to the counter of the side that had counted the packet.
#[inline(never)]
pub fn side(side: &Side, addresses: &Addresses, kind: u8, tally: &Tally) {
    match key(side, addresses, kind) {
        Ok(key) => {
            if let Some(counter) = DROP_COUNTERS.get_ptr_mut(key) {
                add(counter, tally);
            } else if DROP_COUNTERS.insert(key, *tally, ONLY_NEW).is_err() {
                // Another CPU was faster, or there is no room.
                match DROP_COUNTERS.get_ptr_mut(key) {
                    Some(counter) => add(counter, tally),
                    None => fault(DropFault::TableFull, tally),
                }
            }
        }
        Err(Some(named)) => fault(named, tally),
        Err(None) => {}
    }
}

/// The key of the counter. `Err(None)` for a packet that the hook counted in no class.
#[inline(always)]
fn key(side: &Side, addresses: &Addresses, kind: u8) -> Result<DropKey, Option<DropFault>> {
    let slot = side.slot(addresses)?;
    let control = class_table::control().map_err(|_| None)?;
    let peer = addresses.peer(side.direction());
    let column = match addresses.family {
        Family::Ipv4 => class_table::column_v4(control, v4(&peer)),
        Family::Ipv6 => class_table::column_v6(control, v6(&peer)),
    };
    let column = column.map_err(|_| None)?;
    let owner = CONTAINERS.get(slot).ok_or(None)?;
    #[expect(clippy::cast_possible_truncation, reason = "there are at most 255 columns")]
    Ok(DropKey {
        slot,
        generation: owner.generation,
        column: column as u8,
        family: addresses.family as u8,
        direction: side.direction() as u8,
        group: kind & drop_kind::GROUP,
    })
}
