//! A set of counters that returns after another one was drained in the same boot.
//!
//! Its pins were out of sight for a while, and another set was made. Where the hooks of both were attached,
//! both counted the same packets, and those of the other set are in the ledger. So of what the returning set
//! counted since its own last reading, only what is not accounted for yet is recorded.
//!
//! How much that is shows the kernel's statistics of each interface: the ledger keeps up to where they are
//! accounted for (`accounted_reading`), and the snapshot says up to where this set accounts for them. Which
//! classes it belongs to shows the difference to what the other sets recorded.

use std::collections::HashMap;

use rusqlite::{Connection, params};
use traffic_common::{Direction, Family, Fault};
use traffic_model::{InterfaceCounter, Snapshot};

use crate::{
    error::LedgerError,
    write::{
        difference::{self, Change, ClassKey, FaultKey, InterfaceKey, PASSED_VALUES, TALLY_VALUES},
        gaps::GapSize,
        readings::{self, LastReadings},
    },
};

/// Place of the buffers among the values of one direction of an interface.
const SKBS: usize = 2;

/// How much of what a set counted in one direction is to be recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    /// Buffers to be recorded.
    keep: u64,
    /// Buffers beyond those that other sets recorded.
    beyond: u64,
    /// Buffers counted.
    counted: u64,
}

impl Share {
    fn add(&mut self, other: Self) {
        self.keep += other.keep;
        self.beyond += other.beyond;
        self.counted += other.counted;
    }

    /// Reduces a value of which other sets recorded a part. `before` is the sum of the values of one owner that
    /// were reduced before this one: no rounding is lost between them.
    fn reduce(self, counted: u64, by_others: u64, before: &mut u64) -> u64 {
        let mut scale = |value: u64, of: u64| {
            let scaled = |value: u64| {
                let exact = u128::from(value) * u128::from(self.keep.min(of)) / u128::from(of.max(1));
                u64::try_from(exact).unwrap_or(value)
            };
            let earlier = scaled(*before);
            *before = before.saturating_add(value);
            scaled(*before) - earlier
        };
        match self {
            // Nothing is known of interfaces.
            Self { counted: 0, .. } => counted.saturating_sub(by_others),
            Self { beyond: 0, .. } => scale(counted, self.counted),
            _ => scale(counted.saturating_sub(by_others), self.beyond),
        }
    }
}

/// What the other sets of this boot recorded since the returning one was last drained.
#[derive(Debug, Default)]
pub(super) struct Returning {
    by_others: ByOthers,
    interfaces: HashMap<InterfaceKey, [Share; 2]>,
    /// By container; those without interfaces of their own are not in it.
    containers: HashMap<String, [Share; 2]>,
    shared: [Share; 2],
    /// By container: the sums of the class counters that were reduced so far.
    reduced: HashMap<String, [u64; TALLY_VALUES]>,
    /// Missed traffic that is not accounted for yet.
    missed: HashMap<InterfaceKey, GapSize>,
}

#[derive(Debug, Default)]
struct ByOthers {
    classes: HashMap<(String, u8, u32), [u64; TALLY_VALUES]>,
    faults: HashMap<(String, u8), [u64; TALLY_VALUES]>,
    interfaces: HashMap<String, [u64; PASSED_VALUES]>,
}

