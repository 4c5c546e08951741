//! The 95th percentiles of closed months, frozen when they are closed: five-minute rows are dropped later.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use crate::{
    error::LedgerError,
    figures::Basis,
    query::{
        percentile_report::{Rates, percentiles},
        query_plan::{By, LineKey, Plan, ReportQuery, Split},
    },
    store::Ledger,
};

/// The percentile that closing freezes.
pub(crate) const FROZEN_PERCENT: f64 = 95.0;
/// Stands for all billed classes together.
const BILLED: i64 = -1;

const BASES: [Basis; 3] = [Basis::L3, Basis::L2, Basis::L1];

const fn number(basis: Basis) -> i64 {
    match basis {
        Basis::L3 => 3,
        Basis::L2 => 2,
        Basis::L1 => 1,
    }
}

/// The basis of a stored number.
pub(crate) const fn basis(number: i64) -> Basis {
    match number {
        1 => Basis::L1,
        2 => Basis::L2,
        _ => Basis::L3,
    }
}

/// One rate to freeze.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClosedRate {
    container: i64,
    class: i64,
    basis: Basis,
    rates: Rates,
}

/// Computes the rates of a month. `None` if some of its five-minute rows were dropped.
pub(crate) fn compute(ledger: &Ledger, start: i64, end: i64) -> Result<Option<Vec<ClosedRate>>, LedgerError> {
    let mut all = Vec::new();
    for (basis, class) in BASES.into_iter().flat_map(|basis| [(basis, false), (basis, true)]) {
        let query = ReportQuery {
            by: By::Total,
            from: Some(Timestamp::from_second(start)?),
            to: Some(Timestamp::from_second(end)?),
            split: Split { class, ..Split::default() },
            percentile: Some(FROZEN_PERCENT),
            basis,
            ..ReportQuery::default()
        };
        let view = ledger.conn.unchecked_transaction()?;
        let plan = ledger.plan(&view, &query)?;
        let rates = match percentiles(ledger, &view, &plan, FROZEN_PERCENT) {
            Ok(rates) => rates,
            Err(LedgerError::Query(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        for ((_, container, of_class, _, _), rates) in rates {
            // Class 0 is never billed, so both queries have it.
            if !(class && of_class == Some(0)) {
                let class = of_class.map_or(BILLED, i64::from);
                all.push(ClosedRate { container, class, basis, rates });
            }
        }
    }
    Ok(Some(all))
}

/// Stores the rates of a period.
pub(crate) fn store(conn: &Connection, period: i64, rates: &[ClosedRate]) -> Result<(), LedgerError> {
    let mut insert =
        conn.prepare_cached("INSERT INTO closed_rate VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
    for ClosedRate { container, class, basis, rates } in rates {
        let bits = |rate: Option<u64>| rate.unwrap_or_default().cast_signed();
        insert.execute(params![
            period,
            container,
            class,
            number(*basis),
            bits(rates.incoming),
            bits(rates.outgoing),
            bits(rates.total),
            rates.buckets.cast_signed(),
            rates.spread_buckets.cast_signed(),
        ])?;
    }
    Ok(())
}

/// Whether closing freezes what a query asks for.
pub(crate) fn are_frozen(query: &ReportQuery, percent: f64) -> bool {
    let frozen_kind = query.classes.is_empty() || query.split.class;
    (percent - FROZEN_PERCENT).abs() <= f64::EPSILON && !query.split.family && frozen_kind
}

/// Reads the frozen rates of a step into `rates`. Returns false if it is not a whole closed month, or the
/// query asks for something that is not frozen.
pub(crate) fn read(
    view: &Connection,
    plan: &Plan<'_>,
    step: usize,
    percent: f64,
    rates: &mut HashMap<LineKey, Rates>,
) -> Result<bool, LedgerError> {
    let query = plan.query;
    if !are_frozen(query, percent) {
        return Ok(false);
    }
    let (start, end) = plan.steps[step];
    let mut statement = view.prepare_cached(
        "SELECT r.number, r.class, r.in_bits, r.out_bits, r.total_bits, r.buckets, r.spread_buckets
         FROM period p JOIN closed_rate r ON r.period = p.id AND r.basis = ?3
         WHERE p.start = ?1 AND p.end = ?2",
    )?;
    let mut rows = statement.query([start, end, number(query.basis)])?;
    let mut found = false;
    while let Some(row) = rows.next()? {
        found = true;
        let (container, number): (i64, i64) = (row.get(0)?, row.get(1)?);
        let class = u8::try_from(number).ok();
        let asked = plan.containers.as_ref().is_none_or(|containers| containers.contains(&container))
            && (query.classes.is_empty() || class.is_some_and(|class| query.classes.contains(&class)))
            && (number == 0 || query.split.class == (number != BILLED));
        if !asked {
            continue;
        }
        let bits = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        rates.insert(
            (step, container, class, None, number != 0),
            Rates {
                incoming: Some(bits(2)?),
                outgoing: Some(bits(3)?),
                total: Some(bits(4)?),
                buckets: bits(5)?,
                spread_buckets: bits(6)?,
            },
        );
    }
    Ok(found)
}
