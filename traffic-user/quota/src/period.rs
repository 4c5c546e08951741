//! Where a period begins and ends. Instants are seconds since the Unix epoch; ends are exclusive.
//!
//! - A month begins on its billing day, or on the last day of a calendar month that has no such day: the 31st
//!   is 30 April, and 31 May again.
//! - A week begins on Monday.
//! - A day begins at its first instant in the zone, so it may have 23 or 25 hours.
//! - `N days` are today and the days before it, and move on with each day.

use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use traffic_model::calendar::{Calendar, CalendarError, FIVE_MINUTES_S};

/// The period of a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Period {
    /// What it is.
    pub kind: PeriodKind,
    /// Its time zone; `None` for the ledger's.
    pub zone: Option<String>,
}

/// What a period is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeriodKind {
    /// A month from this day; `None` for the ledger's billing day.
    Month(Option<u8>),
    /// From Monday to Sunday.
    Week,
    /// A calendar day.
    Day,
    /// So many days, the running one included.
    Days(u16),
}

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Its begin.
    pub start_s: i64,
    /// Its end, which is not part of it.
    pub end_s: i64,
}

/// Why a zone cannot be that of a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongZone(pub String);

impl Period {
    /// The calendar by which it is found.
    ///
    /// # Errors
    /// When the system no longer knows its zone.
    pub fn calendar(&self, ledger: &Calendar) -> Result<Calendar, CalendarError> {
        let day = match self.kind {
            PeriodKind::Month(Some(day)) => day,
            _ => ledger.billing_day(),
        };
        match &self.zone {
            Some(zone) => Calendar::new(zone, day),
            None => Calendar::with_rules(ledger.zone().clone(), ledger.zone_name(), day),
        }
    }

    /// The period that contains an instant.
    ///
    /// # Errors
    /// As [`Self::calendar`], and when the instant is outside the years that can be represented.
    pub fn span(&self, ledger: &Calendar, at_s: i64) -> Result<Span, CalendarError> {
        let calendar = self.calendar(ledger)?;
        let (first, next) = self.dates(&calendar, calendar.date(at_s)?)?;
        Ok(Span { start_s: calendar.date_start(first)?, end_s: calendar.date_start(next)? })
    }

    /// The first date of the period that contains a date, and the first one after it. A ledger may have
    /// booked these dates under other borders than those of the zone's rules of today.
    ///
    /// # Errors
    /// When a date is outside the years that can be represented.
    pub fn dates(&self, calendar: &Calendar, today: Date) -> Result<(Date, Date), CalendarError> {
        Ok(match self.kind {
            PeriodKind::Month(_) => (calendar.month_date(today)?, calendar.next_month_date(today)?),
            PeriodKind::Week => {
                let monday = today.checked_sub(i64::from(today.weekday().to_monday_zero_offset()).days())?;
                (monday, monday.checked_add(7.days())?)
            }
            PeriodKind::Day => (today, today.tomorrow()?),
            PeriodKind::Days(number) => {
                let before = i64::from(number.saturating_sub(1)).days();
                (today.checked_sub(before)?, today.tomorrow()?)
            }
        })
    }

    /// The name of the period that contains an instant, in its zone: `2026-11`, `2026-W48`, `2026-11-29`.
    ///
    /// # Errors
    /// As [`Self::span`].
    pub fn label(&self, ledger: &Calendar, at_s: i64) -> Result<String, CalendarError> {
        let calendar = self.calendar(ledger)?;
        let today = calendar.date(at_s)?;
        let (first, _) = self.dates(&calendar, today)?;
        Ok(match self.kind {
            PeriodKind::Month(_) => first.strftime("%Y-%m").to_string(),
            PeriodKind::Week => first.strftime("%G-W%V").to_string(),
            PeriodKind::Day => today.to_string(),
            PeriodKind::Days(_) => format!("{first} to {today}"),
        })
    }

    /// Whether it begins anew each day, so that it has no end for which anything could be expected.
    pub const fn moves(&self) -> bool {
        matches!(self.kind, PeriodKind::Days(_))
    }

    /// What it is, as the file has it.
    pub fn text(&self) -> String {
        match self.kind {
            PeriodKind::Month(_) => "month".to_owned(),
            PeriodKind::Week => "week".to_owned(),
            PeriodKind::Day => "day".to_owned(),
            PeriodKind::Days(number) => format!("{number} days"),
        }
    }
}

/// The years whose borders are checked, in seconds since the Unix epoch: 2020 to 2100.
const CHECKED_S: (i64, i64) = (1_577_836_800, 4_102_444_800);

/// Finds a zone whose days begin on borders of five-minute buckets, the shortest that the ledger keeps.
///
/// # Errors
/// When the system does not know the zone, or has other rules for it.
pub fn zone_of(name: &str) -> Result<(), WrongZone> {
    let calendar = Calendar::new(name, 1).map_err(|error| WrongZone(error.to_string()))?;
    require_buckets(calendar.zone(), name)
}

fn require_buckets(zone: &TimeZone, name: &str) -> Result<(), WrongZone> {
    let wrong = |offset_s: i32| {
        WrongZone(format!(
            "the clock of {name:?} is {offset_s} s from UTC, but the ledger has buckets of five minutes, \
             which no border of a period may cut; write a zone whose offset is a multiple of 300 s"
        ))
    };
    let aligned = |offset_s: i32| i64::from(offset_s) % FIVE_MINUTES_S == 0;
    let Ok(from) = Timestamp::from_second(CHECKED_S.0) else { return Ok(()) };
    let first = zone.to_offset(from).seconds();
    let later = zone.following(from).take_while(|change| change.timestamp().as_second() < CHECKED_S.1);
    std::iter::once(first)
        .chain(later.map(|change| change.offset().seconds()))
        .find(|offset_s| !aligned(*offset_s))
        .map_or(Ok(()), |offset_s| Err(wrong(offset_s)))
}

#[cfg(test)]
#[path = "period_tests.rs"]
mod tests;
