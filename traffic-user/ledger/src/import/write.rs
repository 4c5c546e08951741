//! Writes staged sums: into five minutes where those rows are kept, into hours or days where they were
//! dropped.
//!
//! Every written unit is marked dirty, so that everything above it is summed again. A dry run goes the same
//! way without writing, so a read transaction is enough for it.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use rusqlite::{Connection, params};
use traffic_model::calendar::{Calendar, FIVE_MINUTES_S, Level};

use crate::{
    error::LedgerError,
    ids,
    import::{
        PvaContainer, PvaImport, PvaImported,
        compare::{ByClass, ImportedBefore, Subject, Unit, choose, compare},
        owners::{Owner, Owners, find_series, make_series},
        source::{ONE, VALUES},
        staging::{Staged, Staging, Sums},
    },
    schema::TRAFFIC,
    time::borders::Borders,
};

/// The sums of one owner in the current unit.
#[derive(Debug, Default)]
struct OwnerSums {
    /// The container's id in the ledger.
    container: i64,
    new: ByClass,
    before: ImportedBefore,
    /// Whether a part of the new sums is a share of a longer sample.
    split: bool,
}

/// By owner, value and class: what rounding has left over.
type Remainders = HashMap<(usize, usize, u8), i64>;

/// Writes all staged sums.
pub struct RowWriter<'a> {
    conn: &'a Connection,
    calendar: &'a Calendar,
    import: &'a PvaImport,
    owners: Owners<'a>,
    /// From when on long samples were split into five minutes; `None` if none was split.
    fine_from: Option<i64>,
    /// `None` in a dry run of a first import.
    series: Option<i64>,
    /// The times before which five-minute rows and hours were dropped.
    dropped: (Option<i64>, Option<i64>),
    classes_seen: HashSet<(i64, u8)>,
    remainders: [Remainders; 2],
    containers: BTreeMap<i64, PvaContainer>,
    result: PvaImported,
}

