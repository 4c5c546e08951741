//! One drain: writes what the counters grew by since the last reading, in one transaction with the new
//! readings. Wherever a crash interrupts it, every byte is in the rows once or will be with the next drain.
//! The gaps that a drain finds are in `drain_gaps`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;

use jiff::Timestamp;
use rusqlite::{Connection, Statement, Transaction, TransactionBehavior, params};
use traffic_model::{ByDirection, ContainerId, InterfaceCounter, Snapshot, calendar::Calendar};

use crate::{
    digest,
    error::LedgerError,
    ids, outbox,
    schema::{FAULT, PASSED, TRAFFIC},
    time::{
        borders::Borders,
        bucket_assignment::{AssignmentInput, BucketAssignment, assign_bucket},
        clock_line::{ClockEvent, ClockLine},
        reading_checks::{BookedTimes, DrainContext, PriorState, gaps_before, span_start},
    },
    write::{
        attribution::{self, Attribution, Source},
        clock,
        control_totals::{self, ControlTotals},
        difference::{self, Change},
        gaps::{self, Gap, GapLinks, GapReason},
        last_reading::{frozen, latest_reading, reading_of_epoch},
        names, owner_changes,
        quotas::RunningSums,
        readings::{self, ContainerLife, LastReadings},
        relocation,
        returning::Returning,
        reverted,
        rollup_state::mark_dirty,
    },
};

/// What a drain did. Once it is returned, everything in the snapshot is durably in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainOutcome {
    /// Start of the bucket that the traffic was written to.
    pub bucket: Timestamp,
    /// Start of the time that the reading covers.
    pub span_start: Timestamp,
    /// Number of class counters that had moved.
    pub traffic_rows: usize,
    /// Number of fault counters that had moved.
    pub fault_rows: usize,
    /// Number of interface counters that had moved.
    pub interface_rows: usize,
    /// Number of counters of drops that had moved.
    pub drop_rows: usize,
    /// The gaps that this drain recorded.
    pub gaps: Vec<Gap>,
    /// Pending owners whose container became known since the last drain.
    pub attributed: Vec<Attribution>,
    /// Whether the main file holds everything, so that a plain copy of it is complete. False if a reader
    /// prevented it; the next drain tries again.
    pub checkpointed: bool,
}

/// The state of one drain.
pub(super) struct Drain<'a> {
    pub transaction: &'a Transaction<'a>,
    pub snapshot: &'a Snapshot,
    vm_prefixes: &'a [String],
    pub epoch: i64,
    pub(super) series: i64,
    pub(super) bucket: BucketAssignment,
    /// When the reading and those before it are booked.
    pub times: BookedTimes,
    line: ClockLine,
    /// Whether the counters went back to an earlier state, so that this reading is only a new beginning.
    reverted: bool,
    pub gaps: Vec<Gap>,
    /// The newest generation and the id of each container in this reading, by name.
    containers: HashMap<&'a str, (u32, i64)>,
    /// Whether another set of counters was drained since this one's last reading, and what it recorded.
    is_returning: bool,
    pub(super) returning: Option<Returning>,
    pub(super) control_totals: ControlTotals,
    /// What is used of quotas, if that is kept.
    quotas: Option<RunningSums>,
}

/// What a drain needs to know about the ledger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DrainSettings<'a> {
    pub calendar: &'a Calendar,
    /// Why the drains before this one failed, if they did.
    pub failing: Option<GapReason>,
    /// Gaps that others found.
    pub noted: &'a [Gap],
    /// What people call the containers now, by id.
    pub names: &'a BTreeMap<String, String>,
    pub vm_prefixes: &'a [String],
}

