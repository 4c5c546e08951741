//! Whether the counters are right, here and now: known traffic through a throwaway container, and what was counted
//! of it.
//!
//! The container is a network namespace with one veth, as any other. Whoever counts finds its interface by the
//! [name](INTERFACE), attaches to it as to others, and counts it under the [id](CONTAINER). Packets of known sizes go
//! through it in both directions, to and from an address of each class in force. What they add up to is computed from
//! the packets alone. Nothing else may pass meanwhile, so that a difference of one byte shows.
//!
//! - [`plan`]: the packets, and the figures that must come of them; pure.
//! - `namespace`: the container and its interface.
//! - `packet_socket`: sends frames as they are.
//! - `compare`: what was counted against what must have been; pure.

mod compare;
mod namespace;
mod packet_socket;
pub mod plan;

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use traffic_common::Direction;
use traffic_model::Snapshot;

pub use self::compare::{Calibration, Line};
use self::{namespace::Throwaway, packet_socket::PacketSocket, plan::Plan};
use crate::{
    config::Config,
    kernel::{
        bpffs::Bpffs,
        counters,
        hooks::{AttachKind, KernelHooks, Recognition},
        load, records, tables,
    },
    net::{interface::NetInterface, netlink::Netlink},
    time,
};

/// The name of the interface on the host.
pub const INTERFACE: &str = "trafctl-cal";
/// The id of the container.
pub const CONTAINER: &str = "trafctl-calibration";

/// How long whoever counts may take to attach to a new interface.
const TIME_TO_ATTACH: Duration = Duration::from_secs(20);
/// How long packets may be on their way.
const TIME_ON_THE_WAY: Duration = Duration::from_secs(2);
/// How long counters may change after the last packet passed: one that is counted late, or twice, is noticed.
const TIME_TO_SETTLE: Duration = Duration::from_millis(250);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// How often a measurement is repeated that others disturbed: some programs send on every new interface.
const ATTEMPTS: usize = 3;

/// Sends known traffic through a throwaway container, and compares.
///
/// # Errors
/// When the container cannot be made, nobody attaches to its interface, packets do not pass, or every attempt was
/// disturbed.
pub fn calibrate(pinned: &Bpffs, config: &Config) -> anyhow::Result<Calibration> {
    load::open(pinned)?;
    let host = Host { pinned, config, netlink: Netlink::connect()? };
    let Throwaway { socket: from_container, index } = Throwaway::create(&host.netlink, INTERFACE)
        .with_context(|| format!("cannot make the throwaway container with the interface {INTERFACE}"))?;
    host.wait_for_attach(index)?;
    let to_container = PacketSocket::open(index)
        .with_context(|| format!("cannot open a packet socket on {INTERFACE} (CAP_NET_RAW is needed)"))?;
    let mut disturbed = Disturbed::Changed;
    for attempt in 1..=ATTEMPTS {
        match host.measure(index, [&to_container, &from_container])? {
            Ok(calibration) => return Ok(calibration),
            Err(by) => {
                tracing::info!("{by} during measurement {attempt} of {ATTEMPTS}, so it is repeated");
                disturbed = by;
            }
        }
    }
    bail!("in each of {ATTEMPTS} measurements, {disturbed}, so they prove nothing; {}", disturbed.advice())
}

/// Why a measurement proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disturbed {
    /// So many packets of others passed.
    Others(i128),
    /// So many packets did not pass: at first because the kernel had not taken notice of the new interface yet.
    Lost(i128),
    /// The counters were made anew, or another class table was put in force.
    Changed,
}

impl fmt::Display for Disturbed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Others(others) => {
                write!(
                    f,
                    "other packets passed the throwaway container's interface {INTERFACE} ({others} in the last one)"
                )
            }
            Self::Lost(missing) => {
                write!(f, "packets did not pass {INTERFACE} ({missing} in the last one)")
            }
            Self::Changed => f.write_str("the counters or the class table changed"),
        }
    }
}

impl Disturbed {
    const fn advice(self) -> &'static str {
        match self {
            Self::Others(_) => {
                "find the program that sends on every new interface, and exclude this one there"
            }
            Self::Lost(_) => "a firewall or a shaper on every new interface may drop them",
            Self::Changed => "try again",
        }
    }
}

