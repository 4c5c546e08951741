//! Comparing what was counted for containers with what the node's uplinks carried, and naming the rest.
//!
//! | file | owns |
//! |---|---|
//! | this one | readings, and what a comparison of two of them with the ways in between is |
//! | `ends` | what an interface is as an end of a way |
//!
//! Two things are compared that know nothing of each other: the counters of the hooks, and what the path programs
//! ([`crate::kernel::paths`]) saw behind routing, bridges, shapers and firewall. The uplinks' own statistics are a third.
//! Whatever remains is the `difference`, which is never explained away.

mod ends;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use traffic_common::path_flags::{IP, REFUSED, TO_MANY};
use traffic_common::{Direction, DropFault, Fault, PATH_CONTAINERS, PATH_TO_MANY, PathKey, PathTally, Tally};
use traffic_model::{ByDirection, Snapshot};

use self::ends::Ends;
pub use self::ends::{shown_as, unfit};
use crate::{
    kernel::{drops::Drops, paths::Ways},
    net::interface::NetInterface,
};

/// Fewest and most bytes that a device counts for each packet beyond layer 3: the Ethernet header, with a VLAN tag and
/// the checksum.
const LINK_BYTES: [u64; 2] = [14, 22];
/// Most bytes that a device counts for each buffer beyond what the kernel hands it: a VLAN tag and the checksum.
const ADDED_BYTES: u64 = 8;

/// Everything that counts on the node, at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What the hooks counted.
    pub snapshot: Snapshot,
    /// What was dropped behind them; `None` where that is not counted.
    pub drops: Option<Drops>,
    /// The interfaces, with the kernel's statistics of them.
    pub interfaces: Vec<NetInterface>,
    /// How long it took to read this, in nanoseconds.
    pub took_ns: u64,
}

/// One end of a way through the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "end", content = "interface", rename_all = "snake_case")]
pub enum End {
    /// An uplink, by its name.
    Uplink(String),
    /// Any container.
    Containers,
    /// The node itself.
    Node,
    /// Any other interface: a tunnel, another network card.
    Other(String),
    /// Not known: an ifb sent the packet again.
    Hidden,
}

/// Packets and bytes that may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Packets.
    pub packets: i64,
    /// Bytes.
    pub bytes: i64,
}

/// What took one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Way {
    /// Where from or where to.
    #[serde(flatten)]
    pub end: End,
    /// Packets on the wire.
    pub packets: u64,
    /// Layer-3 bytes on the wire.
    pub bytes: u64,
}

/// One direction of all containers together. `counted` = the sum of `ways` + `to_many` + `dropped` + `dropped_hidden` +
/// `refused` + `difference`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OfContainers {
    /// What the hooks counted, without what is no IP.
    pub counted: Amount,
    /// Where it went, or where it came from.
    pub ways: Vec<Way>,
    /// What containers sent to broadcast and multicast addresses. Nothing in the other direction, where each copy is a
    /// packet.
    pub to_many: Amount,
    /// What was dropped behind the hooks; `null` where drops are not counted.
    pub dropped: Option<Amount>,
    /// What was dropped behind a bridge's own interface, which hides the sender, from addresses of no known container.
    /// Nothing in the other direction.
    pub dropped_hidden: Amount,
    /// What the sending interface refused: the queue at its other end was full. Not among the drops, which are those of
    /// the node's own network namespace.
    pub refused: Amount,
    /// What is counted and in no other figure here.
    pub difference: Difference,
    /// How many packets may be in `difference` because they passed while the counters were read.
    pub read_meanwhile: u64,
}

/// Packets and layer-3 bytes as on the wire, unless stated otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl From<Tally> for Amount {
    fn from(Tally { packets, bytes }: Tally) -> Self {
        Self { packets, bytes }
    }
}

/// One uplink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Uplink {
    /// Its name.
    pub interface: String,
    /// What it sent.
    pub sent: Sent,
    /// What it received.
    pub received: Received,
}

/// What an uplink sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// What the device counted, with link-layer headers. Whether it counts a super-packet as one is its own affair.
    pub device: Amount,
    /// What the hooks counted on their way to it, before its queues; `null` if it is not counted.
    pub counted: Option<Amount>,
    /// Who it came from.
    pub ways: Vec<Way>,
    /// What the device counted and no way explains, as packets or as super-packets, whichever agrees better.
    pub difference: Difference,
}

