//! Turns a query into a plan: its steps, its containers, and the rows to read.

use jiff::Timestamp;
use rusqlite::Connection;
use serde::Serialize;
use traffic_model::calendar::{Calendar, FIVE_MINUTES_S, Level, five_minutes_of};

use crate::{
    error::LedgerError,
    figures::Basis,
    query::{
        rows::{self, Cutter, Slice, TrafficRow},
        steps::{self, Steps},
    },
    store::Ledger,
    time::borders::Borders,
    write::{clock, rollup_state::last_bucket},
};

/// The step length of a report.
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
    /// Weeks from Monday to Sunday, with the numbers of ISO 8601.
    #[serde(rename = "week")]
    Week,
    /// Billing months.
    #[serde(rename = "month")]
    Month,
    /// Years of twelve billing months.
    #[serde(rename = "year")]
    Year,
    /// One step for the whole span.
    #[default]
    #[serde(rename = "total")]
    Total,
}

impl By {
    /// The coarsest rows that its steps consist of.
    pub(crate) const fn coarsest(self) -> Level {
        match self {
            Self::FiveMinutes => Level::FiveMinutes,
            Self::Hour => Level::Hour,
            Self::Day | Self::Week => Level::Day,
            Self::Month | Self::Year | Self::Total => Level::Month,
        }
    }

    /// The shortest step that occurs often, in seconds; `None` for one step.
    const fn shortest_s(self) -> Option<i64> {
        match self {
            Self::FiveMinutes => Some(FIVE_MINUTES_S),
            Self::Hour => Some(3600),
            Self::Day => Some(23 * 3600),
            Self::Week => Some((7 * 24 - 1) * 3600),
            Self::Month => Some(28 * 24 * 3600),
            Self::Year => Some(365 * 24 * 3600),
            Self::Total => None,
        }
    }
}

/// What a report splits into rows of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// By class.
    pub class: bool,
    /// By direction.
    pub direction: bool,
    /// By IPv4 and IPv6.
    pub family: bool,
}

/// A query for a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReportQuery {
    /// Step length.
    pub by: By,
    /// Containers by id, or by label if retired; empty for all.
    pub containers: Vec<String>,
    /// Classes; empty for all.
    pub classes: Vec<u8>,
    /// Start, rounded down to five minutes; `None` for the start of the ledger.
    pub from: Option<Timestamp>,
    /// End, rounded up to five minutes; `None` for the end of the ledger.
    pub to: Option<Timestamp>,
    /// Time zone and billing day of the steps; `None` for the ledger's own.
    pub calendar: Option<Calendar>,
    /// What to split into rows of their own.
    pub split: Split,
    /// Percentile over five-minute rates, above 0 and at most 100.
    pub percentile: Option<f64>,
    /// Network layer of the byte figures.
    pub basis: Basis,
}

/// A step that is only partly within the span.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartStep {
    /// Name of the step.
    pub period: String,
    /// Where the shown part begins or ends.
    pub at: Timestamp,
}

/// Key of a row: step, container, class, family, billed. `None` where it is not split.
pub type LineKey = (usize, i64, Option<u8>, Option<u8>, bool);

/// A query with everything resolved.
pub(crate) struct Plan<'a> {
    pub query: &'a ReportQuery,
    pub calendar: Calendar,
    /// Names of the steps, and whether the first and the last one are whole.
    names: Vec<String>,
    whole: (bool, bool),
    /// End of the last step, also where the span ends before it. Unix seconds.
    pub last_end: i64,
    /// Start of everything in the ledger. Unix seconds.
    pub recorded_from: i64,
    /// End of everything in the ledger, on a five-minute border. Unix seconds.
    pub recorded_end: i64,
    /// Start and end of the span, on five-minute borders. Unix seconds.
    pub range: (i64, i64),
    /// Start and end of each step, on five-minute borders.
    pub steps: Vec<(i64, i64)>,
    /// Ids of the requested containers.
    pub containers: Option<Vec<i64>>,
    pub slices: Vec<Slice>,
}

