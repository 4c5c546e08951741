//! Audits the ledger: recomputes every sum from the rows below it, compares each counter epoch with its
//! control totals, and recomputes the hash chain and the closed periods. It also checks the structure of the
//! file, and compares the last readings with the live counters where it is given them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{Connection, params};
use serde::Serialize;
use traffic_model::{Snapshot, calendar::Level, local_time::LocalTime};

use crate::{
    closing::{
        chain::{Entry, Version, matching_version},
        live_counters,
    },
    days::read::{self, Selection, Sums},
    digest,
    error::LedgerError,
    ids,
    schema::KINDS,
    store::Ledger,
    time::borders::Borders,
    write::{
        control_totals,
        gaps::{self, GapReason},
        rollup_state::stale_units,
    },
};

/// The result of an audit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Number of hours, days and months whose sums were recomputed.
    pub units: u64,
    /// Number of units not recomputed: still open, or their finer rows were dropped.
    pub units_skipped: u64,
    /// Number of counter epochs that were compared with their control totals.
    pub counter_sets: u64,
    /// Number of counter epochs that were first drained before the ledger kept control totals.
    pub counter_sets_skipped: u64,
    /// Number of closed periods and corrections whose hashes were recomputed.
    pub chain_entries: u64,
    /// Last hash of the chain. Whoever keeps it elsewhere can prove that nothing before it was changed.
    pub chain_hash: Option<String>,
    /// Number of rows of all tables that were compared with the digests of what was written.
    pub rows: u64,
    /// Number of rows that have no digest yet, since the ledger was migrated from a version without.
    pub rows_skipped: u64,
    /// Number of last readings that were compared with the live counters.
    pub live_counters: u64,
    /// Why the last readings were not compared with the live counters; `None` if they were.
    pub live_counters_skipped: Option<String>,
    /// Problems found; empty if there are none.
    pub problems: Vec<String>,
}

impl Audit {
    /// Runs one check. A value that the check cannot even read is a problem of the ledger, and keeps nothing
    /// else from being checked.
    fn check(
        &mut self,
        what: &str,
        check: impl FnOnce(&mut Self) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        match check(self) {
            Err(LedgerError::Sql(error)) => self.problems.push(format!("{what}: cannot be checked: {error}")),
            Err(LedgerError::Calendar(error)) => {
                self.problems.push(format!("{what}: cannot be checked: {error}"));
            }
            other => return other,
        }
        Ok(())
    }
}

impl Ledger {
    /// Checks everything that can be checked. Reads the whole file, without blocking the writer.
    ///
    /// # Errors
    /// When the file cannot be read at all. Mismatches are in [`Audit::problems`].
    pub fn audit(&self) -> Result<Audit, LedgerError> {
        let view = self.conn.unchecked_transaction()?;
        let mut audit = Audit::default();
        view.pragma_query(None, "integrity_check", |row| {
            let line: String = row.get(0)?;
            if line != "ok" {
                audit.problems.push(format!("file structure: {line}"));
            }
            Ok(())
        })?;
        for level in [Level::Hour, Level::Day, Level::Month] {
            audit.check(level.name(), |audit| self.audit_level(&view, level, audit))?;
        }
        audit.check("units", |audit| audit_units(&view, audit))?;
        audit.check("control totals", |audit| {
            let compared = control_totals::compare(&view, &self.calendar)?;
            (audit.counter_sets, audit.counter_sets_skipped) = (compared.sets, compared.sets_skipped);
            audit.problems.extend(compared.problems);
            Ok(())
        })?;
        audit.check("interfaces", |audit| self.audit_excess(&view, audit))?;
        audit.check("chain", |audit| audit_chain(&view, audit))?;
        audit.check("closed periods", |audit| audit_closed(&view, audit))?;
        audit.check("digests", |audit| {
            let compared = digest::compare(&view)?;
            (audit.rows, audit.rows_skipped) = (compared.rows - compared.rows_left, compared.rows_left);
            audit.problems.extend(compared.problems);
            Ok(())
        })?;
        Ok(audit)
    }

    /// As [`Self::audit`]. Also compares the last readings with the live counters, which must not be below
    /// them.
    ///
    /// `read_counters` is called once the readings are fixed: counters that are read later can only be larger.
    /// If it fails, its error is the reason in [`Audit::live_counters_skipped`].
    ///
    /// # Errors
    /// As [`Self::audit`].
    pub fn audit_with_counters(
        &self,
        read_counters: impl FnOnce() -> Result<Snapshot, String>,
    ) -> Result<Audit, LedgerError> {
        let mut audit = self.audit()?;
        let view = self.conn.unchecked_transaction()?;
        // SQLite fixes what a transaction sees with its first statement.
        view.query_row("SELECT max(drains) FROM epoch", [], |_| Ok(()))?;
        audit.live_counters_skipped = match read_counters() {
            Err(reason) => Some(reason),
            Ok(snapshot) => match live_counters::compare(&view, &snapshot)? {
                None => Some("they were never drained into this ledger".to_owned()),
                Some(compared) => {
                    audit.live_counters = compared.readings;
                    audit.problems.extend(compared.problems);
                    None
                }
            },
        };
        Ok(audit)
    }

