//! What some containers counted since a reading, from their slots alone: for looks between two drains.
//!
//! The reading is the drain's, so that what passed since is neither in its figures nor lost. Only raw counters are
//! compared, of a slot that kept its owner: whatever else a figure consists of does not change meanwhile.

use std::collections::{BTreeMap, HashMap};

use anyhow::ensure;
use traffic_common::{ClassCounters, ContainerRecord, Direction, Family, Meta, slot_state};
use traffic_model::{ClassCounter, Snapshot};
use traffic_quota::{Counted, Found};

use super::{head, sum, used};
use crate::kernel::{
    bpffs::Bpffs,
    maps::{ClassBlocks, Elements},
    records::container_id,
    tables,
};

/// The counters of some containers, as they were at a reading.
#[derive(Debug)]
pub struct LiveCounters {
    meta: Elements<Meta>,
    containers: Elements<ContainerRecord>,
    counters: ClassBlocks,
    /// The description of the maps at that time.
    was: Meta,
    slots: BTreeMap<String, Vec<Slot>>,
}

/// A slot of a container.
#[derive(Debug)]
struct Slot {
    slot: u32,
    generation: u32,
    /// For each column, the bytes that it held, in the order of [`Direction::BOTH`].
    held: Vec<[u64; 2]>,
}

impl LiveCounters {
    /// The counters of these containers, as they were at a reading. Containers that have no slot are left out.
    ///
    /// # Errors
    /// When the maps cannot be read, or are not those of the reading.
    pub fn since<'c>(
        bpffs: &Bpffs,
        reading: &Snapshot,
        wanted: impl Iterator<Item = &'c str>,
    ) -> anyhow::Result<Self> {
        let meta: Elements<Meta> = Elements::open(bpffs, "META")?;
        let containers: Elements<ContainerRecord> = Elements::open(bpffs, "CONTAINERS")?;
        let was = meta.get(0)?;
        ensure!(was.epoch == reading.epoch, "the counters are others than those that were drained");
        let records = head(&containers, |record| record.generation)?;
        let slots = used(&records, |record| record.generation)?;
        let carried: Elements<ClassCounters> = Elements::open(bpffs, "CLASS_CARRIED")?;
        let bases: Elements<ClassCounters> = Elements::open(bpffs, "CLASS_BASES")?;
        let carried = carried.range(0, slots * was.columns)?;
        let bases = bases.range(0, slots * was.columns)?;
        let mut of_slot: HashMap<(&str, u32), Vec<&ClassCounter>> = HashMap::new();
        for counter in reading.counters.iter().filter(|counter| !counter.is_retired) {
            of_slot.entry((counter.container.as_str(), counter.generation)).or_default().push(counter);
        }
        let mut by_id: BTreeMap<String, Vec<Slot>> = wanted.map(|id| (id.to_owned(), Vec::new())).collect();
        for (slot, record) in (0..slots).zip(&records) {
            let Some(id) = owner(record) else { continue };
            let (Some(of_id), Some(read)) =
                (by_id.get_mut(&id), of_slot.get(&(id.as_str(), record.generation)))
            else {
                continue;
            };
            let held = tables::columns(&was).into_iter().map(|(column, class)| {
                let at = (slot * was.columns + column) as usize;
                Direction::BOTH.map(|direction| {
                    let of_class = read.iter().filter(|counter| counter.class == class);
                    let own: u64 = of_class.map(|counter| counter.tally.of(direction).bytes).sum();
                    let (base, carried) = (bytes(&bases[at], direction), bytes(&carried[at], direction));
                    own.saturating_add(base).saturating_sub(carried)
                })
            });
            of_id.push(Slot { slot, generation: record.generation, held: held.collect() });
        }
        by_id.retain(|_, slots| !slots.is_empty());
        Ok(Self {
            meta,
            containers,
            counters: ClassBlocks::open(bpffs, "CLASS_COUNTERS")?,
            was,
            slots: by_id,
        })
    }

    /// What these containers counted since. `None` for one that has no slot, or whose slot has another owner by now;
    /// `None` for all if classes or counters are there that were not at the reading.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn read(&self, wanted: Vec<String>) -> anyhow::Result<Option<Found>> {
        let now = self.meta.get(0)?;
        if (now.epoch, now.columns_used) != (self.was.epoch, self.was.columns_used) {
            return Ok(None);
        }
        let mut slots: Vec<u32> =
            wanted.iter().filter_map(|id| self.slots.get(id)).flatten().map(|slot| slot.slot).collect();
        slots.sort_unstable();
        let mut read = HashMap::new();
        for (first, count) in runs(&slots) {
            let counters = self.counters.range(first, count, now.columns)?;
            let copies = counters.len() / (count * now.columns).max(1) as usize;
            // After the counters: a slot that still has its owner had no other one while it was read.
            let records = self.containers.range(first, count)?;
            let each = counters.chunks_exact((copies * now.columns as usize).max(1));
            for (slot, (record, columns)) in (first..).zip(records.into_iter().zip(each)) {
                let totals = columns.chunks_exact(copies.max(1)).map(|copies| {
                    let total = sum(copies);
                    Direction::BOTH.map(|direction| bytes(&total, direction))
                });
                read.insert(slot, (record, totals.collect::<Vec<_>>()));
            }
        }
        let columns = tables::columns(&self.was);
        let counted = |id: &String| {
            let mut counted = Counted::new();
            for slot in self.slots.get(id)? {
                let (record, now) = read.get(&slot.slot)?;
                if record.generation != slot.generation || owner(record).as_ref() != Some(id) {
                    return None;
                }
                for ((held, now), (_, class)) in slot.held.iter().zip(now).zip(&columns) {
                    let [incoming, outgoing] = [0, 1].map(|way: usize| now[way].saturating_sub(held[way]));
                    if incoming > 0 || outgoing > 0 {
                        counted.push((*class, incoming, outgoing));
                    }
                }
            }
            Some(counted)
        };
        let with_id = |id: String| {
            let counted = counted(&id);
            (id, counted)
        };
        Ok(Some(wanted.into_iter().map(with_id).collect()))
    }
}

