//! The borders of hours, days and months as they were booked.
//!
//! A day or month gets its borders when the first traffic is written into it, and keeps them: the table
//! `border` holds its start, its end, and the date that names it. Later changes of a zone's rules, another
//! machine's rules, or a lost name do not move it. Hours are kept by `unit` once they are summed. Only time
//! without traffic follows the current rules, between the stored neighbours.
//!
//! The end of a unit is still open while nothing is written after it, so an update of the rules that comes in
//! time still applies to it ([`Borders::book`]).

use jiff::{civil::Date, tz::Offset};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use traffic_model::calendar::{Calendar, FIVE_MINUTES_S, Level, five_minutes_of};

use crate::{error::LedgerError, time::loaded_borders::LoadedBorders};

/// A day or month. Times in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamedUnit {
    pub start: i64,
    pub end: i64,
    /// The date of a day, or the first date of a month.
    pub name: Date,
}

impl NamedUnit {
    /// The label of a day or month.
    pub fn label(&self, level: Level) -> String {
        self.name.strftime(if level == Level::Month { "%Y-%m" } else { "%Y-%m-%d" }).to_string()
    }
}

/// The borders of a ledger, valid within one transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Borders<'a> {
    pub(super) conn: &'a Connection,
    pub(super) calendar: &'a Calendar,
    /// Those of a span, if they were read.
    loaded: Option<&'a LoadedBorders>,
}

/// What limits a unit that is not stored: the first possible start and name, and the end of both.
#[derive(Clone, Copy, Debug)]
struct Limits {
    from: Option<(i64, Date)>,
    until: Option<(i64, Date)>,
}

impl Limits {
    fn not_before(&mut self, start: i64, name: Date) {
        let limit = self.from.map_or((start, name), |(at, date)| (at.max(start), date.max(name)));
        self.from = Some(limit);
    }

    fn not_after(&mut self, end: i64, name: Date) {
        let limit = self.until.map_or((end, name), |(at, date)| (at.min(end), date.min(name)));
        self.until = Some(limit);
    }

    /// The start of the unit with this name: where its predecessor ends, if that is the limit.
    fn start(&self, name: Date, by_rules: i64) -> i64 {
        match self.from {
            Some((from, first)) if name <= first => from,
            Some((from, _)) => by_rules.max(from),
            None => by_rules,
        }
    }

    /// The end of the unit whose successor has this name.
    fn end(&self, next: Date, by_rules: i64) -> i64 {
        match self.until {
            Some((until, end)) if next >= end => until,
            Some((until, _)) => by_rules.min(until),
            None => by_rules,
        }
    }
}

impl<'a> Borders<'a> {
    pub fn new(conn: &'a Connection, calendar: &'a Calendar) -> Self {
        Self { conn, calendar, loaded: None }
    }

