//! The cases in which a container is frozen or killed while it sends.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use traffic_tests::process::{Process, run_ok};
use traffic_tests::witness::{InterfaceStatistics, NftWitness, WireWitness};
use traffic_tests::{Counters, check};

use super::engine::Real;
use super::{Case, Snapshot, Stage, orders};
use crate::evidence::Evidence;

const PATIENCE: Duration = Duration::from_secs(120);

/// One attempt to kill a container between two packets.
struct Attempt<'a> {
    case: &'a str,
    witness: &'a [WireWitness],
    /// For a container that has just been started.
    orders: Option<&'a str>,
}

impl Stage<'_> {
    /// Freezes the container while a transfer runs, and thaws it.
    pub(super) fn frozen(
        &self,
        evidence: &mut Evidence,
        real: &Real<'_>,
        witness: &[WireWitness],
        start: &Snapshot,
    ) -> Result<()> {
        self.bench.step("frozen under load");
        let mut transfer = self.background("10.1.0.1", "30M")?;
        self.flows(real)?;
        real.freeze(true)?;
        // A frozen server does not read: its window closes, and the sender waits.
        let middle = self.snapshot(witness)?;
        real.freeze(false)?;
        ensure!(transfer.wait(PATIENCE)?.success(), "the transfer failed while the container was frozen");
        let frozen = middle.wire.since(&start.wire);
        let case = Case { name: "LXC frozen under load, and thawed", witness, start };
        let sent = format!("30 MB by iperf3, {} buffers of it until it froze", frozen.buffers);
        self.compare(evidence, real, &case, &sent).map(drop)
    }

    /// Kills the container while it sends, starts it again under the same names, and kills it again.
    pub(super) fn stopped(
        &self,
        evidence: &mut Evidence,
        real: &mut Real<'_>,
        witness: Vec<WireWitness>,
    ) -> Result<()> {
        self.bench.step("stopped and restarted under load");
        let mut running = Some(witness);
        for case in ["LXC stopped under load", "LXC started again, stopped under load"] {
            let mut attempts = 0;
            loop {
                attempts += 1;
                ensure!(
                    attempts <= 10,
                    "{case}: at each attempt a packet was under way when the interface was deleted"
                );
                let orders = running.is_none().then(|| orders("eth0", "10.1.0.1", "fd00:1::1"));
                let witness = match running.take() {
                    Some(witness) => witness,
                    None => {
                        real.start()?;
                        Self::witnesses(real, 1)?
                    }
                };
                let attempt = Attempt { case, witness: &witness, orders: orders.as_deref() };
                if self.stopped_once(evidence, real, &attempt)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Kills the container while it sends. Returns whether the attempt is valid.
    ///
    /// A packet that is between the two ends when LXC deletes the interface has passed only one of them.
    /// Counters of nftables at the host's end, next to the program, show whether there was one. trafctl must
    /// agree with them in any case, and with the witness inside when there was none.
    fn stopped_once(
        &self,
        evidence: &mut Evidence,
        real: &mut Real<'_>,
        attempt: &Attempt<'_>,
    ) -> Result<bool> {
        let Attempt { case, witness, orders } = *attempt;
        let name = real.interface(0);
        let here = NftWitness::attach(self.lab.host(), &name)?;
        let (before, start) = loop {
            let before = here.read()?;
            let start = self.snapshot(witness)?;
            if here.read()? == before {
                break (before, start);
            }
        };
        if let Some(orders) = orders {
            real.order(orders)?;
        }
        self.killed(real)?;
        let end = self.snapshot(witness)?;
        let after = here.read()?;
        let passed = [
            after.egress.buffers() - before.egress.buffers(),
            after.ingress.buffers() - before.ingress.buffers(),
        ];
        let skbs = |counters: &Counters| {
            let row = counters.interface(&name);
            [row.in_skbs, row.out_skbs]
        };
        let (first, last) = (skbs(&start.counters), skbs(&end.counters));
        let ours = [last[0] - first[0], last[1] - first[1]];
        ensure!(ours == passed, "{case}: trafctl counted {ours:?} buffers in and out, nftables {passed:?}");
        let inside = end.wire.clone().since(&start.wire);
        let inside = [inside.in_buffers, inside.buffers - inside.in_buffers];
        if inside != passed {
            self.bench.step(&format!("{passed:?} buffers in and out on the host, {inside:?} inside: repeat"));
            return Ok(false);
        }
        let case = Case { name: case, witness, start: &start };
        self.compare(evidence, real, &case, "iperf3 from it until it is killed")?;
        Ok(true)
    }

    fn killed(&self, real: &mut Real<'_>) -> Result<()> {
        let transfer = self.background_from("10.1.0.1")?;
        self.flows(real)?;
        real.stop()?;
        drop(transfer);
        Ok(())
    }

    /// A transfer to the container in the background.
    fn background(&self, address: &str, amount: &str) -> Result<Process> {
        let mut command = self.peer.namespace().command("iperf3");
        command.args(["-p", "5202", "-c", address, "-n", amount, "-b", "40M"]);
        Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))
    }

    /// A transfer from the container that runs until one end stops.
    fn background_from(&self, address: &str) -> Result<Process> {
        let peer = self.peer.namespace();
        check::eventually("the container answers", || {
            Ok(run_ok(peer.command("ping").args(["-c", "1", "-W", "1", address])).is_ok())
        })?;
        let mut command = peer.command("iperf3");
        command.args(["-p", "5202", "-R", "-c", address, "-t", "600", "-b", "100M"]);
        Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// Waits until the transfer flows.
    fn flows(&self, real: &Real<'_>) -> Result<()> {
        let read = || InterfaceStatistics::read(self.lab.host(), &real.interface(0));
        let start = read()?;
        check::eventually("a transfer flows", || {
            let now = read()?;
            Ok(now.rx_bytes + now.tx_bytes > start.rx_bytes + start.tx_bytes + 1_000_000)
        })
    }
}
