//! One change of the node, under the lock on the pinned state: attach what should be attached, release what
//! is gone.
//!
//! What is to be done with each interface is decided in `plan` and done in `carry_out`.

use std::collections::{BTreeSet, HashMap};

use traffic_common::{
    Direction, INTERFACE_INDEX_ENTRIES, InterfaceEntry, UNKNOWN_INTERFACE_SLOT, interface_flags,
};
use traffic_model::{ContainerId, skb_mark};

use super::{
    kernel_access::NodeKernel,
    locked_kernel::LockedKernel,
    missed,
    plan::{Seen, Wanted, WithoutRoom},
    policy::{Policy, Selection},
    registry::Registry,
    slot_reclaim::{self, FinalReading},
};
use crate::{
    kernel::{
        hooks::{Change, DeviceFate},
        load::LoadOutcome,
        maps::Maps,
        tables::OtherAddresses,
    },
    net::interface::NetInterface,
    ownership::interface_rules::Role,
};

/// What an attach did, for the operator.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AttachReport {
    /// Interfaces with what was done on them.
    pub attached: Vec<(String, Change)>,
    /// Those of them whose container is unknown. They are counted as before, or for a pending owner.
    pub pending: Vec<PendingInterface>,
    /// Those of them that are counted for another owner from now on.
    pub owner_changes: Vec<OwnerChange>,
    /// Interfaces that a rule matches but that cannot be counted, with the reason.
    pub unresolved: Vec<(String, String)>,
    /// Interfaces that could not be attached, with the reason.
    pub failed: Vec<(String, String)>,
}

impl AttachReport {
    /// Adds what another attach did.
    pub fn append(&mut self, mut other: Self) {
        self.attached.append(&mut other.attached);
        self.pending.append(&mut other.pending);
        self.owner_changes.append(&mut other.owner_changes);
        self.unresolved.append(&mut other.unresolved);
        self.failed.append(&mut other.failed);
    }
}

/// An interface that is counted although nothing names its container now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingInterface {
    /// Its name.
    pub interface: String,
    /// Under which id it is counted.
    pub owner: ContainerId,
    /// Why its container is unknown.
    pub reason: String,
}

/// Says for whom an interface is counted whose container nothing names.
pub fn counted_as(interface: &str, owner: &ContainerId, reason: &str) -> String {
    match owner.is_pending() {
        true => format!("{interface}: counted as {owner} until its container is known: {reason}"),
        false => format!(
            "{interface}: counted for {owner} as before, but nothing names its container now: {reason}"
        ),
    }
}

