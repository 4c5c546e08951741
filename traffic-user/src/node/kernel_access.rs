//! What the node's logic needs of the kernel, as small traits. The real ones are implemented here, in terms of `kernel` and
//! `net`; the tests have others that fail and change at will.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use ipnet::IpNet;
use traffic_common::{ContainerRecord, Direction, InterfaceCounters, InterfaceEntry, InterfaceRecord};

use crate::{
    config::Config,
    kernel::{
        bpffs::ChangeLock,
        counters, entries,
        hooks::{AttachedProgram, Change, DeviceFate, KernelHooks},
        load::{self, Loaded},
        maps::Maps,
        tables,
    },
    net::{interface::NetInterface, netlink::Netlink},
    time,
};

/// The interfaces of the node.
pub trait InterfaceList {
    /// All interfaces. One that is missing is not proven to be gone.
    ///
    /// # Errors
    /// When the kernel does not answer.
    fn interfaces(&self) -> anyhow::Result<Vec<NetInterface>>;

    /// One interface as it is now; `None` when the kernel says that it is gone.
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
    /// Whether just the wanted program is attached in the wanted way. Another one of ours may count in maps that nobody
    /// reads any more.
    ///
    /// # Errors
    /// When the kernel can't be asked.
    fn is_current(&self, interface: &NetInterface, direction: Direction) -> anyhow::Result<bool>;

    /// Whether our program was attached to just this device: `Some(false)` when what is recorded under its index belongs to
    /// another one, `None` when nothing is recorded.
    ///
    /// # Errors
    /// When the kernel can't be asked.
    fn is_known_device(&self, interface: &NetInterface) -> anyhow::Result<Option<bool>>;

    /// Names of the programs that run before ours.
    ///
    /// # Errors
    /// When the kernel can't be asked.
    fn before_ours(&self, interface: &NetInterface, direction: Direction) -> anyhow::Result<Vec<String>>;

    /// Attaches the program, in place of another version of it.
    ///
    /// # Errors
    /// When the kernel refuses; then nothing new is attached.
    fn attach(&mut self, interface: &NetInterface, direction: Direction) -> anyhow::Result<Change>;

    /// Puts the wanted program in place of whatever version of ours is attached; gives whether there was one.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn replace(&mut self, interface: &NetInterface, direction: Direction) -> anyhow::Result<bool>;

    /// Detaches our program; gives whether it was attached.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn detach(&mut self, interface: &NetInterface, direction: Direction) -> anyhow::Result<bool>;

    /// Detaches our program where it is attached in the way that is not wanted.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn detach_other_kind(&mut self, interface: &NetInterface, direction: Direction) -> anyhow::Result<bool>;

    /// Detaches what is left of an interface that this network namespace does not have any more, and gives what became of
    /// it as far as that can be told.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn release(&mut self, ifindex: u32) -> anyhow::Result<DeviceFate>;

    /// Indexes of interfaces that something of ours is attached to by its own record.
    ///
    /// # Errors
    /// When the record can't be read.
    fn attached_interfaces(&self) -> anyhow::Result<Vec<u32>>;

    /// Makes the program that now runs everywhere the one that later commands find.
    ///
    /// # Errors
    /// When it can't be pinned.
    fn finish_replacement(&mut self) -> anyhow::Result<()>;
}

/// The maps that say in which slot something is counted, and what the slots hold.
pub trait SlotMaps {
    /// The owners of container slots.
    ///
    /// # Errors
    /// When the map can't be read.
    fn container_records(&self) -> anyhow::Result<Vec<ContainerRecord>>;

    /// The owners of interface slots.
    ///
    /// # Errors
    /// When the map can't be read.
    fn interface_records(&self) -> anyhow::Result<Vec<InterfaceRecord>>;

    /// Writes the owner of a container slot.
    ///
    /// # Errors
    /// When the map can't be written.
    fn set_container_record(&mut self, slot: u32, record: ContainerRecord) -> anyhow::Result<()>;

    /// Writes the owner of an interface slot.
    ///
    /// # Errors
    /// When the map can't be written.
    fn set_interface_record(&mut self, slot: u32, record: InterfaceRecord) -> anyhow::Result<()>;

    /// What the interface slot has counted, over all CPUs and all owners.
    ///
    /// # Errors
    /// When the map can't be read.
    fn interface_totals(&self, slot: u32) -> anyhow::Result<InterfaceCounters>;

    /// Notes what a container slot holds as the base of its next owner.
    ///
    /// # Errors
    /// When a map can't be read or written.
    fn rebase_container(&mut self, slot: u32) -> anyhow::Result<()>;

