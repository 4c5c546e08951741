//! Reports: figures over a span of time, in steps. The binary's `render/ledger` formats them.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use rusqlite::Connection;
use serde::Serialize;
use traffic_common::Family;

use crate::{
    closing::{
        close::ClosedPeriod,
        correction::{Corrected, Signed},
        delivered,
    },
    error::LedgerError,
    figures::{Basis, Figures, add},
    query::{
        billing::{self, Billing, ReportedAdjustment},
        percentile_report::{self, Rates},
        query_plan::{By, LineKey, PartStep, Plan, ReportQuery},
        rows,
        running::{RunningStep, running_step},
        stored,
    },
    store::Ledger,
    time::borders::{Borders, KeptBorders},
    write::{clock, gaps::Gap, names},
};

/// One row of a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReportRow {
    /// Name of the step in the zone.
    pub period: String,
    /// Start of the step.
    pub start: Timestamp,
    /// End of the step.
    pub end: Timestamp,
    /// The container's label: its id, with the time of retirement if it is retired.
    pub container: String,
    /// What people called it at the end of the step, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The class. Always given for class 0, which is not billed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<u8>,
    /// `ipv4` or `ipv6`, if split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<&'static str>,
    /// `in` or `out`, if split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<&'static str>,
    /// False for class 0.
    pub billed: bool,
    /// Packets and bytes.
    #[serde(flatten)]
    pub figures: Figures,
    /// What to bill, with the corrections of closed periods; `None` for class 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billing: Option<Billing>,
    /// Bits per second at the percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentile: Option<Rates>,
}

/// What was counted in one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ClassFigures {
    /// The class.
    pub class: u8,
    /// False for class 0.
    pub billed: bool,
    /// Packets and bytes.
    #[serde(flatten)]
    pub figures: Figures,
}

impl ClassFigures {
    pub(crate) fn new(class: u8, sums: [u64; 4], basis: Basis) -> Self {
        Self { class, billed: class != 0, figures: Figures::new(sums, basis) }
    }
}

/// A step of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name in the zone.
    pub period: String,
    /// Start.
    pub start: Timestamp,
    /// End, within the span.
    pub end: Timestamp,
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Step length.
    pub by: By,
    /// Start of the span.
    pub from: Timestamp,
    /// End of the span.
    pub to: Timestamp,
    /// Start of the ledger, if the span begins before it. Nothing is recorded before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger_begin: Option<Timestamp>,
    /// Time of the ledger's last reading. Nothing is recorded after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reading: Option<Timestamp>,
    /// The first step, if the span begins inside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_from: Option<PartStep>,
    /// The last step, if the span ends inside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_until: Option<PartStep>,
    /// The last step, if it is not over, and what it comes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<RunningStep>,
    /// Time zone of the steps.
    pub zone: String,
    /// Day of the month on which billing months begin.
    pub billing_day: u8,
    /// Network layer of the byte figures.
    pub basis: Basis,
    /// The basis in words.
    pub basis_statement: &'static str,
    /// All steps, also those without rows.
    #[serde(skip)]
    pub steps: Vec<Step>,
    /// The rows, ordered by step, container and class.
    pub rows: Vec<ReportRow>,
    /// Sum of all billed rows.
    pub total: Figures,
    /// Sum of what all rows are billed.
    pub billing: Billing,
    /// Sum of class 0.
    pub class_zero: Figures,
    /// Unclassified traffic, unless the query is limited to some classes.
    pub faults: Figures,
    /// The percentile that was requested.
    #[serde(skip)]
    pub percent: Option<f64>,
    /// How percentiles are taken, if they were requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentile_rule: Option<String>,
    /// Number of mixed five-minute buckets in the span. They also hold traffic of another time, because a
    /// reading was late or the clock was set. Counts only buckets whose five-minute rows still exist.
    #[serde(rename = "marked_buckets")]
    pub mixed_buckets: u64,
    /// Days and months in the span that keep the borders under which they were booked, although the rules of
    /// the zone have changed since.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept_borders: Vec<KeptBorders>,
    /// Gaps that overlap the span.
    pub gaps: Vec<Gap>,
    /// Closed periods that overlap the span. Their figures are in the rows.
    pub closed: Vec<ClosedPeriod>,
    /// Corrections of these periods. The rows have them apart from the counted figures.
    pub adjustments: Vec<ReportedAdjustment>,
    /// Classes that are billed by what was delivered: in open months, `corrected` has what was dropped of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub billed_as_delivered: Vec<u8>,
    /// Frozen and corrected figures of the corrected containers and classes, over their whole periods.
    pub corrected: Vec<Corrected>,
}

