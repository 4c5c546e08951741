//! Rollups: sums finished units into coarser levels, and drops rows that were kept long enough.
//!
//! A rollup replaces all rows of one unit in one transaction, so it can be interrupted and repeated. Until
//! then the finer unit is dirty and readers use the finer rows. If something is written into a unit later, it
//! is summed again. Rows are dropped in whole days, in one transaction with the note of what is dropped, and
//! only where nothing below is dirty; `retention` says which. Finished days are packed in between (`days/pack`).

use std::{
    iter,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};
use traffic_model::calendar::{Calendar, Level};

use crate::{
    days::{
        read::{self, Selection},
        take_out::{Fate, take_out},
    },
    error::LedgerError,
    ids, outbox,
    schema::{KINDS, Kind},
    store::Ledger,
    time::borders::Borders,
    write::{
        pace::{Pace, in_transactions},
        rollup_state::{last_bucket, units_above_dirty},
    },
};

/// What a call of maintenance did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Hours, days and months that were summed.
    pub rolled_up: usize,
    /// Steps towards the digests of a ledger from a version without.
    pub digests: usize,
    /// Series of finished days that were packed.
    pub packed_series: usize,
    /// Rows that were dropped because their retention is over. A packed day of a series is one row.
    pub dropped_rows: usize,
    /// Whether the time ran out before the work was done. Call again to continue.
    pub unfinished: bool,
}

/// Key of the time before which five-minute rows are dropped.
pub(crate) const DROPPED_FIVE_MINUTES: &str = "dropped_before_5min";
impl Maintenance {
    pub(crate) const fn did_anything(&self) -> bool {
        self.digests > 0 || self.rolled_up > 0 || self.packed_series > 0 || self.dropped_rows > 0
    }
}

impl Ledger {
    /// Sums all finished units and drops all rows whose retention is over, however long it takes. It commits
    /// often, so that other writers can proceed.
    ///
    /// # Errors
    /// When the file cannot be written. What was committed before stays.
    pub fn maintain(&mut self, now: Timestamp) -> Result<Maintenance, LedgerError> {
        self.maintain_at_pace(now, Pace { until: None })
    }

    /// Does the same within a time limit. [`Maintenance::unfinished`] says whether to call again.
    ///
    /// Each call does at least one unit, so it always makes progress. It may exceed `time` by one unit, which
    /// takes a few tenths of a second for a month of a large node.
    ///
    /// # Errors
    /// As [`Ledger::maintain`].
    pub fn maintain_for(&mut self, now: Timestamp, time: Duration) -> Result<Maintenance, LedgerError> {
        self.maintain_at_pace(now, Pace { until: Some(Instant::now() + time) })
    }

    /// Sums all finished units, and does nothing else.
    #[cfg(test)]
    pub(crate) fn roll_up_only(&mut self) -> Result<(), LedgerError> {
        let open = last_bucket(&self.conn)?;
        let mut done = Maintenance::default();
        let pace = Pace { until: None };
        [Level::Hour, Level::Day, Level::Month]
            .into_iter()
            .try_for_each(|level| self.roll_up(level, open, pace, &mut done))
    }

    fn maintain_at_pace(&mut self, now: Timestamp, pace: Pace) -> Result<Maintenance, LedgerError> {
        self.check_files()?;
        let open = last_bucket(&self.conn)?;
        let mut done = Maintenance::default();
        self.compute_digests(pace, &mut done)?;
        // Start a level only when the finer one is done; otherwise units would be summed several times.
        for level in [Level::Hour, Level::Day, Level::Month] {
            if !done.unfinished {
                self.roll_up(level, open, pace, &mut done)?;
            }
        }
        if !done.unfinished {
            self.pack_days(open, pace, &mut done)?;
        }
        if !done.unfinished {
            self.drop_old(now, pace, &mut done)?;
        }
        if done.did_anything() {
            self.checkpoint()?;
        }
        Ok(done)
    }

    /// Computes the digests that a migration left. First, because sums and packed days change what is read.
    fn compute_digests(&mut self, pace: Pace, done: &mut Maintenance) -> Result<(), LedgerError> {
        while self.digests.step(&self.conn)? {
            done.digests += 1;
            if pace.is_over() {
                done.unfinished = true;
                break;
            }
        }
        Ok(())
    }

