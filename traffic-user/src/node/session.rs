//! One change of the node, under the lock on the pinned state: attach what should be attached, release what
//! is gone.
//!
//! The order of steps is what makes a change safe to interrupt at any of them: the slot's record before the
//! entry, the entry before the hooks, and a slot's former owner is noted as gone only when no packet is
//! counted for it any more.

use traffic_common::{
    Direction, INTERFACE_INDEX_ENTRIES, InterfaceEntry, UNKNOWN_INTERFACE_SLOT, interface_flags,
};
use traffic_model::{ContainerId, skb_mark};

use super::{
    kernel_access::NodeKernel,
    locked_kernel::LockedKernel,
    missed::{self, CountedSoFar},
    policy::{Policy, Selection},
    registry::Registry,
    slot_reclaim::{self, FinalReading},
};
use crate::{
    kernel::{
        hooks::{Change, DeviceFate},
        load::LoadOutcome,
        maps::Maps,
    },
    net::interface::NetInterface,
    ownership::interface_rules::Role,
};

/// What an attach did, for the operator.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AttachReport {
    /// Interfaces with what was done on them.
    pub attached: Vec<(String, Change)>,
    /// Interfaces that a rule matches but whose container is unknown, with the reason.
    pub unresolved: Vec<(String, String)>,
    /// Interfaces that could not be attached, with the reason.
    pub failed: Vec<(String, String)>,
}

impl AttachReport {
    /// Adds what another attach did.
    pub fn append(&mut self, mut other: Self) {
        self.attached.append(&mut other.attached);
        self.unresolved.append(&mut other.unresolved);
        self.failed.append(&mut other.failed);
    }
}

/// A change in progress: the kernel under the lock, and who has which slot.
#[derive(Debug)]
pub struct Session<K> {
    /// The kernel.
    pub kernel: K,
    /// Who has which slot.
    pub registry: Registry,
    /// How program and maps came about.
    pub outcome: LoadOutcome,
}

/// The slots of one interface.
#[derive(Clone, Copy)]
struct Slots {
    /// Of its container; `None` where it is shared, or all are taken.
    container: Option<u32>,
    interface: u32,
    /// The slot under which its index was registered before.
    before: Option<u32>,
}

impl Session<LockedKernel> {
    /// The maps.
    pub fn maps(&self) -> &Maps {
        &self.kernel.loaded.maps
    }

    /// The maps, to be changed.
    pub fn maps_mut(&mut self) -> &mut Maps {
        &mut self.kernel.loaded.maps
    }
}

impl<K: NodeKernel + FinalReading> Session<K> {
    /// Attaches to the selected interfaces. One interface that fails does not keep others from being
    /// attached.
    ///
    /// # Errors
    /// When a named interface does not exist or no rule assigns it (then nothing is attached), or the node's
    /// addresses cannot be listed or written.
    pub fn attach(
        &mut self,
        policy: &Policy,
        interfaces: &[NetInterface],
        selection: &Selection,
    ) -> anyhow::Result<AttachReport> {
        let mut report = AttachReport::default();
        self.registry.set_exhausted(false);
        let selected = policy.select(interfaces, selection)?;
        // Before the hooks: the first packet on an uplink must find whose it is.
        self.sync_node_addresses(policy)?;
        for (interface, role) in selected {
            let attached = match role {
                Role::Ignored(_) => {
                    self.release_former_uplink(interface)?;
                    self.release_former_device(interface)?;
                    self.describe(interface)?;
                    continue;
                }
                Role::Unresolved { reason } => {
                    self.describe(interface)?;
                    report.unresolved.push((interface.name.clone(), reason));
                    continue;
                }
                Role::Uplink => {
                    let uplink = interface.clone().as_uplink();
                    self.attach_one(policy, &uplink, Some(&ContainerId::node()))
                }
                Role::Container(id) => self.attach_one(policy, interface, Some(&id)),
                Role::Shared => self.attach_one(policy, interface, None),
            };
            match attached {
                Ok(change) => report.attached.push((interface.name.clone(), change)),
                Err(error) => report.failed.push((interface.name.clone(), format!("{error:#}"))),
            }
        }
        Ok(report)
    }

