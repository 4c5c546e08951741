//! A busy node for measurements: every container has traffic in every class and family in every bucket, which is the
//! most rows that so many containers can write. The same arguments give the same ledger.

use std::{collections::HashMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use traffic_common::{Family, Tally};
use traffic_model::{
    ByDirection, ClassCounter, ClassTableInfo, ContainerId, InterfaceCounter, PassedCounter, Snapshot,
};

use crate::{DrainContext, DrainTrigger, Ledger, LedgerError};

const DAY_S: i64 = 86_400;

/// How much passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volume {
    /// Up to 5,000 packets a minute in each direction, all numbers with equal probability.
    Busy,
    /// Up to 4,096 packets in five minutes, all orders of magnitude with equal probability: most rows are small, as on
    /// a node whose containers mostly wait.
    Mixed,
}

/// A drain as the daemon makes it, at an interval.
#[must_use]
pub fn every(seconds: u64) -> DrainContext {
    DrainContext { interval: Duration::from_secs(seconds), trigger: DrainTrigger::Interval }
}

/// The counters before any traffic.
pub fn first_snapshot(begin: Timestamp, containers: u32, classes: u8) -> Snapshot {
    let mut counters = Vec::new();
    let mut interfaces = Vec::new();
    for container in 0..containers {
        let id = ContainerId::new(&container.to_string()).unwrap();
        for (class, family) in (0..classes).flat_map(|class| Family::ALL.map(|family| (class, family))) {
            counters.push(ClassCounter {
                container: id.clone(),
                generation: container + 1,
                is_retired: false,
                class,
                family,
                tally: ByDirection::default(),
            });
        }
        interfaces.push(InterfaceCounter {
            interface: format!("veth{container}.0"),
            generation: container + 1,
            container: Some(id),
            ifindex: Some(container + 10),
            attached: begin,
            passed: ByDirection::<PassedCounter>::default(),
            accounted: ByDirection::default(),
        });
    }
    Snapshot {
        node: "node1".to_owned(),
        boot_id: "00000000-0000-0000-0000-000000000001".to_owned(),
        epoch: 1,
        epoch_created: begin,
        time: begin,
        boottime_ns: 0,
        class_table: ClassTableInfo { hash: [1; 32], loaded: begin, prefixes: 2 },
        counters,
        faults: Vec::new(),
        interfaces,
        former: ByDirection::default(),
        former_faults: Default::default(),
        former_estimated: Default::default(),
        former_small_segments: Default::default(),
        former_copies: Default::default(),
        drops: None,
    }
}

/// Drains until `end`, once in `step` seconds, and sums up each day when it is over. Returns how many drains it took.
pub fn fill(
    ledger: &mut Ledger,
    snapshot: &mut Snapshot,
    (end, step): (Timestamp, u64),
    volume: Volume,
) -> Result<u64, LedgerError> {
    let mut drains = 0;
    while snapshot.time < end {
        advance(snapshot, step, volume);
        ledger.drain(snapshot, every(step))?;
        drains += 1;
        // Sums of hours and days are the same whenever they are made. Once a day takes a third of the time.
        if snapshot.time.as_second() % DAY_S == 0 {
            ledger.maintain(snapshot.time)?;
        }
    }
    Ok(drains)
}

/// Advances time and counters, pseudo-randomly, so that numbers have realistic lengths.
pub fn advance(snapshot: &mut Snapshot, seconds: u64, volume: Volume) {
    snapshot.time += SignedDuration::from_secs(seconds.cast_signed());
    snapshot.boottime_ns += seconds * 1_000_000_000;
    let mut random = snapshot.boottime_ns | 1;
    let mut add = |tally: &mut Tally| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let packets = match volume {
            Volume::Busy => (random >> 44) % 5_000 * seconds / 60 + 1,
            // Of each order of magnitude, all numbers have equal probability.
            Volume::Mixed => {
                let order = 1 << ((random >> 60) % 12);
                (order + (random >> 44) % order) * seconds / 300 + 1
            }
        };
        tally.packets += packets;
        tally.bytes += packets * (60 + (random >> 33) % 1400);
    };
    let mut of_container: HashMap<&ContainerId, ByDirection<Tally>> = HashMap::new();
    for counter in &mut snapshot.counters {
        let sum = of_container.entry(&counter.container).or_default();
        for (tally, sum) in [
            (&mut counter.tally.incoming, &mut sum.incoming),
            (&mut counter.tally.outgoing, &mut sum.outgoing),
        ] {
            add(tally);
            sum.packets += tally.packets;
            sum.bytes += tally.bytes;
        }
    }
    for interface in &mut snapshot.interfaces {
        let sum = interface.container.as_ref().and_then(|container| of_container.get(container).copied());
        let ByDirection { incoming, outgoing } = sum.unwrap_or_default();
        for (passed, sum) in
            [(&mut interface.passed.incoming, incoming), (&mut interface.passed.outgoing, outgoing)]
        {
            passed.wire = sum;
            passed.skbs = sum.packets / 3;
            passed.skb_bytes = sum.bytes + 14 * passed.skbs;
        }
    }
}
