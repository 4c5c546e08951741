//! One drain: what a reading holds beyond the last one goes into the ledger, in one transaction with the new last
//! readings. Whatever instant it ends at, every byte is in the rows once or still to come.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use rusqlite::{Connection, Statement, Transaction, TransactionBehavior, params};
use traffic_model::{ByDirection, ContainerId, InterfaceCounter, Snapshot, calendar::FIVE_MINUTES_S};

use crate::{
    error::LedgerError,
    ids,
    schema::{FAULT, PASSED, TRAFFIC},
    time::reading_checks::{Before, DrainContext, Timeline, judge},
    write::{
        control_totals::{self, ControlTotals},
        difference::{self, Change},
        gaps::{self, Gap, GapLinks, GapReason, GapSize},
        last_reading::{floor, latest_reading, reading_of_epoch},
        readings::{self, ContainerLife, LastReadings},
    },
};

/// What a drain did. Once it is returned, everything in the snapshot is in the ledger for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainOutcome {
    /// Start of the bucket that the traffic was booked in.
    pub bucket: Timestamp,
    /// Since when the reading covers traffic, by the clock as it stands now.
    pub span_start: Timestamp,
    /// Rows of class counters that had moved.
    pub traffic_rows: usize,
    /// Rows of faults that had moved.
    pub fault_rows: usize,
    /// Rows of interfaces that had moved.
    pub interface_rows: usize,
    /// The gaps that were recorded.
    pub gaps: Vec<Gap>,
    /// True when the main file alone holds everything, so that a plain copy of it is whole. False when a reader of the
    /// moment was in the way; the next drain does it.
    pub checkpointed: bool,
}

/// What the whole transaction works on.
struct Drain<'a> {
    transaction: &'a Transaction<'a>,
    snapshot: &'a Snapshot,
    vm_prefixes: &'a [String],
    epoch: i64,
    stream: i64,
    timeline: Timeline,
    /// Start of what a loss may concern.
    last_wall: Option<Timestamp>,
    /// The last reading of the node, of whatever set of counters.
    latest_wall: Option<Timestamp>,
    gaps: Vec<Gap>,
    /// Number of each container in this reading, by its id.
    containers: HashMap<&'a str, (u32, i64)>,
    booked: ControlTotals,
}

/// Runs a drain. `failing` tells why the drains before this one did not succeed.
pub(crate) fn run(
    conn: &mut Connection,
    snapshot: &Snapshot,
    context: &DrainContext,
    failing: Option<GapReason>,
    vm_prefixes: &[String],
) -> Result<DrainOutcome, LedgerError> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let node = ids::node(&transaction, &snapshot.node)?;
    let latest = latest_reading(&transaction)?;
    if let Some(past) = latest.as_ref().filter(|past| past.boot_id == snapshot.boot_id)
        && snapshot.boottime_ns < past.clock.boottime_ns
    {
        let last_ns = past.clock.boottime_ns;
        return Err(LedgerError::StaleReading { boottime_ns: snapshot.boottime_ns, last_ns });
    }
    let (epoch, epoch_is_new) = ids::epoch(&transaction, snapshot)?;
    if epoch_is_new {
        readings::forget_other_boots(&transaction, &snapshot.boot_id)?;
        control_totals::begin(&transaction, epoch, &snapshot.former)?;
    }
    let class_table = ids::class_table(&transaction, &snapshot.class_table)?;
    let before = Before {
        latest,
        same_epoch: reading_of_epoch(&transaction, epoch)?,
        class_table,
        floor_s: floor(&transaction)?,
        newest_bucket_s: transaction
            .prepare_cached("SELECT max(start) FROM unit WHERE level = 0")?
            .query_row([], |row| row.get(0))?,
        failing,
    };
    let timeline = judge(snapshot, context, &before);
    let latest_wall = before.latest.as_ref().map(|past| past.clock.wall);
    if timeline.unsteady || ids::meta_integer(&transaction, "steady_since")?.is_none() {
        ids::set_meta_integer(&transaction, "steady_since", snapshot.time.as_second())?;
    }
    let mut drain = Drain {
        transaction: &transaction,
        snapshot,
        vm_prefixes,
        epoch,
        stream: ids::stream(&transaction, node, epoch, class_table)?,
        gaps: timeline.gaps.clone(),
        timeline,
        last_wall: before.same_epoch.map(|past| past.clock.wall),
        latest_wall,
        containers: HashMap::new(),
        booked: ControlTotals::default(),
    };
    let outcome = drain.book(class_table)?;
    transaction.commit()?;
    Ok(outcome)
}

