//! Keeps trafctl's program first on its hooks. A program that runs before it and ends the chain keeps packets
//! from it.

use traffic_common::Direction;

use super::{kernel_access::NodeKernel, session::Session};
use crate::{
    kernel::counters::{is_missed, since_attach},
    net::interface::NetInterface,
};

impl<K: NodeKernel> Session<K> {
    /// Detaches our program from hooks where another one runs before it and keeps packets from it, so that
    /// the next attach puts it first again and records what was missed. Other programs are not changed:
    /// running after ours has no disadvantage for them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make_room_for_first_place(&mut self, interfaces: &[NetInterface]) -> anyhow::Result<()> {
        for interface in interfaces {
            let Some(slot) = self.registry.interface_of_index(interface.index) else { continue };
            for direction in Direction::BOTH {
                let others = self.kernel.before_ours(interface, direction)?;
                let counted_as = if interface.is_reversed() { direction.reversed() } else { direction };
                if others.is_empty() || !self.misses_packets(slot, interface.index, counted_as)? {
                    continue;
                }
                tracing::warn!(
                    "{}: {} ran before trafctl and kept packets from it; putting trafctl first",
                    interface.name,
                    others.join(", ")
                );
                self.kernel.detach(interface, direction)?;
            }
        }
        Ok(())
    }

    /// Whether more packets passed the hook than reached the program.
    fn misses_packets(&self, slot: u32, ifindex: u32, direction: Direction) -> anyhow::Result<bool> {
        // The kernel's statistics first: packets that pass between the two readings must not count as missed.
        let Some(interface) = self.kernel.interface(ifindex)? else { return Ok(false) };
        let ours = self.kernel.interface_totals(slot)?;
        let since = since_attach(self.registry.interface(slot), &interface.statistics, &ours);
        Ok(is_missed(*since.of(direction), &ours.passed[direction as usize]))
    }
}