    /// The same for an interface slot.
    ///
    /// # Errors
    /// When a map can't be read or written.
    fn rebase_interface(&mut self, slot: u32) -> anyhow::Result<()>;

    /// By container slot: what its `skb->mark` begins with, or 0. `None` where the program has no such map.
    ///
    /// # Errors
    /// When the map can't be read.
    fn skb_marks(&self) -> anyhow::Result<Option<Vec<u64>>>;

    /// Writes what the `skb->mark` of a container slot begins with, where the program has such a map.
    ///
    /// # Errors
    /// When the map can't be written.
    fn set_skb_mark(&mut self, slot: u32, base: u64) -> anyhow::Result<()>;

    /// What the program finds under each index.
    ///
    /// # Errors
    /// When a map can't be read.
    fn entries(&self) -> anyhow::Result<Vec<(u32, InterfaceEntry)>>;

    /// Writes what the program finds under an index; the default removes it.
    ///
    /// # Errors
    /// When a map can't be written, or too many interfaces have high indexes.
    fn set_entry(&mut self, ifindex: u32, entry: InterfaceEntry) -> anyhow::Result<()>;

    /// Brings the containers' local addresses into line; gives those that found no room.
    ///
    /// # Errors
    /// When a map can't be read or written.
    fn sync_addresses(&mut self, wanted: &BTreeMap<IpNet, u32>) -> anyhow::Result<Vec<IpNet>>;

    /// Brings the node's own addresses into line; gives those that found no room.
    ///
    /// # Errors
    /// When a map can't be read or written.
    fn sync_node_addresses(&mut self, wanted: &BTreeSet<IpAddr>) -> anyhow::Result<Vec<IpAddr>>;

    /// Waits until no packet is being counted any more that was under way when this was called.
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

/// Everything together, as a change of the node needs it.
pub trait NodeKernel: InterfaceList + Hooks + SlotMaps + Clock {}

impl<K: InterfaceList + Hooks + SlotMaps + Clock> NodeKernel for K {}

impl InterfaceList for Netlink {
    fn interfaces(&self) -> anyhow::Result<Vec<NetInterface>> {
        Self::interfaces(self)
    }

    fn interface(&self, index: u32) -> anyhow::Result<Option<NetInterface>> {
        Self::interface(self, index)
    }

    fn own_addresses(&self) -> anyhow::Result<BTreeSet<IpAddr>> {
        Self::own_addresses(self)
    }
}

/// The kernel, while this process holds the lock on the pinned state.
#[derive(Debug)]
pub struct LockedKernel {
    /// Program and maps.
    pub loaded: Loaded,
    pub(super) hooks: KernelHooks,
    pub(super) netlink: Netlink,
    /// Where the ledger is, for a final reading: configuration and state directory.
    pub(super) ledger: (Config, PathBuf),
    pub(super) _lock: ChangeLock,
}

impl InterfaceList for LockedKernel {
    fn interfaces(&self) -> anyhow::Result<Vec<NetInterface>> {
        self.netlink.interfaces()
    }

    fn interface(&self, index: u32) -> anyhow::Result<Option<NetInterface>> {
        self.netlink.interface(index)
    }

    fn own_addresses(&self) -> anyhow::Result<BTreeSet<IpAddr>> {
        self.netlink.own_addresses()
    }
}

impl Hooks for LockedKernel {
    fn is_current(&self, interface: &NetInterface, direction: Direction) -> anyhow::Result<bool> {
        self.hooks.is_current(&self.loaded.programs, interface, direction)
    }

    fn is_known_device(&self, interface: &NetInterface) -> anyhow::Result<Option<bool>> {
        self.hooks.is_known_device(interface)
    }

    fn before_ours(&self, interface: &NetInterface, direction: Direction) -> anyhow::Result<Vec<String>> {
        let state = self.hooks.state(interface, direction)?;
        Ok(state.before_ours().iter().map(AttachedProgram::label).collect())
    }

    fn attach(&mut self, interface: &NetInterface, direction: Direction) -> anyhow::Result<Change> {
        self.hooks.attach(&self.loaded.programs, interface, direction)
    }

    fn replace(&mut self, interface: &NetInterface, direction: Direction) -> anyhow::Result<bool> {
        self.hooks.replace(&self.loaded.programs, interface, direction)
    }

    fn detach(&mut self, interface: &NetInterface, direction: Direction) -> anyhow::Result<bool> {
        self.hooks.detach(interface, direction)
    }

    fn detach_other_kind(&mut self, interface: &NetInterface, direction: Direction) -> anyhow::Result<bool> {
        self.hooks.detach_other_kind(interface, direction)
    }