impl Returning {
    /// Compares a reading with what is accounted for.
    pub fn new(
        conn: &Connection,
        epoch: i64,
        snapshot: &Snapshot,
        last: &LastReadings,
    ) -> Result<Self, LedgerError> {
        let mut returning = Self { by_others: by_others(conn, epoch, &snapshot.boot_id)?, ..Self::default() };
        let changes = difference::differences(&last.interfaces, difference::interface_readings(snapshot));
        for counter in &snapshot.interfaces {
            let key = InterfaceKey { interface: counter.interface.clone(), generation: counter.generation };
            let counted = changes.get(&key).map_or([0; PASSED_VALUES], |change| change.passed);
            let missed = readings::missed(conn, epoch, &key.interface, key.generation)?;
            let missed = total_missed(counter).since(&missed);
            let accounted = match counter.ifindex {
                Some(ifindex) => readings::accounted_before(conn, &snapshot.boot_id, epoch, ifindex)?,
                None => None,
            };
            let left = accounted.map(|before| accounted_now(counter).since(&before));
            let shares = returning.shares(&key.interface, &counted, &missed, left.as_ref());
            if let Some(left) = left {
                returning.missed.insert(key.clone(), missed.at_most(&left));
            }
            let of_owner = match &counter.container {
                Some(id) => returning.containers.entry(id.as_str().to_owned()).or_default(),
                None => &mut returning.shared,
            };
            of_owner.iter_mut().zip(shares).for_each(|(sum, share)| sum.add(share));
            returning.interfaces.insert(key, shares);
        }
        Ok(returning)
    }

    fn shares(
        &self,
        interface: &str,
        counted: &[u64; PASSED_VALUES],
        missed: &GapSize,
        left: Option<&GapSize>,
    ) -> [Share; 2] {
        let by_others = self.by_others.interfaces.get(interface).copied().unwrap_or([0; PASSED_VALUES]);
        Direction::BOTH.map(|direction| {
            let at = direction as usize * PASSED_VALUES / 2 + SKBS;
            let beyond = counted[at].saturating_sub(by_others[at]);
            let skbs = |size: &GapSize| match direction {
                Direction::In => size.in_skbs,
                Direction::Out => size.out_skbs,
            };
            // What passed uncounted comes out of what is left as well.
            let keep = left.map_or(beyond, |left| skbs(left).saturating_sub(skbs(missed)).min(counted[at]));
            Share { keep, beyond, counted: counted[at] }
        })
    }

    /// Reduces what a class counter grew by.
    pub fn class(&mut self, key: &ClassKey, change: Change<TALLY_VALUES>) -> Change<TALLY_VALUES> {
        let others = self.by_others.classes.get(&(key.container.clone(), key.class, key.family as u32));
        let shares = self.containers.get(&key.container).unwrap_or(&self.shared);
        let before = self.reduced.entry(key.container.clone()).or_default();
        reduced(change, others.unwrap_or(&[0; TALLY_VALUES]), shares, before)
    }

    /// Reduces what a fault counter grew by.
    pub fn fault(&self, key: &FaultKey, change: Change<TALLY_VALUES>) -> Change<TALLY_VALUES> {
        let others = self.by_others.faults.get(&(key.interface.clone(), key.fault as u8));
        let of = InterfaceKey { interface: key.interface.clone(), generation: key.generation };
        let shares = self.interfaces.get(&of).copied().unwrap_or_default();
        reduced(change, others.unwrap_or(&[0; TALLY_VALUES]), &shares, &mut [0; TALLY_VALUES])
    }

    /// Reduces what the totals of an interface grew by.
    pub fn interface(&self, key: &InterfaceKey, change: Change<PASSED_VALUES>) -> Change<PASSED_VALUES> {
        let others = self.by_others.interfaces.get(&key.interface);
        let shares = self.interfaces.get(key).copied().unwrap_or_default();
        reduced(change, others.unwrap_or(&[0; PASSED_VALUES]), &shares, &mut [0; PASSED_VALUES])
    }

    /// The missed traffic of an interface that is not accounted for yet, if the kernel's statistics tell.
    pub fn missed(&self, interface: &str, generation: u32) -> Option<GapSize> {
        self.missed.get(&InterfaceKey { interface: interface.to_owned(), generation }).copied()
    }
}

fn reduced<const N: usize>(
    change: Change<N>,
    by_others: &[u64; N],
    shares: &[Share; 2],
    before: &mut [u64; N],
) -> Change<N> {
    let passed = std::array::from_fn(|at| {
        shares[at / (N / 2)].reduce(change.passed[at], by_others[at], &mut before[at])
    });
    Change { passed, ..change }
}

