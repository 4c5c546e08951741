//! A question to the ledger, and what it comes to: which steps, which containers, from which rows.

use jiff::Timestamp;
use rusqlite::Connection;
use serde::Serialize;
use traffic_model::calendar::{Calendar, FIVE_MINUTES_S, Level, five_minutes_of};

use crate::{
    error::LedgerError,
    figures::Basis,
    query::rows::{self, Cutter, Slice, TrafficRow},
    store::Ledger,
    write::rollup_state::last_bucket,
};

/// The steps of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum By {
    /// Five minutes.
    #[serde(rename = "5min")]
    FiveMinutes,
    /// Hours of the zone.
    #[serde(rename = "hour")]
    Hour,
    /// Calendar days.
    #[serde(rename = "day")]
    Day,
    /// Billing months.
    #[serde(rename = "month")]
    Month,
    /// The whole span as one.
    #[default]
    #[serde(rename = "total")]
    Total,
}

impl By {
    const fn level(self) -> Option<Level> {
        match self {
            Self::FiveMinutes => Some(Level::FiveMinutes),
            Self::Hour => Some(Level::Hour),
            Self::Day => Some(Level::Day),
            Self::Month => Some(Level::Month),
            Self::Total => None,
        }
    }
}

/// What has rows of its own in a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Each class.
    pub class: bool,
    /// Each direction.
    pub direction: bool,
    /// IPv4 and IPv6.
    pub family: bool,
}

/// A question to the ledger.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReportQuery {
    /// Steps.
    pub by: By,
    /// Containers by id (or by label, if retired); empty for all.
    pub containers: Vec<String>,
    /// Classes; empty for all.
    pub classes: Vec<u8>,
    /// Begin, taken down to five minutes; `None` for the ledger's begin.
    pub from: Option<Timestamp>,
    /// End, taken up to five minutes; `None` for the ledger's end.
    pub to: Option<Timestamp>,
    /// Zone and billing day of the steps; `None` for the ledger's.
    pub calendar: Option<Calendar>,
    /// What has rows of its own.
    pub split: Split,
    /// A percentile over five-minute rates, above 0 to 100.
    pub percentile: Option<f64>,
    /// What bytes are measured on.
    pub basis: Basis,
}

/// A step that is shown in part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartStep {
    /// Its name.
    pub period: String,
    /// From when, or until when, it is shown.
    pub at: Timestamp,
}

/// What a line is about: step, container, class, family, billed. `None` where it is not split.
pub(crate) type LineKey = (usize, i64, Option<u8>, Option<u8>, bool);

/// A question made definite.
pub(crate) struct Plan<'a> {
    pub query: &'a ReportQuery,
    pub calendar: Calendar,
    /// Begin and end of the whole, on five minutes.
    pub range: (i64, i64),
    /// Begin and end of each step, on five minutes.
    pub steps: Vec<(i64, i64)>,
    /// Numbers of the containers asked for.
    pub containers: Option<Vec<i64>>,
    pub slices: Vec<Slice>,
}

impl Plan<'_> {
    /// The place of the step that a start lies in.
    pub fn step(&self, start: i64) -> Option<usize> {
        self.steps.partition_point(|step| step.0 <= start).checked_sub(1)
    }

    /// The name of a step, its begin and end.
    pub fn step_named(&self, at: usize) -> Result<(String, Timestamp, Timestamp), LedgerError> {
        let (start, end) = self.steps[at];
        let name = match self.query.by.level() {
            None => "total".to_owned(),
            // The first one may begin within its bucket.
            Some(level) if at == 0 => self.calendar.label(level, self.calendar.start(level, start)?)?,
            Some(level) => self.calendar.label(level, start)?,
        };
        Ok((name, Timestamp::from_second(start)?, Timestamp::from_second(end)?))
    }

    /// The first step and its begin, where the span begins within it.
    pub fn first_from(&self) -> Result<Option<PartStep>, LedgerError> {
        let (Some(level), Some(first)) = (self.query.by.level(), self.steps.first()) else { return Ok(None) };
        let whole = self.calendar.is_start(level, first.0)?;
        let (period, at, _) = self.step_named(0)?;
        Ok((!whole).then_some(PartStep { period, at }))
    }

    /// The last step and its end, where the span ends within it.
    pub fn last_until(&self) -> Result<Option<PartStep>, LedgerError> {
        let (Some(level), Some(last)) = (self.query.by.level(), self.steps.last()) else { return Ok(None) };
        let whole = self.calendar.is_start(level, last.1)?;
        let (period, _, at) = self.step_named(self.steps.len() - 1)?;
        Ok((!whole).then_some(PartStep { period, at }))
    }

    /// The line a row belongs to; `None` if it was not asked for.
    pub fn line(&self, row: &TrafficRow) -> Option<LineKey> {
        self.line_in(self.step(row.start)?, row)
    }

    /// The same where the step is known.
    pub fn line_in(&self, step: usize, row: &TrafficRow) -> Option<LineKey> {
        if !self.query.classes.is_empty() && !self.query.classes.contains(&row.class) {
            return None;
        }
        let billed = row.class != 0;
        let class = (self.query.split.class || !billed).then_some(row.class);
        let family = self.query.split.family.then_some(row.family);
        Some((step, row.container, class, family, billed))
    }
}

