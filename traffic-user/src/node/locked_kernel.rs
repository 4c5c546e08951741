//! The real kernel behind the traits of [`super::kernel_access`], in terms of `kernel` and `net`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use ipnet::IpNet;
use traffic_common::{
    ContainerRecord, DIRECTIONS, Direction, InterfaceCounters, InterfaceEntry, InterfaceRecord,
};

use super::kernel_access::{Clock, Hooks, InterfaceList, SlotMaps};
use crate::{
    config::Config,
    kernel::{
        change_lock::ChangeLock,
        counters, entries,
        hooks::{self, Change, DeviceFate, HookSeen, KernelHooks, Recognition},
        load::{self, Loaded},
        maps::Maps,
        shadow,
        tables::{self, OtherAddresses},
    },
    net::{interface::NetInterface, netlink::Netlink},
    time,
};

/// Up to so many interfaces are looked at one by one, without listing what all of them share.
const FEW: usize = 8;

/// What has a connection to the kernel's rtnetlink.
pub trait HasNetlink {
    /// The connection.
    fn netlink(&self) -> &Netlink;
}

impl<N: HasNetlink> InterfaceList for N {
    fn interfaces(&self) -> anyhow::Result<Vec<NetInterface>> {
        self.netlink().interfaces()
    }

    fn interface(&self, index: u32) -> anyhow::Result<Option<NetInterface>> {
        self.netlink().interface(index)
    }

    fn own_addresses(&self) -> anyhow::Result<BTreeSet<IpAddr>> {
        self.netlink().own_addresses()
    }
}

impl HasNetlink for Netlink {
    fn netlink(&self) -> &Netlink {
        self
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
    pub(super) lock: ChangeLock,
}

impl HasNetlink for LockedKernel {
    fn netlink(&self) -> &Netlink {
        &self.netlink
    }
}

impl Hooks for LockedKernel {
    fn look(
        &self,
        interfaces: &[&NetInterface],
    ) -> anyhow::Result<Vec<anyhow::Result<[HookSeen; DIRECTIONS]>>> {
        let wanted = hooks::program_ids(&self.loaded.programs)?;
        let listing = if interfaces.len() > FEW {
            self.hooks.list(Recognition::Link)?
        } else {
            self.hooks.look_at_few()?
        };
        Ok(interfaces.iter().map(|interface| listing.seen(interface, wanted)).collect())
    }

    fn is_known_device(&self, interface: &NetInterface) -> anyhow::Result<Option<bool>> {
        self.hooks.is_known_device(interface)
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
        counters::container_records(self.maps())
    }

    fn interface_records(&self) -> anyhow::Result<Vec<InterfaceRecord>> {
        counters::interface_records(self.maps())
    }

    fn set_container_record(&mut self, slot: u32, record: ContainerRecord) -> anyhow::Result<()> {
        self.maps_mut().containers.set(slot, record)
    }

    fn set_interface_record(&mut self, slot: u32, record: InterfaceRecord) -> anyhow::Result<()> {
        self.maps_mut().interfaces.set(slot, record)
    }

    fn interface_totals(&self, slot: u32) -> anyhow::Result<InterfaceCounters> {
        counters::interface_totals(self.maps(), slot)
    }

    fn rebase_container(&mut self, slot: u32) -> anyhow::Result<()> {
        counters::rebase_container(self.maps_mut(), slot)?;
        shadow::rebase(self.maps_mut(), slot)
    }

    fn rebase_interface(&mut self, slot: u32) -> anyhow::Result<()> {
        counters::rebase_interface(self.maps_mut(), slot)
    }

    fn skb_marks(&self) -> anyhow::Result<Option<Vec<u64>>> {
        self.maps().skb_marks.as_ref().map(|marks| marks.range(0, marks.len())).transpose()
    }

    fn set_skb_mark(&mut self, slot: u32, base: u64) -> anyhow::Result<()> {
        self.maps_mut().skb_marks.as_mut().map_or(Ok(()), |marks| marks.set(slot, base))
    }

    fn entries(&self) -> anyhow::Result<Vec<(u32, InterfaceEntry)>> {
        entries::all(self.maps())
    }

    fn entries_of(&self, indexes: &BTreeSet<u32>) -> anyhow::Result<Vec<(u32, InterfaceEntry)>> {
        entries::of(self.maps(), indexes)
    }

    fn set_entry(&mut self, ifindex: u32, entry: InterfaceEntry) -> anyhow::Result<()> {
        entries::write(self.maps_mut(), ifindex, entry)
    }

    fn sync_addresses(
        &mut self,
        wanted: &BTreeMap<IpNet, u32>,
        others: OtherAddresses,
    ) -> anyhow::Result<Vec<IpNet>> {
        tables::sync_addresses(self.maps_mut(), wanted, others)
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

impl HasNetlink for MapsAndInterfaces<'_> {
    fn netlink(&self) -> &Netlink {
        self.netlink
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