    fn roll_up(
        &mut self,
        level: Level,
        open: Option<i64>,
        pace: Pace,
        done: &mut Maintenance,
    ) -> Result<(), LedgerError> {
        let Some(finer) = level.finer() else { return Ok(()) };
        let mut units = Vec::new();
        for start in units_above_dirty(&self.conn, &self.calendar, finer, level)? {
            let end = Borders::new(&self.conn, &self.calendar).end(level, start)?;
            if !open.is_some_and(|open| start <= open && open < end) {
                units.push((start, end));
            }
        }
        in_transactions(&mut self.conn, pace, done, units, |transaction, (start, end), done| {
            done.rolled_up += usize::from(roll_up_unit(transaction, level, finer, start, end)?);
            Ok(ControlFlow::Continue(()))
        })
    }

    fn drop_old(&mut self, now: Timestamp, pace: Pace, done: &mut Maintenance) -> Result<(), LedgerError> {
        let Some(now) = self.dropping_clock(now)? else { return Ok(()) };
        for level in [Level::FiveMinutes, Level::Hour] {
            let Some(dropping) = Dropping::of(level) else { continue };
            let mut horizon = self.horizon(level, now)?;
            if horizon == i64::MIN {
                continue;
            }
            if level == Level::Hour {
                // A late write into kept five-minute rows sums its day again, which needs all hours of that
                // day.
                let Some(before) = ids::meta(&self.conn, DROPPED_FIVE_MINUTES)? else { continue };
                horizon = horizon.min(Borders::new(&self.conn, &self.calendar).start(Level::Day, before)?);
            }
            self.drop_level(dropping, horizon, pace, done)?;
        }
        Ok(())
    }

    /// Drops rows of a level that are older than `horizon` (Unix seconds), in whole days.
    fn drop_level(
        &mut self,
        dropping: Dropping,
        horizon: i64,
        pace: Pace,
        done: &mut Maintenance,
    ) -> Result<(), LedgerError> {
        let is_dropped = |before: Option<i64>| before.is_some_and(|before| before >= horizon);
        if is_dropped(ids::meta(&self.conn, dropping.key)?) {
            return Ok(());
        }
        let calendar = &self.calendar;
        in_transactions(&mut self.conn, pace, done, iter::repeat(()), |transaction, (), done| {
            let dropped_before = ids::meta(transaction, dropping.key)?;
            let waiting = "SELECT 1 FROM unit WHERE level <= ?1 AND dirty AND start < ?2";
            if is_dropped(dropped_before)
                || transaction.prepare_cached(waiting)?.exists(params![dropping.level as u8, horizon])?
            {
                return Ok(ControlFlow::Break(()));
            }
            // Never move backwards, even if rows exist where none should be.
            let before = dropping.next(transaction, calendar, horizon)?;
            let before = before.max(dropped_before.unwrap_or(before));
            done.dropped_rows += dropping.drop_before(transaction, before, dropped_before)?;
            Ok(ControlFlow::Continue(()))
        })
    }
}

/// Sums a unit from the finer rows if it is dirty. Returns whether it was.
///
/// The check is essential: since the units were listed, another process may have summed this one and dropped
/// its finer rows.
pub(crate) fn roll_up_unit(
    transaction: &Connection,
    level: Level,
    finer: Level,
    start: i64,
    end: i64,
) -> Result<bool, LedgerError> {
    let dirty = "SELECT 1 FROM unit WHERE level = ?1 AND start >= ?2 AND start < ?3 AND dirty";
    if !transaction.prepare_cached(dirty)?.exists(params![finer as u8, start, end])? {
        return Ok(false);
    }
    for kind in KINDS {
        remove_sums(transaction, &kind, level, start)?;
        transaction.prepare_cached(&sum_up(&kind, level, finer))?.execute([start, end])?;
        add_packed(transaction, &kind, level, &Selection::all(&kind, finer, (start, end)))?;
    }
    // Months are the last level, so nothing depends on them.
    let dirty = level != Level::Month;
    transaction
        .prepare_cached(
            "INSERT INTO unit (level, start, end, dirty, finest) VALUES (?1, ?2, ?3, ?4, 0)
             ON CONFLICT (level, start) DO UPDATE SET dirty = excluded.dirty",
        )?
        .execute(params![level as u8, start, end, dirty])?;
    transaction
        .prepare_cached(
            "UPDATE unit SET dirty = 0 WHERE level = ?1 AND start >= ?2 AND start < ?3 AND dirty",
        )?
        .execute(params![finer as u8, start, end])?;
    Ok(true)
}

/// Removes the rows of one unit, in both forms.
pub(crate) fn remove_sums(
    transaction: &Connection,
    kind: &Kind,
    level: Level,
    start: i64,
) -> Result<(), LedgerError> {
    transaction
        .prepare_cached(&format!("DELETE FROM {} WHERE start = ?1", kind.rows_table(level)))?
        .execute([start])?;
    take_out(transaction, (kind, level), (start, start + 1), "", Fate::Removed)?;
    Ok(())
}

