//! Cuts a span into the steps of a report.
//!
//! In the ledger's own zone, all borders are those under which days and months were booked: a week begins with
//! its Monday, and a year with its first billing month. So no step cuts a day, and no year cuts a month that
//! may be closed.

use jiff::{ToSpan as _, civil::Date};
use traffic_model::calendar::{Calendar, CalendarError, Level};

use crate::{error::LedgerError, query::query_plan::By, time::borders::Borders};

/// The steps of a report.
pub(crate) struct Steps {
    /// Start and end of each, within the span.
    pub spans: Vec<(i64, i64)>,
    pub names: Vec<String>,
    /// Whether the span begins and ends with a step.
    pub whole: (bool, bool),
    /// End of the last step, also where the span ends before it.
    pub last_end: i64,
}

/// Cuts a span into steps of a calendar.
pub(crate) fn steps(
    by: By,
    calendar: &Calendar,
    borders: &Borders<'_>,
    (from, to): (i64, i64),
) -> Result<Steps, LedgerError> {
    let own = borders.calendar();
    let source = match own.is_same(calendar.zone_name(), calendar.billing_day()) {
        true => Source::Booked(borders),
        false => Source::Rules(calendar),
    };
    let units = match by {
        By::Total => vec![Unit { start: from, end: to, name: "total".to_owned() }],
        By::FiveMinutes => source.units(Level::FiveMinutes, from, to)?,
        By::Hour => source.units(Level::Hour, from, to)?,
        By::Day => source.units(Level::Day, from, to)?,
        By::Month => source.units(Level::Month, from, to)?,
        By::Week => source.weeks(from, to)?,
        By::Year => source.years(from, to)?,
    };
    Ok(Steps {
        whole: (
            units.first().is_none_or(|first| first.start == from),
            units.last().is_none_or(|last| last.end == to),
        ),
        last_end: units.last().map_or(to, |last| last.end),
        spans: units.iter().map(|unit| (unit.start.max(from), unit.end.min(to))).collect(),
        names: units.into_iter().map(|unit| unit.name).collect(),
    })
}

/// A whole step. Times in seconds since the Unix epoch.
struct Unit {
    start: i64,
    end: i64,
    name: String,
}

/// Where borders come from.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// The ledger's own calendar, with its stored borders.
    Booked(&'a Borders<'a>),
    /// The rules of another zone, or other billing months.
    Rules(&'a Calendar),
}

impl Source<'_> {
    fn units(self, level: Level, from: i64, to: i64) -> Result<Vec<Unit>, LedgerError> {
        if let (Self::Booked(borders), Level::Day | Level::Month) = (self, level) {
            let units = borders.named_cover(level, from, to)?.into_iter();
            return Ok(units
                .map(|unit| Unit { start: unit.start, end: unit.end, name: unit.label(level) })
                .collect());
        }
        let spans = match self {
            Self::Booked(borders) => borders.cover(level, from, to)?,
            Self::Rules(calendar) => calendar.cover(level, from, to)?,
        };
        let name = |start| match self {
            // An hour is named by its start, which is known here.
            Self::Booked(borders) if level == Level::Hour => Ok(borders.calendar().label(level, start)?),
            Self::Booked(borders) => borders.label(level, start),
            Self::Rules(calendar) => Ok(calendar.label(level, start)?),
        };
        spans.into_iter().map(|(start, end)| Ok(Unit { start, end, name: name(start)? })).collect()
    }

    fn weeks(self, from: i64, to: i64) -> Result<Vec<Unit>, LedgerError> {
        let date = match self {
            Self::Booked(borders) => borders.named(Level::Day, from)?.name,
            Self::Rules(calendar) => calendar.date(from)?,
        };
        let start = |monday: Date| match self {
            Self::Booked(borders) => borders.date_start(monday),
            Self::Rules(calendar) => Ok(calendar.date_start(monday)?),
        };
        let days = i64::from(date.weekday().to_monday_zero_offset());
        let mut monday = date.checked_sub(days.days()).map_err(CalendarError::from)?;
        let mut units = Vec::new();
        let mut at = start(monday)?;
        while at < to {
            let next = monday.checked_add(1.week()).map_err(CalendarError::from)?;
            let end = start(next)?;
            units.push(Unit { start: at, end, name: monday.strftime("%G-W%V").to_string() });
            (monday, at) = (next, end);
        }
        Ok(units)
    }

    fn years(self, from: i64, to: i64) -> Result<Vec<Unit>, LedgerError> {
        let month = match self {
            Self::Booked(borders) => borders.named(Level::Month, from)?.name,
            Self::Rules(calendar) => calendar.month_date(calendar.date(from)?)?,
        };
        let start = |year: i16| {
            let first = format!("{year:04}-01");
            match self {
                Self::Booked(borders) => Ok(borders.month_named(&first)?.0),
                Self::Rules(calendar) => Ok::<_, LedgerError>(calendar.month_named(&first)?.0),
            }
        };
        let mut year = month.year();
        let mut units = Vec::new();
        let mut at = start(year)?;
        while at < to {
            let end = start(year + 1)?;
            units.push(Unit { start: at, end, name: format!("{year:04}") });
            (year, at) = (year + 1, end);
        }
        Ok(units)
    }
}
