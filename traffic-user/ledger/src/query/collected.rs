//! Sums the rows of a span by step, interface, container and fault, and knows which container owns an
//! interface. The interface report and its balance share the result.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::Connection;
use traffic_model::calendar::Calendar;

use crate::{
    days::read::{self, AnyRow, Selection},
    error::LedgerError,
    figures::{Sums, add},
    query::{
        limits::QueryLimits,
        query_plan::Plan,
        rows::{self, Slice},
    },
    schema::{FAULT, PASSED, TALLY, TRAFFIC},
};

/// Name of all shared interfaces, and of all containers without an interface of their own.
pub(crate) const SHARED: &str = "(shared)";

/// All sums of the span, by step.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub passed: BTreeMap<(usize, i64), Sums>,
    pub faults: BTreeMap<(usize, i64, i64), Sums>,
    /// By container and by whether the class is billed.
    pub classes: BTreeMap<(usize, i64, bool), Sums>,
}

/// The interfaces and containers of the ledger.
#[derive(Debug)]
pub(crate) struct Owners {
    /// Name and container (0 for a shared interface) by id.
    interfaces: HashMap<i64, (String, i64)>,
    labels: HashMap<i64, String>,
    /// Containers with an interface of their own.
    pub own: BTreeSet<i64>,
}

impl Owners {
    pub fn read(view: &Connection) -> Result<Self, LedgerError> {
        let mut statement = view.prepare_cached("SELECT id, name, container FROM interface")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
        let interfaces: HashMap<i64, (String, i64)> = rows.collect::<Result<_, _>>()?;
        let mut statement = view.prepare_cached("SELECT id, label FROM container")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let labels = rows.collect::<Result<_, _>>()?;
        let own = interfaces
            .values()
            .map(|(_, container)| *container)
            .filter(|&container| container != 0)
            .collect();
        Ok(Self { interfaces, labels, own })
    }

    pub fn label(&self, container: i64) -> String {
        self.labels.get(&container).cloned().unwrap_or_else(|| SHARED.to_owned())
    }

    /// The name of an interface and the label of its container.
    pub fn interface(&self, number: i64) -> (String, String) {
        match self.interfaces.get(&number) {
            Some((name, container)) => (name.clone(), self.label(*container)),
            None => (format!("number {number}"), SHARED.to_owned()),
        }
    }

    /// The container of an interface; 0 for a shared one.
    pub fn of_interface(&self, number: i64) -> i64 {
        self.interfaces.get(&number).map_or(0, |(_, container)| *container)
    }
}

/// Sums the faults of a span.
pub(crate) fn faults_within(
    view: &Connection,
    slices: &[Slice],
    containers: Option<&[i64]>,
) -> Result<Sums, LedgerError> {
    let mut all = [0; 4];
    let interfaces = containers.map(|containers| interfaces_of(view, containers)).transpose()?;
    for slice in slices {
        let selection = Selection {
            owners: interfaces.as_deref(),
            values: &TALLY,
            ..Selection::all(&FAULT, slice.level, (slice.start, slice.end))
        };
        read::each(view, &selection, |row| {
            add(&mut all, four(&row));
            Ok(())
        })?;
    }
    Ok(all)
}

/// The first four values of a row.
const fn four(row: &AnyRow) -> Sums {
    let [a, b, c, d, ..] = row.values;
    [a, b, c, d]
}

/// The interfaces of containers.
fn interfaces_of(view: &Connection, containers: &[i64]) -> Result<Vec<i64>, LedgerError> {
    let sql = format!("SELECT id FROM interface WHERE container IN ({})", list(containers));
    let mut statement = view.prepare_cached(&sql)?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

fn list(numbers: &[i64]) -> String {
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

/// The series that were imported from PVA.
pub(crate) fn pva_series(view: &Connection) -> Result<Vec<i64>, LedgerError> {
    let mut statement = view.prepare_cached(
        "SELECT s.id FROM stream s JOIN epoch e ON e.id = s.epoch WHERE e.boot_id = 'pva-import'",
    )?;
    let series_count = statement.query_map([], |row| row.get(0))?;
    Ok(series_count.collect::<Result<_, _>>()?)
}

impl Collected {
    fn len(&self) -> usize {
        self.passed.len() + self.faults.len() + self.classes.len()
    }
}

/// Reads the rows of a plan. `stored` is the ledger's own calendar, which may differ from the query's.
pub(crate) fn collect(
    (stored, limits): (&Calendar, QueryLimits),
    view: &Connection,
    plan: &Plan<'_>,
    pva: &[i64],
) -> Result<Collected, LedgerError> {
    let mut collected = Collected::default();
    let containers = plan.containers.as_deref();
    let interfaces = containers.map(|containers| interfaces_of(view, containers)).transpose()?;
    for slice in &plan.slices {
        rows::require_kept(view, stored, slice)?;
        let select = |kind, owners| Selection {
            owners,
            values: &TALLY,
            ..Selection::all(kind, slice.level, (slice.start, slice.end))
        };
        read::each(view, &select(&PASSED, interfaces.as_deref()), |row| {
            if let Some(step) = plan.step(row.start) {
                add(collected.passed.entry((step, row.series[0])).or_default(), four(&row));
            }
            limits.require_few_rows(collected.len())
        })?;
        read::each(view, &select(&FAULT, interfaces.as_deref()), |row| {
            if let Some(step) = plan.step(row.start) {
                let [interface, fault, ..] = row.series;
                add(collected.faults.entry((step, interface, fault)).or_default(), four(&row));
            }
            limits.require_few_rows(collected.len())
        })?;
        read::each(view, &select(&TRAFFIC, containers), |row| {
            let [container, class, _, stream, _] = row.series;
            if let Some(step) = plan.step(row.start).filter(|_| !pva.contains(&stream)) {
                add(collected.classes.entry((step, container, class != 0)).or_default(), four(&row));
            }
            limits.require_few_rows(collected.len())
        })?;
    }
    Ok(collected)
}

/// Sort key of a label: numbers come first, by value.
pub(crate) fn rank(label: &str) -> (u64, &str) {
    (label.parse().unwrap_or(u64::MAX), label)
}
