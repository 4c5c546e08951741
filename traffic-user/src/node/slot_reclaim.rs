//! Room for new containers and interfaces when slots run short: those that are gone give theirs up.
//!
//! The order is what makes it safe. First no packet may be counted in such a slot any more, then what it holds is booked
//! in the ledger, and only then it is free. A node without a ledger gives nothing away: nobody would know what was
//! counted for the former owner.

use std::path::Path;

use traffic_common::slot_state;
use traffic_ledger::DrainTrigger;

use crate::{
    config::Config,
    drain::Drainer,
    kernel::{
        entries::CountedIn,
        maps::Maps,
        registry::{Gone, Registry},
    },
};

/// Slots are freed by as many at a time as this part of all is: each time costs a drain.
const PART_FREED: usize = 16;

/// Frees slots of those that are gone, some of each kind; tells whether there are any. The caller holds the lock on the
/// pinned state. `taken` is a container's slot that was given a moment ago, `is_wanted` tells of ids that own an address.
///
/// # Errors
/// When a map can't be written, or the ledger can't: nothing is freed then.
pub fn make_room(
    config: &Config,
    state_dir: &Path,
    (maps, registry): (&mut Maps, &mut Registry),
    taken: Option<u32>,
    is_wanted: impl Fn(&str) -> bool,
) -> anyhow::Result<bool> {
    let mut counted_in = CountedIn::read(maps)?;
    counted_in.containers.extend(taken);
    let Gone { mut containers, mut interfaces } = registry.gone(&counted_in, is_wanted);
    containers.truncate(some_of(registry.containers().len()));
    interfaces.truncate(some_of(registry.interfaces().len()));
    let gone = Gone { containers, interfaces };
    if gone.is_empty() {
        return Ok(false);
    }
    let Some(mut books) = Drainer::open_existing(config, state_dir)? else { return Ok(false) };
    maps.wait_for_packets()?;
    books.drain(maps, DrainTrigger::Event)?;
    registry.free(maps, &gone)?;
    tracing::info!(
        "slots ran short: {} of containers and {} of interfaces that are gone are free again",
        gone.containers.len(),
        gone.interfaces.len()
    );
    Ok(true)
}

fn some_of(capacity: usize) -> usize {
    capacity.div_ceil(PART_FREED)
}

/// How many slots are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Owned, by whoever is there or is gone.
    pub used: u64,
    /// Of those: their owner is gone, so that they can be given to another.
    pub gone: u64,
    /// Of those that are gone: their owner was retired.
    pub retired: u64,
}

impl Occupancy {
    /// Of containers' slots.
    pub fn of_containers(registry: &Registry, gone: &Gone) -> Self {
        let state = |slot: u32| registry.containers()[slot as usize].state;
        Self {
            used: count(registry.containers().iter().map(|record| record.state)),
            gone: gone.containers.len() as u64,
            retired: gone.containers.iter().filter(|&&slot| state(slot) == slot_state::RETIRED).count()
                as u64,
        }
    }

    /// Of interfaces' slots.
    pub fn of_interfaces(registry: &Registry, gone: &Gone) -> Self {
        Self {
            used: count(registry.interfaces().iter().map(|record| record.state)),
            gone: gone.interfaces.len() as u64,
            retired: 0,
        }
    }
}

fn count(states: impl Iterator<Item = u32>) -> u64 {
    states.filter(|&state| state != slot_state::FREE).count() as u64
}
