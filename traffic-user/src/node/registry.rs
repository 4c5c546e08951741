//! Which container and which interface has which counter slot, as the pinned maps record it.
//!
//! A slot, once assigned, stays with its owner over stops and starts, so that its counters continue. Slots of
//! owners that are gone are freed only when slots run short ([`Registry::free`]), after their final reading
//! is in the ledger ([`super::slot_reclaim`]). The counters themselves are never reset: what they
//! hold becomes the slot's base when its next owner gets it. Each step leaves a state that readers
//! understand, wherever it is interrupted: a free slot's counters belong to nobody, and the base is written
//! before the owner.
//!
//! What passed an interface uncounted is recorded in its slot as well: `super::missed`. Owners that are not known
//! yet, and what happens when they are: `pending`.

mod pending;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use anyhow::Context as _;
use traffic_common::{ContainerRecord, InterfaceRecord, UNKNOWN_INTERFACE_SLOT, slot_state};
use traffic_model::{ContainerId, NODE_ID, skb_mark};

use super::kernel_access::{Clock, SlotMaps};
use crate::{
    kernel::{
        entries::CountedIn,
        records::{
            EMPTY_CONTAINER, EMPTY_INTERFACE, container_id, read_name, read_text, write_name, write_text,
        },
    },
    net::interface::NetInterface,
};

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

/// All slot records, read once and kept in step with the maps.
#[derive(Debug)]
pub struct Registry {
    containers: Vec<ContainerRecord>,
    interfaces: Vec<InterfaceRecord>,
    /// Slots of containers in use, by id. If there are several, the oldest one: the others were those of pending
    /// owners that turned out to be this container.
    by_id: HashMap<String, u32>,
    /// Slots of interfaces in use, by name and container. If there are several, one whose interface exists.
    by_name: HashMap<(String, String), u32>,
    /// Slots of interfaces that exist, by index. An attach that was interrupted leaves more than one.
    by_ifindex: HashMap<u32, BTreeSet<u32>>,
    free_containers: BTreeSet<u32>,
    free_interfaces: BTreeSet<u32>,
    /// The highest generation of any container, and of any interface.
    last_generation: (u32, u32),
    /// Whether slots ran short and none could be freed, and nothing has ended since.
    is_exhausted: bool,
}