    /// Finds what was counted more often than the kernel's statistics show. Whoever closes a month has seen it.
    fn audit_excess(&self, view: &Connection, audit: &mut Audit) -> Result<(), LedgerError> {
        let closed: Option<i64> =
            view.prepare_cached("SELECT max(end) FROM period")?.query_row([], |row| row.get(0))?;
        let from = closed.map(Timestamp::from_second).transpose().unwrap_or_default();
        for gap in gaps::list(view, from, None, None)? {
            if gap.reason == GapReason::CountedTwice {
                audit
                    .problems
                    .push(format!("counted too often: {}", gap.text(&LocalTime::of(&self.calendar))));
            }
        }
        Ok(())
    }

    pub(crate) fn audit_level(
        &self,
        view: &Connection,
        level: Level,
        audit: &mut Audit,
    ) -> Result<(), LedgerError> {
        let Some(finer) = level.finer() else { return Ok(()) };
        let kept_from = match finer {
            Level::FiveMinutes => ids::meta(view, "dropped_before_5min")?,
            Level::Hour => ids::meta(view, "dropped_before_hour")?,
            Level::Day | Level::Month => None,
        };
        let open = stale_units(view, &self.calendar, level)?;
        let mut statement =
            view.prepare_cached("SELECT start, end FROM unit WHERE level = ?1 ORDER BY start")?;
        let mut rows = statement.query([level as u8])?;
        let mut units: Vec<Unit> = Vec::new();
        let mut day_end = i64::MIN;
        while let Some(row) = rows.next()? {
            let unit = (row.get(0)?, row.get(1)?);
            if open.contains(&unit.0) || kept_from.is_some_and(|from| unit.0 < from) {
                audit.units_skipped += 1;
                continue;
            }
            audit.units += 1;
            if unit.0 >= day_end {
                self.audit_units_of_day(view, (level, finer), &units, audit)?;
                units.clear();
                day_end = Borders::new(view, &self.calendar).end(Level::Day, unit.0)?;
            }
            units.push(unit);
        }
        self.audit_units_of_day(view, (level, finer), &units, audit)
    }

    /// Compares units that begin on one day. Together, because a finished day is packed as a whole.
    fn audit_units_of_day(
        &self,
        view: &Connection,
        (level, finer): (Level, Level),
        units: &[Unit],
        audit: &mut Audit,
    ) -> Result<(), LedgerError> {
        let (Some(first), Some(last)) = (units.first(), units.last()) else { return Ok(()) };
        for kind in KINDS {
            let coarse = Selection::all(&kind, level, (first.0, last.0 + 1));
            let coarse = sums_of_units(view, &coarse, units, |start, unit| start == unit.0)?;
            let fine = Selection::all(&kind, finer, (first.0, last.1));
            let fine = sums_of_units(view, &fine, units, |start, unit| start < unit.1)?;
            for ((coarse, fine), (start, _)) in coarse.iter().zip(&fine).zip(units) {
                let differing = differences(coarse, fine);
                if differing > 0 {
                    let label = Borders::new(view, &self.calendar).label(level, *start)?;
                    let (above, below) = (kind.table(level), kind.table(finer));
                    audit
                        .problems
                        .push(format!("{above} {label}: {differing} rows are not the sums of {below}"));
                }
            }
        }
        Ok(())
    }
}

/// Start and end of an hour, day or month in seconds since the Unix epoch.
type Unit = (i64, i64);

/// The sums of each of these units, of the selected rows that belong to it. Of a row's start and the last unit that
/// begins at or before it, `belongs` says whether it does.
fn sums_of_units(
    view: &Connection,
    of: &Selection<'_>,
    units: &[Unit],
    belongs: impl Fn(i64, &Unit) -> bool,
) -> Result<Vec<Sums>, LedgerError> {
    let mut sums = vec![Sums::new(); units.len()];
    read::each(view, of, |row| {
        let at = units.partition_point(|unit| unit.0 <= row.start).checked_sub(1);
        if let Some(at) = at.filter(|&at| belongs(row.start, &units[at])) {
            read::add(&mut sums[at], &row);
        }
        Ok(())
    })?;
    Ok(sums)
}