/// What an uplink received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Received {
    /// What the device counted, with link-layer headers.
    pub device: Amount,
    /// What the hooks counted; `null` if it is not counted.
    pub counted: Option<Amount>,
    /// Who received it.
    pub ways: Vec<Way>,
    /// Packets that the device counted and nobody received: refused, dropped, broadcast, multicast, or no IP.
    pub rest_packets: i64,
}

/// The whole comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reconciliation {
    /// The node's name.
    pub node: String,
    /// When it began.
    pub begin: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// How long it took, in seconds, by a clock that does not step.
    pub seconds: f64,
    /// What containers sent.
    pub from_containers: OfContainers,
    /// What containers received.
    pub to_containers: OfContainers,
    /// The uplinks, by name.
    pub uplinks: Vec<Uplink>,
    /// Whether everything was followed that can be: no note says that something is only in the difference.
    pub complete: bool,
    /// What the figures lack.
    pub notes: Vec<String>,
}

impl Reconciliation {
    /// Notes that something is only in the difference.
    pub fn lacks(&mut self, what: String) {
        self.complete = false;
        self.notes.push(what);
    }
}

/// Compares two readings with the ways in between. `uplinks` are the configured names.
pub fn reconcile(before: &Reading, after: &Reading, ways: &Ways, uplinks: &[String]) -> Reconciliation {
    let ends = Ends::new(after, uplinks);
    let (first, last) = (&before.snapshot, &after.snapshot);
    let took_ns = last.boottime_ns.saturating_sub(first.boottime_ns);
    let counted = counted(last, &ends).since(&counted(first, &ends));
    let dropped = Dropped::between(before.drops.as_ref(), after.drops.as_ref());
    let knows_drops = dropped.is_some();
    let dropped = dropped.unwrap_or_default();
    let to_many = sum(ways.ways.iter().filter(|(key, _)| key.has(IP) && key.to == PATH_TO_MANY));
    let unicast = |key: &PathKey| key.has(IP) && !key.has(TO_MANY);
    let refused = |is_asked: &dyn Fn(&PathKey) -> bool| {
        sum(ways.ways.iter().filter(|(key, _)| key.has(REFUSED | IP) && is_asked(key)))
    };
    let refused_out =
        refused(&|key| unicast(key) && ends.origin(key) == End::Containers && ends.target(key).is_some());
    let refused_in = refused(&|key| key.to == PATH_CONTAINERS);
    let from_containers = grouped(ways, |key| {
        (unicast(key) && ends.origin(key) == End::Containers).then(|| ends.target(key))?
    });
    let to_containers =
        grouped(ways, |key| (key.has(IP) && key.to == PATH_CONTAINERS).then(|| ends.origin(key)));
    let read_ns = before.took_ns + after.took_ns;
    let explained = |counted: Tally, ways: Vec<Way>, [to_many, dropped, hidden, refused]: [Tally; 4]| {
        let others = [dropped, hidden, refused].into_iter().fold(to_many, Tally::saturating_add);
        let all = ways
            .iter()
            .fold(others, |sum, way| sum.saturating_add(Tally { packets: way.packets, bytes: way.bytes }));
        let meanwhile = u128::from(counted.packets) * u128::from(read_ns) / u128::from(took_ns.max(1));
        OfContainers {
            counted: counted.into(),
            ways,
            to_many: to_many.into(),
            dropped: knows_drops.then(|| dropped.into()),
            dropped_hidden: hidden.into(),
            refused: refused.into(),
            difference: difference(counted, all),
            read_meanwhile: u64::try_from(meanwhile).unwrap_or(u64::MAX),
        }
    };
    let mut reconciliation = Reconciliation {
        node: last.node.clone(),
        begin: first.time,
        end: last.time,
        #[expect(clippy::cast_precision_loss, reason = "printed with few digits")]
        seconds: took_ns as f64 / 1e9,
        from_containers: explained(
            counted.outgoing,
            from_containers,
            [to_many, dropped.sides.outgoing, dropped.hidden, refused_out],
        ),
        to_containers: explained(
            counted.incoming,
            to_containers,
            [Tally::default(), dropped.sides.incoming, Tally::default(), refused_in],
        ),
        uplinks: ends.uplinks().map(|uplink| of_uplink(uplink, before, after, ways, &ends)).collect(),
        complete: true,
        notes: doubtful(&ends).collect(),
    };
    lacking(ways, knows_drops).into_iter().for_each(|what| reconciliation.lacks(what));
    reconciliation
}

