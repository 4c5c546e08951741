//! Classes that are billed by what was delivered (`bill = "delivered"`), not by what was counted.
//!
//! What was counted never changes. In an open month, what was dropped is subtracted in the corrections of a report's
//! rows, by the present setting. Closing a month makes it corrections of that month, one of each container, class and
//! family: they are in the chain, so that a later change of the setting changes no closed month.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::{Connection, Transaction};
use serde::Serialize;
use traffic_model::calendar::Level;

use crate::{
    closing::{
        adjust,
        correction::{Adjustment, Signed},
    },
    days::read::{self, Selection},
    digest,
    error::LedgerError,
    figures::{Basis, Figures, Sums, add},
    ids,
    query::{billing, drop_report::drop_row, query_plan::LineKey, query_plan::Plan},
    schema::{DROPPED, Kind, TRAFFIC},
    store::Ledger,
    write::last_reading::frozen,
};

/// Key of the classes in the ledger, so that every reader knows them.
const KEY: &str = "bill_delivered";

/// The classes that are billed by what was delivered.
pub(crate) fn classes(conn: &Connection) -> Result<BTreeSet<u8>, LedgerError> {
    let text: Option<String> = ids::meta(conn, KEY)?;
    Ok(text.unwrap_or_default().split(',').filter_map(|class| class.parse().ok()).collect())
}

/// Stores them, if they are others than before.
pub(crate) fn store(conn: &Connection, delivered: &BTreeSet<u8>) -> Result<(), LedgerError> {
    if classes(conn)? == *delivered {
        return Ok(());
    }
    let text: Vec<String> = delivered.iter().map(u8::to_string).collect();
    digest::change(conn, |transaction| ids::set_meta(transaction, KEY, text.join(",")))
}

/// Subtracts what was dropped in open months from the rows of a report. Returns the classes that this is about.
pub(crate) fn subtract_open(
    view: &Connection,
    plan: &Plan<'_>,
    corrections: &mut BTreeMap<LineKey, Signed>,
) -> Result<Vec<u8>, LedgerError> {
    let delivered = classes(view)?;
    if delivered.is_empty() {
        return Ok(Vec::new());
    }
    let closed = frozen(view)?.closed;
    let mut found = BTreeSet::new();
    for slice in &plan.slices {
        let range = (slice.start, slice.end);
        let owners = plan.containers.as_deref();
        let selection = Selection { owners, ..Selection::all(&DROPPED, slice.level, range) };
        read::each(view, &selection, |row| {
            let (row, _) = drop_row(&row)?;
            let is_closed = closed.iter().any(|&(start, end)| start <= row.start && row.start < end);
            if is_closed || !delivered.contains(&row.class) {
                return Ok(());
            }
            if let Some(key) = plan.line(&row) {
                let sums = corrections.entry(key).or_default();
                *sums = billing::add(*sums, row.values.map(minus));
                found.insert(row.class);
            }
            Ok(())
        })?;
    }
    Ok(found.into_iter().collect())
}

fn minus(value: u64) -> i64 {
    i64::try_from(value).map_or(i64::MIN, std::ops::Neg::neg)
}

/// What closing a month takes off the bill of a class that is billed by what was delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeliveredClass {
    /// The class.
    pub class: u8,
    /// The corrections that it makes: one of each container and family with drops.
    pub corrections: usize,
    /// What they take off together, layer 3.
    pub dropped: Figures,
}

/// What [`correct`] would take off in a month, by class; classes without drops are left out.
///
/// # Errors
/// When the rows cannot be read.
pub(crate) fn preview(
    ledger: &Ledger,
    month: (Timestamp, Timestamp),
) -> Result<Vec<DeliveredClass>, LedgerError> {
    let delivered = classes(&ledger.conn)?;
    if delivered.is_empty() {
        return Ok(Vec::new());
    }
    let mut of_classes: BTreeMap<u8, (usize, Sums)> = BTreeMap::new();
    for ((_, class, _), (counted, dropped)) in ledger.counted_and_dropped(month)? {
        let dropped = deducted(counted, dropped);
        if delivered.contains(&class) && dropped != [0; 4] {
            let (corrections, sums) = of_classes.entry(class).or_default();
            *corrections += 1;
            add(sums, dropped);
        }
    }
    let rows = of_classes.into_iter().map(|(class, (corrections, sums))| DeliveredClass {
        class,
        corrections,
        dropped: Figures::new(sums, Basis::L3),
    });
    Ok(rows.collect())
}

/// What was dropped of what the month counted: its first packets may have been counted in the month before.
fn deducted(counted: Sums, dropped: Sums) -> Sums {
    std::array::from_fn(|at| dropped[at].min(counted[at]))
}

/// Adds the corrections of a month that is being closed, whose rows are frozen already.
pub(crate) fn correct(
    transaction: &Transaction<'_>,
    (period, name, start): (i64, &str, i64),
    made: Timestamp,
) -> Result<(), LedgerError> {
    let delivered = classes(transaction)?;
    if delivered.is_empty() {
        return Ok(());
    }
    let counted = of_month(transaction, &TRAFFIC, start)?;
    for (key, dropped) in of_month(transaction, &DROPPED, start)? {
        let (container, class, family) = key;
        let counted = counted.get(&key).copied().unwrap_or_default();
        let dropped = deducted(counted, dropped);
        if !delivered.contains(&class) || dropped == [0; 4] {
            continue;
        }
        let label: String = transaction
            .prepare_cached("SELECT label FROM container WHERE id = ?1")?
            .query_row([container], |row| row.get(0))?;
        let [in_packets, in_bytes, out_packets, out_bytes] = dropped.map(minus);
        let correction = Adjustment {
            period: name.to_owned(),
            made: Timestamp::from_second(made.as_second())?,
            container: label,
            class,
            family,
            packets: [in_packets, out_packets],
            bytes: [in_bytes, out_bytes],
            reason: "dropped after it was counted: this class is billed by what was delivered".to_owned(),
        };
        adjust::insert(transaction, (period, container), &correction)?;
    }
    Ok(())
}

/// The sums of a month by container, class and family.
fn of_month(
    conn: &Connection,
    kind: &Kind,
    start: i64,
) -> Result<BTreeMap<(i64, u8, u8), Sums>, LedgerError> {
    let mut sums = BTreeMap::new();
    read::each(conn, &Selection::all(kind, Level::Month, (start, start + 1)), |row| {
        let [a, b, c, d, ..] = row.values;
        add(sums.entry(crate::query::rows::owner(&row.series)?).or_default(), [a, b, c, d]);
        Ok(())
    })?;
    Ok(sums)
}
