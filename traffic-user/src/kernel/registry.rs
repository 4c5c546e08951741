//! Which container and which interface has which slot, as written in the pinned maps.
//!
//! A slot once given stays with its owner, over stops and starts, so that its counters go on. Only when slots run short
//! those of owners that are gone are freed ([`Registry::free`]), after their final reading is in the ledger. The counters
//! are not touched by that: what they hold is noted as the slot's base when it goes to its next owner. Each step leaves a
//! state that readers understand, wherever it is cut short: a free slot's counters are in nobody's name, and the base is
//! written before the owner. The choice of a slot is pure (`choose`); the rest writes it down.

use std::{cmp::Reverse, collections::HashMap};

use anyhow::Context as _;
use traffic_common::{
    ContainerRecord, DIRECTIONS, Direction, InterfaceCounters, InterfaceRecord, InterfaceStatistics,
    UNKNOWN_INTERFACE_SLOT, slot_state,
};
use traffic_model::{ContainerId, NODE_ID, skb_mark};

use crate::{
    kernel::{
        counters::{self, is_missed, since_attach, sum_interface},
        entries::CountedIn,
        maps::Maps,
        records::{EMPTY_CONTAINER, EMPTY_INTERFACE, NOTHING, container_id, read_text, write_text},
    },
    net::interface::NetInterface,
    time,
};

const BOTH: [Direction; 2] = [Direction::In, Direction::Out];

/// The slot that answers `mine`, else the first that is free.
fn choose<R>(records: &[R], mine: impl Fn(&R) -> bool, free: impl Fn(&R) -> bool) -> Option<usize> {
    records.iter().position(mine).or_else(|| records.iter().position(free))
}

/// Slots of containers and of interfaces that are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// Slots of containers.
    pub containers: Vec<u32>,
    /// Slots of interfaces.
    pub interfaces: Vec<u32>,
}

impl Gone {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.interfaces.is_empty()
    }
}

/// Where an interface that is now counted in some slot was counted until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedSoFar {
    /// In the same slot, or nowhere.
    Here,
    /// In another slot, until this moment.
    Elsewhere,
    /// In another slot, but not lately.
    ElsewhereWithGap {
        /// That slot.
        slot: u32,
    },
}

/// The kernel's statistics of an interface, and our own totals just before and just after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Ours, read first.
    pub counted_earlier: InterfaceStatistics,
    /// The kernel's.
    pub kernel: InterfaceStatistics,
    /// Ours, read last.
    pub counted: InterfaceStatistics,
}

impl Reading {
    /// Buffers that passed while it was made: it is that far from exact.
    pub fn spread(&self) -> u64 {
        minus(&self.counted, &self.counted_earlier).packets.iter().sum()
    }
}

/// All slot records, read once and kept in step with the maps.
#[derive(Debug)]
pub struct Registry {
    containers: Vec<ContainerRecord>,
    interfaces: Vec<InterfaceRecord>,
}

impl Registry {
    /// Reads all records.
    ///
    /// # Errors
    /// When the maps can't be read.
    pub fn read(maps: &Maps) -> anyhow::Result<Self> {
        Ok(Self {
            containers: maps.containers.range(0, maps.containers.len())?,
            interfaces: maps.interfaces.range(0, maps.interfaces.len())?,
        })
    }

    /// Records of containers, by slot.
    pub fn containers(&self) -> &[ContainerRecord] {
        &self.containers
    }

    /// Records of interfaces, by slot.
    pub fn interfaces(&self) -> &[InterfaceRecord] {
        &self.interfaces
    }

    /// The slot of a container that has one.
    pub fn container_slot(&self, id: &ContainerId) -> Option<u32> {
        let slot = self.containers.iter().position(|record| owns(record, id))?;
        u32::try_from(slot).ok()
    }