impl<'a> Drain<'a> {
    fn book(&mut self, class_table: i64) -> Result<DrainOutcome, LedgerError> {
        for gap in self.timeline.gaps.clone() {
            gaps::insert(self.transaction, self.snapshot.time, &gap, GapLinks::default())?;
        }
        let last = LastReadings::load(self.transaction, self.epoch)?;
        let traffic_rows = self.book_classes(&last)?;
        let interfaces = self.interface_numbers()?;
        let fault_rows = self.book_faults(&last, &interfaces)?;
        let interface_rows = self.book_interfaces(&last, &interfaces)?;
        self.record_unseen()?;
        readings::note_absent_interfaces(self.transaction, self.epoch, &last, self.snapshot)?;
        if traffic_rows + fault_rows + interface_rows > 0 {
            self.note_bucket()?;
        }
        self.booked.store(self.transaction, self.epoch)?;
        self.note_reading(class_table)?;
        Ok(DrainOutcome {
            bucket: Timestamp::from_second(self.timeline.booking.bucket_s)?,
            span_start: self.timeline.span_start,
            traffic_rows,
            fault_rows,
            interface_rows,
            gaps: std::mem::take(&mut self.gaps),
            checkpointed: false,
        })
    }

    fn book_classes(&mut self, last: &LastReadings) -> Result<usize, LedgerError> {
        let lives = self.resolve_lives(last)?;
        let mut upsert = self.transaction.prepare(&TRAFFIC.upsert())?;
        let mut rows = 0;
        for (key, change) in difference::differences(&last.classes, difference::class_readings(self.snapshot))
        {
            let Some(life) = lives.get(&(key.container.as_str(), key.generation)) else { continue };
            if !last.classes.contains_key(&key) {
                self.transaction
                    .prepare_cached("INSERT OR IGNORE INTO class_use VALUES (?1, ?2)")?
                    .execute(params![life.container, key.class])?;
            }
            readings::store_class(self.transaction, life.id, &key, &change)?;
            let what = format!("class {} {}", key.class, key.family.name());
            self.record_loss(&change, &what, None, Some((key.container.as_str(), life.container)))?;
            let row = [life.container, i64::from(key.class), i64::from(key.family as u32), self.stream];
            self.booked.note(&TRAFFIC, &change);
            rows += self.add(&mut upsert, &row, &change)?;
        }
        let seen: HashSet<i64> = lives.values().map(|life| life.id).collect();
        readings::note_absent(self.transaction, &last.lives, &seen, self.snapshot.time.as_second())?;
        Ok(rows)
    }

    /// The lives of all containers in the reading, new ones made. A life stays its container's for ever, even when
    /// that was retired meanwhile.
    fn resolve_lives(
        &mut self,
        last: &LastReadings,
    ) -> Result<HashMap<(&'a str, u32), ContainerLife>, LedgerError> {
        let mut lives: HashMap<(&str, u32), ContainerLife> = HashMap::new();
        for counter in &self.snapshot.counters {
            let (name, generation) = (counter.container.as_str(), counter.generation);
            if lives.contains_key(&(name, generation)) {
                continue;
            }
            let life = match last.lives.get(&(name.to_owned(), generation)) {
                Some(&life) => life,
                None => {
                    let container = self.active_container(name)?;
                    let id = self
                        .transaction
                        .prepare_cached(
                            "INSERT INTO container_life (epoch, container, generation) VALUES (?1, ?2, ?3)",
                        )?
                        .insert(params![self.epoch, container, generation])?;
                    ContainerLife::new(id, container)
                }
            };
            lives.insert((name, generation), life);
            let known = self.containers.entry(name).or_insert((generation, life.container));
            if generation >= known.0 {
                *known = (generation, life.container);
            }
        }
        Ok(lives)
    }

    fn active_container(&self, name: &str) -> Result<i64, LedgerError> {
        let is_vm = self.snapshot.interfaces.iter().any(|interface| {
            interface.container.as_ref().is_some_and(|container| container.as_str() == name)
                && self.vm_prefixes.iter().any(|prefix| interface.interface.starts_with(prefix))
        });
        let kind = if is_vm { "vm" } else { "ct" };
        ids::container(self.transaction, name, kind, self.snapshot.time.as_second())
    }