impl Ledger {
    /// Makes a question definite.
    pub(crate) fn plan<'a>(
        &self,
        view: &Connection,
        query: &'a ReportQuery,
    ) -> Result<Plan<'a>, LedgerError> {
        let calendar = query.calendar.clone().unwrap_or_else(|| self.calendar.clone());
        let (begin, end) = recorded_range(view)?;
        let from = query.from.map_or(begin, |from| five_minutes_of(from.as_second()));
        let to = query.to.map_or(end.max(from), |to| five_minutes_of(to.as_second() + FIVE_MINUTES_S - 1));
        if from > to {
            return Err(LedgerError::Query("the span ends before it begins".to_owned()));
        }
        let mut steps = match query.by.level() {
            None => vec![(from, to)],
            Some(level) => calendar.cover(level, from, to)?,
        };
        steps.retain_mut(|step| {
            *step = (step.0.max(from), step.1.min(to));
            step.0 < step.1
        });
        let cutter = Cutter::new(view, &self.calendar)?;
        let own_months = calendar.billing_day() == self.calendar.billing_day();
        let coarsest = match query.by.level() {
            Some(Level::Month) if !own_months => Level::Day,
            level => level.unwrap_or(Level::Month),
        };
        let same_zone = calendar.zone_name() == self.calendar.zone_name();
        let mut slices = Vec::new();
        // Steps of the ledger's own: every unit lies within one step, so the span is cut as a whole.
        if same_zone || steps.len() <= 1 || coarsest == Level::FiveMinutes {
            slices = cutter.cut(coarsest, from, to)?;
        } else {
            for &(start, end) in &steps {
                for slice in cutter.cut(coarsest.min(Level::Day), start, end)? {
                    rows::push(&mut slices, slice);
                }
            }
        }
        let containers = container_numbers(view, &query.containers)?;
        Ok(Plan { query, calendar, range: (from, to), steps, containers, slices })
    }
}

/// Begin and end of all that is in the ledger.
fn recorded_range(view: &Connection) -> Result<(i64, i64), LedgerError> {
    let sql = "SELECT min(start), max(end) FROM unit WHERE finest";
    let (begin, end): (Option<i64>, Option<i64>) =
        view.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let last = last_bucket(view)?.map(|bucket| bucket + FIVE_MINUTES_S);
    let end = end.max(last).unwrap_or(0);
    Ok((begin.unwrap_or(end), end))
}

/// The numbers of containers by label, or by id where no active one has it.
fn container_numbers(view: &Connection, names: &[String]) -> Result<Option<Vec<i64>>, LedgerError> {
    if names.is_empty() {
        return Ok(None);
    }
    let mut numbers = Vec::new();
    for name in names {
        let mut find = |column: &str| -> Result<usize, LedgerError> {
            let mut statement =
                view.prepare_cached(&format!("SELECT id FROM container WHERE {column} = ?1"))?;
            let found: Vec<i64> = statement.query_map([name], |row| row.get(0))?.collect::<Result<_, _>>()?;
            numbers.extend(&found);
            Ok(found.len())
        };
        if find("label")? == 0 && find("name")? == 0 {
            return Err(LedgerError::Query(format!("the ledger knows no container {name}")));
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(Some(numbers))
}