    /// The slot of a container, given now if it has none; `None` when all are taken.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn assign_container(&mut self, maps: &mut Maps, id: &ContainerId) -> anyhow::Result<Option<u32>> {
        let free = |record: &ContainerRecord| record.state == slot_state::FREE;
        let Some(slot) = choose(&self.containers, |record| owns(record, id), free) else { return Ok(None) };
        let index = u32::try_from(slot).context("slot numbers fit 32 bits")?;
        if free(&self.containers[slot]) {
            if self.containers[slot].generation != 0 {
                counters::rebase_container(maps, index)?;
            }
            // Counted over all slots, so that id and generation name one life of a counter, whichever slot it had.
            let last = self.containers.iter().map(|record| record.generation).max();
            let mut record = ContainerRecord {
                state: slot_state::IN_USE,
                generation: last.unwrap_or(0) + 1,
                since_unix_s: time::unix_seconds(),
                ..EMPTY_CONTAINER
            };
            write_text(&mut record.id, id.as_str());
            // First, so that an owner never has another's.
            if let Some(marks) = &mut maps.shaping_marks {
                marks.set(index, skb_mark::base(id.as_str()).map_or(0, u64::from))?;
            }
            maps.containers.set(index, record)?;
            self.containers[slot] = record;
        }
        Ok(Some(index))
    }

    /// Writes what each container's shaping mark begins with, into a map that may have been made just now.
    ///
    /// # Errors
    /// When the map can't be read or written.
    pub fn sync_shaping_marks(&self, maps: &mut Maps) -> anyhow::Result<()> {
        let Some(marks) = &mut maps.shaping_marks else { return Ok(()) };
        let present = marks.range(0, marks.len())?;
        for ((slot, record), present) in (0..).zip(&self.containers).zip(present) {
            let wanted = container_id(record).and_then(|id| skb_mark::base(id.as_str())).map_or(0, u64::from);
            if present != wanted {
                marks.set(slot, wanted)?;
            }
        }
        Ok(())
    }

    /// Ends a container's hold on its slot. The counters stay in it; who comes under this id next gets another slot.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn retire_container(&mut self, maps: &mut Maps, id: &ContainerId) -> anyhow::Result<()> {
        let Some(slot) = self.container_slot(id) else { return Ok(()) };
        let record = ContainerRecord { state: slot_state::RETIRED, ..self.containers[slot as usize] };
        maps.containers.set(slot, record)?;
        self.containers[slot as usize] = record;
        Ok(())
    }

    /// Slots whose owners are gone, those first that go first when slots run short: retired containers, then whichever
    /// went first. None that packets are counted in; `is_wanted` tells of ids that own an address, interface or not.
    pub fn gone(&self, counted_in: &CountedIn, is_wanted: impl Fn(&str) -> bool) -> Gone {
        let mut alive = counted_in.containers.clone();
        let mut went: HashMap<&str, u64> = HashMap::new();
        let mut interfaces = Vec::new();
        for (slot, record) in
            (0..).zip(&self.interfaces).filter(|(_, record)| record.state == slot_state::IN_USE)
        {
            if record.ifindex != 0 {
                alive.insert(record.container_slot);
            } else if slot != UNKNOWN_INTERFACE_SLOT {
                let last = went.entry(read_text(&record.container)).or_default();
                *last = record.gone_unix_s.max(*last);
                if !counted_in.interfaces.contains(&slot) {
                    interfaces.push((record.gone_unix_s, slot));
                }
            }
        }
        let mut containers: Vec<_> = (0_u32..)
            .zip(&self.containers)
            .filter(|(slot, record)| match record.state {
                slot_state::IN_USE => !alive.contains(slot) && !is_wanted(read_text(&record.id)),
                slot_state::RETIRED => !alive.contains(slot),
                _ => false,
            })
            .map(|(slot, record)| {
                let last = went.get(read_text(&record.id)).copied().unwrap_or(record.since_unix_s);
                (Reverse(record.state == slot_state::RETIRED), last, slot)
            })
            .collect();
        containers.sort_unstable();
        interfaces.sort_unstable();
        Gone {
            containers: containers.into_iter().map(|(_, _, slot)| slot).collect(),
            interfaces: interfaces.into_iter().map(|(_, slot)| slot).collect(),
        }
    }

    /// Takes slots from their owners. The caller has waited until no packet is counted in them any more, and booked what
    /// they hold.
    ///
    /// # Errors
    /// When a map can't be written.
    pub fn free(&mut self, maps: &mut Maps, slots: &Gone) -> anyhow::Result<()> {
        for &slot in &slots.containers {
            let generation = self.containers[slot as usize].generation;
            let record = ContainerRecord { generation, ..EMPTY_CONTAINER };
            maps.containers.set(slot, record)?;
            self.containers[slot as usize] = record;
        }
        for &slot in &slots.interfaces {
            let generation = self.interfaces[slot as usize].generation;
            self.write_interface(maps, slot, InterfaceRecord { generation, ..EMPTY_INTERFACE })?;
        }
        Ok(())
    }

    /// The interface slot of this index, if an interface of that index is registered.
    pub fn interface_of_index(&self, ifindex: u32) -> Option<u32> {
        let slot = self.interfaces.iter().position(|record| ifindex != 0 && record.ifindex == ifindex)?;
        u32::try_from(slot).ok()
    }

    /// All other slots that hold this index.
    pub fn others_of_index(&self, ifindex: u32, own: u32) -> Vec<u32> {
        let slots = (0..).zip(&self.interfaces);
        slots
            .filter(|(slot, record)| record.ifindex == ifindex && ifindex != 0 && *slot != own)
            .map(|(slot, _)| slot)
            .collect()
    }

    /// Whether an interface of this index is registered as an uplink of the node.
    pub fn is_uplink(&self, ifindex: u32) -> bool {
        let of_node = |slot: u32| read_text(&self.interfaces[slot as usize].container) == NODE_ID;
        self.interface_of_index(ifindex).is_some_and(of_node)
    }

    /// The slot of an interface and its container; the one for strangers when all are taken.
    ///
    /// A name that now belongs to another container gets another slot: totals of two containers never mix.
    ///
    /// # Errors
    /// When the maps can't be read or written.
    pub fn assign_interface(
        &mut self,
        maps: &mut Maps,
        interface: &NetInterface,
        container: Option<&ContainerId>,
        container_slot: Option<u32>,
    ) -> anyhow::Result<u32> {
        let container_text = container.map_or("", ContainerId::as_str);
        let mine = |record: &InterfaceRecord| {
            record.state == slot_state::IN_USE
                && read_text(&record.name) == interface.name
                && read_text(&record.container) == container_text
        };
        let free = |record: &InterfaceRecord| record.state == slot_state::FREE;
        let Some(slot) = choose(&self.interfaces, mine, free) else { return Ok(UNKNOWN_INTERFACE_SLOT) };
        let index = u32::try_from(slot).context("slot numbers fit 32 bits")?;
        let old = self.interfaces[slot];
        let is_new = free(&old);
        if is_new && old.generation != 0 {
            counters::rebase_interface(maps, index)?;
        }
        // A name can have slots for several containers, one after another. Counted over all slots, as for containers.
        let last = self.interfaces.iter().map(|record| record.generation).max().unwrap_or(0);
        let mut record = InterfaceRecord {
            state: slot_state::IN_USE,
            generation: if is_new { last + 1 } else { old.generation },
            container_slot: container_slot.unwrap_or(u32::MAX),
            shared: u32::from(container.is_none()),
            link_header_len: interface.link_header_len(),
            ..if is_new { EMPTY_INTERFACE } else { old }
        };
        write_text(&mut record.name, &interface.name);
        write_text(&mut record.container, container_text);
        self.write_interface(maps, index, record)?;
        Ok(index)
    }

    /// Notes that counting in this slot begins at this moment, and what passed uncounted until then. Where it goes on
    /// on the same interface, what was noted before still holds: [`Self::note_settled`] has all it needs.
    ///
    /// # Errors
    /// When the maps can't be read or written.
    pub fn note_attach(
        &mut self,
        maps: &mut Maps,
        slot: u32,
        interface: &NetInterface,
        counted_so_far: CountedSoFar,
    ) -> anyhow::Result<()> {
        let old = self.interfaces[slot as usize];
        let missed = match counted_so_far {
            CountedSoFar::Here if old.ifindex == interface.index => {
                let record = InterfaceRecord { attached_unix_s: time::unix_seconds(), ..old };
                return self.write_interface(maps, slot, record);
            }
            CountedSoFar::Here => interface.statistics,
            CountedSoFar::Elsewhere => NOTHING,
            CountedSoFar::ElsewhereWithGap { slot } => {
                unseen(&self.interfaces[slot as usize], interface, &self.counted(maps, slot)?)
            }
        };
        let record = InterfaceRecord {
            ifindex: interface.index,
            attached_unix_s: time::unix_seconds(),
            gone_unix_s: 0,
            kernel_before: interface.statistics,
            counted_before: self.counted(maps, slot)?,
            missed: plus(&old.missed, &missed),
            ..old
        };
        self.write_interface(maps, slot, record)
    }

    /// Our own totals of a slot, in the terms of the kernel's statistics.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn counted(&self, maps: &Maps, slot: u32) -> anyhow::Result<InterfaceStatistics> {
        Ok(as_statistics(&sum_interface(&maps.interface_counters.range(slot, 1)?)))
    }

    /// Corrects what [`Self::note_attach`] noted by a reading made after the program was attached. Of what the reading
    /// leaves open nothing is called unseen, and nothing is held against the counters later.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn note_settled(
        &mut self,
        maps: &mut Maps,
        slot: u32,
        reading: &Reading,
        counted_so_far: CountedSoFar,
    ) -> anyhow::Result<()> {
        let old = self.interfaces[slot as usize];
        let missed =
            minus(&minus(&reading.kernel, &old.kernel_before), &minus(&reading.counted, &old.counted_before));
        let record = InterfaceRecord {
            kernel_before: reading.kernel,
            counted_before: reading.counted_earlier,
            // What was counted in another slot a moment ago was not missed.
            missed: match counted_so_far {
                CountedSoFar::Elsewhere => old.missed,
                _ => plus(&old.missed, &missed),
            },
            ..old
        };
        self.write_interface(maps, slot, record)
    }

    /// Whether the kernel has counted more in this slot's interface than we have, since the two were last compared.
    pub fn is_behind(&self, slot: u32, kernel: &InterfaceStatistics, counted: &InterfaceStatistics) -> bool {
        let record = &self.interfaces[slot as usize];
        record.ifindex != 0
            && BOTH.into_iter().any(|direction| ahead(record, kernel, counted, direction as usize))
    }

    /// Compares a direction anew from this reading where the kernel is ahead of us by no more than the pieces that a device
    /// cuts buffers into. More than that was missed, and stays to be told.
    ///
    /// # Errors
    /// When the maps can't be read or written.
    pub fn note_pieces(&mut self, maps: &mut Maps, slot: u32, reading: &Reading) -> anyhow::Result<()> {
        let mut record = self.interfaces[slot as usize];
        let totals = sum_interface(&maps.interface_counters.range(slot, 1)?);
        let since = since_attach(&record, &reading.kernel, &totals);
        for (direction, since) in BOTH.into_iter().zip([since.incoming, since.outgoing]) {
            let at = direction as usize;
            if ahead(&record, &reading.kernel, &reading.counted, at) && !is_missed(since, &totals.passed[at])
            {
                record.kernel_before.packets[at] = reading.kernel.packets[at];
                record.kernel_before.bytes[at] = reading.kernel.bytes[at];
                record.counted_before.packets[at] = reading.counted_earlier.packets[at];
                record.counted_before.bytes[at] = reading.counted_earlier.bytes[at];
            }
        }
        self.write_interface(maps, slot, record)
    }

    /// Notes that the interface went; its slot and counters stay.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn note_gone(&mut self, maps: &mut Maps, slot: u32) -> anyhow::Result<()> {
        let record = InterfaceRecord {
            ifindex: 0,
            gone_unix_s: time::unix_seconds(),
            ..self.interfaces[slot as usize]
        };
        self.write_interface(maps, slot, record)
    }

    fn write_interface(&mut self, maps: &mut Maps, slot: u32, record: InterfaceRecord) -> anyhow::Result<()> {
        if self.interfaces[slot as usize] != record && slot != UNKNOWN_INTERFACE_SLOT {
            maps.interfaces.set(slot, record)?;
            self.interfaces[slot as usize] = record;
        }
        Ok(())
    }
}