/// An interface that is counted for another owner from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerChange {
    /// Its name.
    pub interface: String,
    /// For whom it was counted. Where that was a pending owner, what was counted is the new owner's.
    pub from: ContainerId,
    /// For whom it is counted.
    pub to: ContainerId,
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
        let mut targets = Vec::new();
        let mut reasons: HashMap<u32, String> = HashMap::new();
        for (interface, role) in selected {
            let (interface, wanted) = match role {
                Role::Container(id) => (interface.clone(), Wanted::Container(id)),
                Role::Shared => (interface.clone(), Wanted::Shared),
                Role::Uplink => (policy.as_uplink(interface.clone()), Wanted::Container(ContainerId::node())),
                // Most of these were never attached.
                Role::Ignored(_) if self.registry.interface_of_index(interface.index).is_none() => {
                    self.describe(interface)?;
                    continue;
                }
                Role::Ignored(_) => (interface.clone(), Wanted::Nothing),
                // Its wires are the same, so its container stays.
                Role::Unresolved { .. } if self.registry.is_renamed(interface) => {
                    (interface.clone(), Wanted::Nothing)
                }
                // One end of it will move into a container, or it is the node's own.
                Role::Unresolved { .. }
                    if interface.has_both_ends_here()
                        && self.registry.interface_of_index(interface.index).is_none() =>
                {
                    self.describe(interface)?;
                    continue;
                }
                Role::Unresolved { reason } if interface.obstacle.is_none() => {
                    reasons.insert(interface.index, reason);
                    (interface.clone(), Wanted::Pending)
                }
                Role::Unresolved { reason } => {
                    self.describe(interface)?;
                    report.unresolved.push((interface.name.clone(), reason));
                    continue;
                }
            };
            targets.push((interface, wanted));
        }
        let results = self.reach(policy, &targets)?;
        for ((interface, wanted), result) in targets.into_iter().zip(results) {
            match result {
                Ok(reached) if wanted != Wanted::Nothing => {
                    if let (Some(owner), Some(reason)) = (&reached.owner, reasons.remove(&interface.index)) {
                        let pending = (interface.name.clone(), owner.clone());
                        report.pending.push(PendingInterface {
                            interface: pending.0,
                            owner: pending.1,
                            reason,
                        });
                    }
                    if let Some((from, to)) = reached.former_owner.zip(reached.owner) {
                        report.owner_changes.push(OwnerChange {
                            interface: interface.name.clone(),
                            from,
                            to,
                        });
                    }
                    report.attached.push((interface.name, reached.change));
                }
                Ok(_) => {}
                Err(error) => report.failed.push((interface.name, format!("{error:#}"))),
            }
        }
        Ok(report)
    }

    /// Lets an interface that was renamed, and whose name another one has now, count in the slot that
    /// interfaces without a slot of their own share. It still counts for its container.
    pub(super) fn move_out_of_slot(&mut self, ifindex: u32, slot: u32) -> anyhow::Result<()> {
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
        if let Some((_, entry)) = self.kernel.entries_of(&BTreeSet::from([ifindex]))?.pop() {
            let moved = InterfaceEntry { interface_slot: UNKNOWN_INTERFACE_SLOT, ..entry };
            self.kernel.set_entry(ifindex, moved)?;
            self.kernel.wait_for_packets()?;
        }
        missed::note_gone(&mut self.kernel, &mut self.registry, slot, DeviceFate::Ended)
    }

    /// Gives an interface and its container slots; returns for which of them there is no room.
    pub(super) fn assign_slots(&mut self, policy: &Policy, seen: &Seen) -> anyhow::Result<WithoutRoom> {
        let Seen { interface, .. } = seen;
        let container = seen.wanted.container();
        let container_slot = match container {
            Some(id) => self.container_slot(policy, id)?,
            None => None,
        };
        let is_full = container.is_some() && container_slot.is_none();
        if is_full {
            tracing::warn!(
                "{}: no counter slot is free ({} containers): its packets are counted as container_table_full; raise \
                 `containers` under [limits]",
                interface.name,
                self.registry.containers().len()
            );
        }
        let assign = |session: &mut Self| {
            session.registry.assign_interface(&mut session.kernel, interface, container, container_slot)
        };
        let mut slot = assign(self)?;
        if slot == UNKNOWN_INTERFACE_SLOT && self.make_room(policy, container_slot) {
            slot = assign(self)?;
        }
        Ok(WithoutRoom { container: is_full, interface: slot == UNKNOWN_INTERFACE_SLOT })
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
            .and_then(|addresses| kernel.sync_addresses(&addresses, OtherAddresses::Remove))
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
        // The owner of another address may be named where nothing can be read now.
        let others = match policy.knows_all_owners() {
            true => OtherAddresses::Remove,
            false => OtherAddresses::Keep,
        };
        self.kernel.sync_addresses(&wanted, others)
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
            false if interface.kind == "bridge" => interface_flags::ORDINARY | interface_flags::BRIDGE,
            false => interface_flags::ORDINARY,
        };
        self.kernel.set_entry(interface.index, InterfaceEntry { flags, ..InterfaceEntry::default() })
    }

    /// Tells the program the node's own addresses, if there is an uplink. Returns those that found no room.
    fn sync_node_addresses(&mut self, policy: &Policy) -> anyhow::Result<()> {
        let own =
            if policy.config.uplinks.is_empty() { BTreeSet::new() } else { self.kernel.own_addresses()? };
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
