//! The borders of hours. They are kept by `unit` once they are summed, and lie within their day.

use rusqlite::{OptionalExtension as _, params};
use traffic_model::calendar::Level;

use crate::{error::LedgerError, time::borders::Borders};

impl Borders<'_> {
    /// The hours of a span, with one query for all of them.
    pub(super) fn cover_with_hours(&self, from: i64, to: i64) -> Result<Vec<(i64, i64)>, LedgerError> {
        let mut units = Vec::new();
        let mut known = self.conn.prepare_cached(
            "SELECT start, end FROM unit WHERE level = 1 AND start >= ?1 AND start < ?2 ORDER BY start",
        )?;
        let mut at = from;
        for day in self.cover(Level::Day, from, to)? {
            let stored: Vec<(i64, i64)> = known
                .query_map([day.0, day.1], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            while at < day.1.min(to) {
                let next = stored.partition_point(|hour| hour.0 <= at);
                let before = next.checked_sub(1).map(|last| stored[last]);
                let hour = self.hour_between(at, day, before, stored.get(next).copied())?;
                at = hour.1;
                units.push(hour);
            }
        }
        Ok(units)
    }

    /// The hour that contains an instant.
    pub(super) fn hour(&self, at: i64) -> Result<(i64, i64), LedgerError> {
        let hour = Level::Hour as u8;
        let before =
            "SELECT start, end FROM unit WHERE level = ?1 AND start <= ?2 ORDER BY start DESC LIMIT 1";
        let after = "SELECT start, end FROM unit WHERE level = ?1 AND start > ?2 ORDER BY start LIMIT 1";
        let find = |sql: &str| -> Result<Option<(i64, i64)>, LedgerError> {
            let mut statement = self.conn.prepare_cached(sql)?;
            Ok(statement.query_row(params![hour, at], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
        };
        self.hour_between(at, self.unit(Level::Day, at)?, find(before)?, find(after)?)
    }

    /// The hour of a day that contains an instant. The stored hours before and after it keep their borders.
    fn hour_between(
        &self,
        at: i64,
        mut limits: (i64, i64),
        before: Option<(i64, i64)>,
        after: Option<(i64, i64)>,
    ) -> Result<(i64, i64), LedgerError> {
        if let Some((start, end)) = before {
            if at < end {
                return Ok((start, end));
            }
            limits.0 = limits.0.max(end);
        }
        if let Some((start, _)) = after {
            limits.1 = limits.1.min(start);
        }
        let start = self.calendar.start(Level::Hour, at)?;
        Ok((start.max(limits.0), self.calendar.end(Level::Hour, start)?.min(limits.1)))
    }
}
