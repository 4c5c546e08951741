//! Figures in columns, for plots and tables of them: one value per step and class, for some containers or for
//! the whole node.
//!
//! It reads the same rows through the same plan as a report, so that both show the same sums.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::Connection;
use serde::Serialize;
use traffic_model::calendar::{FIVE_MINUTES_S, Level};

use crate::{
    closing::close::ClosedPeriod,
    error::LedgerError,
    figures::{Basis, Figures, Sums, add},
    query::{
        billing::{self, ReportedAdjustment},
        collected,
        node_sums::{self, NodeSums},
        percentile_report::{self, Rates},
        query_plan::{By, Plan, ReportQuery, Split},
        rows::{self, Cutter, Slice},
        stored,
    },
    store::Ledger,
    write::{clock, gaps::Gap},
};

/// Most values that a node-wide plot reads, in containers times steps: a second's work on a slow machine.
const MOST_VALUES: i64 = 300_000;

/// A query for columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesQuery {
    /// Containers, classes, span, calendar, basis and percentile. Steps and splits are not looked at.
    pub of: ReportQuery,
    /// Step length; `None` for the shortest with no more than `most_points` steps.
    pub by: Option<By>,
    /// Most steps.
    pub most_points: i64,
}

/// The figures of one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassSeries {
    /// The class.
    pub class: u8,
    /// False for class 0.
    pub billed: bool,
    /// The sums over the whole span.
    #[serde(flatten)]
    pub figures: Figures,
    /// Bytes to the container in each step, on the basis; `None` where nothing is recorded.
    pub in_bytes: Vec<Option<u64>>,
    /// The same from the container.
    pub out_bytes: Vec<Option<u64>>,
}

/// A percentile of a single container.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeriesPercentile {
    /// The percentile.
    pub percent: f64,
    /// The rates at it.
    #[serde(flatten)]
    pub rates: Rates,
    /// How it is taken, in words.
    pub rule: String,
}

/// The answer to a query for columns.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// Step length.
    pub by: By,
    /// Step length in seconds; `None` for days and longer steps of the calendar.
    pub step_s: Option<i64>,
    /// Start of the span.
    pub from: Timestamp,
    /// End of the span.
    pub to: Timestamp,
    /// Start of the ledger, if the span begins before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger_begin: Option<Timestamp>,
    /// Time of the ledger's last reading, if the span ends after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reading: Option<Timestamp>,
    /// Time zone of the steps.
    pub zone: String,
    /// Day of the month on which billing months begin.
    pub billing_day: u8,
    /// Network layer of the byte figures.
    pub basis: Basis,
    /// The basis in words.
    pub basis_statement: &'static str,
    /// The containers that were asked for; empty for the whole node.
    pub containers: Vec<String>,
    /// Starts of the steps, in Unix seconds.
    pub starts: Vec<i64>,
    /// End of the last step, in Unix seconds.
    pub end: i64,
    /// Names of the steps in the zone.
    pub periods: Vec<String>,
    /// The classes with traffic in the span. Documents have them with their names.
    #[serde(skip)]
    pub classes: Vec<ClassSeries>,
    /// Sum of all billed classes.
    pub total: Figures,
    /// Sum of class 0.
    pub class_zero: Figures,
    /// Unclassified traffic, unless the query is limited to some classes.
    pub faults: Figures,
    /// The percentile over five-minute rates, if asked for and known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentile: Option<SeriesPercentile>,
    /// Why there is no percentile although it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentile_missing: Option<String>,
    /// Five-minute buckets in the span that also hold traffic of another time.
    #[serde(rename = "marked_buckets")]
    pub mixed_buckets: u64,
    /// Gaps that overlap the span. Documents have them with their text.
    #[serde(skip)]
    pub gaps: Vec<Gap>,
    /// Closed periods that overlap the span.
    pub closed: Vec<ClosedPeriod>,
    /// Corrections of these periods. The columns do not have them.
    pub adjustments: Vec<ReportedAdjustment>,
}

impl Ledger {
    /// Answers a query for columns from one consistent view of the file.
    ///
    /// # Errors
    /// As for [`Ledger::report`], and when there are more steps than asked for.
    pub fn series(&self, query: &SeriesQuery) -> Result<Series, LedgerError> {
        self.series_keeping(query, None)
    }