impl<'a> RowWriter<'a> {
    pub fn new(
        conn: &'a Connection,
        calendar: &'a Calendar,
        (import, fine_from): (&'a PvaImport, Option<i64>),
        is_vm: &'a BTreeMap<String, bool>,
    ) -> Result<Self, LedgerError> {
        Ok(Self {
            conn,
            calendar,
            import,
            fine_from,
            owners: Owners::new(conn, import.dry_run, is_vm),
            series: if import.dry_run {
                find_series(conn, &import.node)?
            } else {
                Some(make_series(conn, &import.node)?)
            },
            dropped: (ids::meta(conn, "dropped_before_5min")?, ids::meta(conn, "dropped_before_hour")?),
            classes_seen: HashSet::new(),
            remainders: Default::default(),
            containers: BTreeMap::new(),
            result: PvaImported { dry_run: import.dry_run, ..PvaImported::default() },
        })
    }

    /// Writes all sums. `progress` receives the number of sums written and their total number.
    pub fn write_all(
        mut self,
        staging: &Staging,
        sums: &mut Sums<'_>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<PvaImported, LedgerError> {
        let mut unit: Option<Unit> = None;
        let mut of_unit: BTreeMap<usize, OwnerSums> = BTreeMap::new();
        // The total and the classes of one five minutes, owner and value.
        let mut group: Vec<Staged> = Vec::new();
        let mut done = 0;
        while let Some(staged) = sums.next()? {
            done += 1;
            progress(done, staging.sums);
            let same_group = group.first().is_some_and(|first| {
                (first.start, first.owner, first.value) == (staged.start, staged.owner, staged.value)
            });
            if !same_group {
                self.add_group(staging, &mut group, &mut of_unit)?;
                if unit.is_none_or(|unit| staged.start >= unit.end) {
                    if let Some(unit) = unit {
                        self.write_unit(staging, unit, &mut of_unit)?;
                    }
                    unit = Some(self.unit_of(staged.start)?);
                }
            }
            group.push(staged);
        }
        self.add_group(staging, &mut group, &mut of_unit)?;
        if let Some(unit) = unit {
            self.write_unit(staging, unit, &mut of_unit)?;
        }
        self.result.containers = self.containers.into_values().collect();
        self.result.containers.sort_by(|a, b| {
            let rank = |container: &PvaContainer| container.eid.parse::<u64>().unwrap_or(u64::MAX);
            rank(a).cmp(&rank(b)).then_with(|| a.container.cmp(&b.container))
        });
        Ok(self.result)
    }

    /// The finest unit at a time whose rows are still kept.
    fn unit_of(&self, start: i64) -> Result<Unit, LedgerError> {
        let before = |dropped: Option<i64>| dropped.is_some_and(|dropped| start < dropped);
        let level = match self.dropped {
            (_, hours) if before(hours) => Level::Day,
            (five_minutes, _) if before(five_minutes) => Level::Hour,
            _ => Level::FiveMinutes,
        };
        let (start, end) = Borders::new(self.conn, self.calendar).unit(level, start)?;
        Ok(Unit { level, start, end })
    }

    /// Adds the classes or the total of one five minutes, owner and value to the current unit.
    fn add_group(
        &mut self,
        staging: &Staging,
        group: &mut Vec<Staged>,
        of_unit: &mut BTreeMap<usize, OwnerSums>,
    ) -> Result<(), LedgerError> {
        let Some(first) = group.first() else { return Ok(()) };
        let (start, index, value) = (first.start, first.owner, usize::from(first.value));
        let owner = self.owners.at(&staging.owners[index], index, start)?;
        let sums = of_unit.entry(index).or_default();
        sums.container = owner.number;
        let container = self
            .containers
            .entry(owner.number)
            .or_insert_with(|| new_container(&owner, &staging.owners[index]));
        let new = amounts(group, |staged| staged.new_samples);
        let before = amounts(group, |staged| staged.known);
        self.result.samples += group.iter().map(|staged| staged.new_samples.0).sum::<u64>();
        self.result.samples_imported_before += group.iter().map(|staged| staged.known.0).sum::<u64>();
        sums.split |= group.iter().any(|staged| staged.split);
        group.clear();
        if !new.is_empty() {
            let time = Timestamp::from_second(start)?;
            let (chosen, adds_up) = choose(&new, self.import.class);
            if !adds_up {
                let totals = &mut self.result.totals_taken;
                totals.count += 1;
                totals
                    .first
                    .get_or_insert_with(|| format!("{} of {} at {time}", VALUES[value], container.eid));
            }
            container.first.get_or_insert(time);
            container.last = Some(time);
            let chosen = round_together(chosen, (index, value), &mut self.remainders[0]);
            for (class, amount) in chosen {
                sums.new.entry(class).or_default()[value] += amount;
                *total_of(container, value) += amount.unsigned_abs();
            }
        }
        if !before.is_empty() {
            sums.before.values.insert(value);
            let chosen = choose(&before, self.import.class).0;
            for (class, amount) in round_together(chosen, (index, value), &mut self.remainders[1]) {
                sums.before.sums.entry(class).or_default()[value] += amount;
            }
        }
        Ok(())
    }

    /// Writes the new sums of a unit, and compares those imported before.
    fn write_unit(
        &mut self,
        staging: &Staging,
        unit: Unit,
        of_unit: &mut BTreeMap<usize, OwnerSums>,
    ) -> Result<(), LedgerError> {
        let Unit { level, start, end } = unit;
        let (mut wrote, mut split) = (false, false);
        for (owner, sums) in std::mem::take(of_unit) {
            if !sums.before.values.is_empty() {
                let subject = Subject { unit, owner, container: sums.container };
                compare(self.conn, staging, &subject, &sums.before, &mut self.result.conflicts)?;
            }
            for (class, values) in sums.new {
                if values == [0; 4] {
                    continue;
                }
                *self.result.rows.of(level) += 1;
                let Some(series) = self.series.filter(|_| !self.import.dry_run) else { continue };
                (wrote, split) = (true, split | sums.split);
                self.use_class(sums.container, class)?;
                let key = [start, sums.container, i64::from(class), 0, series];
                self.conn
                    .prepare_cached(&TRAFFIC.upsert_at(level))?
                    .execute(rusqlite::params_from_iter(key.into_iter().chain(values)))?;
            }
        }
        let Some(series) = self.series.filter(|_| wrote) else { return Ok(()) };
        Borders::new(self.conn, self.calendar).book(start)?;
        self.conn
            .prepare_cached(
                "INSERT INTO unit (level, start, end, dirty, finest) VALUES (?1, ?2, ?3, 1, 1)
                 ON CONFLICT (level, start) DO UPDATE SET dirty = 1",
            )?
            .execute(params![level as u8, start, end])?;
        // The shares of a longer sample are marked, and need not be spread again.
        let covered = match self.fine_from {
            Some(fine_from) if start >= fine_from => (split, FIVE_MINUTES_S),
            Some(_) => (staging.interval > FIVE_MINUTES_S, staging.interval.min(3600)),
            None => (staging.interval > FIVE_MINUTES_S, staging.interval),
        };
        if level == Level::FiveMinutes && covered.0 {
            self.conn
                .prepare_cached(
                    "INSERT INTO span (bucket, stream, start, end) VALUES (?1, ?2, ?1, ?3)
                     ON CONFLICT DO NOTHING",
                )?
                .execute([start, series, start + covered.1])?;
        }
        Ok(())
    }

    fn use_class(&mut self, container: i64, class: u8) -> Result<(), LedgerError> {
        if self.classes_seen.insert((container, class)) {
            self.conn
                .execute("INSERT OR IGNORE INTO class_use VALUES (?1, ?2)", params![container, class])?;
        }
        Ok(())
    }
}

/// Rounds the amounts of the classes of one time to whole numbers whose sum is right, and keeps what is left
/// for the next time.
fn round_together(
    amounts: Vec<(u8, i64)>,
    (owner, value): (usize, usize),
    remainders: &mut Remainders,
) -> Vec<(u8, i64)> {
    let whole = |amount: i64| (amount + ONE / 2).div_euclid(ONE);
    let (mut exact, mut rounded) = (0_i64, 0_i64);
    let mut all = Vec::with_capacity(amounts.len());
    for (class, amount) in amounts {
        let remainder = remainders.entry((owner, value, class)).or_default();
        exact = exact.saturating_add(amount + *remainder);
        // Never below zero: a remainder may ask for more than there is.
        let own = (whole(exact) - rounded).max(0);
        rounded += own;
        *remainder += amount - own.saturating_mul(ONE);
        all.push((class, own));
    }
    all
}

/// The result for a container without samples so far.
fn new_container(owner: &Owner, eid: &str) -> PvaContainer {
    PvaContainer {
        container: owner.label.clone(),
        eid: eid.to_owned(),
        retired: owner.until != i64::MAX,
        first: None,
        last: None,
        in_packets: 0,
        in_bytes: 0,
        out_packets: 0,
        out_bytes: 0,
    }
}

/// The amounts of a group that have samples of one kind, by class; `None` for the total.
fn amounts(group: &[Staged], samples: fn(&Staged) -> (u64, i64)) -> Vec<(Option<u8>, i64)> {
    // The later shares of a long sample have an amount and no number.
    let with_samples = group.iter().filter(|staged| samples(staged) != (0, 0));
    with_samples.map(|staged| (staged.class, samples(staged).1)).collect()
}

/// The total of a container for a value of [`VALUES`].
fn total_of(container: &mut PvaContainer, value: usize) -> &mut u64 {
    match value {
        0 => &mut container.in_packets,
        1 => &mut container.in_bytes,
        2 => &mut container.out_packets,
        _ => &mut container.out_bytes,
    }
}