impl Ledger {
    /// Answers a query from one consistent view of the file, without blocking the writer.
    ///
    /// # Errors
    /// When the query is invalid, when it needs rows that were dropped, or when the file cannot be read.
    pub fn report(&self, query: &ReportQuery) -> Result<Report, LedgerError> {
        query.percentile.map_or(Ok(()), percentile_report::require_percent)?;
        // One view of the file for all statements.
        let view = self.conn.unchecked_transaction()?;
        let plan = self.plan(&view, query)?;
        let mut sums: BTreeMap<LineKey, [u64; 4]> = BTreeMap::new();
        if let Some(rows) = self.stored.as_deref() {
            sums = stored::sums(rows, &plan, query.split)?;
            self.limits.require_few_rows(sums.len())?;
        }
        for slice in plan.slices.iter().filter(|_| self.stored.is_none()) {
            rows::require_kept(&view, &self.calendar, slice)?;
            rows::rows(&view, slice, plan.containers.as_deref(), |row| {
                if let Some(key) = plan.line(&row) {
                    let sum = sums.entry(key).or_default();
                    sum.iter_mut().zip(row.values).for_each(|(total, value)| *total += value);
                }
                self.limits.require_few_rows(sums.len())
            })?;
        }
        let rates = match query.percentile {
            Some(percent) => percentile_report::percentiles(self, &view, &plan, percent)?,
            None => HashMap::new(),
        };
        let (from, to) = plan.range;
        let (from, to) = (Timestamp::from_second(from)?, Timestamp::from_second(to)?);
        let total = |sums: &BTreeMap<LineKey, [u64; 4]>, billed| {
            let mut total = [0; 4];
            for (_, sum) in sums.iter().filter(|(key, _)| key.4 == billed) {
                total.iter_mut().zip(sum).for_each(|(total, value)| *total += value);
            }
            Figures::new(total, query.basis)
        };
        let of_last_step = sums.iter().filter(|(key, _)| key.0 + 1 == plan.steps.len() && key.4).fold(
            [0; 4],
            |mut total, (_, &sum)| {
                add(&mut total, sum);
                total
            },
        );
        let last_reading = clock::last_reading(&view)?;
        let adjustments = self.adjustments_of(&view, &plan, &query.classes)?;
        let mut assigned = billing::assign(&plan, &adjustments);
        let delivered = delivered::subtract_open(&view, &plan, &mut assigned.by_line)?;
        // A correction may be of a container and class without figures.
        assigned.by_line.keys().for_each(|key| {
            sums.entry(*key).or_default();
        });
        let corrections = assigned.by_line.values().fold([0; 4], |sum, &of_row| billing::add(sum, of_row));
        let billed = total(&sums, true);
        let steps: Vec<Step> = (0..plan.steps.len())
            .map(|at| plan.step_named(at).map(|(period, start, end)| Step { period, start, end }))
            .collect::<Result<_, _>>()?;
        Ok(Report {
            by: query.by,
            from,
            to,
            ledger_begin: (plan.range.0 < plan.recorded_from)
                .then(|| Timestamp::from_second(plan.recorded_from))
                .transpose()?,
            last_reading,
            first_from: plan.first_from()?,
            last_until: plan.last_until()?,
            running: running_step(&plan, last_reading, of_last_step)?,
            zone: plan.calendar.zone_name().to_owned(),
            billing_day: plan.calendar.billing_day(),
            basis: query.basis,
            basis_statement: query.basis.statement(),
            total: billed,
            billing: Billing::new(billed, corrections, query.basis),
            class_zero: total(&sums, false),
            faults: self.faults_of(&view, &plan)?,
            rows: lines(&view, (&plan, &steps), (&sums, &assigned.by_line), &rates)?,
            steps,
            percent: query.percentile,
            percentile_rule: query.percentile.map(percentile_report::rule),
            mixed_buckets: self.mixed_buckets(&view, &plan)?,
            kept_borders: if self.calendar.zone_is_known() {
                Borders::new(&view, &self.calendar).kept(plan.range.0, plan.range.1)?
            } else {
                Vec::new()
            },
            gaps: self.gaps_within(&view, (Some(from), Some(to)), plan.containers.as_deref())?,
            closed: self.closed_within(&view, &plan)?,
            corrected: self.corrected_by(&view, &adjustments)?,
            adjustments: assigned.all,
            billed_as_delivered: delivered,
        })
    }
}