/// What the hooks counted for containers, without what is no IP: it has no way that anybody follows.
fn counted(snapshot: &Snapshot, ends: &Ends<'_>) -> ByDirection<Tally> {
    let former = &snapshot.former;
    let mut sum = ByDirection { incoming: former.incoming.classes, outgoing: former.outgoing.classes };
    for counter in snapshot.counters.iter().filter(|counter| !counter.container.is_node()) {
        sum += counter.tally;
    }
    for fault in &snapshot.faults {
        if !matches!(fault.fault, Fault::NotIp | Fault::NotTheNodes) && !ends.is_uplink(&fault.interface) {
            sum += fault.tally;
        }
    }
    sum
}

/// What was dropped behind the hooks.
#[derive(Clone, Copy, Debug, Default)]
struct Dropped {
    /// Of containers.
    sides: ByDirection<Tally>,
    /// Sent by somebody behind a bridge.
    hidden: Tally,
}

impl Dropped {
    /// Between two readings of the same counters.
    fn between(before: Option<&Drops>, after: Option<&Drops>) -> Option<Self> {
        let (before, after) = before.zip(after).filter(|(before, after)| before.set == after.set)?;
        let all = |drops: &Drops| {
            let rows = drops.rows.iter().filter(|row| !row.container.is_node());
            rows.fold(drops.former, |mut sum, row| {
                sum += row.tally;
                sum
            })
        };
        let hidden = |drops: &Drops| drops.fault(DropFault::NoSender);
        Some(Self {
            sides: all(after).since(&all(before)),
            hidden: hidden(after).saturating_sub(hidden(before)),
        })
    }
}

fn sum<'w>(ways: impl Iterator<Item = &'w (PathKey, PathTally)>) -> Tally {
    ways.fold(Tally::default(), |sum, (_, tally)| sum.saturating_add(tally.on_wire))
}

/// The ways by what `end` makes of them, which leaves out some.
fn grouped(ways: &Ways, end: impl Fn(&PathKey) -> Option<End>) -> Vec<Way> {
    let mut sums: BTreeMap<End, Tally> = BTreeMap::new();
    for (key, tally) in ways.ways.iter().filter(|(key, _)| !key.has(REFUSED)) {
        if let Some(end) = end(key) {
            *sums.entry(end).or_default() += tally.on_wire;
        }
    }
    sums.into_iter().map(|(end, Tally { packets, bytes })| Way { end, packets, bytes }).collect()
}

fn of_uplink(name: &str, before: &Reading, after: &Reading, ways: &Ways, ends: &Ends<'_>) -> Uplink {
    let is_it = |end: Option<End>| end == Some(End::Uplink(name.to_owned()));
    let sent: Vec<_> =
        ways.ways.iter().filter(|(key, _)| !key.has(REFUSED) && is_it(ends.target(key))).collect();
    let device = device(name, before, after);
    let counted = hooks(name, &before.snapshot, &after.snapshot);
    let on_wire = sum(sent.iter().copied());
    let buffers = sent.iter().fold(Tally::default(), |sum, (_, tally)| sum.saturating_add(tally.buffers));
    let received = grouped(ways, |key| {
        let is_from_it = key.has(IP) && !key.has(TO_MANY) && is_it(Some(ends.origin(key)));
        is_from_it.then(|| ends.target(key))?
    });
    let known: u64 = received.iter().map(|way| way.packets).sum();
    Uplink {
        interface: name.to_owned(),
        sent: Sent {
            device: device.outgoing.into(),
            counted: counted.map(|counted| counted.outgoing.into()),
            ways: grouped(ways, |key| is_it(ends.target(key)).then(|| ends.origin(key))),
            difference: unexplained(device.outgoing, on_wire, buffers),
        },
        received: Received {
            device: device.incoming.into(),
            counted: counted.map(|counted| counted.incoming.into()),
            ways: received,
            rest_packets: signed(device.incoming.packets, known),
        },
    }
}