impl Registry {
    /// Reads all records.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub fn read(maps: &impl SlotMaps) -> anyhow::Result<Self> {
        Ok(Self::of(maps.container_records()?, maps.interface_records()?))
    }

    fn of(mut containers: Vec<ContainerRecord>, mut interfaces: Vec<InterfaceRecord>) -> Self {
        let used_containers = take_used(&mut containers, &EMPTY_CONTAINER);
        let used_interfaces = take_used(&mut interfaces, &EMPTY_INTERFACE);
        let mut registry = Self {
            free_containers: (0..).zip(&containers).map(|(slot, _)| slot).collect(),
            free_interfaces: (0..).zip(&interfaces).map(|(slot, _)| slot).collect(),
            containers,
            interfaces,
            by_id: HashMap::new(),
            by_name: HashMap::new(),
            by_ifindex: HashMap::new(),
            last_generation: (0, 0),
            is_exhausted: false,
        };
        for (slot, record) in used_containers {
            registry.note_container(slot, record);
        }
        for (slot, record) in used_interfaces {
            registry.note_interface(slot, record);
        }
        registry
    }

    /// Records of containers, by slot.
    pub fn containers(&self) -> &[ContainerRecord] {
        &self.containers
    }

    /// Records of interfaces, by slot.
    pub fn interfaces(&self) -> &[InterfaceRecord] {
        &self.interfaces
    }

    /// The record of an interface slot.
    pub fn interface(&self, slot: u32) -> &InterfaceRecord {
        &self.interfaces[slot as usize]
    }

    /// The slot of a container that has one.
    pub fn container_slot(&self, id: &ContainerId) -> Option<u32> {
        self.by_id.get(id.as_str()).copied()
    }

    /// The slot of a container, assigned now if it has none; `None` when all are taken.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn assign_container(
        &mut self,
        maps: &mut (impl SlotMaps + Clock),
        id: &ContainerId,
    ) -> anyhow::Result<Option<u32>> {
        if let Some(slot) = self.container_slot(id) {
            return Ok(Some(slot));
        }
        let Some(&slot) = self.free_containers.first() else { return Ok(None) };
        if self.containers[slot as usize].generation != 0 {
            maps.rebase_container(slot)?;
        }
        // Counted over all slots, so that id and generation name one life of a counter, whichever slot it
        // had.
        let mut record = ContainerRecord {
            state: slot_state::IN_USE,
            generation: self.last_generation.0 + 1,
            since_unix_s: maps.unix_seconds(),
            ..EMPTY_CONTAINER
        };
        write_text(&mut record.id, id.as_str());
        // First, so that an owner never sends with another's mark.
        maps.set_skb_mark(slot, skb_mark::base(id.as_str()).map_or(0, u64::from))?;
        self.write_container(maps, slot, record)?;
        Ok(Some(slot))
    }

    /// Writes what the `skb->mark` of each container begins with. The map may have been created just now.
    ///
    /// # Errors
    /// When the map cannot be read or written.
    pub fn sync_skb_marks(&self, maps: &mut impl SlotMaps) -> anyhow::Result<()> {
        let Some(present) = maps.skb_marks()? else { return Ok(()) };
        for ((slot, record), present) in (0..).zip(&self.containers).zip(present) {
            let wanted = container_id(record).and_then(|id| skb_mark::base(id.as_str())).map_or(0, u64::from);
            if present != wanted {
                maps.set_skb_mark(slot, wanted)?;
            }
        }
        Ok(())
    }

    /// Ends a container's hold on its slot. The counters stay in it; the next container of this id gets
    /// another slot.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn retire_container(&mut self, maps: &mut impl SlotMaps, id: &ContainerId) -> anyhow::Result<()> {
        // The oldest last: it leads whoever repeats this to the others.
        for slot in self.slots_of(id).into_iter().rev() {
            let record = ContainerRecord { state: slot_state::RETIRED, ..self.containers[slot as usize] };
            self.write_container(maps, slot, record)?;
        }
        Ok(())
    }

    /// Slots whose owners are gone, in the order in which they are freed: retired containers first, then by
    /// how long ago their owner went. The last are further slots of containers that exist, which pending owners
    /// had. A slot is never listed while packets are counted in it. `is_wanted` names ids that own an address and
    /// so need no interface.
    pub fn gone(&self, counted_in: &CountedIn, is_wanted: impl Fn(&str) -> bool) -> Gone {
        let mut alive = counted_in.containers.clone();
        let mut went: HashMap<&str, u64> = HashMap::new();
        let mut interfaces = Vec::new();
        let in_use = (0..).zip(&self.interfaces).filter(|(_, record)| record.state == slot_state::IN_USE);
        for (slot, record) in in_use {
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
        // Of an id in use: the slot that the container has, and whether it exists.
        let exists = |id: &str| self.by_id.get(id).is_some_and(|slot| alive.contains(slot)) || is_wanted(id);
        let is_further = |id: &str, slot| self.by_id.get(id).is_some_and(|main| *main != slot);
        let mut containers: Vec<_> = (0_u32..)
            .zip(&self.containers)
            .filter(|(slot, record)| match record.state {
                slot_state::IN_USE => {
                    let id = read_text(&record.id);
                    !alive.contains(slot) && (!is_wanted(id) || is_further(id, *slot))
                }
                slot_state::RETIRED => !alive.contains(slot),
                _ => false,
            })
            .map(|(slot, record)| {
                let id = read_text(&record.id);
                let last = went.get(id).copied().unwrap_or(record.since_unix_s);
                let is_retired = record.state == slot_state::RETIRED;
                (Reverse(is_retired), !is_retired && is_further(id, slot) && exists(id), last, slot)
            })
            .collect();
        containers.sort_unstable();
        interfaces.sort_unstable();
        Gone {
            containers: containers.into_iter().map(|(_, _, _, slot)| slot).collect(),
            interfaces: interfaces.into_iter().map(|(_, slot)| slot).collect(),
        }
    }

    /// Takes slots from their owners. The caller has waited until no packet is counted in them any more, and
    /// has written what they hold into the ledger.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn free(&mut self, maps: &mut impl SlotMaps, slots: &Gone) -> anyhow::Result<()> {
        for &slot in &slots.containers {
            let generation = self.containers[slot as usize].generation;
            self.write_container(maps, slot, ContainerRecord { generation, ..EMPTY_CONTAINER })?;
        }
        for &slot in &slots.interfaces {
            let generation = self.interface(slot).generation;
            self.write_interface(maps, slot, InterfaceRecord { generation, ..EMPTY_INTERFACE })?;
        }
        Ok(())
    }

    /// Whether slots ran short, none could be freed, and nothing has ended since. Trying again for each of
    /// thousands of containers would take minutes.
    pub const fn is_exhausted(&self) -> bool {
        self.is_exhausted
    }

    /// Records whether slots ran short and none could be freed. Each listing begins with a new attempt.
    pub const fn set_exhausted(&mut self, is_exhausted: bool) {
        self.is_exhausted = is_exhausted;
    }

    /// The slot of the interface of this index, if one is registered.
    pub fn interface_of_index(&self, ifindex: u32) -> Option<u32> {
        self.by_ifindex.get(&ifindex)?.first().copied()
    }

    /// The slot of the interface of this name and container, whether it exists or not.
    pub fn slot_of(&self, name: &str, container: &str) -> Option<u32> {
        self.by_name.get(&(name.to_owned(), container.to_owned())).copied()
    }

    /// All slots but this one that hold the index.
    pub fn others_of_index(&self, ifindex: u32, own: u32) -> Vec<u32> {
        let slots = self.by_ifindex.get(&ifindex).into_iter().flatten();
        slots.copied().filter(|slot| *slot != own).collect()
    }

    /// Indexes of all interfaces that are registered.
    pub fn indexes(&self) -> impl Iterator<Item = u32> {
        self.by_ifindex.keys().copied()
    }

    /// Whether the interface of this index is registered as an uplink of the node.
    pub fn is_uplink(&self, ifindex: u32) -> bool {
        self.interface_of_index(ifindex)
            .is_some_and(|slot| read_text(&self.interface(slot).container) == NODE_ID)
    }

    /// The slot of an interface and its container, if its record says what [`Self::assign_interface`] would
    /// write.
    pub fn assigned_interface(
        &self,
        interface: &NetInterface,
        container: Option<&ContainerId>,
        container_slot: Option<u32>,
    ) -> Option<u32> {
        let container_text = container.map_or("", ContainerId::as_str);
        let slot = *self.by_name.get(&(interface.name.clone(), container_text.to_owned()))?;
        let record = self.interface(slot);
        let is_same = record.container_slot == container_slot.unwrap_or(u32::MAX)
            && record.shared == u32::from(container.is_none())
            && record.link_header_len == interface.link_header_len();
        is_same.then_some(slot)
    }

    /// The slot of an interface and its container, assigned now if they have none. When all are taken: the
    /// slot that interfaces without one of their own share.
    ///
    /// A name that now belongs to another container gets another slot: totals of two containers never mix.
    ///
    /// # Errors
    /// When the maps cannot be read or written.
    pub fn assign_interface(
        &mut self,
        maps: &mut impl SlotMaps,
        interface: &NetInterface,
        container: Option<&ContainerId>,
        container_slot: Option<u32>,
    ) -> anyhow::Result<u32> {
        let container_text = container.map_or("", ContainerId::as_str);
        let key = (interface.name.clone(), container_text.to_owned());
        let mine = self.by_name.get(&key).copied();
        let Some(slot) = mine.or_else(|| self.free_interfaces.first().copied()) else {
            return Ok(UNKNOWN_INTERFACE_SLOT);
        };
        let old = *self.interface(slot);
        if mine.is_none() && old.generation != 0 {
            maps.rebase_interface(slot)?;
        }
        // A name can have slots for several containers, one after another. Counted over all slots, as for
        // containers.
        let mut record = InterfaceRecord {
            state: slot_state::IN_USE,
            generation: if mine.is_none() { self.last_generation.1 + 1 } else { old.generation },
            container_slot: container_slot.unwrap_or(u32::MAX),
            shared: u32::from(container.is_none()),
            link_header_len: interface.link_header_len(),
            ..if mine.is_none() { EMPTY_INTERFACE } else { old }
        };
        write_name(&mut record.name, &interface.name);
        write_text(&mut record.container, container_text);
        self.write_interface(maps, slot, record)?;
        Ok(slot)
    }

    pub(crate) fn write_interface(
        &mut self,
        maps: &mut impl SlotMaps,
        slot: u32,
        record: InterfaceRecord,
    ) -> anyhow::Result<()> {
        if *self.interface(slot) != record && slot != UNKNOWN_INTERFACE_SLOT {
            maps.set_interface_record(slot, record).with_context(|| format!("interface slot {slot}"))?;
            self.note_interface(slot, record);
        }
        Ok(())
    }

    fn write_container(
        &mut self,
        maps: &mut impl SlotMaps,
        slot: u32,
        record: ContainerRecord,
    ) -> anyhow::Result<()> {
        maps.set_container_record(slot, record).with_context(|| format!("container slot {slot}"))?;
        self.note_container(slot, record);
        Ok(())
    }

    fn note_container(&mut self, slot: u32, record: ContainerRecord) {
        let old = std::mem::replace(&mut self.containers[slot as usize], record);
        self.last_generation.0 = self.last_generation.0.max(record.generation);
        self.is_exhausted &= record.state == slot_state::IN_USE;
        if old.state == slot_state::IN_USE && self.by_id.get(read_text(&old.id)) == Some(&slot) {
            self.by_id.remove(read_text(&old.id));
            let another =
                ContainerId::new(read_text(&old.id)).map(|id| self.slots_of(&id)).unwrap_or_default();
            if let Some(&oldest) = another.first() {
                self.by_id.insert(read_text(&old.id).to_owned(), oldest);
            }
        }
        if record.state == slot_state::IN_USE {
            let id = read_text(&record.id);
            let known = self.by_id.get(id).map(|slot| self.containers[*slot as usize].generation);
            if known.is_none_or(|generation| record.generation < generation) {
                self.by_id.insert(id.to_owned(), slot);
            }
        }
        if record.state == slot_state::FREE {
            self.free_containers.insert(slot);
        } else {
            self.free_containers.remove(&slot);
        }
    }

    fn note_interface(&mut self, slot: u32, record: InterfaceRecord) {
        let old = std::mem::replace(&mut self.interfaces[slot as usize], record);
        let key = |record: &InterfaceRecord| (read_name(record), read_text(&record.container).to_owned());
        self.last_generation.1 = self.last_generation.1.max(record.generation);
        let ends = old.ifindex != 0 && record.ifindex != old.ifindex;
        self.is_exhausted &= record.state == slot_state::IN_USE && !ends;
        if old.state == slot_state::IN_USE && self.by_name.get(&key(&old)) == Some(&slot) {
            self.by_name.remove(&key(&old));
        }
        if let Some(slots) = self.by_ifindex.get_mut(&old.ifindex) {
            slots.remove(&slot);
            if slots.is_empty() {
                self.by_ifindex.remove(&old.ifindex);
            }
        }
        if record.state == slot_state::IN_USE {
            let known = self.by_name.get(&key(&record)).map(|slot| self.interfaces[*slot as usize].ifindex);
            if known.is_none_or(|ifindex| ifindex == 0 && record.ifindex != 0) {
                self.by_name.insert(key(&record), slot);
            }
        }
        if record.ifindex != 0 {
            self.by_ifindex.entry(record.ifindex).or_default().insert(slot);
        }
        if record.state == slot_state::FREE {
            self.free_interfaces.insert(slot);
        } else {
            self.free_interfaces.remove(&slot);
        }
    }
}

/// Takes out the records that are not empty, with their slots. A map has room for thousands, of which most are empty.
fn take_used<R: Copy + PartialEq>(records: &mut [R], empty: &R) -> Vec<(u32, R)> {
    let used = (0..).zip(records).filter(|(_, record)| *record != empty);
    used.map(|(slot, record)| (slot, std::mem::replace(record, *empty))).collect()
}

#[cfg(test)]
mod tests;
