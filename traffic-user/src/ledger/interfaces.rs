//! What passed interfaces, and which faults are in it: for who must explain a bill. Plain data; how it looks is
//! `render`'s business, and whether it adds up `balance`'s.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use rusqlite::Connection;
use serde::Serialize;
use traffic_common::Fault;

use super::balance::{self, BalanceRow};
use super::error::LedgerError;
use super::figures::{Basis, Figures, Sums, add};
use super::gaps::{self, Gap};
use super::plan::{By, Plan, ReportQuery};
use super::query::{self, Slice};
use super::schema::{FAULT, Kind, PASSED, TRAFFIC};
use super::store::Ledger;

/// The name of all shared interfaces and of all containers that have no other.
pub(super) const SHARED: &str = "(shared)";

/// What passed, by interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InterfaceReport {
    /// Steps.
    pub by: By,
    /// Begin of the span.
    pub from: Timestamp,
    /// End of the span.
    pub to: Timestamp,
    /// Zone of the steps.
    pub zone: String,
    /// Day on which months begin.
    pub billing_day: u8,
    /// What bytes are measured on.
    pub basis: Basis,
    /// The same in words.
    pub basis_statement: &'static str,
    /// What passed each interface.
    pub interfaces: Vec<InterfaceRow>,
    /// What of it is in no class, by reason.
    pub faults: Vec<FaultRow>,
    /// Passed = classes + faults.
    pub balance: Vec<BalanceRow>,
    /// True when there is history from PVA, which knew no interfaces: it is in none of these figures.
    pub without_pva_history: bool,
    /// Gaps that touch the span.
    pub gaps: Vec<Gap>,
}

/// What passed an interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InterfaceRow {
    /// The step's name in the zone.
    pub period: String,
    /// Its begin.
    pub start: Timestamp,
    /// Its end.
    pub end: Timestamp,
    /// The interface.
    pub interface: String,
    /// Its container's label, or `(shared)`.
    pub container: String,
    /// All that passed.
    pub passed: Figures,
    /// What of it is in no class.
    pub faults: Figures,
}

/// What an interface carried and is in no class, for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaultRow {
    /// The step's name in the zone.
    pub period: String,
    /// Its begin.
    pub start: Timestamp,
    /// Its end.
    pub end: Timestamp,
    /// The interface.
    pub interface: String,
    /// Its container's label, or `(shared)`.
    pub container: String,
    /// The fault's name.
    pub fault: String,
    /// Packets and bytes.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Everything in the span, summed up by step.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub passed: BTreeMap<(usize, i64), Sums>,
    pub faults: BTreeMap<(usize, i64, i64), Sums>,
    /// By container and whether it is billed.
    pub classes: BTreeMap<(usize, i64, bool), Sums>,
}

/// The interfaces and containers of the ledger.
#[derive(Debug)]
pub(super) struct Owners {
    /// Name and container (0 for a shared one) by number.
    interfaces: HashMap<i64, (String, i64)>,
    labels: HashMap<i64, String>,
    /// Containers that have an interface of their own.
    pub own: BTreeSet<i64>,
}

impl Ledger {
    /// What passed, which faults are in it, and whether it adds up. Of the question, steps, span, containers, calendar and
    /// basis count.
    ///
    /// # Errors
    /// As for [`Ledger::report`]; and when classes, a split or a percentile are asked for.
    pub fn report_interfaces(&self, query: &ReportQuery) -> Result<InterfaceReport, LedgerError> {
        if !query.classes.is_empty() || query.percentile.is_some() || query.split != Default::default() {
            return Err(LedgerError::Query(
                "interfaces know no classes: --class, --split and --percentile go with --show containers"
                    .to_owned(),
            ));
        }
        let view = self.conn.unchecked_transaction()?;
        let plan = self.plan(&view, query)?;
        let owners = Owners::read(&view)?;
        let pva = pva_streams(&view)?;
        let collected = collect(self, &view, &plan, &pva)?;
        let (from, to) = (Timestamp::from_second(plan.range.0)?, Timestamp::from_second(plan.range.1)?);
        Ok(InterfaceReport {
            by: query.by,
            from,
            to,
            zone: plan.calendar.zone_name().to_owned(),
            billing_day: plan.calendar.billing_day(),
            basis: query.basis,
            basis_statement: query.basis.statement(),
            interfaces: interface_rows(&plan, &owners, &collected)?,
            faults: fault_rows(&plan, &owners, &collected)?,
            balance: balance::rows(&plan, &owners, &collected)?,
            without_pva_history: !pva.is_empty(),
            gaps: gaps::list(&view, Some(from), Some(to))?,
        })
    }
}