/// Whether the kernel has counted more than we have in one direction, since the two were last compared.
fn ahead(
    record: &InterfaceRecord,
    kernel: &InterfaceStatistics,
    counted: &InterfaceStatistics,
    at: usize,
) -> bool {
    let kernel = minus(kernel, &record.kernel_before);
    let counted = minus(counted, &record.counted_before);
    kernel.packets[at] > counted.packets[at] || kernel.bytes[at] > counted.bytes[at]
}

fn owns(record: &ContainerRecord, id: &ContainerId) -> bool {
    record.state == slot_state::IN_USE && read_text(&record.id) == id.as_str()
}

/// What passed this interface uncounted until now. One that was never counted in this slot: all that the kernel
/// counted on it. One that was (the program was taken off and is put on again): what the kernel counted since, less
/// what we did.
fn unseen(
    record: &InterfaceRecord,
    interface: &NetInterface,
    counted: &InterfaceStatistics,
) -> InterfaceStatistics {
    if record.ifindex != interface.index {
        return interface.statistics;
    }
    minus(&minus(&interface.statistics, &record.kernel_before), &minus(counted, &record.counted_before))
}

fn plus(a: &InterfaceStatistics, b: &InterfaceStatistics) -> InterfaceStatistics {
    combine(a, b, u64::wrapping_add)
}