/// Labels of all containers, with a rank that sorts numbers by value, before other ids.
pub(super) fn labels(view: &Connection) -> Result<HashMap<i64, (usize, String)>, LedgerError> {
    let mut statement = view.prepare_cached("SELECT id, label, name FROM container")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut all: Vec<(i64, String, String)> = rows.collect::<Result<_, _>>()?;
    all.sort_by_cached_key(|(_, label, name)| {
        (name.parse().unwrap_or(u64::MAX), name.clone(), label.clone())
    });
    Ok(all.into_iter().enumerate().map(|(rank, (id, label, _))| (id, (rank, label))).collect())
}

fn lines(
    view: &Connection,
    (plan, steps): (&Plan<'_>, &[Step]),
    (sums, corrections): (&BTreeMap<LineKey, [u64; 4]>, &BTreeMap<LineKey, Signed>),
    rates: &HashMap<LineKey, Rates>,
) -> Result<Vec<ReportRow>, LedgerError> {
    let labels = labels(view)?;
    let names = names::all(view)?;
    let mut rows = Vec::with_capacity(sums.len());
    for (key, &sum) in sums {
        let &(step, container, class, family, billed) = key;
        let (rank, label) = labels.get(&container).map_or((usize::MAX, "?"), |(rank, label)| (*rank, label));
        let Step { period, start, end } = steps[step].clone();
        let figures = Figures::new(sum, plan.query.basis);
        let corrected = corrections.get(key).copied().unwrap_or_default();
        let row = ReportRow {
            period,
            start,
            end,
            container: label.to_owned(),
            name: names::at(&names, container, end),
            class,
            family: family.map(|family| Family::ALL[usize::from(family != 0)].name()),
            direction: None,
            billed,
            figures,
            billing: billed.then(|| Billing::new(figures, corrected, plan.query.basis)),
            percentile: rates.get(key).copied(),
        };
        rows.push(((step, rank), row));
    }
    rows.sort_by_key(|(order, row)| (*order, !row.billed, row.class, row.family));
    let rows = rows.into_iter().map(|(_, row)| row);
    Ok(if plan.query.split.direction {
        rows.flat_map(|row| by_direction(&row)).collect()
    } else {
        rows.collect()
    })
}

/// Splits a row into one row per direction.
fn by_direction(row: &ReportRow) -> [ReportRow; 2] {
    let one = |direction, incoming: bool, percentile| ReportRow {
        direction: Some(direction),
        figures: row.figures.only(incoming),
        billing: row.billing.map(|billing| billing.only(incoming)),
        percentile,
        ..row.clone()
    };
    [
        one("in", true, row.percentile.map(Rates::only_incoming)),
        one("out", false, row.percentile.map(Rates::only_outgoing)),
    ]
}