fn total_missed(counter: &InterfaceCounter) -> GapSize {
    let (incoming, outgoing) = (&counter.passed.incoming, &counter.passed.outgoing);
    GapSize {
        in_skbs: incoming.missed_skbs,
        in_skb_bytes: incoming.missed_skb_bytes,
        out_skbs: outgoing.missed_skbs,
        out_skb_bytes: outgoing.missed_skb_bytes,
    }
}

fn accounted_now(counter: &InterfaceCounter) -> GapSize {
    let (incoming, outgoing) = (counter.accounted.incoming, counter.accounted.outgoing);
    GapSize {
        in_skbs: incoming.packets,
        in_skb_bytes: incoming.bytes,
        out_skbs: outgoing.packets,
        out_skb_bytes: outgoing.bytes,
    }
}

/// What the sets that were drained after this one have recorded.
fn by_others(conn: &Connection, epoch: i64, boot_id: &str) -> Result<ByOthers, LedgerError> {
    // A set that is older than this one's last reading has recorded other things as well. There, only the shares
    // of the interfaces say how much this set is to record, and all its classes are reduced alike.
    const LATER: &str = "e.boot_id = ?1 AND e.id <> ?2 AND EXISTS (SELECT 1 FROM epoch own WHERE own.id = ?2
         AND own.drains < e.drains AND own.last_wall_ms <= e.created * 1000 + 999)";
    const IN_OUT: &str = "sum(r.in_packets), sum(r.in_bytes), sum(r.out_packets), sum(r.out_bytes)";
    let mut others = ByOthers::default();
    let mut statement = conn.prepare_cached(&format!(
        "SELECT c.name, r.class, r.family, {IN_OUT} FROM epoch e JOIN container_life l ON l.epoch = e.id
         JOIN class_reading r ON r.life = l.id JOIN container c ON c.id = l.container WHERE {LATER}
         GROUP BY 1, 2, 3"
    ))?;
    let mut rows = statement.query(params![boot_id, epoch])?;
    while let Some(row) = rows.next()? {
        let family = if row.get::<_, u32>(2)? == 0 { Family::Ipv4 } else { Family::Ipv6 };
        others.classes.insert((row.get(0)?, row.get(1)?, family as u32), readings::values(row, 3)?);
    }
    let mut statement = conn.prepare_cached(&format!(
        "SELECT l.name, r.fault, {IN_OUT} FROM epoch e JOIN interface_life l ON l.epoch = e.id
         JOIN fault_reading r ON r.life = l.id WHERE {LATER} GROUP BY 1, 2"
    ))?;
    let mut rows = statement.query(params![boot_id, epoch])?;
    while let Some(row) = rows.next()? {
        let number: u8 = row.get(1)?;
        if Fault::ALL.get(usize::from(number)).is_some() {
            others.faults.insert((row.get(0)?, number), readings::values(row, 2)?);
        }
    }
    let mut statement = conn.prepare_cached(&format!(
        "SELECT l.name, sum(r.in_packets), sum(r.in_bytes), sum(r.in_skbs), sum(r.in_skb_bytes),
             sum(r.in_estimated_packets), sum(r.in_estimated_bytes), sum(r.out_packets), sum(r.out_bytes),
             sum(r.out_skbs), sum(r.out_skb_bytes), sum(r.out_estimated_packets), sum(r.out_estimated_bytes)
         FROM epoch e JOIN interface_life l ON l.epoch = e.id JOIN passed_reading r ON r.life = l.id
         WHERE {LATER} GROUP BY 1"
    ))?;
    let mut rows = statement.query(params![boot_id, epoch])?;
    while let Some(row) = rows.next()? {
        others.interfaces.insert(row.get(0)?, readings::values(row, 1)?);
    }
    Ok(others)
}