impl Plan<'_> {
    /// Index of the step that contains a time.
    pub fn step(&self, start: i64) -> Option<usize> {
        self.steps.partition_point(|step| step.0 <= start).checked_sub(1)
    }

    /// Index of the step that contains everything recorded of a period. The span may begin with the ledger.
    pub fn step_of_period(&self, (start, end): (i64, i64)) -> Option<usize> {
        let first = if self.recorded_from < end { start.max(self.recorded_from) } else { start };
        self.step(first).filter(|&step| end <= self.steps[step].1)
    }

    /// Name, start and end of a step.
    pub fn step_named(&self, at: usize) -> Result<(String, Timestamp, Timestamp), LedgerError> {
        let (start, end) = self.steps[at];
        Ok((self.names[at].clone(), Timestamp::from_second(start)?, Timestamp::from_second(end)?))
    }

    /// The first step, if the span begins inside it.
    pub fn first_from(&self) -> Result<Option<PartStep>, LedgerError> {
        if self.whole.0 || self.steps.is_empty() {
            return Ok(None);
        }
        let (period, at, _) = self.step_named(0)?;
        Ok(Some(PartStep { period, at }))
    }

    /// The last step, if the span ends inside it.
    pub fn last_until(&self) -> Result<Option<PartStep>, LedgerError> {
        if self.whole.1 || self.steps.is_empty() {
            return Ok(None);
        }
        let (period, _, at) = self.step_named(self.steps.len() - 1)?;
        Ok(Some(PartStep { period, at }))
    }

    /// Key of the report row that a ledger row belongs to; `None` if it was not requested.
    pub fn line(&self, row: &TrafficRow) -> Option<LineKey> {
        self.line_in(self.step(row.start)?, row)
    }

    /// The same, for a known step.
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
    /// Resolves a query.
    pub(crate) fn plan<'a>(
        &self,
        view: &Connection,
        query: &'a ReportQuery,
    ) -> Result<Plan<'a>, LedgerError> {
        let most_rows = self.limits.most_rows.and_then(|most| i64::try_from(most).ok());
        self.plan_within(view, query, most_rows.unwrap_or(MOST_STEPS))
    }

    /// As [`Self::plan`], with at most so many steps.
    pub(crate) fn plan_within<'a>(
        &self,
        view: &Connection,
        query: &'a ReportQuery,
        most_steps: i64,
    ) -> Result<Plan<'a>, LedgerError> {
        let calendar = query.calendar.clone().unwrap_or_else(|| self.calendar.clone());
        let recorded = recorded_range(view)?;
        let reported = reported_range(view)?;
        let (from, to) = span(query, &calendar, reported)?;
        if let Some(last) = clock::load(view)?
            && from > reported.1
        {
            return Err(LedgerError::Query(format!(
                "the span begins at {}, after the last reading at {}; give an earlier start",
                calendar.label(Level::FiveMinutes, from)?,
                calendar.label(Level::FiveMinutes, last.time_ms() / 1000)?
            )));
        }
        let borders = Borders::new(view, &self.calendar);
        if let Some(shortest_s) = query.by.shortest_s()
            && (to - from) / shortest_s > most_steps
        {
            return Err(LedgerError::Query(format!(
                "the span has more than {most_steps} steps; give a shorter span or longer steps"
            )));
        }
        let Steps { spans: steps, names, whole, last_end } =
            steps::steps(query.by, &calendar, &borders, (from, to))?;
        let cutter = Cutter::new(view, &self.calendar)?;
        let same_zone = self.calendar.is_same(calendar.zone_name(), self.calendar.billing_day());
        let own_months = calendar.billing_day() == self.calendar.billing_day();
        let coarsest = match query.by {
            By::Month | By::Year if !own_months => Level::Day,
            by => by.coarsest(),
        };
        let mut slices = Vec::new();
        // In the ledger's own zone every unit lies within one step, so the span is cut as a whole.
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
        let range = (from, to);
        Ok(Plan {
            query,
            calendar,
            names,
            whole,
            last_end,
            recorded_from: recorded.0,
            recorded_end: recorded.1,
            range,
            steps,
            containers,
            slices,
        })
    }
}

/// Most steps of a report: 19 years in steps of five minutes.
const MOST_STEPS: i64 = 2_000_000;

/// Start and end of the requested span, on five-minute borders.
fn span(query: &ReportQuery, calendar: &Calendar, recorded: (i64, i64)) -> Result<(i64, i64), LedgerError> {
    let (begin, end) = recorded;
    let from = query.from.map_or(begin, |from| five_minutes_of(from.as_second()));
    let to = query.to.map_or(end.max(from), |to| five_minutes_of(to.as_second() + FIVE_MINUTES_S - 1));
    if from <= to {
        return Ok((from, to));
    }
    let label = |unix_s| calendar.label(Level::FiveMinutes, unix_s);
    Err(LedgerError::Query(match query.from {
        None => format!(
            "the span ends at {}, before the ledger begins at {}; give a later end",
            label(to)?,
            label(begin)?
        ),
        Some(_) => {
            format!("the span ends at {}, before it begins at {}; exchange them", label(to)?, label(from)?)
        }
    }))
}

/// Start and end of all that was counted.
pub(crate) fn recorded_range(view: &Connection) -> Result<(i64, i64), LedgerError> {
    let sql = "SELECT min(start), max(end) FROM unit WHERE finest";
    let (begin, end): (Option<i64>, Option<i64>) =
        view.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let last = last_bucket(view)?.map(|bucket| bucket + FIVE_MINUTES_S);
    let end = end.max(last).unwrap_or(0);
    Ok((begin.unwrap_or(end), end))
}

/// Start and end of everything that there is to report: of [`recorded_range`], and of corrected months, even where a
/// clock that was corrected later took their traffic elsewhere.
pub(crate) fn reported_range(view: &Connection) -> Result<(i64, i64), LedgerError> {
    let (begin, end) = recorded_range(view)?;
    let sql = "SELECT min(start), max(end) FROM period
        WHERE (end <= ?1 OR end > ?2) AND id IN (SELECT period FROM adjustment)";
    let corrected =
        view.prepare_cached(sql)?.query_row([begin, end], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (first, last): (Option<i64>, Option<i64>) = corrected;
    Ok((first.map_or(begin, |first| first.min(begin)), last.map_or(end, |last| last.max(end))))
}

/// Ids of containers, by label, or by name if no active container has it.
pub(crate) fn container_numbers(
    view: &Connection,
    names: &[String],
) -> Result<Option<Vec<i64>>, LedgerError> {
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
            return Err(LedgerError::NoSuchContainer(name.clone()));
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(Some(numbers))
}