    /// The same, with the sums of the whole node that earlier queries kept.
    ///
    /// # Errors
    /// As for [`Ledger::series`].
    pub fn series_keeping(
        &self,
        query: &SeriesQuery,
        kept: Option<&NodeSums>,
    ) -> Result<Series, LedgerError> {
        let view = self.conn.unchecked_transaction()?;
        let containers = if query.of.containers.is_empty() { known_containers(&view)? } else { 1 };
        let most = query.most_points.min((MOST_VALUES / containers.max(1)).max(1));
        let (by, sums) = match query.by {
            Some(by) => (by, self.columns(&view, &with_step(&query.of, by), (query.most_points, kept))?),
            None => self.finest(&view, query, (most, kept))?,
        };
        let of = with_step(&query.of, by);
        let plan = self.plan(&view, &of)?;
        let (from, to) = (Timestamp::from_second(plan.range.0)?, Timestamp::from_second(plan.range.1)?);
        let steps = (0..plan.steps.len()).map(|at| Ok(plan.step_named(at)?.0));
        let total = |billed: bool| Figures::new(total(&sums, |class| (class != 0) == billed), of.basis);
        let faults = self.faults_of(&view, &plan)?;
        let adjustments = self.adjustments_of(&view, &plan, &of.classes)?;
        let (percentile, percentile_missing) = match of.percentile {
            None => (None, None),
            Some(percent) => match self.percentile_of_one(&view, &query.of, percent) {
                Ok(percentile) => (Some(percentile), None),
                Err(LedgerError::Query(reason)) => (None, Some(reason)),
                Err(error) => return Err(error),
            },
        };
        Ok(Series {
            by,
            step_s: step_s(by),
            from,
            to,
            ledger_begin: (plan.range.0 < plan.recorded_from)
                .then(|| Timestamp::from_second(plan.recorded_from))
                .transpose()?,
            last_reading: clock::last_reading(&view)?.filter(|last| *last < to),
            zone: plan.calendar.zone_name().to_owned(),
            billing_day: plan.calendar.billing_day(),
            basis: of.basis,
            basis_statement: of.basis.statement(),
            containers: of.containers.clone(),
            starts: plan.steps.iter().map(|step| step.0).collect(),
            end: plan.range.1,
            periods: steps.collect::<Result<_, LedgerError>>()?,
            total: total(true),
            class_zero: total(false),
            classes: classes(&plan, &sums),
            faults,
            percentile,
            percentile_missing,
            mixed_buckets: self.mixed_buckets(&view, &plan)?,
            gaps: self.gaps_within(&view, (Some(from), Some(to)), plan.containers.as_deref())?,
            closed: self.closed_within(&view, &plan)?,
            adjustments: billing::assign(&plan, &adjustments).all,
        })
    }

    /// The shortest steps of which there are not too many and whose rows are still kept.
    fn finest(
        &self,
        view: &Connection,
        query: &SeriesQuery,
        (most, kept): (i64, Option<&NodeSums>),
    ) -> Result<(By, ClassColumns), LedgerError> {
        for by in [By::FiveMinutes, By::Hour, By::Day] {
            match self.columns(view, &with_step(&query.of, by), (most, kept)) {
                Ok(columns) => return Ok((by, columns)),
                // Too many, or dropped.
                Err(LedgerError::Query(_)) => {}
                Err(error) => return Err(error),
            }
        }
        // Here a mistake in the span is reported too.
        let of = with_step(&query.of, By::Month);
        Ok((By::Month, self.columns(view, &of, (query.most_points, kept))?))
    }

    /// Sums by class and step.
    fn columns(
        &self,
        view: &Connection,
        query: &ReportQuery,
        (most, kept): (i64, Option<&NodeSums>),
    ) -> Result<ClassColumns, LedgerError> {
        let mut plan = self.plan_within(view, query, most)?;
        let mut sums = ClassColumns::new();
        let mut put = |steps: usize, step: usize, class, values| {
            let columns = sums.entry(class).or_insert_with(|| vec![[0; 4]; steps]);
            add(&mut columns[step], values);
        };
        if let Some(kept) = kept.filter(|_| self.stored.is_none() && plan.containers.is_none()) {
            let (finest, others) =
                plan.slices.iter().copied().partition(|slice: &Slice| slice.level == Level::FiveMinutes);
            plan.slices = others;
            let (ledger, finest): (_, Vec<Slice>) = (self.id()?, finest);
            for slice in finest {
                rows::require_kept(view, &self.calendar, &slice)?;
                node_sums::each(view, (slice.start, slice.end), (&ledger, kept), |start, class, values| {
                    let is_asked = query.classes.is_empty() || query.classes.contains(&class);
                    if let Some(step) = plan.step(start).filter(|_| is_asked) {
                        put(plan.steps.len(), step, class, values);
                    }
                })?;
            }
        }
        self.each_row(view, &plan, |step, row| put(plan.steps.len(), step, row.class, row.values))?;
        Ok(sums)
    }