    /// The number of every interface in the reading, by name and generation: that of its container.
    fn interface_numbers(&self) -> Result<HashMap<(&'a str, u32), i64>, LedgerError> {
        let mut numbers = HashMap::new();
        for interface in &self.snapshot.interfaces {
            let container = self.container_of(interface.container.as_ref().map(ContainerId::as_str))?;
            let number = ids::interface(self.transaction, &interface.interface, container)?;
            numbers.insert((interface.interface.as_str(), interface.generation), number);
        }
        Ok(numbers)
    }

    fn container_of(&self, name: Option<&str>) -> Result<i64, LedgerError> {
        match name {
            None => Ok(0),
            Some(name) => match self.containers.get(name) {
                Some(&(_, container)) => Ok(container),
                None => self.active_container(name),
            },
        }
    }

    fn book_faults(
        &mut self,
        last: &LastReadings,
        interfaces: &HashMap<(&str, u32), i64>,
    ) -> Result<usize, LedgerError> {
        let mut upsert = self.transaction.prepare(&FAULT.upsert())?;
        let mut rows = 0;
        for (key, change) in difference::differences(&last.faults, difference::fault_readings(self.snapshot))
        {
            let interface = match interfaces.get(&(key.interface.as_str(), key.generation)) {
                Some(&number) => number,
                None => ids::interface(self.transaction, &key.interface, 0)?,
            };
            readings::store_fault(self.transaction, self.epoch, &key, &change)?;
            self.record_loss(&change, &format!("fault {}", key.fault.name()), Some(&key.interface), None)?;
            self.booked.note(&FAULT, &change);
            rows += self.add(&mut upsert, &[interface, i64::from(key.fault as u32), self.stream], &change)?;
        }
        Ok(rows)
    }

    fn book_interfaces(
        &mut self,
        last: &LastReadings,
        interfaces: &HashMap<(&str, u32), i64>,
    ) -> Result<usize, LedgerError> {
        let mut upsert = self.transaction.prepare(&PASSED.upsert())?;
        let mut rows = 0;
        let now = difference::interface_readings(self.snapshot);
        for (key, change) in difference::differences(&last.interfaces, now) {
            let Some(&interface) = interfaces.get(&(key.interface.as_str(), key.generation)) else {
                continue;
            };
            readings::store_interface(self.transaction, self.epoch, &key, &change)?;
            self.record_loss(&change, "interface total", Some(&key.interface), None)?;
            self.booked.note(&PASSED, &change);
            rows += self.add(&mut upsert, &[interface, self.stream], &change)?;
        }
        Ok(rows)
    }

    /// Adds a change to its row in the bucket, by the statement of its kind; the number of rows written, 0 or 1.
    fn add<const N: usize>(
        &self,
        upsert: &mut Statement<'_>,
        key: &[i64],
        change: &Change<N>,
    ) -> Result<usize, LedgerError> {
        if !change.is_traffic() {
            return Ok(0);
        }
        let start = std::iter::once(self.timeline.booking.bucket_s);
        // Differences are below 2^63.
        let values = change.passed.map(u64::cast_signed);
        let row = start.chain(key.iter().copied()).chain(values);
        upsert.execute(rusqlite::params_from_iter(row))?;
        Ok(1)
    }

    fn record_loss<const N: usize>(
        &mut self,
        change: &Change<N>,
        what: &str,
        interface: Option<&str>,
        container: Option<(&str, i64)>,
    ) -> Result<(), LedgerError> {
        if !change.is_loss() {
            return Ok(());
        }
        let halves = [
            ("incoming", change.fell_from.incoming, 0..N / 2),
            ("outgoing", change.fell_from.outgoing, N / 2..N),
        ];
        let details = halves.into_iter().filter_map(|(direction, before, half)| {
            let before = before?;
            Some(format!("{what} {direction}: {:?} after {:?}", &change.reading[half.clone()], &before[half]))
        });
        let gap = Gap {
            start: self.last_wall.map(|wall| wall.min(self.snapshot.time)),
            end: self.snapshot.time,
            reason: GapReason::CounterLost,
            interface: interface.map(str::to_owned),
            container: container.map(|(name, _)| name.to_owned()),
            size: None,
            detail: Some(details.collect::<Vec<_>>().join("; ")),
        };
        let links = GapLinks { container: container.map(|(_, number)| number), once: None };
        gaps::insert(self.transaction, self.snapshot.time, &gap, links)?;
        self.gaps.push(gap);
        Ok(())
    }

