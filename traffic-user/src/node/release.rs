//! Releasing interfaces that are gone, or that are an uplink no longer. Their counters stay.

use std::time::Instant;

use traffic_common::{DIRECTIONS, Direction, InterfaceEntry};

use super::{kernel_access::NodeKernel, missed, plan, registry::Registry, session::Session};
use crate::{
    kernel::{
        hooks::{DeviceFate, HookSeen, OnHook},
        records::read_name,
    },
    net::interface::NetInterface,
};

impl Registry {
    /// Whether an interface is recorded for a container under another name than it has now. A pending owner is no
    /// container yet.
    pub(crate) fn is_renamed(&self, interface: &NetInterface) -> bool {
        let record = self.interface_of_index(interface.index).map(|slot| self.interface(slot));
        record.is_some_and(|record| read_name(record) != interface.name) && !self.is_pending(interface.index)
    }
}

impl<K: NodeKernel> Session<K> {
    /// Releases interfaces that are gone: their entries and pinned links. Their counters stay. `interfaces`
    /// is a listing; each interface that is missing in it is asked for by itself before it is released. Stops
    /// at the given moment, after one at least; returns whether all were looked at.
    ///
    /// # Errors
    /// When a link cannot be unpinned or a map cannot be written.
    pub fn release_gone(&mut self, interfaces: &[NetInterface], until: Instant) -> anyhow::Result<bool> {
        // An interface without a slot of its own has only its entry, which keeps its container's slot.
        let entered = self.kernel.entries()?.into_iter().map(|(index, _)| index);
        let left = self.registry.indexes().chain(entered).chain(self.kernel.attached_interfaces()?);
        let mut missing = plan::missing(interfaces.iter().map(|interface| interface.index), left).into_iter();
        for index in missing.by_ref() {
            self.release_if_gone(index)?;
            if Instant::now() >= until {
                break;
            }
        }
        Ok(missing.len() == 0)
    }

    /// Releases one interface if the kernel says that it is gone, and says whether it did.
    ///
    /// # Errors
    /// As [`Self::release_gone`].
    pub fn release_if_gone(&mut self, ifindex: u32) -> anyhow::Result<bool> {
        if self.kernel.interface(ifindex)?.is_some() {
            return Ok(false);
        }
        let fate = self.kernel.release(ifindex)?;
        // Before the record, which alone leads an interrupted release back to this index.
        self.kernel.set_entry(ifindex, InterfaceEntry::default())?;
        if let Some(slot) = self.registry.interface_of_index(ifindex) {
            let name = read_name(self.registry.interface(slot));
            missed::note_gone(&mut self.kernel, &mut self.registry, slot, fate)?;
            tracing::info!("{name}: gone; its counters stay");
        }
        Ok(true)
    }

    /// Acts on the announced end of a device whose index exists. Another device has it now, whose statistics
    /// began at zero, if our program is not attached and its address or its other end is another one, or if the end
    /// `is_proven`: the device did not only move. (A device
    /// that moved to another network namespace and back has lost its filters, and is announced in the same way.)
    ///
    /// # Errors
    /// As [`Self::release_gone`].
    pub fn note_replaced(&mut self, interface: &NetInterface, is_proven: bool) -> anyhow::Result<()> {
        let Some(slot) = self.registry.interface_of_index(interface.index) else { return Ok(()) };
        let device = self.registry.interface(slot).device;
        let mut hooks = self.kernel.look(&[interface])?.into_iter();
        let is_counted =
            |hooks: [HookSeen; DIRECTIONS]| hooks.iter().any(|hook| hook.ours == OnHook::Current);
        if self.kernel.is_known_device(interface)? == Some(true)
            || hooks.next().transpose()?.is_some_and(is_counted)
            || device == 0
            || device == interface.device() && !is_proven
        {
            return Ok(());
        }
        let fate = match self.kernel.release(interface.index)? {
            // No link shows what became of it, but the kernel announced its end.
            DeviceFate::Unknown => DeviceFate::Ended,
            known => known,
        };
        missed::note_gone(&mut self.kernel, &mut self.registry, slot, fate)
    }

    /// Detaches from an interface that is no longer named as an uplink. Its counters stay.
    pub(super) fn release_former_uplink(
        &mut self,
        interface: &NetInterface,
        slot: u32,
    ) -> anyhow::Result<()> {
        for direction in Direction::BOTH {
            self.kernel.detach(interface, direction)?;
        }
        self.kernel.set_entry(interface.index, InterfaceEntry::default())?;
        missed::note_gone(&mut self.kernel, &mut self.registry, slot, DeviceFate::Unknown)?;
        tracing::info!("{}: no longer an uplink; its counters stay", interface.name);
        Ok(())
    }

    /// Releases what is left of a device whose index a foreign interface has now.
    pub(super) fn release_former_device(
        &mut self,
        interface: &NetInterface,
        slot: u32,
    ) -> anyhow::Result<()> {
        let fate = self.kernel.release(interface.index)?;
        self.kernel.set_entry(interface.index, InterfaceEntry::default())?;
        let name = read_name(self.registry.interface(slot));
        missed::note_gone(&mut self.kernel, &mut self.registry, slot, fate)?;
        tracing::info!("{name}: gone; its counters stay");
        Ok(())
    }
}