    /// Passes on all rows of a plan that were asked for, with their steps.
    pub(crate) fn each_row(
        &self,
        view: &Connection,
        plan: &Plan<'_>,
        mut each: impl FnMut(usize, &rows::TrafficRow),
    ) -> Result<(), LedgerError> {
        if let Some(rows) = self.stored.as_deref() {
            let split = Split { class: true, family: true, direction: false };
            for ((step, container, class, family, _), values) in stored::sums(rows, plan, split)? {
                let (class, family) = (class.unwrap_or_default(), family.unwrap_or_default());
                let start = plan.steps[step].0;
                each(step, &rows::TrafficRow { start, container, class, family, values });
            }
            return Ok(());
        }
        for slice in &plan.slices {
            rows::require_kept(view, &self.calendar, slice)?;
            rows::rows(view, slice, plan.containers.as_deref(), |row| {
                if let Some(key) = plan.line(&row) {
                    each(key.0, &row);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Unclassified traffic of a plan's span; none if it is limited to some classes.
    pub(crate) fn faults_of(&self, view: &Connection, plan: &Plan<'_>) -> Result<Figures, LedgerError> {
        if let Some(rows) = self.stored.as_deref().filter(|_| plan.query.classes.is_empty()) {
            return stored::fault_figures(rows, plan);
        }
        let mut faults = [0; 4];
        if plan.query.classes.is_empty() {
            let slices = Cutter::new(view, &self.calendar)?.cut(Level::Month, plan.range.0, plan.range.1)?;
            faults = collected::faults_within(view, &slices, plan.containers.as_deref())?;
        }
        Ok(Figures::new(faults, plan.query.basis))
    }

    /// The percentile of the only container of a query, over all its billed classes.
    fn percentile_of_one(
        &self,
        view: &Connection,
        query: &ReportQuery,
        percent: f64,
    ) -> Result<SeriesPercentile, LedgerError> {
        percentile_report::require_percent(percent)?;
        let query = ReportQuery { by: By::Total, split: Split::default(), ..query.clone() };
        let plan = self.plan(view, &query)?;
        if plan.containers.as_ref().is_none_or(|containers| containers.len() != 1) {
            return Err(LedgerError::Query("a percentile is taken of one container; name one".to_owned()));
        }
        let rates = percentile_report::percentiles(self, view, &plan, percent)?;
        let billed = rates.into_iter().find(|(key, _)| key.4).map(|(_, rates)| rates);
        let rates = billed.ok_or_else(|| {
            LedgerError::Query(
                "the container has no billed traffic in five-minute rows of this span".to_owned(),
            )
        })?;
        Ok(SeriesPercentile { percent, rates, rule: percentile_report::rule(percent) })
    }
}

/// Sums by class, in each step.
pub(crate) type ClassColumns = BTreeMap<u8, Vec<Sums>>;

fn with_step(query: &ReportQuery, by: By) -> ReportQuery {
    ReportQuery { by, split: Split { class: true, ..Split::default() }, ..query.clone() }
}

/// How many containers have figures, retired ones included.
pub(super) fn known_containers(view: &Connection) -> Result<i64, LedgerError> {
    Ok(view.prepare_cached("SELECT count(*) FROM container")?.query_row([], |row| row.get(0))?)
}

/// The length of steps that are always equally long.
pub(crate) const fn step_s(by: By) -> Option<i64> {
    match by {
        By::FiveMinutes => Some(FIVE_MINUTES_S),
        By::Hour => Some(3600),
        By::Day | By::Week | By::Month | By::Year | By::Total => None,
    }
}

/// The sum over the classes that are asked for.
pub(crate) fn total(sums: &ClassColumns, asked: impl Fn(u8) -> bool) -> Sums {
    let mut all = [0; 4];
    for (_, columns) in sums.iter().filter(|(class, _)| asked(**class)) {
        columns.iter().for_each(|&step| add(&mut all, step));
    }
    all
}

/// The columns of all classes. Steps in which nothing was recorded have no value.
pub(crate) fn classes(plan: &Plan<'_>, sums: &ClassColumns) -> Vec<ClassSeries> {
    let of_class = |(&class, columns): (&u8, &Vec<Sums>)| ClassSeries {
        class,
        billed: class != 0,
        figures: Figures::new(total(&[(class, columns.clone())].into(), |_| true), plan.query.basis),
        in_bytes: column(plan, columns, 0),
        out_bytes: column(plan, columns, 2),
    };
    sums.iter().map(of_class).collect()
}

/// The bytes of one direction, whose packets are at `packets`.
pub(crate) fn column(plan: &Plan<'_>, sums: &[Sums], packets: usize) -> Vec<Option<u64>> {
    let basis = plan.query.basis;
    let values = plan.steps.iter().zip(sums);
    values
        .map(|(&(start, end), sums)| {
            let is_recorded = start < plan.recorded_end && plan.recorded_from < end;
            is_recorded.then(|| basis.bytes(sums[packets], sums[packets + 1]))
        })
        .collect()
}