/// Counts the rows that differ between two levels: one that both have with other values counts twice.
fn differences(coarse: &Sums, fine: &Sums) -> usize {
    let only = |these: &Sums, others: &Sums| {
        these.iter().filter(|(series, values)| others.get(*series) != Some(values)).count()
    };
    only(coarse, fine) + only(fine, coarse)
}

/// Finds rows of unlisted units, which would be in no sum.
fn audit_units(view: &Connection, audit: &mut Audit) -> Result<(), LedgerError> {
    for kind in KINDS {
        for level in Level::ALL {
            let table = kind.table(level);
            let sql = format!(
                "SELECT DISTINCT start FROM {} EXCEPT SELECT start FROM unit WHERE level = ?1",
                kind.rows_table(level)
            );
            let mut unlisted: BTreeSet<i64> = view
                .prepare_cached(&sql)?
                .query_map([level as u8], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let units = "SELECT start FROM unit WHERE level = ?1";
            let units: BTreeSet<i64> = view
                .prepare_cached(units)?
                .query_map([level as u8], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let packed = read::packed_starts(view, &kind, level, (i64::MIN, i64::MAX))?;
            unlisted.extend(packed.difference(&units));
            if !unlisted.is_empty() {
                audit.problems.push(format!("{table}: {} units are not listed", unlisted.len()));
            }
            let Some(days) = kind.days_table(level) else { continue };
            let sql = format!(
                "SELECT count(*) FROM {days} WHERE start NOT IN (SELECT start FROM border WHERE level = 2)"
            );
            let unlisted: i64 = view.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
            if unlisted > 0 {
                audit.problems.push(format!("{days}: the days of {unlisted} rows are not listed"));
            }
        }
    }
    Ok(())
}

fn audit_chain(view: &Connection, audit: &mut Audit) -> Result<(), LedgerError> {
    let mut statement = view.prepare_cached("SELECT seq, kind, subject, hash FROM chain ORDER BY seq")?;
    let mut rows = statement.query([])?;
    let mut expected_seq = 1;
    let mut latest = Version::One;
    while let Some(row) = rows.next()? {
        let (seq, kind, subject): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let hash: String = row.get(3)?;
        if seq != expected_seq {
            audit.problems.push(format!("chain: entry {expected_seq} is missing"));
        }
        expected_seq = seq + 1;
        let entry = Entry { seq, kind: &kind, subject, previous: audit.chain_hash.as_deref() };
        let what = match (matching_version(view, &entry, &hash)?, latest) {
            (Some(Version::One), Version::Two) => Some("is of version 1, after an entry of version 2"),
            (Some(version), _) => {
                latest = version;
                None
            }
            (None, _) => Some("does not match its rows"),
        };
        if let Some(what) = what {
            audit.problems.push(format!("chain: the hash of entry {seq} ({kind} {subject}) {what}"));
        }
        audit.chain_entries += 1;
        audit.chain_hash = Some(hash);
    }
    for (table, kind) in [("period", "period"), ("adjustment", "adjustment"), ("key_change", "key")] {
        let sql = format!(
            "SELECT count(*) FROM {table} WHERE id NOT IN (SELECT subject FROM chain WHERE kind = ?1)"
        );
        let unchained: i64 = view.prepare_cached(&sql)?.query_row([kind], |row| row.get(0))?;
        if unchained > 0 {
            audit.problems.push(format!("chain: {unchained} rows of {table} are in no entry"));
        }
    }
    Ok(())
}

/// Checks that closed periods equal their month's rows: nothing may have been written into them since.
fn audit_closed(view: &Connection, audit: &mut Audit) -> Result<(), LedgerError> {
    let live =
        "SELECT t.container, t.class, t.family, sum(t.in_packets), sum(t.in_bytes), sum(t.out_packets),
            sum(t.out_bytes) FROM traffic_month t WHERE t.start = ?2 GROUP BY 1, 2, 3";
    let frozen =
        "SELECT number, class, family, sum(in_packets), sum(in_bytes), sum(out_packets), sum(out_bytes)
        FROM closed_row WHERE period = ?1 GROUP BY 1, 2, 3";
    let sql = format!(
        "SELECT (SELECT count(*) FROM ({live} EXCEPT {frozen}))
             + (SELECT count(*) FROM ({frozen} EXCEPT {live}))"
    );
    let mut statement = view.prepare_cached("SELECT id, start, name FROM period ORDER BY start")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, start, name): (i64, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let differing: i64 = view.prepare_cached(&sql)?.query_row(params![id, start], |row| row.get(0))?;
        if differing > 0 {
            audit.problems.push(format!("closed period {name}: {differing} rows differ from its month"));
        }
    }
    Ok(())
}
