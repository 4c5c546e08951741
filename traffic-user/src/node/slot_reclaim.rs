//! Frees slots of containers and interfaces that are gone, when slots run short.
//!
//! The order makes it safe. First, no packet may be counted in such a slot any more. Then what it holds is
//! written into the ledger, and only then the slot is free. A node without a ledger frees nothing, because
//! the counts of the former owner would be lost.

use traffic_common::slot_state;

use super::{
    kernel_access::SlotMaps,
    registry::{Gone, Registry},
};
use crate::kernel::entries::CountedIn;

/// At most this part of all slots is freed at once. Freeing few would cost too many drains.
const PART_FREED: usize = 16;

/// Writes what the slots hold into the ledger.
pub trait FinalReading {
    /// Drains the counters; returns whether there is a ledger to drain into.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    fn write_final_reading(&mut self) -> anyhow::Result<bool>;
}

/// Frees some slots of each kind whose owners are gone; returns whether there were any. The caller holds the
/// lock on the pinned state. `taken` is a container's slot that was assigned a moment ago, `is_wanted` names
/// ids that own an address.
///
/// # Errors
/// When a map or the ledger cannot be written: nothing is freed then.
pub fn make_room(
    kernel: &mut (impl SlotMaps + FinalReading),
    registry: &mut Registry,
    taken: Option<u32>,
    is_wanted: impl Fn(&str) -> bool,
) -> anyhow::Result<bool> {
    let mut counted_in = CountedIn::of(kernel.entries()?.into_iter().map(|(_, entry)| entry));
    counted_in.containers.extend(taken);
    let Gone { mut containers, mut interfaces } = registry.gone(&counted_in, is_wanted);
    containers.truncate(part_of(registry.containers().len()));
    interfaces.truncate(part_of(registry.interfaces().len()));
    let gone = Gone { containers, interfaces };
    if gone.is_empty() {
        return Ok(false);
    }
    kernel.wait_for_packets()?;
    if !kernel.write_final_reading()? {
        return Ok(false);
    }
    registry.free(kernel, &gone)?;
    tracing::info!(
        "slots ran short: freed {} of containers and {} of interfaces that are gone",
        gone.containers.len(),
        gone.interfaces.len()
    );
    Ok(true)
}

fn part_of(capacity: usize) -> usize {
    capacity.div_ceil(PART_FREED)
}

/// How many slots are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Owned, whether the owner exists or is gone.
    pub used: u64,
    /// Of those: their owner is gone, so that they can be freed.
    pub gone: u64,
    /// Of those that are gone: their owner was retired.
    pub retired: u64,
}

impl Occupancy {
    /// Of containers' slots.
    pub fn of_containers(registry: &Registry, gone: &Gone) -> Self {
        let is_retired = |slot: &&u32| registry.containers()[**slot as usize].state == slot_state::RETIRED;
        Self {
            used: count_used(registry.containers().iter().map(|record| record.state)),
            gone: gone.containers.len() as u64,
            retired: gone.containers.iter().filter(is_retired).count() as u64,
        }
    }

    /// Of interfaces' slots.
    pub fn of_interfaces(registry: &Registry, gone: &Gone) -> Self {
        Self {
            used: count_used(registry.interfaces().iter().map(|record| record.state)),
            gone: gone.interfaces.len() as u64,
            retired: 0,
        }
    }
}

fn count_used(states: impl Iterator<Item = u32>) -> u64 {
    states.filter(|&state| state != slot_state::FREE).count() as u64
}