    /// What passed interfaces while the program was not attached to them: the total only grows, so what it grew by since
    /// the last reading is a gap.
    fn record_unseen(&mut self) -> Result<(), LedgerError> {
        for counter in &self.snapshot.interfaces {
            let ByDirection { incoming, outgoing } = counter.passed;
            let total = GapSize {
                in_skbs: incoming.missed_skbs,
                in_skb_bytes: incoming.missed_skb_bytes,
                out_skbs: outgoing.missed_skbs,
                out_skb_bytes: outgoing.missed_skb_bytes,
            };
            let (interface, generation) = (&counter.interface, counter.generation);
            let mut size =
                total.since(&readings::unseen(self.transaction, self.epoch, interface, generation)?);
            let mut start = None;
            if let Some(ifindex) = counter.ifindex {
                // For another set of counters, the kernel's statistics begin where the one before left off: what that had
                // counted up to its last reading is in sums already. What it counted after that is not.
                if let Some(before) = self.accounted_before(ifindex)? {
                    size = size.since(&before);
                    start = self.latest_wall;
                }
                self.store_accounted(ifindex, counter)?;
            }
            if total != GapSize::default() {
                readings::store_unseen(self.transaction, self.epoch, interface, generation, &total)?;
            }
            if size == GapSize::default() {
                continue;
            }
            let container = counter.container.as_ref().map(ContainerId::as_str);
            let gap = Gap {
                start: start.map(|start| start.min(counter.attached)),
                end: counter.attached,
                reason: GapReason::BeforeAttach,
                interface: Some(interface.clone()),
                container: container.map(str::to_owned),
                size: Some(size),
                detail: None,
            };
            let number = Some(self.container_of(container)?).filter(|&number| number != 0);
            gaps::insert(
                self.transaction,
                self.snapshot.time,
                &gap,
                GapLinks { container: number, once: None },
            )?;
            self.gaps.push(gap);
        }
        let present = self.snapshot.interfaces.iter().filter_map(|counter| counter.ifindex).collect();
        readings::forget_accounted(self.transaction, self.epoch, &present)
    }

    fn accounted_before(&self, ifindex: u32) -> Result<Option<GapSize>, LedgerError> {
        readings::accounted_before(self.transaction, &self.snapshot.boot_id, self.epoch, ifindex)
    }

    fn store_accounted(&self, ifindex: u32, counter: &InterfaceCounter) -> Result<(), LedgerError> {
        let ByDirection { incoming, outgoing } = counter.accounted;
        let total = GapSize {
            in_skbs: incoming.packets,
            in_skb_bytes: incoming.bytes,
            out_skbs: outgoing.packets,
            out_skb_bytes: outgoing.bytes,
        };
        readings::store_accounted(self.transaction, &self.snapshot.boot_id, self.epoch, ifindex, &total)
    }

    fn note_bucket(&self) -> Result<(), LedgerError> {
        let bucket_s = self.timeline.booking.bucket_s;
        self.transaction
            .prepare_cached(
                "INSERT INTO unit (level, start, end, dirty, finest) VALUES (0, ?1, ?2, 1, 1)
                 ON CONFLICT (level, start) DO UPDATE SET dirty = 1",
            )?
            .execute([bucket_s, bucket_s + FIVE_MINUTES_S])?;
        if self.timeline.booking.marked {
            self.transaction
                .prepare_cached(
                    "INSERT INTO span (bucket, stream, start, end) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (bucket, stream) DO UPDATE
                     SET start = min(start, excluded.start), end = max(end, excluded.end)",
                )?
                .execute([
                    bucket_s,
                    self.stream,
                    self.timeline.span_start.as_second(),
                    self.snapshot.time.as_second(),
                ])?;
        }
        Ok(())
    }

    fn note_reading(&self, class_table: i64) -> Result<(), LedgerError> {
        self.transaction
            .prepare_cached(
                "UPDATE epoch SET drains = (SELECT max(drains) + 1 FROM epoch), last_wall_ms = ?2,
                 last_boottime_ns = ?3, last_bucket = ?4, last_class_table = ?5 WHERE id = ?1",
            )?
            .execute(params![
                self.epoch,
                self.snapshot.time.as_millisecond(),
                self.snapshot.boottime_ns.cast_signed(),
                self.timeline.booking.bucket_s,
                class_table,
            ])?;
        Ok(())
    }
}