    /// The calendar that borders follow unless they are stored.
    pub const fn calendar(&self) -> &'a Calendar {
        self.calendar
    }

    /// Start and end of the unit that contains an instant.
    pub fn unit(&self, level: Level, at: i64) -> Result<(i64, i64), LedgerError> {
        match level {
            Level::FiveMinutes => Ok((five_minutes_of(at), five_minutes_of(at) + FIVE_MINUTES_S)),
            Level::Hour => self.hour(at),
            Level::Day | Level::Month => self.named(level, at).map(|unit| (unit.start, unit.end)),
        }
    }

    /// Start of the unit that contains an instant.
    pub fn start(&self, level: Level, at: i64) -> Result<i64, LedgerError> {
        Ok(self.unit(level, at)?.0)
    }

    /// End of the unit that contains an instant.
    pub fn end(&self, level: Level, at: i64) -> Result<i64, LedgerError> {
        Ok(self.unit(level, at)?.1)
    }

    /// The units that cover `from..to`. The first begins at or before `from`.
    pub fn cover(&self, level: Level, from: i64, to: i64) -> Result<Vec<(i64, i64)>, LedgerError> {
        match level {
            Level::Hour => return self.cover_with_hours(from, to),
            Level::Day | Level::Month => {
                let units = self.named_cover(level, from, to)?;
                return Ok(units.into_iter().map(|unit| (unit.start, unit.end)).collect());
            }
            Level::FiveMinutes => {}
        }
        let mut units = Vec::new();
        let mut at = from;
        while at < to {
            let unit = self.unit(level, at)?;
            at = unit.1;
            units.push(unit);
        }
        Ok(units)
    }

    /// The days or months that cover `from..to`, as [`Self::cover`], with their names.
    pub fn named_cover(&self, level: Level, from: i64, to: i64) -> Result<Vec<NamedUnit>, LedgerError> {
        let loaded = LoadedBorders::read(self.conn, (from, to))?;
        let borders = Borders { loaded: Some(&loaded), ..*self };
        let mut units = Vec::new();
        let mut at = from;
        while at < to {
            let unit = borders.named(level, at)?;
            at = unit.end;
            units.push(unit);
        }
        Ok(units)
    }

    /// The label of the unit that contains an instant.
    pub fn label(&self, level: Level, at: i64) -> Result<String, LedgerError> {
        Ok(match level {
            Level::FiveMinutes => self.calendar.label(level, at)?,
            Level::Hour => self.calendar.label(level, self.start(level, at)?)?,
            Level::Day | Level::Month => self.named(level, at)?.label(level),
        })
    }

    /// The billing month named `YYYY-MM`.
    pub fn month_named(&self, name: &str) -> Result<(i64, i64), LedgerError> {
        let (start, end) = self.calendar.month_named(name)?;
        let by_name = "SELECT start, end FROM border WHERE level = ?1 AND substr(name, 1, 7) = ?2";
        let stored = self
            .conn
            .prepare_cached(by_name)?
            .query_row(params![Level::Month as u8, &name], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match stored {
            Some(stored) => Ok(stored),
            // Whatever moves its borders, its middle stays in it.
            None => self.unit(Level::Month, start.midpoint(end)),
        }
    }

    /// Start of the day with this date.
    pub fn date_start(&self, date: Date) -> Result<i64, LedgerError> {
        let (start, end) = (self.calendar.date_start(date)?, self.calendar.date_start(date.tomorrow()?)?);
        let by_name = "SELECT start FROM border WHERE level = ?1 AND name = ?2";
        let stored: Option<i64> = self
            .conn
            .prepare_cached(by_name)?
            .query_row(params![Level::Day as u8, date.to_string()], |row| row.get(0))
            .optional()?;
        if let Some(stored) = stored {
            return Ok(stored);
        }
        let unit = self.named(Level::Day, start.midpoint(end))?;
        Ok(if unit.name == date { unit.start } else { start })
    }

    /// The stored or computed day or month that contains an instant.
    pub fn named(&self, level: Level, at: i64) -> Result<NamedUnit, LedgerError> {
        if let Some(stored) = self.before(level, at)?.filter(|unit| at < unit.end) {
            return Ok(stored);
        }
        if level == Level::Month { self.computed_month(at) } else { self.computed_day(at) }
    }

    /// Stores the day and the month of a bucket, unless they are stored. Called before the first row is
    /// written into them.
    pub fn book(&self, bucket: i64) -> Result<(), LedgerError> {
        for level in [Level::Month, Level::Day] {
            // Before it is decided whether the bucket is in it: the bucket may be between its two ends.
            if let Some(last) = self.before(level, bucket)? {
                self.refresh_end(level, &last)?;
            }
            self.store(level, bucket)?;
        }
        Ok(())
    }

    /// Stores the unit that contains an instant, unless it is stored.
    pub fn store(&self, level: Level, at: i64) -> Result<(), LedgerError> {
        if self.before(level, at)?.is_some_and(|unit| at < unit.end) {
            return Ok(());
        }
        let unit = self.named(level, at)?;
        self.conn
            .prepare_cached("INSERT INTO border (level, start, end, name) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![level as u8, unit.start, unit.end, unit.name.to_string()])?;
        Ok(())
    }

    /// Moves the end of a unit to where the current rules put it, as long as nothing was written between the
    /// two. The last day of a month ends with it.
    fn refresh_end(&self, level: Level, unit: &NamedUnit) -> Result<(), LedgerError> {
        let end = self.calendar.date_start(self.next_name(level, unit.name)?)?;
        if end == unit.end || end <= unit.start {
            return Ok(());
        }
        if level == Level::Day {
            let month = self.before(Level::Month, unit.start)?;
            if month.is_some_and(|month| unit.end == month.end || end > month.end) {
                return Ok(());
            }
        }
        let (from, to) = (end.min(unit.end), end.max(unit.end));
        // Of a day whose hours were dropped, nobody knows any more where in it something was written.
        let written = "SELECT 1 FROM unit WHERE (level < 2 OR finest) AND end > ?1 AND start < ?2";
        // A unit that begins where this one ends keeps its neighbour. A month does not end within a day.
        let stored = "SELECT 1 FROM border WHERE start >= ?1 AND start <= ?2 OR end > ?1 AND end < ?2";
        let closed = "SELECT 1 FROM period WHERE start < ?2 AND end >= ?1";
        if self.conn.prepare_cached(written)?.exists([from, to])?
            || self.conn.prepare_cached(closed)?.exists([from, to])?
            || self.conn.prepare_cached(stored)?.exists([from, to])?
        {
            return Ok(());
        }
        for table in ["border", "unit"] {
            let sql = format!("UPDATE {table} SET end = ?1 WHERE level >= 2 AND end = ?2 AND start >= ?3");
            self.conn.prepare_cached(&sql)?.execute([end, unit.end, unit.start])?;
        }
        Ok(())
    }

    fn computed_day(&self, at: i64) -> Result<NamedUnit, LedgerError> {
        let mut limits = Limits { from: None, until: None };
        if let Some(day) = self.before(Level::Day, at)? {
            limits.not_before(day.end, day.name.tomorrow()?);
        }
        if let Some(month) = self.before(Level::Month, at)? {
            if at < month.end {
                limits.not_before(month.start, month.name);
                limits.not_after(month.end, self.calendar.next_month_date(month.name)?);
            } else {
                limits.not_before(month.end, self.calendar.next_month_date(month.name)?);
            }
        }
        for level in [Level::Day, Level::Month] {
            if let Some(next) = self.after(level, at)? {
                limits.not_after(next.start, next.name);
            }
        }
        let mut name = self.calendar.date(at)?;
        if let Some((_, end)) = limits.until {
            name = name.min(end.yesterday()?);
        }
        if let Some((_, first)) = limits.from {
            name = name.max(first);
        }
        let next = name.tomorrow()?;
        Ok(NamedUnit {
            start: limits.start(name, self.calendar.date_start(name)?).min(five_minutes_of(at)),
            end: limits.end(next, self.calendar.date_start(next)?).max(five_minutes_of(at) + FIVE_MINUTES_S),
            name,
        })
    }

    fn computed_month(&self, at: i64) -> Result<NamedUnit, LedgerError> {
        let day = self.named(Level::Day, at)?;
        let mut limits = Limits { from: None, until: None };
        if let Some(month) = self.before(Level::Month, at)? {
            limits.not_before(month.end, self.calendar.next_month_date(month.name)?);
        }
        if let Some(month) = self.after(Level::Month, at)? {
            limits.not_after(month.start, month.name);
        }
        let name = self.calendar.month_date(day.name)?;
        let next = self.calendar.next_month_date(name)?;
        Ok(NamedUnit {
            start: limits.start(name, self.calendar.date_start(name)?).min(day.start),
            end: limits.end(next, self.calendar.date_start(next)?).max(day.end),
            name,
        })
    }

    fn next_name(&self, level: Level, name: Date) -> Result<Date, LedgerError> {
        Ok(if level == Level::Month { self.calendar.next_month_date(name)? } else { name.tomorrow()? })
    }

    /// The last stored unit that begins at or before an instant.
    fn before(&self, level: Level, at: i64) -> Result<Option<NamedUnit>, LedgerError> {
        if let Some([before, _]) = self.loaded.and_then(|loaded| loaded.around(level, at)) {
            return Ok(before);
        }
        self.find(
            "SELECT start, end, name FROM border WHERE level = ?1 AND start <= ?2 ORDER BY start DESC LIMIT 1",
            level,
            at,
        )
    }

    /// The first stored unit that begins after an instant.
    fn after(&self, level: Level, at: i64) -> Result<Option<NamedUnit>, LedgerError> {
        if let Some([_, after]) = self.loaded.and_then(|loaded| loaded.around(level, at)) {
            return Ok(after);
        }
        self.find(
            "SELECT start, end, name FROM border WHERE level = ?1 AND start > ?2 ORDER BY start LIMIT 1",
            level,
            at,
        )
    }

    fn find(&self, sql: &str, level: Level, at: i64) -> Result<Option<NamedUnit>, LedgerError> {
        let mut statement = self.conn.prepare_cached(sql)?;
        Ok(statement.query_row(params![level as u8, at], named_unit).optional()?)
    }

    /// The stored days and months in a span whose borders differ from the current rules.
    pub fn kept(&self, from: i64, to: i64) -> Result<Vec<KeptBorders>, LedgerError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT start, end, name, level FROM border WHERE end > ?1 AND start < ?2 ORDER BY start, level",
        )?;
        let rows = statement.query_map([from, to], |row| Ok((named_unit(row)?, row.get::<_, u8>(3)?)))?;
        let mut kept = Vec::new();
        for row in rows {
            let (unit, number) = row?;
            let level = if number == Level::Month as u8 { Level::Month } else { Level::Day };
            let start = self.calendar.date_start(unit.name)?;
            let end = self.calendar.date_start(self.next_name(level, unit.name)?)?;
            if (start, end) != (unit.start, unit.end) {
                kept.push(KeptBorders {
                    period: unit.label(level),
                    start: jiff::Timestamp::from_second(unit.start)?,
                    end: jiff::Timestamp::from_second(unit.end)?,
                    start_by_rules: jiff::Timestamp::from_second(start)?,
                    end_by_rules: jiff::Timestamp::from_second(end)?,
                });
            }
        }
        Ok(kept)
    }
}

