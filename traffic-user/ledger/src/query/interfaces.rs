//! The interface report: what passed each interface, and the faults in it. Balances are in `balance`, and the
//! binary's `render/ledger` formats the result.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use traffic_common::Fault;

use crate::{
    error::LedgerError,
    figures::{Basis, Figures, Sums, add},
    query::{
        balance::{self, BalanceRow},
        collected::{Collected, Owners, collect, pva_series, rank},
        query_plan::{By, Plan, ReportQuery},
        stored,
    },
    store::Ledger,
    write::gaps::Gap,
};

/// Traffic by interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InterfaceReport {
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
    /// What passed each interface.
    pub interfaces: Vec<InterfaceRow>,
    /// The unclassified part, by reason.
    pub faults: Vec<FaultRow>,
    /// Comparison of what passed with classes and faults.
    pub balance: Vec<BalanceRow>,
    /// Whether the ledger holds history from PVA. PVA had no interfaces, so that history is in none of these
    /// figures.
    pub without_pva_history: bool,
    /// Gaps that overlap the span.
    pub gaps: Vec<Gap>,
}

/// What passed an interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InterfaceRow {
    /// Name of the step in the zone.
    pub period: String,
    /// Start of the step.
    pub start: Timestamp,
    /// End of the step.
    pub end: Timestamp,
    /// Name of the interface.
    pub interface: String,
    /// Label of its container, or `(shared)`.
    pub container: String,
    /// Everything that passed.
    pub passed: Figures,
    /// The unclassified part of it.
    pub faults: Figures,
}

/// Unclassified traffic of an interface, for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaultRow {
    /// Name of the step in the zone.
    pub period: String,
    /// Start of the step.
    pub start: Timestamp,
    /// End of the step.
    pub end: Timestamp,
    /// Name of the interface.
    pub interface: String,
    /// Label of its container, or `(shared)`.
    pub container: String,
    /// Name of the fault.
    pub fault: String,
    /// Packets and bytes.
    #[serde(flatten)]
    pub figures: Figures,
}

impl Ledger {
    /// Reports what passed each interface, the faults in it, and the balance. It uses the steps, span,
    /// containers, calendar and basis of the query.
    ///
    /// # Errors
    /// As for [`Ledger::report`]; also when the query asks for classes, a split or a percentile.
    pub fn report_interfaces(&self, query: &ReportQuery) -> Result<InterfaceReport, LedgerError> {
        if !query.classes.is_empty() || query.percentile.is_some() || query.split != Default::default() {
            return Err(LedgerError::Query(
                "interfaces have no classes; use --class, --split and --percentile only with --show \
                 containers"
                    .to_owned(),
            ));
        }
        let view = self.conn.unchecked_transaction()?;
        let plan = self.plan(&view, query)?;
        let owners = Owners::read(&view)?;
        let (collected, without_pva_history) = match self.stored.as_deref() {
            Some(rows) => stored::collected(rows, &plan)?,
            None => {
                let pva = pva_series(&view)?;
                (collect((&self.calendar, self.limits), &view, &plan, &pva)?, !pva.is_empty())
            }
        };
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
            without_pva_history,
            gaps: self.gaps_within(&view, (Some(from), Some(to)), plan.containers.as_deref())?,
        })
    }
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