    fn attach_one(
        &mut self,
        policy: &Policy,
        interface: &NetInterface,
        container: Option<&ContainerId>,
    ) -> anyhow::Result<Change> {
        let slots = self.assign_slots(policy, interface, container)?;
        let start = self.counting_start(interface, slots)?;
        let mut former_fate = DeviceFate::Unknown;
        if let Some(counted_so_far) = start {
            // A device that was made again under its name has another index: the old one shows that it is
            // another device.
            let former_index = self.registry.interface(slots.interface).ifindex;
            if former_index != 0 && former_index != interface.index && !self.release_if_gone(former_index)? {
                self.move_out_of_slot(former_index, slots.interface)?;
            }
            // Before the hooks, so that the next attach completes one that was interrupted.
            let Self { kernel, registry, .. } = self;
            former_fate =
                missed::record_attach(kernel, registry, slots.interface, interface, counted_so_far)?;
        }
        // Before the hooks: the first packet must find its interface.
        self.kernel.set_entry(interface.index, entry(interface, container, slots))?;
        // Not before: a slot whose owner is gone may be given to another. An interrupted attach leaves more
        // than one.
        for old in self.registry.others_of_index(interface.index, slots.interface) {
            missed::note_gone(&mut self.kernel, &mut self.registry, old, former_fate)?;
        }
        let mut change = Change::Kept;
        let mut refused = None;
        for direction in Direction::BOTH {
            if start.is_some() {
                self.kernel.detach_other_kind(interface, direction)?;
            }
            // One hook that another tool occupies does not keep the other direction from being counted.
            match self.kernel.attach(interface, direction) {
                Ok(done) => change = change.max(done),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        if let Some(error) = refused {
            return Err(error);
        }
        // The kernel's statistics of an uplink cover everybody's traffic.
        if !interface.is_uplink {
            self.account_for_missed(interface, slots.interface, start)?;
        }
        Ok(change)
    }

    /// Lets an interface that was renamed, and whose name another one has now, count in the slot that
    /// interfaces without a slot of their own share. It still counts for its container.
    fn move_out_of_slot(&mut self, ifindex: u32, slot: u32) -> anyhow::Result<()> {
        let Some(former) = self.kernel.interface(ifindex)? else { return Ok(()) };
        match self.kernel.is_known_device(&former)? {
            Some(true) => {}
            // A new device that only got the index. The device that was attached under it may be the one at
            // hand, which must not be counted by its former links as well.
            Some(false) => {
                let fate = self.kernel.release(ifindex)?;
                self.kernel.set_entry(ifindex, InterfaceEntry::default())?;
                return missed::note_gone(&mut self.kernel, &mut self.registry, slot, fate);
            }
            None => return Ok(()),
        }
        let entries = self.kernel.entries()?;
        if let Some((_, entry)) = entries.into_iter().find(|(index, _)| *index == ifindex) {
            let moved = InterfaceEntry { interface_slot: UNKNOWN_INTERFACE_SLOT, ..entry };
            self.kernel.set_entry(ifindex, moved)?;
            self.kernel.wait_for_packets()?;
        }
        missed::note_gone(&mut self.kernel, &mut self.registry, slot, DeviceFate::Ended)
    }

    fn account_for_missed(
        &mut self,
        interface: &NetInterface,
        slot: u32,
        start: Option<CountedSoFar>,
    ) -> anyhow::Result<()> {
        let Self { kernel, registry, .. } = self;
        match start {
            Some(counted_so_far) => {
                missed::settle_missed(kernel, registry, (slot, interface.index), counted_so_far)
            }
            None => missed::rebase_statistics(kernel, registry, slot, interface),
        }
    }

    fn assign_slots(
        &mut self,
        policy: &Policy,
        interface: &NetInterface,
        container: Option<&ContainerId>,
    ) -> anyhow::Result<Slots> {
        let container_slot = match container {
            Some(id) => self.container_slot(policy, id)?,
            None => None,
        };
        if container.is_some() && container_slot.is_none() {
            tracing::warn!(
                "{}: no counter slot is free ({} containers): its packets are counted as container_table_full; raise \
                 `containers` under [limits]",
                interface.name,
                self.registry.containers().len()
            );
        }
        let before = self.registry.interface_of_index(interface.index);
        let assign = |session: &mut Self| {
            session.registry.assign_interface(&mut session.kernel, interface, container, container_slot)
        };
        let mut slot = assign(self)?;
        if slot == UNKNOWN_INTERFACE_SLOT && self.make_room(policy, container_slot) {
            slot = assign(self)?;
        }
        Ok(Slots { container: container_slot, interface: slot, before })
    }

    /// Where the interface was counted until now, if counting in its slot starts over; `None` where it simply
    /// continues.
    fn counting_start(&self, interface: &NetInterface, slots: Slots) -> anyhow::Result<Option<CountedSoFar>> {
        let mut attached = true;
        for direction in Direction::BOTH {
            attached &= self.kernel.is_current(interface, direction)?;
        }
        // Its slot's record has its index already: an attach that was interrupted has recorded where it was
        // counted before.
        let is_recorded = self.registry.interface(slots.interface).ifindex == interface.index;
        // Until now it had no slot of its own and was counted in the one that such interfaces share. No
        // record has its index: it would look gone, and its slots would be given away while it counts in
        // them.
        let shared_a_slot = slots.interface != UNKNOWN_INTERFACE_SLOT && !is_recorded;
        let moved_from = slots.before.filter(|&old| old != slots.interface && !is_recorded);
        Ok(counting_start(attached, shared_a_slot, moved_from))
    }

    /// The slot of a container, if need be one whose owner is gone; `None` when all are taken.
    fn container_slot(&mut self, policy: &Policy, id: &ContainerId) -> anyhow::Result<Option<u32>> {
        if let Some(slot) = self.registry.container_slot(id) {
            return Ok(Some(slot));
        }
        if policy.config.skb_mark && !id.is_node() && skb_mark::base(id.as_str()).is_none() {
            tracing::warn!(
                "container {id}: what it sends gets no skb mark: {}",
                skb_mark::why_unmarked(id.as_str())
            );
        }
        let slot = self.registry.assign_container(&mut self.kernel, id)?;
        if slot.is_some() || !self.make_room(policy, None) {
            return Ok(slot);
        }
        self.registry.assign_container(&mut self.kernel, id)
    }

    /// Frees slots of those that are gone, and says whether there were any. A failure keeps nothing from
    /// being counted, in a fault at the least. `taken` is the slot of the container at hand, which no entry
    /// leads to yet.
    fn make_room(&mut self, policy: &Policy, taken: Option<u32>) -> bool {
        let Self { kernel, registry, .. } = self;
        if registry.is_exhausted() {
            return false;
        }
        // An address without an owner must not lead to a slot that is about to go to another container.
        let made = policy
            .addresses(|id| Ok(registry.container_slot(id)))
            .and_then(|addresses| kernel.sync_addresses(&addresses))
            .and_then(|_| slot_reclaim::make_room(kernel, registry, taken, |id| policy.owns_address(id)))
            .unwrap_or_else(|error| {
                tracing::error!("slots run short, and none can be freed: {error:#}");
                false
            });
        registry.set_exhausted(!made);
        made
    }

    /// Brings the kernel's local addresses into line with the configuration's. Returns those that
    /// found no room.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn sync_addresses(&mut self, policy: &Policy) -> anyhow::Result<Vec<ipnet::IpNet>> {
        self.registry.set_exhausted(false);
        let wanted = policy.addresses(|id| self.container_slot(policy, id))?;
        self.kernel.sync_addresses(&wanted)
    }
}

impl<K: NodeKernel> Session<K> {
    /// Tells the program whether an interface that is not counted sends packets again. Of one that it knows
    /// nothing about, it asks the kernel for every packet.
    fn describe(&mut self, interface: &NetInterface) -> anyhow::Result<()> {
        // One that is still attached has an entry of its own. A high index would take room that others need.
        if interface.index >= INTERFACE_INDEX_ENTRIES
            || self.registry.interface_of_index(interface.index).is_some()
        {
            return Ok(());
        }
        let flags = match interface.is_repeater() {
            true => interface_flags::REPEATER,
            false => interface_flags::ORDINARY,
        };
        self.kernel.set_entry(interface.index, InterfaceEntry { flags, ..InterfaceEntry::default() })
    }