/// A day or month that keeps the borders under which it was booked, although the zone's rules have changed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct KeptBorders {
    /// Its name.
    pub period: String,
    /// Its start.
    pub start: jiff::Timestamp,
    /// Its end.
    pub end: jiff::Timestamp,
    /// Where the current rules of the zone begin it.
    pub start_by_rules: jiff::Timestamp,
    /// Where they end it.
    pub end_by_rules: jiff::Timestamp,
}

pub(crate) fn named_unit(row: &Row<'_>) -> rusqlite::Result<NamedUnit> {
    let name: String = row.get(2)?;
    let name = name.parse().map_err(|error: jiff::Error| {
        rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(NamedUnit { start: row.get(0)?, end: row.get(1)?, name })
}

/// The zone and the billing day that the figures of a ledger follow.
pub(crate) fn stored_calendar(conn: &Connection) -> rusqlite::Result<Option<(String, u8)>> {
    let sql = "SELECT z.value, d.value FROM meta z, meta d WHERE z.key = 'zone' AND d.key = 'billing_day'";
    conn.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// Stores the borders of everything that a ledger without stored borders holds. Days and months that were
/// summed keep theirs.
pub(crate) fn store_existing(conn: &Connection) -> rusqlite::Result<()> {
    // Without a calendar there are no figures.
    let Some((zone, day)) = stored_calendar(conn)? else { return Ok(()) };
    let calendar = || -> Result<Calendar, LedgerError> {
        let calendar = Calendar::new_or_unknown(&zone, day)?;
        // Of a zone that nobody knows any more, the sums show where its days began, or at least its hours.
        let offset = if calendar.zone_is_known() { None } else { offset_of_sums(conn)? };
        Ok(match offset {
            Some(offset) => calendar.with_substitute(offset),
            None => calendar,
        })
    };
    let store = || store_existing_by(conn, &calendar()?);
    store().map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// The UTC offset at which the last day that was summed began, or the last hour: then less than half an hour.
fn offset_of_sums(conn: &Connection) -> Result<Option<Offset>, LedgerError> {
    for (level, length_s) in [(Level::Day, 86_400), (Level::Hour, 3600)] {
        let last: Option<i64> = conn
            .prepare_cached("SELECT max(start) FROM unit WHERE level = ?1")?
            .query_row([level as u8], |row| row.get(0))?;
        if let Some(start) = last {
            let before_s = start.rem_euclid(length_s);
            let offset_s = if before_s <= length_s / 2 { -before_s } else { length_s - before_s };
            return Ok(i32::try_from(offset_s).ok().and_then(|offset_s| Offset::from_seconds(offset_s).ok()));
        }
    }
    Ok(None)
}

/// Does the same by the rules of a calendar.
pub(crate) fn store_existing_by(conn: &Connection, calendar: &Calendar) -> Result<(), LedgerError> {
    let mut statement = conn.prepare_cached(
        "SELECT level, start, end FROM unit WHERE level >= 2
         UNION SELECT 3, start, end FROM period ORDER BY level, start",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (level, start, end): (u8, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        // Whichever rules named it, its middle has its name.
        let middle = calendar.date(start.midpoint(end))?;
        let name = if level == Level::Month as u8 { calendar.month_date(middle)? } else { middle };
        conn.prepare_cached(
            "INSERT OR IGNORE INTO border (level, start, end, name) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![level, start, end, name.to_string()])?;
    }
    let borders = Borders::new(conn, calendar);
    let mut statement = conn.prepare_cached("SELECT start FROM unit WHERE level < 2 ORDER BY start")?;
    let starts: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    starts.into_iter().try_for_each(|start| borders.book(start))
}
