//! Which five-minute rows and hours are dropped: those whose retention is over, unless a month that is to be closed, or a
//! store that has not verified them, needs them.

use jiff::{Span, Timestamp, ToSpan as _};
use rusqlite::OptionalExtension as _;
use traffic_model::calendar::{Level, Retention};

use crate::{
    error::LedgerError,
    store::Ledger,
    time::{borders::Borders, clock_line::ClockLine},
    write::clock,
};

/// What a store was found to hold of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifiedRows {
    /// Everything before this time was found equal, Unix seconds.
    pub until_s: i64,
    /// The ledger's change number then: what changed later was not compared.
    pub changes: i64,
    /// The token of that number; see [`Ledger::lineage_at`].
    pub token: Option<String>,
    /// What begins at this time or later was found to differ since.
    pub differing_from_s: Option<i64>,
}

/// Five-minute rows that are kept longer than their retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldRows {
    /// Start of the oldest.
    pub oldest: Timestamp,
    /// When the retention of their day was over.
    pub since: Timestamp,
}

impl Ledger {
    /// Keeps five-minute rows from this time on (Unix seconds), however old they are. `None`: as long as the retention
    /// says.
    pub const fn hold_five_minutes(&mut self, from_s: Option<i64>) {
        self.held_from = from_s;
    }

    /// The time (Unix seconds) before which a store has verified all five-minute rows of this ledger. `i64::MIN` if
    /// nothing is known of it, as when the ledger went back to an earlier state since.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn verified_before(&self, verified: &VerifiedRows) -> Result<i64, LedgerError> {
        let VerifiedRows { until_s, changes, token, differing_from_s } = verified;
        if self.lineage_at(*changes)? != *token {
            return Ok(i64::MIN);
        }
        let sql = "SELECT min(part) FROM outbox WHERE name = '5min' AND rev > ?1";
        let changed: Option<i64> =
            self.conn.prepare_cached(sql)?.query_row([changes], |row| row.get(0)).optional()?.flatten();
        Ok([changed, *differing_from_s].into_iter().flatten().fold(*until_s, i64::min))
    }

    /// The five-minute rows that are beyond a retention, and from a time on (Unix seconds).
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn held(
        &self,
        retention: Retention,
        from_s: i64,
        now: Timestamp,
    ) -> Result<Option<HeldRows>, LedgerError> {
        let Some(now) = self.dropping_clock(now)? else { return Ok(None) };
        let horizon = self.five_minutes_horizon(retention, now)?;
        let from = self.day_of(from_s)?;
        let sql = "SELECT min(start) FROM unit WHERE level = 0 AND start >= ?1 AND start < ?2";
        let oldest: Option<i64> = self.conn.query_row(sql, [from, horizon], |row| row.get(0))?;
        let Some(oldest) = oldest else { return Ok(None) };
        let end = Borders::new(&self.conn, &self.calendar).end(Level::Day, oldest)?;
        let days = i64::from(retention.five_minutes_days).days();
        let since = Timestamp::from_second(end)?.to_zoned(self.calendar.zone().clone()).checked_add(days)?;
        Ok(Some(HeldRows { oldest: Timestamp::from_second(oldest)?, since: since.timestamp() }))
    }

    /// The time by which rows may be dropped; `None` while the clock is not trusted. A wrong year must not cost any row,
    /// and the caller's clock may be ahead of the last reading's.
    pub(crate) fn dropping_clock(&self, now: Timestamp) -> Result<Option<Timestamp>, LedgerError> {
        let Some(line) = clock::load(&self.conn)?.filter(ClockLine::may_drop) else { return Ok(None) };
        Ok(Some(now.min(Timestamp::from_millisecond(line.time_ms())?)))
    }

    /// The time before which rows of a level are dropped, by the retention and by what was held. Unix seconds.
    pub(crate) fn horizon(&self, level: Level, now: Timestamp) -> Result<i64, LedgerError> {
        if level == Level::FiveMinutes {
            let horizon = self.five_minutes_horizon(self.retention, now)?;
            return Ok(match self.held_from {
                Some(from) => horizon.min(self.day_of(from)?),
                None => horizon,
            });
        }
        let months = Span::new().months(i64::from(self.retention.hours_months));
        self.day_before(now, months)
    }

    fn five_minutes_horizon(&self, retention: Retention, now: Timestamp) -> Result<i64, LedgerError> {
        let oldest = self.before(now, i64::from(retention.five_minutes_days).days())?;
        self.day_of(self.kept_to_close(oldest, now)?)
    }

    fn before(&self, now: Timestamp, kept: Span) -> Result<i64, LedgerError> {
        let zone = self.calendar.zone().clone();
        Ok(now.to_zoned(zone).checked_sub(kept)?.timestamp().as_second())
    }

    fn day_before(&self, now: Timestamp, kept: Span) -> Result<i64, LedgerError> {
        self.day_of(self.before(now, kept)?)
    }

    /// Start of the day that contains a time. Nothing is before the beginning of all time.
    fn day_of(&self, at: i64) -> Result<i64, LedgerError> {
        if at == i64::MIN { Ok(at) } else { Borders::new(&self.conn, &self.calendar).start(Level::Day, at) }
    }

    /// Whoever closes months finds their five-minute rows then, for percentiles: they are kept until the month
    /// is closed, or until another one is over. Unix seconds.
    fn kept_to_close(&self, oldest: i64, now: Timestamp) -> Result<i64, LedgerError> {
        let closed: Option<i64> =
            self.conn.prepare_cached("SELECT max(end) FROM period")?.query_row([], |row| row.get(0))?;
        let Some(closed) = closed else { return Ok(oldest) };
        let borders = Borders::new(&self.conn, &self.calendar);
        let this_month = borders.start(Level::Month, now.as_second())?;
        let last_month = borders.start(Level::Month, this_month - 1)?;
        Ok(oldest.min(closed.max(last_month)))
    }
}