struct Host<'h> {
    pinned: &'h Bpffs,
    config: &'h Config,
    netlink: Netlink,
}

impl Host<'_> {
    /// Waits until packets are counted in both directions.
    fn wait_for_attach(&self, index: u32) -> anyhow::Result<()> {
        let deadline = Instant::now() + TIME_TO_ATTACH;
        while !self.is_attached(index)? {
            ensure!(
                Instant::now() < deadline,
                "nobody attached to the new interface {INTERFACE} within {} s, so new containers are not counted; start \
                 the service (`systemctl start trafctl`), and see `trafctl status`",
                TIME_TO_ATTACH.as_secs()
            );
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn is_attached(&self, index: u32) -> anyhow::Result<bool> {
        let maps = load::open(self.pinned)?;
        let records = counters::used_interface_records(&maps)?;
        let is_ours = |record: &traffic_common::InterfaceRecord| {
            record.ifindex == index && records::read_text(&record.container) == CONTAINER
        };
        if !records.iter().any(is_ours) {
            return Ok(false);
        }
        let interface = self.interface(index)?;
        let kind = AttachKind::choose(self.config.attach);
        let hooks = KernelHooks::new(self.pinned.clone(), self.netlink.clone(), kind);
        let listing = hooks.list(Recognition::Program)?;
        for direction in Direction::BOTH {
            let state = listing.state(&interface, direction)?;
            if !state.programs.iter().any(|program| program.is_this_installations) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn interface(&self, index: u32) -> anyhow::Result<NetInterface> {
        self.netlink.interface(index)?.with_context(|| {
            format!("the throwaway container's interface {INTERFACE} disappeared; something on this host removes it")
        })
    }

    /// Sends everything once, by the class table that is in force now.
    fn measure(
        &self,
        index: u32,
        sockets: [&PacketSocket; 2],
    ) -> anyhow::Result<Result<Calibration, Disturbed>> {
        let maps = load::open(self.pinned)?;
        let table = counters::class_table(&maps)?;
        let plan = Plan::new(&tables::in_force(&maps)?);
        let begun = time::now()?;
        // The kernel's own figures are read around ours: they show whether anybody else sent meanwhile.
        let shown_before = self.interface(index)?.statistics.packets;
        let before = self.counters()?;
        for frame in &plan.frames {
            sockets[frame.direction as usize].send(frame).with_context(|| {
                let whence = if frame.direction == Direction::In { "to" } else { "from" };
                format!(
                    "cannot send a packet of {} bytes {whence} the throwaway container",
                    frame.bytes.len()
                )
            })?;
        }
        let deadline = Instant::now() + TIME_ON_THE_WAY;
        let beside = |shown| compare::beside(&plan, shown_before, shown);
        loop {
            let shown = beside(self.interface(index)?.statistics.packets);
            let missing: i128 = shown.iter().map(|all| -all.min(&0)).sum();
            if missing == 0 {
                break;
            }
            if Instant::now() >= deadline {
                return Ok(Err(Disturbed::Lost(missing)));
            }
            thread::sleep(PAUSE);
        }
        thread::sleep(TIME_TO_SETTLE);
        let after = self.counters()?;
        let beside = beside(self.interface(index)?.statistics.packets);
        let is_same =
            |snapshot: &Snapshot| snapshot.epoch == before.epoch && snapshot.class_table.hash == table.hash;
        if !is_same(&before) || !is_same(&after) {
            return Ok(Err(Disturbed::Changed));
        }
        let counted = compare::counted(&before, &after);
        let calibration = Calibration::new(begun, (&table, maps.meta.get(0)?.program_hash), &plan, &counted);
        // Where offloads are off, the kernel segments before it counts, and shows more packets.
        let is_segmented = Direction::BOTH
            .into_iter()
            .all(|direction| beside[direction as usize] <= plan.more_segments_in(direction));
        if beside == [0, 0] || is_segmented && calibration.is_exact() {
            return Ok(Ok(calibration));
        }
        Ok(Err(Disturbed::Others(beside.iter().sum())))
    }

    fn counters(&self) -> anyhow::Result<Snapshot> {
        counters::read(&load::open(self.pinned)?, &self.config.node)
    }
}
