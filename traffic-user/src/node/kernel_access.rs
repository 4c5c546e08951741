//! What the node's logic needs from the kernel, as small traits. [`super::locked_kernel`] implements them for
//! the real kernel. The tests implement them for one that fails and changes on command.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use traffic_common::{
    ContainerRecord, DIRECTIONS, Direction, InterfaceCounters, InterfaceEntry, InterfaceRecord,
};

use crate::{
    kernel::{
        hooks::{Change, DeviceFate, HookSeen},
        tables::OtherAddresses,
    },
    net::interface::NetInterface,
};

/// The interfaces of the node.
pub trait InterfaceList {
    /// All interfaces. An interface may exist even if the list lacks it.
    ///
    /// # Errors
    /// When the kernel does not answer.
    fn interfaces(&self) -> anyhow::Result<Vec<NetInterface>>;

    /// One interface as it is now; `None` when the kernel reports that it is gone.
    ///
    /// # Errors
    /// When the kernel does not answer.
    fn interface(&self, index: u32) -> anyhow::Result<Option<NetInterface>>;

    /// The node's own addresses.
    ///
    /// # Errors
    /// When the kernel does not answer.
    fn own_addresses(&self) -> anyhow::Result<BTreeSet<IpAddr>>;
}

/// The TC hooks of interfaces, and our program on them.
pub trait Hooks {
    /// What is on the hooks of each of these interfaces, and whether it is what is wanted there. An interface
    /// that cannot be looked at does not hide the others.
    ///
    /// # Errors
    /// When what they share cannot be read.
    fn look(
        &self,
        interfaces: &[&NetInterface],
    ) -> anyhow::Result<Vec<anyhow::Result<[HookSeen; DIRECTIONS]>>>;

    /// Whether our program was attached to exactly this device. `Some(false)` when the record under its index
    /// belongs to another device, `None` without a record.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn is_known_device(&self, interface: &NetInterface) -> anyhow::Result<Option<bool>>;

    /// Attaches the program, or replaces another version of it.
    ///
    /// # Errors
    /// When the kernel refuses; then nothing new is attached.
    fn attach(&mut self, interface: &NetInterface, direction: Direction) -> anyhow::Result<Change>;

    /// Replaces any version of our program by this one; returns whether one was attached.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn replace(&mut self, interface: &NetInterface, direction: Direction) -> anyhow::Result<bool>;

    /// Detaches our program; returns whether it was attached.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn detach(&mut self, interface: &NetInterface, direction: Direction) -> anyhow::Result<bool>;

    /// Detaches our program if it is attached by the method that is not configured.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn detach_other_kind(&mut self, interface: &NetInterface, direction: Direction) -> anyhow::Result<bool>;

    /// Detaches from an interface that is no longer in this network namespace. Returns what became of the
    /// device, as far as that is known.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn release(&mut self, ifindex: u32) -> anyhow::Result<DeviceFate>;

    /// Interface indexes with a pinned link.
    ///
    /// # Errors
    /// When the record cannot be read.
    fn attached_interfaces(&self) -> anyhow::Result<Vec<u32>>;

    /// Records the program that now runs on all hooks as the current one, for later commands.
    ///
    /// # Errors
    /// When it cannot be pinned.
    fn finish_replacement(&mut self) -> anyhow::Result<()>;
}

/// The maps that say in which slot something is counted, and what the slots hold.
pub trait SlotMaps {
    /// The owners of container slots.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn container_records(&self) -> anyhow::Result<Vec<ContainerRecord>>;

    /// The owners of interface slots.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn interface_records(&self) -> anyhow::Result<Vec<InterfaceRecord>>;

    /// Writes the owner of a container slot.
    ///
    /// # Errors
    /// When the map cannot be written.
    fn set_container_record(&mut self, slot: u32, record: ContainerRecord) -> anyhow::Result<()>;

    /// Writes the owner of an interface slot.
    ///
    /// # Errors
    /// When the map cannot be written.
    fn set_interface_record(&mut self, slot: u32, record: InterfaceRecord) -> anyhow::Result<()>;

    /// What the interface slot has counted, over all CPUs and all owners.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn interface_totals(&self, slot: u32) -> anyhow::Result<InterfaceCounters>;

    /// Records what a container slot holds as the base of its next owner.
    ///
    /// # Errors
    /// When a map cannot be read or written.
    fn rebase_container(&mut self, slot: u32) -> anyhow::Result<()>;

    /// The same for an interface slot.
    ///
    /// # Errors
    /// When a map cannot be read or written.
    fn rebase_interface(&mut self, slot: u32) -> anyhow::Result<()>;

    /// By container slot: what its `skb->mark` begins with, or 0. `None` where the program has no such map.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn skb_marks(&self) -> anyhow::Result<Option<Vec<u64>>>;

    /// Writes what the `skb->mark` of a container slot begins with, where the program has such a map.
    ///
    /// # Errors
    /// When the map cannot be written.
    fn set_skb_mark(&mut self, slot: u32, base: u64) -> anyhow::Result<()>;

    /// What the program finds under each index.
    ///
    /// # Errors
    /// When a map cannot be read.
    fn entries(&self) -> anyhow::Result<Vec<(u32, InterfaceEntry)>>;

    /// What the program finds under these indexes; those without an entry are left out.
    ///
    /// # Errors
    /// When a map cannot be read.
    fn entries_of(&self, indexes: &BTreeSet<u32>) -> anyhow::Result<Vec<(u32, InterfaceEntry)>>;

    /// Writes what the program finds under an index; the default removes it.
    ///
    /// # Errors
    /// When a map cannot be written, or too many interfaces have high indexes.
    fn set_entry(&mut self, ifindex: u32, entry: InterfaceEntry) -> anyhow::Result<()>;

    /// Updates the containers' local addresses to match `wanted`; returns those without room. `others` says
    /// what happens to addresses that are not wanted.
    ///
    /// # Errors
    /// When a map cannot be read or written.
    fn sync_addresses(
        &mut self,
        wanted: &BTreeMap<IpNet, u32>,
        others: OtherAddresses,
    ) -> anyhow::Result<Vec<IpNet>>;

    /// Updates the node's own addresses to match `wanted`; returns those without room.
    ///
    /// # Errors
    /// When a map cannot be read or written.
    fn sync_node_addresses(&mut self, wanted: &BTreeSet<IpAddr>) -> anyhow::Result<Vec<IpAddr>>;

    /// Waits until every packet that was being counted when this was called has been counted.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn wait_for_packets(&mut self) -> anyhow::Result<()>;
}

/// The wall clock.
pub trait Clock {
    /// Seconds since the Unix epoch.
    fn unix_seconds(&self) -> u64;
}

/// Everything that a change of the node needs.
pub trait NodeKernel: InterfaceList + Hooks + SlotMaps + Clock {}

impl<K: InterfaceList + Hooks + SlotMaps + Clock> NodeKernel for K {}
