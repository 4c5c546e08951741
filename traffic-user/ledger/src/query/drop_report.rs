//! The report of drops: what was counted, what was dropped of it behind the hooks and why, and what was delivered. The
//! binary's `render/ledger` formats the result.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;
use traffic_common::{DropGroup, Family};

use crate::{
    days::read::{self, AnyRow, Selection},
    error::LedgerError,
    figures::{Basis, Figures, Sums, add},
    query::{
        query_plan::{By, LineKey, Plan, ReportQuery, Split},
        report::labels,
        rows::{self, TrafficRow},
        stored,
    },
    schema::{self, DROPPED},
    store::Ledger,
    write::{gaps::Gap, names},
};

/// Counted, dropped and delivered traffic by container.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DropReport {
    /// Step length.
    pub by: By,
    /// Start of the span.
    pub from: Timestamp,
    /// End of the span.
    pub to: Timestamp,
    /// Time zone of the steps.
    pub zone: String,
    /// Day of the month on which billing months begin.
    pub billing_day: u8,
    /// Network layer of the byte figures.
    pub basis: Basis,
    /// The basis in words.
    pub basis_statement: &'static str,
    /// Since when drops are recorded; `None` if they never were. What was dropped earlier appears as delivered.
    pub recorded_from: Option<Timestamp>,
    /// The rows, ordered by step, container and class. Those without drops are among them.
    pub rows: Vec<DropRow>,
    /// Sum of all billed rows.
    pub total: Delivery,
    /// Sum of class 0.
    pub class_zero: Delivery,
    /// Nodes of a store whose drops are not among these, or not all of them: they do not record drops, or did not ship
    /// them. What they dropped appears as delivered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes_without_drops: Vec<String>,
    /// Gaps that overlap the span.
    pub gaps: Vec<Gap>,
}

/// One row of the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DropRow {
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
    /// Its figures.
    #[serde(flatten)]
    pub delivery: Delivery,
}

/// What became of some traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Delivery {
    /// What was counted.
    pub counted: Figures,
    /// What was dropped of it.
    pub dropped: Figures,
    /// What is left. A packet that was counted just before the span and dropped within it may be missing here from a
    /// container that had hardly any others: the figures do not go below 0.
    pub delivered: Figures,
    /// What was dropped, by group of reasons; those without drops are left out.
    pub reasons: Vec<DropReason>,
}

/// What was dropped for one group of reasons.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DropReason {
    /// Name of the group.
    pub reason: String,
    /// Packets and bytes.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Sums by group of reasons.
type ByReason = BTreeMap<i64, Sums>;

/// The sums of a row.
#[derive(Clone, Debug, Default)]
struct Line {
    counted: Sums,
    dropped: ByReason,
}

impl Line {
    fn add(&mut self, other: &Self) {
        add(&mut self.counted, other.counted);
        for (&reason, &sums) in &other.dropped {
            add(self.dropped.entry(reason).or_default(), sums);
        }
    }

    fn delivery(&self, basis: Basis) -> Delivery {
        let mut dropped = [0; 4];
        self.dropped.values().for_each(|&sums| add(&mut dropped, sums));
        let delivered: Sums = std::array::from_fn(|at| self.counted[at].saturating_sub(dropped[at]));
        let reasons = self.dropped.iter().filter(|(_, sums)| **sums != [0; 4]);
        Delivery {
            counted: Figures::new(self.counted, basis),
            dropped: Figures::new(dropped, basis),
            delivered: Figures::new(delivered, basis),
            reasons: reasons
                .map(|(&reason, &sums)| DropReason {
                    reason: reason_name(reason),
                    figures: Figures::new(sums, basis),
                })
                .collect(),
        }
    }
}

/// The name of a group, also of one that only a newer build knows.
fn reason_name(reason: i64) -> String {
    let known = usize::try_from(reason).ok().and_then(|reason| DropGroup::ALL.get(reason));
    known.map_or_else(|| format!("reason {reason}"), |group| group.name().to_owned())
}

impl Delivery {
    /// Whether anything was dropped.
    pub fn has_drops(&self) -> bool {
        self.dropped.total.packets != 0 || self.dropped.total.bytes != 0
    }

    /// The part of one direction.
    fn only(&self, of_incoming: bool) -> Self {
        let reasons = self.reasons.iter().map(|of| {
            let figures = of.figures.only(of_incoming);
            DropReason { figures, ..of.clone() }
        });
        Self {
            counted: self.counted.only(of_incoming),
            dropped: self.dropped.only(of_incoming),
            delivered: self.delivered.only(of_incoming),
            reasons: reasons.filter(|of| of.figures.total != Default::default()).collect(),
        }
    }
}

/// What was counted and what was dropped of it.
pub(crate) type CountedAndDropped = BTreeMap<(i64, u8, u8), (Sums, Sums)>;

impl Ledger {
    /// What was counted and what was dropped of it, by container, class and family.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub(crate) fn counted_and_dropped(
        &self,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<CountedAndDropped, LedgerError> {
        let split = Split { class: true, family: true, ..Split::default() };
        let query = ReportQuery { from: Some(from), to: Some(to), split, ..ReportQuery::default() };
        let view = self.conn.unchecked_transaction()?;
        let lines = self.drop_lines(&view, &self.plan(&view, &query)?)?;
        let mut found = CountedAndDropped::new();
        for ((_, container, class, family, _), line) in lines {
            let key = (container, class.unwrap_or_default(), family.unwrap_or_default());
            let (counted, dropped) = found.entry(key).or_default();
            add(counted, line.counted);
            line.dropped.into_values().for_each(|sums| add(dropped, sums));
        }
        Ok(found)
    }