/// Runs a drain.
pub(crate) fn run(
    conn: &mut Connection,
    snapshot: &Snapshot,
    context: &DrainContext,
    settings: DrainSettings<'_>,
) -> Result<DrainOutcome, LedgerError> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let snapshot = &*attribution::with_known_owners(&transaction, snapshot)?;
    let node = ids::node(&transaction, &snapshot.node)?;
    clock::refuse_stale(latest_reading(&transaction)?.as_ref(), snapshot)?;
    let before = clock::load(&transaction)?;
    let (line, event) =
        ClockLine::follow(before.as_ref(), clock::clocks(&transaction, before.as_ref(), snapshot)?);
    let (epoch, epoch_is_new) = ids::epoch(&transaction, snapshot)?;
    if epoch_is_new {
        readings::delete_other_boots(&transaction, &snapshot.boot_id)?;
        owner_changes::forget_other_boots(&transaction, &snapshot.boot_id)?;
        control_totals::create(&transaction, epoch, &snapshot.former)?;
    }
    relocation::move_booked(&transaction, settings.calendar, &snapshot.boot_id, event)?;
    if epoch_is_new || event != ClockEvent::Steady {
        gaps::end_by(&transaction, line.time_ms() / 1000)?;
    }
    let class_table = ids::class_table(&transaction, &snapshot.class_table)?;
    let latest = latest_reading(&transaction)?;
    let same_epoch = reading_of_epoch(&transaction, epoch)?;
    let times = clock::booked_times(snapshot, &line, before.as_ref(), (same_epoch.as_ref(), event))?;
    let prior = PriorState { latest, same_epoch, class_table, failing: settings.failing, times, event };
    let is_returning = prior.same_epoch.is_some()
        && prior.latest.as_ref().is_some_and(|last| last.boot_id == snapshot.boot_id && last.epoch != epoch);
    let start = span_start(snapshot, &times);
    if epoch_is_new {
        transaction
            .prepare_cached("UPDATE epoch SET created = ?2 WHERE id = ?1")?
            .execute(params![epoch, start.as_second()])?;
    }
    let frozen = frozen(&transaction)?;
    let input = AssignmentInput {
        now_s: times.now.as_second(),
        span_start_s: start.as_second(),
        frozen: &frozen,
        last_bucket_s: prior.latest.as_ref().map(|last| last.bucket_s),
    };
    let mut holds = transaction.prepare_cached("SELECT 1 FROM unit WHERE level = 0 AND start = ?1")?;
    let mut drain = Drain {
        transaction: &transaction,
        snapshot,
        vm_prefixes: settings.vm_prefixes,
        epoch,
        series: ids::series(&transaction, node, epoch, class_table)?,
        bucket: assign_bucket(&input, |bucket| holds.exists([bucket]).unwrap_or(true)),
        gaps: gaps_before(snapshot, context, &prior),
        times,
        line,
        reverted: matches!(event, ClockEvent::Reverted { .. }),
        containers: HashMap::new(),
        is_returning,
        returning: None,
        control_totals: ControlTotals::default(),
        quotas: None,
    };
    drop(holds);
    drain.quotas = RunningSums::load(&transaction, drain.bucket.bucket_s)?;
    Borders::new(&transaction, settings.calendar).book(drain.bucket.bucket_s)?;
    let outcome = drain.write(class_table, settings.noted)?;
    drain.write_names_and_owners(settings.names)?;
    if let Some(quotas) = drain.quotas.take() {
        quotas.store(&transaction, drain.bucket.bucket_s, drain.times.now.as_second())?;
    }
    digest::commit(transaction)?;
    Ok(outcome)
}

impl<'a> Drain<'a> {
    fn write(&mut self, class_table: i64, noted: &[Gap]) -> Result<DrainOutcome, LedgerError> {
        for gap in self.gaps.clone() {
            gaps::insert(self.transaction, self.times.now, &gap, GapLinks::default())?;
        }
        if self.reverted {
            reverted::delete_readings(self.transaction, self.epoch, self.snapshot)?;
            outbox::renew_token(self.transaction)?;
            self.control_totals.note_loss();
        }
        // Before the last readings are compared: they are the container's from now on.
        let attributed = self.attribute_pending()?;
        let last = LastReadings::load(self.transaction, self.epoch)?;
        if self.is_returning {
            self.returning = Some(Returning::new(self.transaction, self.epoch, self.snapshot, &last)?);
        }
        let lives = self.resolve_lives(&last)?;
        let traffic_rows = self.write_classes(&last, &lives)?;
        let drop_rows = self.write_drops(&last, &lives)?;
        let interfaces = self.interface_numbers()?;
        let fault_rows = self.write_faults(&last, &interfaces)?;
        let interface_rows = self.write_interfaces(&last, &interfaces)?;
        self.record_missed()?;
        self.record_noted(noted)?;
        self.record_excess()?;
        self.record_small_segments()?;
        let now_s = self.times.now.as_second();
        readings::expire_absent_interfaces(self.transaction, (self.epoch, now_s), &last, self.snapshot)?;
        if traffic_rows + drop_rows + fault_rows + interface_rows > 0 {
            self.mark_bucket_dirty()?;
        }
        self.control_totals.store(self.transaction, self.epoch)?;
        self.store_reading_time(class_table)?;
        Ok(DrainOutcome {
            bucket: Timestamp::from_second(self.bucket.bucket_s)?,
            span_start: span_start(self.snapshot, &self.times),
            traffic_rows,
            fault_rows,
            interface_rows,
            drop_rows,
            gaps: std::mem::take(&mut self.gaps),
            attributed,
            checkpointed: false,
        })
    }

