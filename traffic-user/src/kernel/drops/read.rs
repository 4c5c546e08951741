//! Reads the drop counters.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use aya::maps::{HashMap, Map, MapData};
use jiff::Timestamp;
use traffic_common::{ContainerRecord, DROP_FAULTS, Direction, DropFault, DropGroup, DropKey, Family, Tally};
use traffic_model::{ByDirection, ContainerId, DropCounter, DropReading};

use super::{DropState, open_map, state};
use crate::{
    kernel::{
        bpffs::Bpffs,
        counters,
        maps::{Elements, Maps},
        records::container_id,
        tables,
    },
    time,
};

/// All drop counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drops {
    /// The kernel's id of their map. No other map of this boot ever had it.
    pub set: u32,
    /// Since when drops are counted.
    pub since: Timestamp,
    /// Bits of `drop_lacks`.
    pub lacks: u32,
    /// Whether the program does not read the counters in use, so that drops on new interfaces are missing.
    pub is_outdated: bool,
    /// What was dropped, sorted by container, class, family and group.
    pub rows: Vec<DropCounter>,
    /// What was dropped of former owners of slots.
    pub former: ByDirection<Tally>,
    /// What could not be attributed, by [`DropFault`].
    pub faults: [Tally; DROP_FAULTS],
}

impl Drops {
    /// The counter of a fault.
    pub const fn fault(&self, fault: DropFault) -> Tally {
        self.faults[fault as usize]
    }

    /// The part that is recorded in a ledger.
    pub fn into_reading(self) -> DropReading {
        DropReading { set: self.set, since: self.since, counters: self.rows }
    }
}

/// Reads the drop counters. `None` where drops are not counted; [`state`] says why.
///
/// # Errors
/// When a map cannot be read.
pub fn read(bpffs: &Bpffs, maps: &Maps) -> anyhow::Result<Option<Drops>> {
    let DropState::Counting(control) = state(bpffs)? else { return Ok(None) };
    let (Some(map), Some(faults)) =
        (open_map(bpffs, "DROP_COUNTERS")?, open_map(bpffs, "DROP_FAULT_COUNTERS")?)
    else {
        return Ok(None);
    };
    let set = map_id(&map)?;
    let map = HashMap::<MapData, DropKey, Tally>::try_from(map)?;
    // By key, because an iteration starts over where another process removes entries.
    let mut found = BTreeMap::new();
    for entry in map.iter() {
        let (key, tally) = entry?;
        found.insert((key.slot, key.generation, key.column, key.family, key.direction, key.group), tally);
    }
    let faults = Elements::<Tally>::new("DROP_FAULT_COUNTERS", faults)?;
    let faults = faults.range(0, faults.len())?;
    let (owners, meta) = (counters::container_records(maps)?, maps.meta.get(0)?);
    let mut drops = Drops {
        set,
        since: time::timestamp(control.created_unix_s),
        lacks: control.lacks,
        is_outdated: super::is_outdated(bpffs, &control),
        rows: Vec::new(),
        former: ByDirection::default(),
        faults: std::array::from_fn(|at| faults.get(at).copied().unwrap_or_default()),
    };
    drops.add(found, &owners, &tables::columns(&meta).into_iter().collect());
    Ok(Some(drops))
}

/// The kernel's id of a map of drop counters.
fn map_id(map: &Map) -> anyhow::Result<u32> {
    let (Map::HashMap(data) | Map::LruHashMap(data)) = map else {
        bail!("the map of drop counters is no hash map");
    };
    Ok(data.info().context("cannot inspect the map of drop counters")?.id())
}

/// A [`DropKey`] that sorts.
type SortedKey = (u32, u32, u8, u8, u8, u8);

impl Drops {
    /// Adds what was found in the map. `classes` has the class of each column.
    fn add(
        &mut self,
        found: BTreeMap<SortedKey, Tally>,
        owners: &[ContainerRecord],
        classes: &BTreeMap<u32, u8>,
    ) {
        let mut rows: BTreeMap<(ContainerId, u32, u8, Family, DropGroup), ByDirection<Tally>> =
            BTreeMap::new();
        for ((slot, generation, column, family, direction, group), tally) in found {
            let is_in = direction == Direction::In as u8;
            let add_to = |to: &mut ByDirection<Tally>| {
                *if is_in { &mut to.incoming } else { &mut to.outgoing } += tally;
            };
            let owner = owners.get(slot as usize).filter(|owner| owner.generation == generation);
            let (Some(container), Some(&class)) = (owner.and_then(container_id), classes.get(&column.into()))
            else {
                add_to(&mut self.former);
                continue;
            };
            let family = if family == Family::Ipv4 as u8 { Family::Ipv4 } else { Family::Ipv6 };
            let group = DropGroup::ALL.get(usize::from(group)).copied().unwrap_or(DropGroup::Other);
            add_to(rows.entry((container, generation, class, family, group)).or_default());
        }
        self.rows = rows
            .into_iter()
            .map(|((container, generation, class, family, group), tally)| DropCounter {
                container,
                generation,
                class,
                family,
                group,
                tally,
            })
            .collect();
        // Stable, so that the order within a container stays.
        self.rows.sort_by(|a, b| {
            counters::natural(a.container.as_str()).cmp(&counters::natural(b.container.as_str()))
        });
    }
}

#[cfg(test)]
mod tests {
    use traffic_common::slot_state;

    use super::*;
    use crate::kernel::records::{EMPTY_CONTAINER, write_text};

    #[test]
    fn a_slots_former_owner_has_no_row() {
        let mut owner = ContainerRecord { state: slot_state::IN_USE, generation: 2, ..EMPTY_CONTAINER };
        write_text(&mut owner.id, "101");
        let classes = BTreeMap::from([(0, 0), (1, 7)]);
        let tally = |packets| Tally { packets, bytes: packets * 100 };
        let (v4, v6) = (Family::Ipv4 as u8, Family::Ipv6 as u8);
        let (to, from) = (Direction::In as u8, Direction::Out as u8);
        let found = BTreeMap::from([
            ((0, 1, 1, v4, to, 0), tally(1)),
            ((0, 2, 1, v4, to, 0), tally(2)),
            ((0, 2, 1, v4, from, 0), tally(3)),
            ((0, 2, 0, v6, from, 6), tally(4)),
            ((5, 1, 0, v4, from, 0), tally(5)),
        ]);
        let mut drops = Drops {
            set: 1,
            since: time::timestamp(0),
            lacks: 0,
            is_outdated: false,
            rows: Vec::new(),
            former: ByDirection::default(),
            faults: [Tally::default(); DROP_FAULTS],
        };
        drops.add(found, &[owner], &classes);
        let row = |class, family, group, incoming, outgoing| DropCounter {
            container: ContainerId::new("101").unwrap(),
            generation: 2,
            class,
            family,
            group,
            tally: ByDirection { incoming, outgoing },
        };
        let zero = Tally::default();
        assert_eq!(
            drops.rows,
            [
                row(0, Family::Ipv6, DropGroup::Other, zero, tally(4)),
                row(7, Family::Ipv4, DropGroup::Shaper, tally(2), tally(3)),
            ]
        );
        assert_eq!(drops.former, ByDirection { incoming: tally(1), outgoing: tally(5) });
    }
}