fn minus(a: &InterfaceStatistics, b: &InterfaceStatistics) -> InterfaceStatistics {
    combine(a, b, u64::saturating_sub)
}

fn combine(
    a: &InterfaceStatistics,
    b: &InterfaceStatistics,
    with: impl Fn(u64, u64) -> u64,
) -> InterfaceStatistics {
    let each = |a: [u64; DIRECTIONS], b: [u64; DIRECTIONS]| std::array::from_fn(|at| with(a[at], b[at]));
    InterfaceStatistics { packets: each(a.packets, b.packets), bytes: each(a.bytes, b.bytes) }
}

/// Our own totals in the terms of the kernel's statistics.
fn as_statistics(counters: &InterfaceCounters) -> InterfaceStatistics {
    let mut statistics = InterfaceStatistics::default();
    for direction in [Direction::In, Direction::Out] {
        statistics.packets[direction as usize] = counters.passed[direction as usize].skbs;
        statistics.bytes[direction as usize] = counters.passed[direction as usize].skb_bytes;
    }
    statistics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_keeps_its_slot_and_a_stranger_gets_the_first_free_one() {
        let records = ["a", "", "b", ""];
        let pick = |name: &'static str| choose(&records, |r| *r == name, |r| r.is_empty());
        assert_eq!(pick("b"), Some(2));
        assert_eq!(pick("c"), Some(1));
        assert_eq!(choose(&["a", "b"], |r| *r == "c", |r| r.is_empty()), None);
    }

    #[test]
    fn retired_containers_go_first_then_those_gone_longest_and_none_that_is_there() {
        use slot_state::{IN_USE, RETIRED};

        let container = |state, id: &str| {
            let mut record = ContainerRecord { state, generation: 1, since_unix_s: 5, ..EMPTY_CONTAINER };
            write_text(&mut record.id, id);
            record
        };
        let interface = |slot, id: &str, ifindex, gone_unix_s| {
            let mut record = InterfaceRecord {
                state: IN_USE,
                container_slot: slot,
                ifindex,
                gone_unix_s,
                ..EMPTY_INTERFACE
            };
            write_text(&mut record.container, id);
            record
        };
        let registry = Registry {
            containers: vec![
                container(IN_USE, "there"),
                container(IN_USE, "late"),
                container(IN_USE, "early"),
                container(IN_USE, "routed"),
                container(RETIRED, "retired"),
                EMPTY_CONTAINER,
            ],
            interfaces: vec![
                EMPTY_INTERFACE,
                interface(0, "there", 7, 0),
                interface(0, "there", 0, 10),
                interface(1, "late", 0, 300),
                interface(2, "early", 0, 100),
                // Another life of that slot says nothing of the present one.
                interface(2, "another", 0, 900),
                interface(4, "retired", 0, 800),
            ],
        };
        let wanted = |id: &str| id == "routed";
        let gone = registry.gone(&CountedIn::default(), wanted);
        assert_eq!(gone.containers, [4, 2, 1]);
        assert_eq!(gone.interfaces, [2, 4, 3, 6, 5]);
        // What packets go to stays, whatever the records say: of "early" an interface without a slot is there.
        let counted_in = CountedIn { containers: [2, 4].into(), interfaces: [0, 3].into() };
        let gone = registry.gone(&counted_in, wanted);
        assert_eq!(gone.containers, [1]);
        assert_eq!(gone.interfaces, [2, 4, 6, 5]);
    }

    #[test]
    fn what_passed_unseen_is_told_from_what_was_counted() {
        let statistics =
            |base: u64| InterfaceStatistics { packets: [base, base + 1], bytes: [base + 2, base + 3] };
        let interface = |index, base| NetInterface {
            index,
            name: "veth1.0".to_owned(),
            mac: None,
            ethernet: true,
            is_uplink: false,
            statistics: statistics(base),
        };
        // Never counted here: everything on it was unseen.
        assert_eq!(unseen(&EMPTY_INTERFACE, &interface(7, 100), &statistics(40)), statistics(100));
        // Counted here from 100 (ours then 40); now the kernel says 500 and we say 340: 100 passed between.
        let record = InterfaceRecord {
            ifindex: 7,
            kernel_before: statistics(100),
            counted_before: statistics(40),
            ..EMPTY_INTERFACE
        };
        let expected = InterfaceStatistics { packets: [100, 100], bytes: [100, 100] };
        assert_eq!(unseen(&record, &interface(7, 500), &statistics(340)), expected);
    }
}
