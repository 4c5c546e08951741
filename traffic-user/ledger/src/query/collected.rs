//! Sums the rows of a span by step, interface, container and fault, and knows which container owns an
//! interface. The interface report and its balance share the result.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::Connection;
use traffic_model::calendar::Calendar;

use crate::{
    error::LedgerError,
    figures::{Sums, add},
    query::{
        query_plan::Plan,
        rows::{self, Slice},
    },
    schema::{FAULT, Kind, PASSED, TRAFFIC},
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
        let mut statement = view.prepare("SELECT id, name, container FROM interface")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
        let interfaces: HashMap<i64, (String, i64)> = rows.collect::<Result<_, _>>()?;
        let mut statement = view.prepare("SELECT id, label FROM container")?;
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
    for slice in slices {
        let filter = containers.map_or_else(String::new, |containers| {
            format!("AND interface IN (SELECT id FROM interface WHERE container IN ({}))", list(containers))
        });
        let sql = format!(
            "SELECT sum(in_packets), sum(in_bytes), sum(out_packets), sum(out_bytes) FROM {}
             WHERE start >= ?1 AND start < ?2 {filter}",
            FAULT.table(slice.level),
        );
        let sums = view.query_row(&sql, [slice.start, slice.end], |row| {
            let value =
                |at| row.get::<_, Option<i64>>(at).map(|value| value.unwrap_or_default().cast_unsigned());
            Ok([value(0)?, value(1)?, value(2)?, value(3)?])
        })?;
        add(&mut all, sums);
    }
    Ok(all)
}

fn list(numbers: &[i64]) -> String {
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

/// The series that were imported from PVA.
pub(crate) fn pva_series(view: &Connection) -> Result<Vec<i64>, LedgerError> {
    let mut statement = view
        .prepare("SELECT s.id FROM stream s JOIN epoch e ON e.id = s.epoch WHERE e.boot_id = 'pva-import'")?;
    let series_count = statement.query_map([], |row| row.get(0))?;
    Ok(series_count.collect::<Result<_, _>>()?)
}

/// Reads the rows of a plan. `stored` is the ledger's own calendar, which may differ from the query's.
pub(crate) fn collect(
    stored: &Calendar,
    view: &Connection,
    plan: &Plan<'_>,
    pva: &[i64],
) -> Result<Collected, LedgerError> {
    let mut collected = Collected::default();
    let containers = plan.containers.as_deref().map(list);
    let of_interfaces = containers
        .as_ref()
        .map(|list| format!("AND interface IN (SELECT id FROM interface WHERE container IN ({list}))"))
        .unwrap_or_default();
    let of_containers = containers.map(|list| format!("AND container IN ({list})")).unwrap_or_default();
    let not_pva = if pva.is_empty() { String::new() } else { format!("AND stream NOT IN ({})", list(pva)) };
    for slice in &plan.slices {
        rows::require_kept(view, stored, slice)?;
        let select = |kind: &Kind, keys: &str, filter: &str| {
            format!(
                "SELECT start, {keys}, in_packets, in_bytes, out_packets, out_bytes FROM {}
                 WHERE start >= ?1 AND start < ?2 {filter}",
                kind.table(slice.level),
            )
        };
        each(
            view,
            &select(&PASSED, "interface, 0", &of_interfaces),
            slice,
            plan,
            |step, [interface, _], sums| {
                add(collected.passed.entry((step, interface)).or_default(), sums);
            },
        )?;
        each(
            view,
            &select(&FAULT, "interface, fault", &of_interfaces),
            slice,
            plan,
            |step, [interface, fault], sums| {
                add(collected.faults.entry((step, interface, fault)).or_default(), sums);
            },
        )?;
        let filter = format!("{of_containers} {not_pva}");
        each(
            view,
            &select(&TRAFFIC, "container, class", &filter),
            slice,
            plan,
            |step, [container, class], sums| {
                add(collected.classes.entry((step, container, class != 0)).or_default(), sums);
            },
        )?;
    }
    Ok(collected)
}

/// Passes on the rows of a statement that selects start, two keys and four values.
fn each(
    view: &Connection,
    sql: &str,
    slice: &Slice,
    plan: &Plan<'_>,
    mut take: impl FnMut(usize, [i64; 2], Sums),
) -> Result<(), LedgerError> {
    let mut statement = view.prepare(sql)?;
    let mut rows = statement.query([slice.start, slice.end])?;
    while let Some(row) = rows.next()? {
        let Some(step) = plan.step(row.get(0)?) else { continue };
        let value = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        take(step, [row.get(1)?, row.get(2)?], [value(3)?, value(4)?, value(5)?, value(6)?]);
    }
    Ok(())
}

/// Sort key of a label: numbers come first, by value.
pub(crate) fn rank(label: &str) -> (u64, &str) {
    (label.parse().unwrap_or(u64::MAX), label)
}
