//! The flows of a soak run, each counted by its sender.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::container::Mac;
use crate::process::run_ok;
use crate::traffic::{Superdatagrams, TcpCount, send_raw, tcp_exchange, udp_send, udp_send_segmented};
use crate::{Amounts, Container, Lab, RoutedContainer, Tap, VnetHeader};

/// The hardware address of the virtual machine.
pub const MACHINE: Mac = Mac([0x02, 0, 0, 0, 0x02, 0x01]);

/// The amounts that were sent and received, by container or by fault and interface.
#[derive(Debug, Default)]
pub struct Tally {
    totals: Mutex<BTreeMap<&'static str, Amounts>>,
    stopped: AtomicBool,
}

impl Tally {
    fn add(&self, what: &'static str, amounts: Amounts) {
        // A sender that panicked ends the run, and its totals are complete.
        let mut totals = self.totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let total = totals.entry(what).or_default();
        *total = total.plus(amounts);
    }

    /// Adds packets that left one container and reached another.
    pub fn moved(&self, from: &'static str, to: &'static str, (packets, bytes): (u64, u64)) {
        self.add(from, Amounts::outgoing(packets, bytes));
        self.add(to, Amounts::incoming(packets, bytes));
    }

    fn connection(&self, client: &'static str, server: &'static str, count: &TcpCount) {
        self.moved(client, server, (count.client.segments, count.client.l3_bytes));
        self.moved(server, client, (count.server.segments, count.server.l3_bytes));
    }

    /// All totals so far.
    #[must_use]
    pub fn totals(&self) -> Vec<(&'static str, Amounts)> {
        let totals = self.totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        totals.iter().map(|(&what, &amounts)| (what, amounts)).collect()
    }

    /// Packets sent so far.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.totals().iter().map(|(_, amounts)| amounts.out_packets).sum()
    }

    /// Asks all senders to end after their current step.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// The endpoints of all flows.
#[derive(Clone, Copy, Debug)]
pub struct Senders<'a> {
    /// Container 101.
    pub a: &'a Container,
    /// Container 102.
    pub b: &'a Container,
    /// Machine 201.
    pub machine: &'a Tap<'a>,
    /// Container 301 on `venet0`.
    pub near: &'a RoutedContainer<'a>,
    /// Container 302 on `venet0`.
    pub far: &'a RoutedContainer<'a>,
    /// The totals.
    pub tally: &'a Tally,
}