    fn write_names_and_owners(&self, names: &BTreeMap<String, String>) -> Result<(), LedgerError> {
        let now_s = self.times.now.as_second();
        let number = |interface: &InterfaceCounter| {
            self.container_of(interface.container.as_ref().map(ContainerId::as_str))
        };
        owner_changes::follow(self.transaction, self.snapshot, now_s, number)?;
        names::store(self.transaction, names, now_s)
    }

    /// Gives what was recorded under pending ids to the containers that the counters name by now.
    fn attribute_pending(&self) -> Result<Vec<Attribution>, LedgerError> {
        let known = attribution::known_by_counters(self.transaction, self.epoch, self.snapshot)?;
        known
            .into_iter()
            .map(|(pending, owner)| {
                let owner = self.active_container(owner.as_str())?;
                attribution::attribute(self.transaction, (pending, owner), self.times.now, Source::Counters)
            })
            .collect()
    }

    /// Whether the memory went back, or another set of counters was drained since this one's last reading.
    pub(super) const fn is_interrupted(&self) -> bool {
        self.reverted || self.is_returning
    }

    fn write_classes(
        &mut self,
        last: &LastReadings,
        lives: &HashMap<(&str, u32), ContainerLife>,
    ) -> Result<usize, LedgerError> {
        let mut upsert = self.transaction.prepare_cached(&TRAFFIC.upsert())?;
        let mut rows = 0;
        for (key, change) in self.changes(&last.classes, difference::class_readings(self.snapshot)) {
            let Some(life) = lives.get(&(key.container.as_str(), key.generation)) else { continue };
            let change = self.returning.as_mut().map_or(change, |returning| returning.class(&key, change));
            if !last.classes.contains_key(&key) {
                self.transaction
                    .prepare_cached("INSERT OR IGNORE INTO class_use VALUES (?1, ?2)")?
                    .execute(params![life.container, key.class])?;
            }
            readings::store_class(self.transaction, life.id, &key, &change)?;
            let what = format!("class {} {}", key.class, key.family.name());
            self.record_loss(&change, &what, None, Some((key.container.as_str(), life.container)))?;
            let row = [life.container, i64::from(key.class), i64::from(key.family as u32), self.series];
            self.control_totals.add(&TRAFFIC, &change);
            if let Some(quotas) = &mut self.quotas {
                quotas.add(life.container, key.class, change.passed);
            }
            rows += self.add_change(&mut upsert, &row, &change)?;
        }
        let seen: HashSet<i64> = lives.values().map(|life| life.id).collect();
        readings::expire_absent_containers(self.transaction, &last.lives, &seen, self.times.now.as_second())?;
        Ok(rows)
    }

    /// Finds the lives of all containers in the reading and inserts new ones. A life stays its container's
    /// forever, even if the container was retired since.
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

    /// The changes of all counters that moved. After a revert no counter has: each begins with this reading.
    fn changes<K: Clone + Eq + Hash + Ord, const N: usize>(
        &self,
        last: &HashMap<K, [u64; N]>,
        now: impl IntoIterator<Item = (K, [u64; N])>,
    ) -> BTreeMap<K, Change<N>> {
        let mut changes = difference::differences(last, now);
        if self.reverted {
            for change in changes.values_mut() {
                *change = Change { passed: [0; N], fell_from: ByDirection::default(), ..*change };
            }
        }
        changes
    }

    fn active_container(&self, name: &str) -> Result<i64, LedgerError> {
        let is_vm = self.snapshot.interfaces.iter().any(|interface| {
            interface.container.as_ref().is_some_and(|container| container.as_str() == name)
                && self.vm_prefixes.iter().any(|prefix| interface.interface.starts_with(prefix))
        });
        let kind = if is_vm { "vm" } else { "ct" };
        ids::container(self.transaction, name, kind, self.times.now.as_second())
    }

    /// The ids of all interfaces in the reading, by name and generation.
    fn interface_numbers(&self) -> Result<HashMap<(&'a str, u32), i64>, LedgerError> {
        let mut numbers = HashMap::new();
        for interface in &self.snapshot.interfaces {
            let container = self.container_of(interface.container.as_ref().map(ContainerId::as_str))?;
            let number = ids::interface(self.transaction, &interface.interface, container)?;
            numbers.insert((interface.interface.as_str(), interface.generation), number);
        }
        Ok(numbers)
    }

