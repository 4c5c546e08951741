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
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use traffic_common::Direction;
use traffic_model::Snapshot;

pub use self::compare::{Calibration, Line};
use self::{namespace::Throwaway, packet_socket::PacketSocket, plan::Plan};
use crate::{
    config::{AttachSetting, Config},
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
const TIME_ON_THE_WAY: Duration = Duration::from_secs(5);
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
    let plan = Plan::new(&tables::in_force(&load::open(pinned)?)?);
    let container = Throwaway::create(INTERFACE)
        .with_context(|| format!("cannot make the throwaway container with the interface {INTERFACE}"))?;
    let host = Host { pinned, config, netlink: Netlink::connect()?, plan };
    let index = namespace::index_of(&host.netlink, INTERFACE)?;
    host.wait_for_attach(index)?;
    let to_container = PacketSocket::open(index)
        .with_context(|| format!("cannot open a packet socket on {INTERFACE} (CAP_NET_RAW is needed)"))?;
    for attempt in 1..=ATTEMPTS {
        let measured = host.measure(index, [&to_container, container.socket()])?;
        match measured {
            Ok(calibration) => return Ok(calibration),
            Err(others) => tracing::info!(
                "{others} packets of others passed {INTERFACE} in measurement {attempt} of {ATTEMPTS}"
            ),
        }
    }
    bail!(
        "other packets passed the throwaway container's interface {INTERFACE} in each of {ATTEMPTS} measurements, so \
         they prove nothing; find the program that sends on every new interface, and exclude this one there"
    )
}

struct Host<'h> {
    pinned: &'h Bpffs,
    config: &'h Config,
    netlink: Netlink,
    plan: Plan,
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
        let kind = AttachKind::choose(AttachSetting::Auto);
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

    /// Sends everything once. Returns how many packets of others passed, if any did.
    fn measure(&self, index: u32, sockets: [&PacketSocket; 2]) -> anyhow::Result<Result<Calibration, i128>> {
        let begun = time::now()?;
        // The kernel's own figures are read around ours: they show whether anybody else sent meanwhile.
        let shown_before = self.interface(index)?.statistics.packets;
        let before = self.counters()?;
        for frame in &self.plan.frames {
            sockets[frame.direction as usize].send(frame).with_context(|| {
                let whence = if frame.direction == Direction::In { "to" } else { "from" };
                format!(
                    "cannot send a packet of {} bytes {whence} the throwaway container",
                    frame.bytes.len()
                )
            })?;
        }
        let deadline = Instant::now() + TIME_ON_THE_WAY;
        let beside = |shown| compare::beside(&self.plan, shown_before, shown);
        loop {
            let missing: i128 =
                beside(self.interface(index)?.statistics.packets).iter().map(|all| -all.min(&0)).sum();
            if missing == 0 {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "of {} packets, {missing} did not pass {INTERFACE} within {} s; a firewall or a shaper on every new \
                 interface may have dropped them",
                self.plan.frames.len(),
                TIME_ON_THE_WAY.as_secs()
            );
            thread::sleep(PAUSE);
        }
        thread::sleep(TIME_TO_SETTLE);
        let after = self.counters()?;
        let others: i128 = beside(self.interface(index)?.statistics.packets).iter().sum();
        if others > 0 {
            return Ok(Err(others));
        }
        ensure!(
            before.epoch == after.epoch && before.class_table.hash == after.class_table.hash,
            "the counters or the class table changed during the calibration; start it again"
        );
        let program = load::open(self.pinned)?.meta.get(0)?.program_hash;
        let counted = compare::counted(&before, &after);
        Ok(Ok(Calibration::new(begun, (&after.class_table, program), &self.plan, &counted)))
    }

    fn counters(&self) -> anyhow::Result<Snapshot> {
        counters::read(&load::open(self.pinned)?, &self.config.node)
    }
}
