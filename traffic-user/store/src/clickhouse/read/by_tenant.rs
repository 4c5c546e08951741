//! Sums by tenant.
//!
//! Containers that have one tenant in the whole span are added up as elsewhere. The others are read apart, with a step
//! that begins wherever a tenant changes: days and months within which one changes do not answer then.

use std::collections::{BTreeSet, HashMap};

use traffic_ledger::{CountedOrDropped, LedgerError, StoredQuery};

use super::{
    Reader, Row,
    days::cut,
    sums::{FIGURES, Sum, Sums, add_up, class_group, classes_filter, family_group, sums_of},
    value,
};
use crate::read::{Rows, key, pieces::Pieces, reason, shares::Shares};

/// Containers that are read together, by ledger and number in it, and where the steps begin for them.
struct Pass {
    members: Vec<(i32, i64)>,
    starts: Vec<i64>,
}

/// The passes of a span: first the containers with one tenant, then the others.
fn passes(shares: &Shares, query: &StoredQuery<'_>) -> Vec<Pass> {
    let mut counts: HashMap<(i32, i64), usize> = HashMap::new();
    for share in shares.within(query.range, None) {
        *counts.entry((share.ledger, share.number)).or_default() += 1;
    }
    let asked: BTreeSet<(i32, i64)> =
        shares.within(query.range, query.containers).map(|share| (share.ledger, share.number)).collect();
    let (one, several): (Vec<_>, Vec<_>) =
        asked.into_iter().partition(|member| counts.get(member) == Some(&1));
    let mut starts = shares.borders(query.range);
    starts.extend(query.starts);
    let passes = [
        Pass { members: one, starts: query.starts.to_vec() },
        Pass { members: several, starts: starts.into_iter().collect() },
    ];
    passes.into_iter().filter(|pass| !pass.members.is_empty()).collect()
}

/// One pass over a span.
struct Reading<'a> {
    reader: &'a Reader,
    query: StoredQuery<'a>,
    of: &'a StoredQuery<'a>,
    pieces: Pieces,
}

impl<'a> Reading<'a> {
    fn new(
        reader: &'a Reader,
        of: &'a StoredQuery<'a>,
        pass: &'a Pass,
        uses_closed: bool,
    ) -> Result<Self, LedgerError> {
        let query = StoredQuery { starts: &pass.starts, containers: None, ..*of };
        let pieces = cut(reader, &query, uses_closed)?;
        Ok(Self { reader, query, of, pieces })
    }

    /// The step of the report, and the tenant of a container, in a step of this pass. `None` for one that is not asked
    /// for.
    fn place(&self, step: usize, (ledger, number): (i32, i64)) -> Option<(usize, i64)> {
        let begun = self.query.starts.get(step)?.max(&self.query.range.0);
        let shown = self.reader.book.owner(ledger, number, *begun);
        let is_asked = self.of.containers.is_none_or(|asked| asked.contains(&shown));
        is_asked.then_some((self.of.step(*begun).unwrap_or_default(), shown))
    }
}

/// Rows of containers, classes and families, by tenant.
pub(super) fn classed(
    reader: &Reader,
    shares: &Shares,
    (query, rows): (&StoredQuery<'_>, Rows),
) -> Result<Vec<CountedOrDropped>, LedgerError> {
    let mut all = Vec::new();
    let (class, family) = (class_group(query.split.class), family_group(query.split.family));
    for pass in passes(shares, query) {
        let reading = Reading::new(reader, query, &pass, rows.uses_closed)?;
        let classes = classes_filter(query.classes);
        let filter = format!("{classes} AND {}", reader.of_pairs("place, container", &pass.members));
        let sum = Sum { table: rows.table, groups: &["container", class, family, rows.reason], filter };
        for piece in &reading.pieces.rows {
            for (step, values, ledger, sums) in add_up(reader, &reading.query, piece, &sum)? {
                if let Some((step, shown)) = reading.place(step, (ledger, values[0])) {
                    all.push((key(step, shown, values[1], values[2]), reason(values[3]), sums));
                }
            }
        }
        if reading.pieces.closed.is_empty() {
            continue;
        }
        let closed = &reading.pieces.closed;
        let periods: Vec<(i32, i64)> = closed.iter().map(|one| (one.ledger, one.period)).collect();
        let sql = format!(
            "SELECT place, part_number, number, {class} AS of_class, {family} AS of_family, {FIGURES} FROM {}{classes} AND {} \
             GROUP BY place, part_number, number, of_class, of_family",
            reader.rows_of("closed_row", &reader.of_pairs("place, part_number", &periods)),
            reader.of_pairs("place, number", &pass.members)
        );
        for row in reader.ask(&sql)? {
            let (ledger, period) = (reader.ledger(&row, 0)?, value::<i64>(&row, 1)?);
            let Some(one) = closed.iter().find(|one| (one.ledger, one.period) == (ledger, period)) else {
                continue;
            };
            if let Some((step, shown)) = reading.place(one.step, (ledger, value(&row, 2)?)) {
                all.push((key(step, shown, value(&row, 3)?, value(&row, 4)?), None, sums_of(&row, 5)?));
            }
        }
    }
    Ok(all)
}

/// The faults of the interfaces of some tenants' containers, while they were theirs.
pub(super) fn faults(reader: &Reader, shares: &Shares, query: &StoredQuery<'_>) -> Result<Sums, LedgerError> {
    let mut total = [0_u64; 4];
    for pass in passes(shares, query) {
        let of = reader.of_pairs("place, ifNull(container, 0)", &pass.members);
        let sql = format!(
            "SELECT place, part_number, ifNull(container, 0) FROM {} AND {of}",
            reader.all_of("interface")
        );
        let pair = |row: &Row| Ok(((reader.ledger(row, 0)?, value(row, 1)?), value(row, 2)?));
        let containers: HashMap<(i32, i64), i64> =
            reader.ask(&sql)?.iter().map(pair).collect::<Result<_, LedgerError>>()?;
        if containers.is_empty() {
            continue;
        }
        let interfaces: Vec<(i32, i64)> = containers.keys().copied().collect();
        let filter = format!(" AND {}", reader.of_pairs("place, interface", &interfaces));
        let reading = Reading::new(reader, query, &pass, false)?;
        let sum = Sum { table: "fault", groups: &["interface"], filter };
        for piece in &reading.pieces.rows {
            for (step, values, ledger, sums) in add_up(reader, &reading.query, piece, &sum)? {
                let Some(&number) = containers.get(&(ledger, values[0])) else { continue };
                if reading.place(step, (ledger, number)).is_some() {
                    total
                        .iter_mut()
                        .zip(sums)
                        .for_each(|(total, value)| *total = total.saturating_add(value));
                }
            }
        }
    }
    Ok(total)
}
