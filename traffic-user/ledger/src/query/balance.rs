//! Balances: whether classes and faults add up to what passed the interfaces.
//!
//! The ledger has classes per container and faults per interface. If an interface belongs to one container,
//! both meet in that container's row. All shared interfaces, and all containers without an interface of their
//! own, share one row.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    error::LedgerError,
    figures::{Sums, Volume, add},
    query::{
        collected::{Collected, Owners, SHARED, rank},
        query_plan::Plan,
    },
};

/// Name of the row of the whole node.
const NODE: &str = "(node)";

/// The balance of one container, or of a group of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BalanceRow {
    /// Name of the step in the zone.
    pub period: String,
    /// Start of the step.
    pub start: Timestamp,
    /// End of the step.
    pub end: Timestamp,
    /// A container with interfaces of its own, `(shared)` or `(node)`.
    pub container: String,
    /// Traffic to the container.
    #[serde(rename = "in")]
    pub incoming: Balance,
    /// Traffic from the container.
    #[serde(rename = "out")]
    pub outgoing: Balance,
}

/// The balance of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// What passed the interfaces.
    pub passed: Volume,
    /// The part in billed classes.
    pub billed: Volume,
    /// The part in class 0.
    pub class_zero: Volume,
    /// The part that was not classified.
    pub faults: Volume,
    /// Packets that are missing from the parts, or counted twice if negative.
    pub difference_packets: i64,
    /// Bytes of these packets.
    pub difference_bytes: i64,
}

/// Passed, billed, class 0 and faults of one row.
type Parts = [Sums; 4];

/// Builds the rows of a balance.
pub(crate) fn rows(
    plan: &Plan<'_>,
    owners: &Owners,
    collected: &Collected,
) -> Result<Vec<BalanceRow>, LedgerError> {
    let mut groups: BTreeMap<(usize, i64), Parts> = BTreeMap::new();
    let mut node: BTreeMap<usize, Parts> = BTreeMap::new();
    let mut put = |step: usize, container: i64, part: usize, sums: Sums| {
        add(&mut groups.entry((step, container)).or_default()[part], sums);
        add(&mut node.entry(step).or_default()[part], sums);
    };
    for (&(step, interface), &sums) in &collected.passed {
        put(step, owners.of_interface(interface), 0, sums);
    }
    for (&(step, container, billed), &sums) in &collected.classes {
        let group = if owners.own.contains(&container) { container } else { 0 };
        put(step, group, if billed { 1 } else { 2 }, sums);
    }
    for (&(step, interface, _), &sums) in &collected.faults {
        put(step, owners.of_interface(interface), 3, sums);
    }
    // A shared interface has a balance only over all containers.
    let asked = plan.containers.is_some();
    let mut rows = Vec::with_capacity(groups.len() + node.len());
    for ((step, container), parts) in groups {
        if !(asked && container == 0) {
            rows.push(row(plan, step, owners.label(container), &parts)?);
        }
    }
    if !asked {
        for (step, parts) in node {
            rows.push(row(plan, step, NODE.to_owned(), &parts)?);
        }
    }
    let place = |row: &BalanceRow| match row.container.as_str() {
        NODE => 2,
        SHARED => 1,
        _ => 0,
    };
    rows.sort_by(|a, b| {
        (a.start, place(a), rank(&a.container)).cmp(&(b.start, place(b), rank(&b.container)))
    });
    Ok(rows)
}

fn row(plan: &Plan<'_>, step: usize, container: String, parts: &Parts) -> Result<BalanceRow, LedgerError> {
    let (period, start, end) = plan.step_named(step)?;
    let direction = |packets: usize| {
        let [passed, billed, class_zero, faults] = parts.map(|sums| Volume {
            packets: sums[packets],
            bytes: plan.query.basis.bytes(sums[packets], sums[packets + 1]),
        });
        let difference = |value: fn(&Volume) -> u64| {
            let parts: u64 = [billed, class_zero, faults].iter().map(value).fold(0, u64::saturating_add);
            value(&passed).wrapping_sub(parts).cast_signed()
        };
        Balance {
            passed,
            billed,
            class_zero,
            faults,
            difference_packets: difference(|volume| volume.packets),
            difference_bytes: difference(|volume| volume.bytes),
        }
    };
    Ok(BalanceRow { period, start, end, container, incoming: direction(0), outgoing: direction(2) })
}
