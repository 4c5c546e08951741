//! Interface entries: the program looks up an interface's index and finds the slots in which it counts.
//!
//! The records of slots name the owner of each slot. The entries decide into which slots packets are counted.

use std::collections::{BTreeSet, HashSet};

use anyhow::Context as _;
use aya::maps::MapError;
use traffic_common::{INTERFACE_INDEX_ENTRIES, InterfaceEntry, interface_flags};

use crate::kernel::maps::Maps;

/// Reading a place together with others takes a fraction of reading it by itself.
const FEW_UNUSED: usize = 5;

/// Writes the entry of an index. The default entry removes it.
///
/// # Errors
/// When the kernel refuses, or the hash for high indexes is full.
pub fn write(maps: &mut Maps, ifindex: u32, entry: InterfaceEntry) -> anyhow::Result<()> {
    if ifindex < INTERFACE_INDEX_ENTRIES {
        if maps.interface_by_index.get(ifindex)?.as_written() != entry {
            maps.interface_by_index.set(ifindex, entry)?;
        }
    } else if entry == InterfaceEntry::default() {
        match maps.interface_by_high_index.remove(&ifindex) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            // The entry never existed.
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error).context("cannot remove an interface with a high index"),
        }
    } else {
        maps.interface_by_high_index
            .insert(ifindex, entry, 0)
            .context("cannot register an interface with a high index: too many exist")?;
    }
    Ok(())
}

/// Returns all entries with their indexes.
///
/// # Errors
/// When the maps cannot be read.
pub fn all(maps: &Maps) -> anyhow::Result<Vec<(u32, InterfaceEntry)>> {
    let low = maps.interface_by_index.range(0, maps.interface_by_index.len())?;
    let mut entries: Vec<_> = (0..).zip(low).filter(|(_, entry)| entry.flags != 0).collect();
    for high in maps.interface_by_high_index.iter() {
        entries.push(high.context("cannot read the interfaces with high indexes")?);
    }
    Ok(as_written(entries))
}

/// Returns the entries of these indexes. Reading all places takes 15 ms; this takes one.
///
/// # Errors
/// When the maps cannot be read.
pub fn of(maps: &Maps, indexes: &BTreeSet<u32>) -> anyhow::Result<Vec<(u32, InterfaceEntry)>> {
    let low = indexes.range(..INTERFACE_INDEX_ENTRIES);
    let end = low.clone().next_back().map_or(0, |last| last + 1);
    let mut entries: Vec<(u32, InterfaceEntry)> = if end as usize <= FEW_UNUSED * low.clone().count() {
        (0..).zip(maps.interface_by_index.range(0, end)?).collect()
    } else {
        low.map(|&index| Ok((index, maps.interface_by_index.get(index)?))).collect::<anyhow::Result<_>>()?
    };
    entries.retain(|(index, entry)| entry.flags != 0 && indexes.contains(index));
    for index in indexes.range(INTERFACE_INDEX_ENTRIES..) {
        match maps.interface_by_high_index.get(index, 0) {
            Ok(entry) => entries.push((*index, entry)),
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error).context("cannot read an interface with a high index"),
        }
    }
    Ok(as_written(entries))
}

/// Without what the program has noted in them.
fn as_written(entries: Vec<(u32, InterfaceEntry)>) -> Vec<(u32, InterfaceEntry)> {
    entries.into_iter().map(|(index, entry)| (index, entry.as_written())).collect()
}

/// Slots into which packets are counted, or may be counted at any moment. None of them may go to another
/// owner, even if its record names an owner that is gone.
///
/// An interface that found no slot of its own still counts in its container's slot, and no record mentions
/// it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountedIn {
    /// Slots of containers.
    pub containers: HashSet<u32>,
    /// Slots of interfaces.
    pub interfaces: HashSet<u32>,
}

impl CountedIn {
    /// What these entries say.
    pub fn of(entries: impl Iterator<Item = InterfaceEntry>) -> Self {
        let mut slots = Self::default();
        // An entry that only describes an interface has no slots.
        let counts =
            |entry: &InterfaceEntry| entry.flags & (interface_flags::PRESENT | interface_flags::UPLINK) != 0;
        for entry in entries.filter(counts) {
            slots.interfaces.insert(entry.interface_slot);
            // On an uplink, the node's own packets are in it even if containers share the uplink.
            let is_shared =
                entry.flags & (interface_flags::SHARED | interface_flags::UPLINK) == interface_flags::SHARED;
            if !is_shared && entry.flags & interface_flags::NO_SLOT == 0 {
                slots.containers.insert(entry.container_slot);
            }
        }
        slots
    }
}

#[cfg(test)]
mod tests {
    use interface_flags::{NO_SLOT, PRESENT, SHARED, UPLINK};

    use super::*;

    #[test]
    fn only_entries_that_count_for_a_container_occupy_a_container_slot() {
        let entry = |flags, interface_slot, container_slot| InterfaceEntry {
            flags,
            interface_slot,
            container_slot,
            link_header_len: 14,
        };
        let entries = [
            entry(PRESENT, 0, 7),
            entry(PRESENT | SHARED, 1, 8),
            entry(PRESENT | NO_SLOT, 2, 9),
            entry(UPLINK, 3, 10),
            entry(UPLINK | SHARED, 6, 13),
            entry(interface_flags::ORDINARY, 4, 11),
            entry(interface_flags::REPEATER, 5, 12),
        ];
        let slots = CountedIn::of(entries.into_iter());
        assert_eq!(slots.containers, HashSet::from([7, 10, 13]));
        assert_eq!(slots.interfaces, HashSet::from([0, 1, 2, 3, 6]));
    }
}
