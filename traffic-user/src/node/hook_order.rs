//! Keeping trafctl's program first on its hooks: one before it that ends the chain keeps packets from it.

use traffic_common::Direction;

use crate::{
    kernel::{
        attach::{self, AttachedProgram},
        counters::{is_missed, since_attach, sum_interface},
    },
    net::interface::NetInterface,
    node::{Host, Session},
};

impl Host {
    /// Takes our program off hooks where another one runs before it and keeps packets from it, so that the next attach puts
    /// it first again and writes down what was missed. Others are left alone: to run after ours costs them nothing.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn go_first(&self, session: &Session, interfaces: &[NetInterface]) -> anyhow::Result<()> {
        for interface in interfaces {
            let Some(slot) = session.registry.interface_of_index(interface.index) else { continue };
            for direction in [Direction::In, Direction::Out] {
                let chain = attach::tcx_chain(&self.bpffs, interface, direction)?;
                let before = chain.iter().position(AttachedProgram::is_ours).unwrap_or(0);
                if before == 0 || !self.starves(session, slot, interface.index, direction).await? {
                    continue;
                }
                let others: Vec<_> = chain[..before].iter().map(AttachedProgram::label).collect();
                tracing::warn!(
                    "{}: {} ran before trafctl and kept packets from it: trafctl goes first again",
                    interface.name,
                    others.join(", ")
                );
                attach::detach(&self.bpffs, &self.netlink, interface, direction).await?;
            }
        }
        Ok(())
    }

    /// Whether the kernel has passed more through a hook than reached the program.
    async fn starves(
        &self,
        session: &Session,
        slot: u32,
        ifindex: u32,
        direction: Direction,
    ) -> anyhow::Result<bool> {
        // The kernel's statistics first: what passes between the readings must not look like something missed.
        let Some(interface) = self.netlink.interface(ifindex).await? else { return Ok(false) };
        let record = &session.registry.interfaces()[slot as usize];
        let counters = session.loaded.maps.interface_counters.range(slot, 1)?;
        let ours = sum_interface(&counters);
        let since = since_attach(record, &interface.statistics, &ours);
        let side = match direction {
            Direction::In => since.incoming,
            Direction::Out => since.outgoing,
        };
        Ok(is_missed(side, &ours.passed[direction as usize]))
    }
}
