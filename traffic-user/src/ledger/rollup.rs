//! Sums of the coarser levels, made from the finer ones when a unit is over, and made again when something is booked
//! into it later; and dropping what has been kept long enough.
//!
//! A rollup replaces the rows of one unit in one transaction, so it can be interrupted and repeated at will. Until it is done
//! the finer unit is marked dirty and readers use the finer rows.

use std::collections::BTreeSet;

use jiff::{Span, Timestamp, ToSpan as _};
use rusqlite::{Connection, TransactionBehavior, params};

use super::bucket::{Calendar, Level};
use super::error::LedgerError;
use super::names;
use super::schema::{KINDS, Kind};
use super::store::Ledger;

/// How long finer levels are kept. Days and months are kept for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days of five-minute rows.
    pub five_minutes_days: u16,
    /// Months of hourly rows.
    pub hours_months: u16,
}

impl Default for Retention {
    /// 35 days and 13 months.
    fn default() -> Self {
        Self { five_minutes_days: 35, hours_months: 13 }
    }
}

/// What maintenance did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Hours, days and months that were summed up.
    pub rolled_up: usize,
    /// Rows that were dropped because their time was over.
    pub dropped_rows: usize,
}

/// Nothing is dropped before the clock has been steady for so long: a clock in the wrong year must not cost anything.
const STEADY_S: i64 = 86_400;

impl Ledger {
    /// Sums up the units that are over and drops rows that were kept long enough. To be called after a drain now and
    /// then, by the writer; it commits often and may stop anywhere.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn maintain(&mut self, now: Timestamp) -> Result<Maintenance, LedgerError> {
        let open = last_bucket(&self.conn)?;
        let mut done = Maintenance::default();
        for level in [Level::Hour, Level::Day, Level::Month] {
            done.rolled_up += self.roll_up(level, open)?;
        }
        done.dropped_rows = self.drop_old(now)?;
        if done != Maintenance::default() {
            self.checkpoint()?;
        }
        Ok(done)
    }

    fn roll_up(&mut self, level: Level, open: Option<i64>) -> Result<usize, LedgerError> {
        let Some(finer) = level.finer() else { return Ok(0) };
        let mut rolled_up = 0;
        for start in units_over_dirty(&self.conn, &self.calendar, finer, level)? {
            let end = self.calendar.end(level, start)?;
            if open.is_some_and(|open| start <= open && open < end) {
                continue;
            }
            let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for kind in KINDS {
                transaction
                    .execute(&format!("DELETE FROM {} WHERE start = ?1", kind.table(level)), [start])?;
                transaction.execute(&sum_up(&kind, level, finer), [start, end])?;
            }
            // Months are the last level: nothing is made from them.
            let dirty = level != Level::Month;
            transaction.execute(
                "INSERT INTO unit (level, start, end, dirty, finest) VALUES (?1, ?2, ?3, ?4, 0)
                 ON CONFLICT (level, start) DO UPDATE SET dirty = excluded.dirty",
                params![level as u8, start, end, dirty],
            )?;
            transaction.execute(
                "UPDATE unit SET dirty = 0 WHERE level = ?1 AND start >= ?2 AND start < ?3 AND dirty",
                params![finer as u8, start, end],
            )?;
            transaction.commit()?;
            rolled_up += 1;
        }
        Ok(rolled_up)
    }

    fn drop_old(&mut self, now: Timestamp) -> Result<usize, LedgerError> {
        let steady_since = names::meta_integer(&self.conn, "steady_since")?;
        if steady_since.is_none_or(|since| now.as_second() - since < STEADY_S) {
            return Ok(0);
        }
        let months = Span::new().months(i64::from(self.retention.hours_months));
        let days = i64::from(self.retention.five_minutes_days).days();
        Ok(self.drop_level(Level::FiveMinutes, now, days)? + self.drop_level(Level::Hour, now, months)?)
    }

    /// Drops rows of a level that are older than a span, in whole units of the level above, all of which are summed up.
    fn drop_level(&mut self, level: Level, now: Timestamp, kept: Span) -> Result<usize, LedgerError> {
        let (above, key) = match level {
            Level::FiveMinutes => (Level::Hour, "dropped_before_5min"),
            _ => (Level::Day, "dropped_before_hour"),
        };
        let oldest = now.to_zoned(self.calendar.zone().clone()).checked_sub(kept)?.timestamp().as_second();
        let horizon = self.calendar.start(above, oldest)?;
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let waiting: i64 = transaction.query_row(
            "SELECT count(*) FROM unit WHERE level <= ?1 AND dirty AND start < ?2",
            params![level as u8, horizon],
            |row| row.get(0),
        )?;
        let dropped_before = names::meta_integer(&transaction, key)?;
        if waiting > 0 || dropped_before.is_some_and(|before| before >= horizon) {
            return Ok(0);
        }
        let mut rows = 0;
        for kind in KINDS {
            rows += transaction
                .execute(&format!("DELETE FROM {} WHERE start < ?1", kind.table(level)), [horizon])?;
        }
        transaction
            .execute("DELETE FROM unit WHERE level = ?1 AND start < ?2", params![level as u8, horizon])?;
        transaction.execute(
            "UPDATE unit SET finest = 1 WHERE level = ?1 AND start < ?2 AND start >= ?3",
            params![above as u8, horizon, dropped_before.unwrap_or(i64::MIN)],
        )?;
        if level == Level::FiveMinutes {
            transaction.execute("DELETE FROM span WHERE bucket < ?1", [horizon])?;
        }
        names::set_meta_integer(&transaction, key, horizon)?;
        transaction.commit()?;
        Ok(rows)
    }
}

fn sum_up(kind: &Kind, level: Level, finer: Level) -> String {
    let keys = kind.keys.join(", ");
    let sums: Vec<String> = kind.values.iter().map(|value| format!("sum({value})")).collect();
    format!(
        "INSERT INTO {} (start, {keys}, {}) SELECT ?1, {keys}, {} FROM {} WHERE start >= ?1 AND start < ?2
         GROUP BY {keys}",
        kind.table(level),
        kind.values.join(", "),
        sums.join(", "),
        kind.table(finer),
    )
}

/// The bucket of the last reading, which is not over.
pub(super) fn last_bucket(conn: &Connection) -> Result<Option<i64>, LedgerError> {
    let sql = "SELECT last_bucket FROM epoch WHERE drains > 0 ORDER BY drains DESC LIMIT 1";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
}

/// Units of `level` that hold a dirty unit of `finer`, by their starts.
fn units_over_dirty(
    conn: &Connection,
    calendar: &Calendar,
    finer: Level,
    level: Level,
) -> Result<BTreeSet<i64>, LedgerError> {
    let mut statement =
        conn.prepare_cached("SELECT start FROM unit WHERE level = ?1 AND dirty ORDER BY start")?;
    let mut rows = statement.query([finer as u8])?;
    let mut starts = BTreeSet::new();
    while let Some(row) = rows.next()? {
        starts.insert(calendar.start(level, row.get(0)?)?);
    }
    Ok(starts)
}

/// Units of a level whose rows are not up to date, because something below them was not summed up yet.
pub(super) fn pending(
    conn: &Connection,
    calendar: &Calendar,
    level: Level,
) -> Result<BTreeSet<i64>, LedgerError> {
    let mut pending = BTreeSet::new();
    for finer in Level::ALL.into_iter().take_while(|&finer| finer < level) {
        pending.append(&mut units_over_dirty(conn, calendar, finer, level)?);
    }
    Ok(pending)
}