/// Adds what packed days hold of a unit to its rows. There is something only if the unit was summed before.
fn add_packed(
    transaction: &Connection,
    kind: &Kind,
    level: Level,
    finer: &Selection<'_>,
) -> Result<(), LedgerError> {
    let mut upsert = transaction.prepare_cached(&kind.upsert_at(level))?;
    for (series, values) in read::packed_sums(transaction, finer)? {
        let values = values.into_iter().take(kind.values.len()).map(u64::cast_signed);
        let keys = series.into_iter().take(kind.keys.len());
        upsert.execute(params_from_iter([finer.range.0].into_iter().chain(keys).chain(values)))?;
    }
    Ok(())
}

/// A level whose rows expire.
#[derive(Clone, Copy, Debug)]
struct Dropping {
    level: Level,
    /// The level whose rows are the finest ones then.
    above: Level,
    /// Key of the time before which rows are dropped.
    key: &'static str,
}

impl Dropping {
    /// `None` for levels that are kept forever.
    const fn of(level: Level) -> Option<Self> {
        match level {
            Level::FiveMinutes => Some(Self { level, above: Level::Hour, key: DROPPED_FIVE_MINUTES }),
            Level::Hour => Some(Self { level, above: Level::Day, key: "dropped_before_hour" }),
            Level::Day | Level::Month => None,
        }
    }

    /// End of the earliest day that still has rows before `horizon`, or `horizon` if none has. Unix
    /// seconds.
    fn next(self, conn: &Connection, calendar: &Calendar, horizon: i64) -> Result<i64, LedgerError> {
        let first: Option<i64> = conn
            .prepare_cached("SELECT start FROM unit WHERE level = ?1 AND start < ?2 ORDER BY start LIMIT 1")?
            .query_row(params![self.level as u8, horizon], |row| row.get(0))
            .optional()?;
        let Some(first) = first else { return Ok(horizon) };
        Ok(Borders::new(conn, calendar).end(Level::Day, first)?.min(horizon))
    }

    /// Drops all rows that begin before `before` (Unix seconds). Returns the number of rows.
    fn drop_before(
        self,
        transaction: &Connection,
        before: i64,
        dropped_before: Option<i64>,
    ) -> Result<usize, LedgerError> {
        let mut rows = 0;
        for kind in KINDS {
            rows += transaction
                .prepare_cached(&format!("DELETE FROM {} WHERE start < ?1", kind.rows_table(self.level)))?
                .execute([before])?;
            rows += drop_packed(transaction, &kind, self.level, before)?;
        }
        transaction
            .prepare_cached("DELETE FROM unit WHERE level = ?1 AND start < ?2")?
            .execute(params![self.level as u8, before])?;
        transaction
            .prepare_cached("UPDATE unit SET finest = 1 WHERE level = ?1 AND start < ?2 AND end > ?3")?
            .execute(params![self.above as u8, before, dropped_before.unwrap_or(i64::MIN)])?;
        if self.level == Level::FiveMinutes {
            transaction.prepare_cached("DELETE FROM span WHERE bucket < ?1")?.execute([before])?;
            outbox::forget_before(transaction, before)?;
        }
        ids::set_meta(transaction, self.key, before)?;
        Ok(rows)
    }
}

/// Drops packed days that are over before `before` (Unix seconds), and the older part of a day that is not.
/// Returns the number of rows.
fn drop_packed(
    transaction: &Connection,
    kind: &Kind,
    level: Level,
    before: i64,
) -> Result<usize, LedgerError> {
    let Some(table) = kind.days_table(level) else { return Ok(0) };
    let over = "SELECT start FROM border WHERE level = 2 AND end <= ?1";
    let rows = transaction
        .prepare_cached(&format!("DELETE FROM {table} WHERE start < ?1 AND start IN ({over})"))?
        .execute([before])?;
    take_out(transaction, (kind, level), (i64::MIN, before), "", Fate::Removed)?;
    Ok(rows)
}

fn sum_up(kind: &Kind, level: Level, finer: Level) -> String {
    let keys = kind.keys.join(", ");
    let sums: Vec<String> = kind.values.iter().map(|value| format!("sum({value})")).collect();
    format!(
        "INSERT INTO {} (start, {keys}, {}) SELECT ?1, {keys}, {} FROM {} WHERE start >= ?1 AND start < ?2
         GROUP BY {keys}",
        kind.rows_table(level),
        kind.values.join(", "),
        sums.join(", "),
        kind.rows_table(finer),
    )
}