impl<'a> Senders<'a> {
    /// Starts all flows, each on a thread that runs until [`Tally::stop`].
    pub fn start<'scope>(self, scope: &'scope Scope<'scope, '_>) -> Vec<ScopedJoinHandle<'scope, Result<()>>>
    where
        'a: 'scope,
    {
        let rounds: [fn(&Self, u64) -> Result<()>; 4] =
            [Self::bridged_tcp, Self::bridged_udp, Self::routed, Self::small_and_odd];
        rounds
            .map(|round| {
                scope.spawn(move || {
                    let mut number = 0;
                    while !self.tally.stopped.load(Ordering::Relaxed) {
                        round(&self, number)?;
                        number += 1;
                        // Leaves processor time for the rest of the machine.
                        thread::sleep(Duration::from_millis(50));
                    }
                    Ok(())
                })
            })
            .into()
    }

    /// TCP with segmentation offload, over both families and in both directions.
    fn bridged_tcp(&self, round: u64) -> Result<()> {
        let (to, there, back) = if round.is_multiple_of(2) {
            (self.b.v4(), 3_000_000, 100_000)
        } else {
            (self.b.v6(), 700_000, 900_000)
        };
        let count = tcp_exchange(self.a.namespace(), self.b.namespace(), at(to), there, back)?;
        self.tally.connection("101", "102", &count);
        Ok(())
    }

    /// UDP as single datagrams, and segmented by the kernel.
    fn bridged_udp(&self, round: u64) -> Result<()> {
        let (from, to) = (self.b.namespace(), self.a.namespace());
        let count = if round.is_multiple_of(2) {
            udp_send(from, to, at(self.a.v6()), 300, 200 + usize::try_from(round % 1000)?)?
        } else {
            let buffers = Superdatagrams { sends: 10, payload_bytes: 30_000, segment_bytes: 1100 };
            udp_send_segmented(from, to, at(self.a.v4()), buffers)?
        };
        self.tally.moved("102", "101", (count.packets, count.l3_bytes));
        Ok(())
    }

    /// Over the shared layer-3 interface, slow enough for the lab's end of it.
    fn routed(&self, round: u64) -> Result<()> {
        let (near, far) = (self.near.namespace(), self.far.namespace());
        if round.is_multiple_of(2) {
            let to = if round.is_multiple_of(4) { self.far.v4() } else { self.far.v6() };
            let count = tcp_exchange(near, far, at(to), 200_000, 20_000)?;
            self.tally.connection("301", "302", &count);
        } else {
            let count = udp_send(far, near, at(self.near.v4()), 50, 800)?;
            self.tally.moved("302", "301", (count.packets, count.l3_bytes));
        }
        Ok(())
    }

    /// Pings, frames of a machine that the host must segment, and frames that are not IP.
    fn small_and_odd(&self, round: u64) -> Result<()> {
        const PINGS: u64 = 5;
        const PING_BYTES: u64 = 20 + 8 + 56;
        let to = self.b.v4().to_string();
        let mut ping: Command = self.a.namespace().command("ping");
        let text = run_ok(ping.args(["-q", "-i", "0.01", "-c", &PINGS.to_string(), &to]))?;
        ensure!(text.contains("5 packets transmitted, 5 received"), "{text}");
        self.tally.moved("101", "102", (PINGS, PINGS * PING_BYTES));
        self.tally.moved("102", "101", (PINGS, PINGS * PING_BYTES));

        const SEGMENTS: u64 = 12;
        let frame = tcp_frame(self.b.mac(), 12 * 1448)?;
        self.machine.send(VnetHeader::tcp_v4(34, 54, 1448), &frame)?;
        self.tally.moved("201", "102", (SEGMENTS, SEGMENTS * (1448 + 40)));

        // An EtherType for experiments (IEEE 802), with a different length each time.
        let length = 60 + usize::try_from(round % 900)?;
        let mut odd = [self.b.mac().0, self.a.mac().0].concat();
        odd.extend([0x88, 0xb5]);
        odd.resize(14 + length, 0x5a);
        send_raw(self.a.namespace(), "eth0", &odd)?;
        self.tally.moved("not_ip veth101.0", "not_ip veth102.0", (1, length as u64));
        Ok(())
    }
}

fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}

/// An Ethernet frame with IPv4 and TCP from the machine to container 102. The container never asked for it;
/// the segment is a reset, which nobody answers. The TCP checksum is left to the segmentation.
fn tcp_frame(to: Mac, payload: usize) -> Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(54 + payload);
    frame.extend(to.0);
    frame.extend(MACHINE.0);
    frame.extend([0x08, 0x00]);
    let total = u16::try_from(40 + payload).context("a super-packet has at most 64 KiB")?;
    frame.extend([0x45, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 198, 51, 100, 7, 10, 1, 0, 2]);
    let words = frame[14..34].chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let folded = !u16::try_from((sum & 0xffff) + (sum >> 16))?;
    frame[24..26].copy_from_slice(&folded.to_be_bytes());
    // RST, which is never answered.
    frame.extend([0x1f, 0x90, 0x1f, 0x91, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x04, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(54 + payload, 0x5a);
    Ok(frame)
}

/// The ledger's amount of frames that are not IP on an interface.
///
/// # Errors
///
/// When the ledger cannot be read.
pub fn booked_fault(lab: &Lab, interface: &str) -> Result<Amounts> {
    let query = format!(
        "select coalesce(sum(in_packets), 0), coalesce(sum(in_bytes), 0), coalesce(sum(out_packets), 0),
         coalesce(sum(out_bytes), 0) from fault_5min where fault = 0 and interface in
         (select id from interface where name = '{interface}')"
    );
    let text = run_ok(Command::new("sqlite3").arg(lab.state_dir().join("ledger.sqlite")).arg(query))?;
    let values: Vec<u64> = text.trim().split('|').map(str::parse).collect::<Result<_, _>>()?;
    let [in_packets, in_bytes, out_packets, out_bytes] = values[..] else {
        anyhow::bail!("expected four columns, found {text}");
    };
    Ok(Amounts { in_bytes, in_packets, out_bytes, out_packets })
}