/// What is in no class, over a whole span.
pub(super) fn faults_within(
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

/// Streams of what PVA counted.
fn pva_streams(view: &Connection) -> Result<Vec<i64>, LedgerError> {
    let mut statement = view
        .prepare("SELECT s.id FROM stream s JOIN epoch e ON e.id = s.epoch WHERE e.boot_id = 'pva-import'")?;
    let streams = statement.query_map([], |row| row.get(0))?;
    Ok(streams.collect::<Result<_, _>>()?)
}

fn collect(
    ledger: &Ledger,
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
        query::require_kept(view, &ledger.calendar, slice)?;
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

/// Gives the rows of a statement that selects start, two keys and four values.
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

impl Owners {
    fn read(view: &Connection) -> Result<Self, LedgerError> {
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

    /// An interface's name and its container's label.
    fn interface(&self, number: i64) -> (String, String) {
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

/// Numbers first and by their value.
pub(super) fn rank(label: &str) -> (u64, &str) {
    (label.parse().unwrap_or(u64::MAX), label)
}

fn interface_rows(
    plan: &Plan<'_>,
    owners: &Owners,
    collected: &Collected,
) -> Result<Vec<InterfaceRow>, LedgerError> {
    let mut faults: BTreeMap<(usize, i64), Sums> = BTreeMap::new();
    for (&(step, interface, _), &sums) in &collected.faults {
        add(faults.entry((step, interface)).or_default(), sums);
    }
    let keys: BTreeSet<(usize, i64)> = collected.passed.keys().chain(faults.keys()).copied().collect();
    let mut rows = Vec::with_capacity(keys.len());
    for key in keys {
        let (period, start, end) = plan.step_named(key.0)?;
        let (interface, container) = owners.interface(key.1);
        let of = |sums: &BTreeMap<(usize, i64), Sums>| sums.get(&key).copied().unwrap_or_default();
        let (passed, faults) = (of(&collected.passed), of(&faults));
        let (passed, faults) =
            (Figures::new(passed, plan.query.basis), Figures::new(faults, plan.query.basis));
        rows.push(InterfaceRow { period, start, end, interface, container, passed, faults });
    }
    rows.sort_by(|a, b| {
        (a.start, rank(&a.container), &a.interface).cmp(&(b.start, rank(&b.container), &b.interface))
    });
    Ok(rows)
}

fn fault_rows(plan: &Plan<'_>, owners: &Owners, collected: &Collected) -> Result<Vec<FaultRow>, LedgerError> {
    let mut rows = Vec::with_capacity(collected.faults.len());
    for (&(step, interface, fault), &sums) in &collected.faults {
        let (period, start, end) = plan.step_named(step)?;
        let (interface, container) = owners.interface(interface);
        let known = usize::try_from(fault).ok().and_then(|fault| Fault::ALL.get(fault));
        let fault = known.map_or_else(|| format!("fault {fault}"), |fault| fault.name().to_owned());
        let figures = Figures::new(sums, plan.query.basis);
        rows.push(FaultRow { period, start, end, interface, container, fault, figures });
    }
    rows.sort_by(|a, b| {
        (a.start, rank(&a.container), &a.interface).cmp(&(b.start, rank(&b.container), &b.interface))
    });
    Ok(rows)
}
