//! Slots of owners that are not known yet, and of containers that have several slots because of that.

use traffic_common::{ContainerRecord, InterfaceEntry, slot_state};
use traffic_model::{ContainerId, is_pending, skb_mark};

use super::Registry;
use crate::{
    kernel::records::{container_id, read_name, read_text, write_text},
    net::interface::NetInterface,
    node::kernel_access::SlotMaps,
};

impl Registry {
    /// All slots of a container in use, the oldest first.
    pub(super) fn slots_of(&self, id: &ContainerId) -> Vec<u32> {
        let is_its = |record: &ContainerRecord| {
            record.state == slot_state::IN_USE && read_text(&record.id) == id.as_str()
        };
        let mut slots: Vec<(u32, u32)> = (0..)
            .zip(&self.containers)
            .filter(|(_, record)| is_its(record))
            .map(|(slot, record)| (record.generation, slot))
            .collect();
        slots.sort_unstable();
        slots.into_iter().map(|(_, slot)| slot).collect()
    }

    /// The container or pending owner for which the interface of this index is counted, a pending one first.
    /// `entry` is what the program finds under the index: an interface without a slot of its own has only that.
    pub fn recorded_owner(&self, ifindex: u32, entry: &InterfaceEntry) -> Option<ContainerId> {
        let records = self.by_ifindex.get(&ifindex).into_iter().flatten();
        let recorded = records.map(|slot| read_text(&self.interface(*slot).container));
        let in_use = self.containers.get(entry.container_slot as usize).filter(|_| entry.flags != 0);
        let in_use = in_use.filter(|record| record.state == slot_state::IN_USE);
        let owners: Vec<_> = recorded
            .chain(in_use.map(|record| read_text(&record.id)))
            .filter_map(|id| ContainerId::new(id).ok().filter(|id| !id.is_node()))
            .collect();
        owners.iter().find(|id| id.is_pending()).or(owners.first()).cloned()
    }

    /// Whether the interface of this index is registered for a pending owner.
    pub fn is_pending(&self, ifindex: u32) -> bool {
        self.recorded_owner(ifindex, &InterfaceEntry::default()).is_some_and(|owner| owner.is_pending())
    }

    /// Whether a container or an interface has a slot under this id.
    pub fn has_any(&self, id: &ContainerId) -> bool {
        self.container_slot(id).is_some() || !self.interfaces_of_text(id.as_str()).is_empty()
    }

    /// An id for the pending owner of an interface that has none yet.
    pub fn new_pending_owner(&self, interface: &NetInterface, mut now_unix_s: u64) -> ContainerId {
        loop {
            let id = ContainerId::pending(&interface.name, interface.index, now_unix_s);
            let is_its = |record: &&ContainerRecord| read_text(&record.id) == id.as_str();
            if !self.containers.iter().any(|record| is_its(&record)) {
                return id;
            }
            now_unix_s += 1;
        }
    }

    /// Gives everything that was counted under a pending id to its owner, by writing who has its slots. The
    /// counters go on, under the same generation. Each step may be the last before a crash: the record of the
    /// container decides, and whoever repeats this completes the rest.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn attribute(
        &mut self,
        maps: &mut impl SlotMaps,
        pending: &ContainerId,
        owner: &ContainerId,
    ) -> anyhow::Result<()> {
        let mark = skb_mark::base(owner.as_str()).map_or(0, u64::from);
        for slot in self.slots_of(pending) {
            maps.set_skb_mark(slot, mark)?;
            let mut record = self.containers[slot as usize];
            write_text(&mut record.id, owner.as_str());
            self.write_container(maps, slot, record)?;
        }
        for slot in self.interfaces_of_text(pending.as_str()) {
            self.write_owner(maps, slot, owner.as_str())?;
        }
        Ok(())
    }

    /// Completes an attribution that was interrupted: an interface counted in a slot whose owner is known has
    /// this owner.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn complete_attribution(&mut self, maps: &mut impl SlotMaps, slot: u32) -> anyhow::Result<()> {
        let record = self.interface(slot);
        let container = self.containers.get(record.container_slot as usize);
        let container = container.filter(|container| container.state == slot_state::IN_USE);
        let owner = container.map(|container| read_text(&container.id).to_owned());
        match owner.filter(|owner| is_pending(read_text(&record.container)) && !is_pending(owner)) {
            Some(owner) => self.write_owner(maps, slot, &owner),
            None => Ok(()),
        }
    }

    fn write_owner(&mut self, maps: &mut impl SlotMaps, slot: u32, owner: &str) -> anyhow::Result<()> {
        let mut record = *self.interface(slot);
        write_text(&mut record.container, owner);
        self.write_interface(maps, slot, record)
    }

    /// The latest slot of an interface of this name that has a pending owner, whether it exists or not.
    pub fn pending_slot_of(&self, name: &str) -> Option<u32> {
        let in_use = (0..).zip(&self.interfaces).filter(|(_, record)| record.state == slot_state::IN_USE);
        let pending = in_use.filter(|(_, record)| is_pending(read_text(&record.container)));
        let named = pending.filter(|(_, record)| read_name(record) == name);
        named.max_by_key(|(_, record)| record.generation).map(|(slot, _)| slot)
    }

    fn interfaces_of_text(&self, container: &str) -> Vec<u32> {
        let of_it = (0..).zip(&self.interfaces).filter(|(_, record)| record.state == slot_state::IN_USE);
        of_it.filter(|(_, record)| read_text(&record.container) == container).map(|(slot, _)| slot).collect()
    }

    /// The owners that are still pending: slot and id, the oldest first.
    pub fn pending_owners(&self) -> Vec<(u32, ContainerId)> {
        let in_use = (0..).zip(&self.containers).filter(|(_, record)| record.state == slot_state::IN_USE);
        let ids = in_use.filter_map(|(slot, record)| Some((record.generation, slot, container_id(record)?)));
        let mut pending: Vec<_> = ids.filter(|(_, _, id)| id.is_pending()).collect();
        pending.sort_unstable();
        pending.into_iter().map(|(_, slot, id)| (slot, id)).collect()
    }
}