/// The id of the container that a slot counts for now.
fn owner(record: &ContainerRecord) -> Option<String> {
    let is_active = record.state != slot_state::RETIRED;
    container_id(record).filter(|_| is_active).map(|id| id.as_str().to_owned())
}

/// The bytes of both families.
fn bytes(counters: &ClassCounters, direction: Direction) -> u64 {
    let of = |family: Family| counters.tallies[family as usize][direction as usize].bytes;
    Family::ALL.map(of).into_iter().fold(0, u64::saturating_add)
}

/// Slots in ascending order as runs, each of its first slot and its length. What is between two slots that are
/// close is read as well, which is cheaper than another call.
fn runs(slots: &[u32]) -> Vec<(u32, u32)> {
    const CLOSE: u32 = 4;
    // With 128 CPUs, a slot has 128 KiB.
    const LONGEST: u32 = 64;
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &slot in slots {
        match runs.last_mut() {
            Some((first, count)) if slot < *first + (*count + CLOSE).min(LONGEST) => {
                *count = (*count).max(slot - *first + 1);
            }
            _ => runs.push((slot, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_slots_are_read_together() {
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[3]), [(3, 1)]);
        assert_eq!(runs(&[0, 1, 1, 2, 6, 7, 12, 40]), [(0, 8), (12, 1), (40, 1)]);
        let all = runs(&(0..1000).collect::<Vec<_>>());
        assert_eq!((all.len(), all[0], all[1], all[15]), (16, (0, 64), (64, 64), (960, 40)));
        assert_eq!(runs(&[0, 62, 63, 65]), [(0, 1), (62, 4)]);
    }
}