    /// Tells the program the node's own addresses, if there is an uplink. Returns those that found no room.
    fn sync_node_addresses(&mut self, policy: &Policy) -> anyhow::Result<()> {
        let own = if policy.config.uplinks.is_empty() {
            std::collections::BTreeSet::new()
        } else {
            self.kernel.own_addresses()?
        };
        let without_room = self.kernel.sync_node_addresses(&own)?;
        if let Some(first) = without_room.first() {
            tracing::error!(
                "no room for {} of the node's own addresses ({first}, ...): their packets are not counted for the node",
                without_room.len()
            );
        }
        Ok(())
    }

    /// Moves every hook to the program just loaded, one atomic replacement each, then makes it the pinned
    /// one.
    ///
    /// # Errors
    /// When the kernel refuses on an interface that still exists; the next session repeats it.
    pub fn move_hooks(&mut self) -> anyhow::Result<()> {
        // Before a program is attached that looks them up.
        self.registry.sync_skb_marks(&mut self.kernel)?;
        for interface in self.kernel.interfaces()? {
            let interface =
                if self.registry.is_uplink(interface.index) { interface.as_uplink() } else { interface };
            for direction in Direction::BOTH {
                let moved = self.kernel.replace(&interface, direction);
                // An interface that went meanwhile takes its hooks along.
                if moved.is_err() && self.kernel.interface(interface.index)?.is_none() {
                    break;
                }
                moved?;
            }
        }
        self.kernel.finish_replacement()
    }
}

/// Where an interface was counted until now, if counting in its slot starts over.
///
/// `attached`: the wanted program is on both hooks. `shared_a_slot`: the slot's record does not have the
/// interface's index yet. `moved_from`: the other slot under which the index was registered.
fn counting_start(attached: bool, shared_a_slot: bool, moved_from: Option<u32>) -> Option<CountedSoFar> {
    match (moved_from, attached) {
        (Some(_), true) => Some(CountedSoFar::Elsewhere),
        (Some(slot), false) => Some(CountedSoFar::ElsewhereWithGap { slot }),
        (None, true) if shared_a_slot => Some(CountedSoFar::Elsewhere),
        (None, true) => None,
        (None, false) => Some(CountedSoFar::Here),
    }
}

/// What the program finds under the interface's index.
fn entry(interface: &NetInterface, container: Option<&ContainerId>, slots: Slots) -> InterfaceEntry {
    let presence = if interface.is_uplink { interface_flags::UPLINK } else { interface_flags::PRESENT };
    // An uplink is reversed anyway.
    let presence = match interface.is_reversed() && !interface.is_uplink {
        true => presence | interface_flags::REVERSED,
        false => presence,
    };
    let owner = match (container, slots.container) {
        (None, _) => interface_flags::SHARED,
        (Some(_), None) => interface_flags::NO_SLOT,
        (Some(_), Some(_)) => 0,
    };
    InterfaceEntry {
        flags: presence | owner,
        interface_slot: slots.interface,
        // Without one an invalid slot: a packet may find the flags of before beside it.
        container_slot: slots.container.unwrap_or(u32::MAX),
        link_header_len: interface.link_header_len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_begins_where_the_program_was_not_attached_or_the_slot_is_another() {
        use CountedSoFar::{Elsewhere, ElsewhereWithGap, Here};

        assert_eq!(counting_start(true, false, None), None);
        assert_eq!(counting_start(false, false, None), Some(Here));
        assert_eq!(counting_start(false, true, None), Some(Here));
        assert_eq!(counting_start(true, true, None), Some(Elsewhere));
        assert_eq!(counting_start(true, true, Some(3)), Some(Elsewhere));
        assert_eq!(counting_start(false, true, Some(3)), Some(ElsewhereWithGap { slot: 3 }));
    }
}