    /// Reports what was counted, dropped and delivered.
    ///
    /// # Errors
    /// As for [`Ledger::report`]; also when the query asks for a percentile, or the rows are in a store without drops.
    pub fn report_drops(&self, query: &ReportQuery) -> Result<DropReport, LedgerError> {
        if query.percentile.is_some() {
            let what = "there are no percentiles of drops; use --percentile only with --show containers";
            return Err(LedgerError::Query(what.to_owned()));
        }
        let view = self.conn.unchecked_transaction()?;
        let plan = self.plan(&view, query)?;
        let lines = self.drop_lines(&view, &plan)?;
        let sum = |billed: bool| {
            let mut sum = Line::default();
            lines.iter().filter(|(key, _)| key.4 == billed).for_each(|(_, line)| sum.add(line));
            sum.delivery(query.basis)
        };
        let (from, to) = (Timestamp::from_second(plan.range.0)?, Timestamp::from_second(plan.range.1)?);
        Ok(DropReport {
            by: query.by,
            from,
            to,
            zone: plan.calendar.zone_name().to_owned(),
            billing_day: plan.calendar.billing_day(),
            basis: query.basis,
            basis_statement: query.basis.statement(),
            recorded_from: recorded_from(&view)?,
            rows: rows_of(&view, &plan, &lines)?,
            total: sum(true),
            class_zero: sum(false),
            nodes_without_drops: match self.stored.as_deref() {
                Some(stored) => stored::nodes_without_drops(stored, &plan)?,
                None => Vec::new(),
            },
            gaps: self.gaps_within(&view, (Some(from), Some(to)), plan.containers.as_deref())?,
        })
    }

    fn drop_lines(&self, view: &Connection, plan: &Plan<'_>) -> Result<BTreeMap<LineKey, Line>, LedgerError> {
        let mut lines: BTreeMap<LineKey, Line> = BTreeMap::new();
        if let Some(stored) = self.stored.as_deref() {
            for (key, reason, sums) in stored::drops(stored, plan)? {
                let line = lines.entry(key).or_default();
                add(reason.map_or(&mut line.counted, |reason| line.dropped.entry(reason).or_default()), sums);
            }
            self.limits.require_few_rows(lines.len())?;
            return Ok(lines);
        }
        let containers = plan.containers.as_deref();
        for slice in &plan.slices {
            rows::require_kept(view, &self.calendar, slice)?;
            rows::rows(view, slice, containers, |row| {
                if let Some(key) = plan.line(&row) {
                    add(&mut lines.entry(key).or_default().counted, row.values);
                }
                self.limits.require_few_rows(lines.len())
            })?;
            let range = (slice.start, slice.end);
            let dropped = Selection { owners: containers, ..Selection::all(&DROPPED, slice.level, range) };
            read::each(view, &dropped, |row| {
                let (row, reason) = drop_row(&row)?;
                if let Some(key) = plan.line(&row) {
                    let line = lines.entry(key).or_default();
                    add(line.dropped.entry(reason).or_default(), row.values);
                }
                self.limits.require_few_rows(lines.len())
            })?;
        }
        Ok(lines)
    }
}

/// Since when drops are recorded.
pub(crate) fn recorded_from(view: &Connection) -> Result<Option<Timestamp>, LedgerError> {
    let sql = "SELECT recorded FROM drop_set";
    Ok(view.query_row(sql, [], |row| schema::time(row, 0)).optional()?)
}

/// A row of drops as one of classes, and its reason.
pub(crate) fn drop_row(row: &AnyRow) -> Result<(TrafficRow, i64), LedgerError> {
    let (container, class, family) = rows::owner(&row.series)?;
    let [a, b, c, d, ..] = row.values;
    Ok((TrafficRow { start: row.start, container, class, family, values: [a, b, c, d] }, row.series[3]))
}

fn rows_of(
    view: &Connection,
    plan: &Plan<'_>,
    lines: &BTreeMap<LineKey, Line>,
) -> Result<Vec<DropRow>, LedgerError> {
    let (labels, names) = (labels(view)?, names::all(view)?);
    let mut rows = Vec::with_capacity(lines.len());
    for (&(step, container, class, family, billed), line) in lines {
        let (period, start, end) = plan.step_named(step)?;
        let (rank, label) = labels.get(&container).map_or((usize::MAX, "?"), |(rank, label)| (*rank, label));
        let row = DropRow {
            period,
            start,
            end,
            container: label.to_owned(),
            name: names::at(&names, container, end),
            class,
            family: family.map(|family| Family::ALL[usize::from(family != 0)].name()),
            direction: None,
            billed,
            delivery: line.delivery(plan.query.basis),
        };
        rows.push(((step, rank), row));
    }
    rows.sort_by_key(|(order, row)| (*order, !row.billed, row.class, row.family));
    let rows = rows.into_iter().map(|(_, row)| row);
    Ok(match plan.query.split.direction {
        true => rows.flat_map(|row| by_direction(&row)).collect(),
        false => rows.collect(),
    })
}

/// Splits a row into one row per direction.
fn by_direction(row: &DropRow) -> [DropRow; 2] {
    [("in", true), ("out", false)].map(|(direction, incoming)| DropRow {
        direction: Some(direction),
        delivery: row.delivery.only(incoming),
        ..row.clone()
    })
}