    pub(super) fn container_of(&self, name: Option<&str>) -> Result<i64, LedgerError> {
        match name {
            None => Ok(0),
            Some(name) => match self.containers.get(name) {
                Some(&(_, container)) => Ok(container),
                None => self.active_container(name),
            },
        }
    }

    fn write_faults(
        &mut self,
        last: &LastReadings,
        interfaces: &HashMap<(&str, u32), i64>,
    ) -> Result<usize, LedgerError> {
        let mut upsert = self.transaction.prepare_cached(&FAULT.upsert())?;
        let mut rows = 0;
        for (key, change) in self.changes(&last.faults, difference::fault_readings(self.snapshot)) {
            let interface = match interfaces.get(&(key.interface.as_str(), key.generation)) {
                Some(&number) => number,
                None => ids::interface(self.transaction, &key.interface, 0)?,
            };
            let change = self.returning.as_ref().map_or(change, |returning| returning.fault(&key, change));
            readings::store_fault(self.transaction, self.epoch, &key, &change)?;
            self.record_loss(&change, &format!("fault {}", key.fault.name()), Some(&key.interface), None)?;
            self.control_totals.add(&FAULT, &change);
            rows += self.add_change(
                &mut upsert,
                &[interface, i64::from(key.fault as u32), self.series],
                &change,
            )?;
        }
        Ok(rows)
    }

    fn write_interfaces(
        &mut self,
        last: &LastReadings,
        interfaces: &HashMap<(&str, u32), i64>,
    ) -> Result<usize, LedgerError> {
        let mut upsert = self.transaction.prepare_cached(&PASSED.upsert())?;
        let mut rows = 0;
        let now = difference::interface_readings(self.snapshot);
        for (key, change) in self.changes(&last.interfaces, now) {
            let Some(&interface) = interfaces.get(&(key.interface.as_str(), key.generation)) else {
                continue;
            };
            let change =
                self.returning.as_ref().map_or(change, |returning| returning.interface(&key, change));
            readings::store_interface(self.transaction, self.epoch, &key, &change)?;
            self.record_loss(&change, "interface total", Some(&key.interface), None)?;
            self.control_totals.add(&PASSED, &change);
            rows += self.add_change(&mut upsert, &[interface, self.series], &change)?;
        }
        Ok(rows)
    }

    /// Adds a change to its row in the bucket. Returns the number of rows written, 0 or 1.
    pub(super) fn add_change<const N: usize>(
        &self,
        upsert: &mut Statement<'_>,
        key: &[i64],
        change: &Change<N>,
    ) -> Result<usize, LedgerError> {
        if !change.is_traffic() {
            return Ok(0);
        }
        let start = std::iter::once(self.bucket.bucket_s);
        // Differences are below 2^63.
        let values = change.passed.map(u64::cast_signed);
        let row = start.chain(key.iter().copied()).chain(values);
        upsert.execute(rusqlite::params_from_iter(row))?;
        Ok(1)
    }

    fn mark_bucket_dirty(&self) -> Result<(), LedgerError> {
        let bucket_s = self.bucket.bucket_s;
        mark_dirty(self.transaction, bucket_s)?;
        let key = [bucket_s, self.series];
        let span = (span_start(self.snapshot, &self.times).as_second(), self.times.now.as_second());
        if self.bucket.mixed {
            self.transaction
                .prepare_cached(
                    "INSERT INTO span (bucket, stream, start, end) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (bucket, stream) DO UPDATE
                     SET start = min(start, excluded.start), end = max(end, excluded.end)",
                )?
                .execute([key[0], key[1], span.0, span.1])?;
        } else {
            // A mixed bucket covers the time of all its readings.
            self.transaction
                .prepare_cached("UPDATE span SET end = max(end, ?3) WHERE bucket = ?1 AND stream = ?2")?
                .execute([key[0], key[1], span.1])?;
        }
        Ok(())
    }

    fn store_reading_time(&self, class_table: i64) -> Result<(), LedgerError> {
        self.transaction
            .prepare_cached(
                "UPDATE epoch SET drains = (SELECT max(drains) + 1 FROM epoch), last_wall_ms = ?2,
                 last_boottime_ns = ?3, last_bucket = ?4, last_class_table = ?5 WHERE id = ?1",
            )?
            .execute(params![
                self.epoch,
                self.snapshot.time.as_millisecond(),
                self.snapshot.boottime_ns.cast_signed(),
                self.bucket.bucket_s,
                class_table,
            ])?;
        clock::store(self.transaction, &self.line)
    }
}
