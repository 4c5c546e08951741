//! What the program finds under an interface's index: in which slots it counts. The records say whose slots they are; these
//! say which of them packets go to.

use std::collections::HashSet;

use anyhow::Context as _;
use aya::maps::MapError;
use traffic_common::{INTERFACE_INDEX_ENTRIES, InterfaceEntry, interface_flags};

use crate::kernel::maps::Maps;

/// Writes the entry of an index; the default one is none.
///
/// # Errors
/// When the kernel refuses, or too many interfaces have high indexes.
pub fn write(maps: &mut Maps, ifindex: u32, entry: InterfaceEntry) -> anyhow::Result<()> {
    if ifindex < INTERFACE_INDEX_ENTRIES {
        if maps.interface_by_index.get(ifindex)? != entry {
            maps.interface_by_index.set(ifindex, entry)?;
        }
    } else if entry == InterfaceEntry::default() {
        match maps.interface_by_high_index.remove(&ifindex) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            // The entry was never there.
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error).context("cannot remove an interface of a high index"),
        }
    } else {
        maps.interface_by_high_index
            .insert(ifindex, entry, 0)
            .context("cannot register an interface of a high index; too many exist")?;
    }
    Ok(())
}

/// All entries by index, of the low indexes up to `highest`: reading all of these takes the kernel some milliseconds.
///
/// # Errors
/// When the maps can't be read.
pub fn up_to(maps: &Maps, highest: u32) -> anyhow::Result<Vec<(u32, InterfaceEntry)>> {
    let low = maps.interface_by_index.len().min(highest.saturating_add(1));
    let low = maps.interface_by_index.range(0, low)?;
    let mut entries: Vec<_> = (0..).zip(low).filter(|(_, entry)| entry.flags != 0).collect();
    for high in maps.interface_by_high_index.iter() {
        entries.push(high.context("cannot read the interfaces of high indexes")?);
    }
    Ok(entries)
}

/// Slots that packets are counted in, or are about to be: whatever the records say, they are nobody else's to have.
///
/// An interface that found no slot of its own counts in its container's all the same, and no record tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountedIn {
    /// Slots of containers.
    pub containers: HashSet<u32>,
    /// Slots of interfaces.
    pub interfaces: HashSet<u32>,
}

impl CountedIn {
    /// What the entries say.
    ///
    /// # Errors
    /// When the maps can't be read.
    pub fn read(maps: &Maps) -> anyhow::Result<Self> {
        Ok(Self::of(up_to(maps, u32::MAX)?.into_iter().map(|(_, entry)| entry)))
    }

    fn of(entries: impl Iterator<Item = InterfaceEntry>) -> Self {
        let mut slots = Self::default();
        for entry in entries {
            slots.interfaces.insert(entry.interface_slot);
            if entry.flags & (interface_flags::SHARED | interface_flags::NO_SLOT) == 0 {
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
    fn what_counts_for_no_container_holds_no_slot_of_one() {
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
        ];
        let slots = CountedIn::of(entries.into_iter());
        assert_eq!(slots.containers, HashSet::from([7, 10]));
        assert_eq!(slots.interfaces, HashSet::from([0, 1, 2, 3]));
    }
}