/// What a device counted between two readings: `outgoing` is what it sent.
fn device(name: &str, before: &Reading, after: &Reading) -> ByDirection<Tally> {
    let of = |reading: &Reading, index: Option<u32>| {
        let is_it = |one: &&NetInterface| one.is_called(name) && index.is_none_or(|index| one.index == index);
        let found = reading.interfaces.iter().find(is_it)?;
        let statistics = found.statistics;
        // They are in the directions of a container behind the interface.
        let [to_it, from_it] = [Direction::In, Direction::Out].map(|direction| Tally {
            packets: statistics.packets[direction as usize],
            bytes: statistics.bytes[direction as usize],
        });
        Some((found.index, ByDirection { incoming: from_it, outgoing: to_it }))
    };
    let Some((index, after)) = of(after, None) else { return ByDirection::default() };
    // One that was made anew has counted from 0.
    of(before, Some(index)).map_or(after, |(_, before)| after.since(&before))
}

/// What the hooks of an uplink counted between two readings.
fn hooks(name: &str, before: &Snapshot, after: &Snapshot) -> Option<ByDirection<Tally>> {
    let of = |snapshot: &Snapshot| {
        let found = snapshot.interfaces.iter().find(|interface| interface.interface == name)?;
        let passed = &found.passed;
        Some((
            found.generation,
            ByDirection { incoming: passed.incoming.wire, outgoing: passed.outgoing.wire },
        ))
    };
    let ((first, before), (last, after)) = of(before).zip(of(after))?;
    (first == last).then(|| after.since(&before))
}

/// What a device counted beyond the ways to it. It counts either packets on the wire or the buffers that it is handed:
/// whichever is nearer.
fn unexplained(device: Tally, on_wire: Tally, buffers: Tally) -> Difference {
    let [least, most] = LINK_BYTES.map(|bytes| on_wire.bytes + bytes * on_wire.packets);
    let as_packets = Difference {
        packets: signed(device.packets, on_wire.packets),
        bytes: beyond(device.bytes, [least, most]),
    };
    let most = buffers.bytes + ADDED_BYTES * buffers.packets;
    let as_buffers = Difference {
        packets: signed(device.packets, buffers.packets),
        bytes: beyond(device.bytes, [buffers.bytes, most]),
    };
    let size = |difference: &Difference| (difference.packets.abs(), difference.bytes.abs());
    if size(&as_packets) < size(&as_buffers) { as_packets } else { as_buffers }
}

/// How far a value is from a range, 0 within it.
fn beyond(value: u64, [low, high]: [u64; 2]) -> i64 {
    if value < low { signed(value, low) } else { signed(value.max(high), high) }
}

fn signed(a: u64, b: u64) -> i64 {
    i64::try_from(i128::from(a) - i128::from(b)).unwrap_or(i64::MAX)
}

fn difference(a: Tally, b: Tally) -> Difference {
    Difference { packets: signed(a.packets, b.packets), bytes: signed(a.bytes, b.bytes) }
}

/// What is only in the difference.
fn lacking(ways: &Ways, knows_drops: bool) -> Vec<String> {
    let mut lacking = Vec::new();
    if !knows_drops {
        lacking.push(
            "drops are not counted on this node, or their counters were made anew meanwhile: what was dropped is in \
             the difference"
                .to_owned(),
        );
    }
    if ways.lost > 0 {
        lacking.push(format!(
            "{} packets found no room in a table, or were not seen from the beginning: they are in the difference",
            ways.lost
        ));
    }
    lacking
}

/// What has an end, and perhaps the wrong one.
fn doubtful(ends: &Ends<'_>) -> impl Iterator<Item = String> {
    ends.mixed_bridges().map(|bridge| {
        format!(
            "of super-packets that the node routes from the bridge {bridge} and cuts itself, it is not sure who sent \
             them: both an uplink and containers are its ports"
        )
    })
}