    fn release(&mut self, ifindex: u32) -> anyhow::Result<DeviceFate> {
        let mut fate = DeviceFate::Unknown;
        for direction in Direction::BOTH {
            fate = fate.and(self.hooks.unpin(ifindex, direction)?);
        }
        Ok(fate)
    }

    fn attached_interfaces(&self) -> anyhow::Result<Vec<u32>> {
        self.hooks.pinned_interfaces()
    }

    fn finish_replacement(&mut self) -> anyhow::Result<()> {
        load::finish_replacement(self.hooks.bpffs(), &mut self.loaded)
    }
}

/// What has the real maps open.
pub trait HasMaps {
    /// The maps.
    fn maps(&self) -> &Maps;

    /// The maps, to be changed.
    fn maps_mut(&mut self) -> &mut Maps;
}

impl<M: HasMaps> SlotMaps for M {
    fn container_records(&self) -> anyhow::Result<Vec<ContainerRecord>> {
        self.maps().containers.range(0, self.maps().containers.len())
    }

    fn interface_records(&self) -> anyhow::Result<Vec<InterfaceRecord>> {
        self.maps().interfaces.range(0, self.maps().interfaces.len())
    }

    fn set_container_record(&mut self, slot: u32, record: ContainerRecord) -> anyhow::Result<()> {
        self.maps_mut().containers.set(slot, record)
    }

    fn set_interface_record(&mut self, slot: u32, record: InterfaceRecord) -> anyhow::Result<()> {
        self.maps_mut().interfaces.set(slot, record)
    }

    fn interface_totals(&self, slot: u32) -> anyhow::Result<InterfaceCounters> {
        Ok(counters::sum_interface(&self.maps().interface_counters.range(slot, 1)?))
    }

    fn rebase_container(&mut self, slot: u32) -> anyhow::Result<()> {
        counters::rebase_container(self.maps_mut(), slot)
    }

    fn rebase_interface(&mut self, slot: u32) -> anyhow::Result<()> {
        counters::rebase_interface(self.maps_mut(), slot)
    }

    fn skb_marks(&self) -> anyhow::Result<Option<Vec<u64>>> {
        self.maps().shaping_marks.as_ref().map(|marks| marks.range(0, marks.len())).transpose()
    }

    fn set_skb_mark(&mut self, slot: u32, base: u64) -> anyhow::Result<()> {
        self.maps_mut().shaping_marks.as_mut().map_or(Ok(()), |marks| marks.set(slot, base))
    }

    fn entries(&self) -> anyhow::Result<Vec<(u32, InterfaceEntry)>> {
        entries::all(self.maps())
    }

    fn set_entry(&mut self, ifindex: u32, entry: InterfaceEntry) -> anyhow::Result<()> {
        entries::write(self.maps_mut(), ifindex, entry)
    }

    fn sync_addresses(&mut self, wanted: &BTreeMap<IpNet, u32>) -> anyhow::Result<Vec<IpNet>> {
        tables::sync_addresses(self.maps_mut(), wanted)
    }

    fn sync_node_addresses(&mut self, wanted: &BTreeSet<IpAddr>) -> anyhow::Result<Vec<IpAddr>> {
        tables::sync_node_addresses(self.maps_mut(), wanted)
    }

    fn wait_for_packets(&mut self) -> anyhow::Result<()> {
        self.maps_mut().wait_for_packets()
    }
}

/// Interfaces and maps of a node whose program need not be there: enough to compare what passed.
#[derive(Debug)]
pub(super) struct MapsAndInterfaces<'a> {
    pub netlink: &'a Netlink,
    pub maps: &'a mut Maps,
}

impl InterfaceList for MapsAndInterfaces<'_> {
    fn interfaces(&self) -> anyhow::Result<Vec<NetInterface>> {
        self.netlink.interfaces()
    }

    fn interface(&self, index: u32) -> anyhow::Result<Option<NetInterface>> {
        self.netlink.interface(index)
    }

    fn own_addresses(&self) -> anyhow::Result<BTreeSet<IpAddr>> {
        self.netlink.own_addresses()
    }
}

impl HasMaps for LockedKernel {
    fn maps(&self) -> &Maps {
        &self.loaded.maps
    }

    fn maps_mut(&mut self) -> &mut Maps {
        &mut self.loaded.maps
    }
}

impl HasMaps for MapsAndInterfaces<'_> {
    fn maps(&self) -> &Maps {
        self.maps
    }

    fn maps_mut(&mut self) -> &mut Maps {
        self.maps
    }
}

impl HasMaps for Maps {
    fn maps(&self) -> &Maps {
        self
    }

    fn maps_mut(&mut self) -> &mut Maps {
        self
    }
}

impl Clock for LockedKernel {
    fn unix_seconds(&self) -> u64 {
        time::unix_seconds()
    }
}
