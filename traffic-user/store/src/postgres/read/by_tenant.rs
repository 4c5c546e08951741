//! Sums by tenant.
//!
//! Containers that have one tenant in the whole span are added up as elsewhere. The others are read apart, from days
//! and months within which no tenant changes, and from five minutes otherwise.

use std::collections::HashMap;

use tokio_postgres::types::Type;
use traffic_ledger::{CountedOrDropped, LedgerError, StoredQuery};

use super::{
    Parameter, Reader,
    pieces::{Piece, Pieces, pieces},
    shares::{self, Columns},
    sums::{FIGURES, Sums, class_group, classes_filter, closed_columns, family_group, step_of, sums_of},
};
use crate::read::{
    Rows, key, reason,
    shares::{Share, Shares},
};

/// Shares that are read together, and the rows that answer for them.
struct Pass {
    columns: Columns,
    pieces: Pieces,
}

/// The passes of a span: first the containers with one tenant, then the others.
fn passes(reader: &Reader, query: &StoredQuery<'_>, uses_closed: bool) -> Result<Vec<Pass>, LedgerError> {
    let empty = Shares::default();
    let shares = reader.shares.as_ref().unwrap_or(&empty);
    let mut counts: HashMap<(i32, i64), usize> = HashMap::new();
    for share in shares.within(query.range, None) {
        *counts.entry((share.ledger, share.number)).or_default() += 1;
    }
    let has_one = |share: &&Share| counts.get(&(share.ledger, share.number)) == Some(&1);
    let (one, several): (Vec<&Share>, Vec<&Share>) =
        shares.within(query.range, query.containers).partition(has_one);
    let mut passes = Vec::new();
    if !one.is_empty() {
        let columns = shares::columns(one.into_iter());
        passes.push(Pass { columns, pieces: pieces(reader, query, uses_closed)? });
    }
    if !several.is_empty() {
        // A unit within which a tenant changes has rows of several.
        let mut starts = shares.borders(query.range);
        starts.extend(query.starts);
        let starts: Vec<i64> = starts.into_iter().collect();
        let mut found = pieces(reader, &StoredQuery { starts: &starts, ..*query }, uses_closed)?;
        for closed in &mut found.closed {
            closed.step = query.step(closed.start).unwrap_or_default();
        }
        passes.push(Pass { columns: shares::columns(several.into_iter()), pieces: found });
    }
    Ok(passes)
}

/// The shares that are $5 to $9 of a statement.
const SHARES: &str = "unnest($5::int[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[])
    s(ledger, number, shown, begun, ended)";

/// Four parameters, and the shares.
fn with_shares<'a>(four: [Parameter<'a>; 4], columns: &'a Columns) -> Vec<Parameter<'a>> {
    let mut all = Vec::from(four);
    all.push((&columns.0, Type::INT4_ARRAY));
    for numbers in [&columns.1, &columns.2, &columns.3, &columns.4] {
        all.push((numbers, Type::INT8_ARRAY));
    }
    all
}

/// The first parameters of a query about a piece: its ledgers, its span, and where the steps begin.
fn of_piece<'p>(piece: &'p Piece, query: &'p StoredQuery<'_>) -> [Parameter<'p>; 4] {
    [
        (&piece.ledgers, Type::INT4_ARRAY),
        (&piece.span.0, Type::INT8),
        (&piece.span.1, Type::INT8),
        (&query.starts, Type::INT8_ARRAY),
    ]
}

/// Rows of containers, classes and families, by tenant.
pub(super) fn classed(
    reader: &Reader,
    query: &StoredQuery<'_>,
    rows: Rows,
) -> Result<Vec<CountedOrDropped>, LedgerError> {
    let Rows { table, reason: of_reason, uses_closed } = rows;
    let (class, family) = (class_group(query.split.class), family_group(query.split.family));
    let filter = classes_filter(query.classes);
    let mut all = Vec::new();
    let mut take = |sql: &str, parameters: &[Parameter<'_>]| -> Result<(), LedgerError> {
        for row in &reader.rows(sql, parameters)? {
            let key = key(step_of(row), row.get(1), row.get(2), row.get(3));
            all.push((key, reason(row.get(4)), sums_of(row, 5)?));
        }
        Ok(())
    };
    for Pass { columns, pieces } in passes(reader, query, uses_closed)? {
        for piece in &pieces.rows {
            // `+ 0`: as in `rates`, one look at the rows for all containers.
            let sql = format!(
                "SELECT width_bucket(t.start, $4) - 1, s.shown, {class}, {family}, {of_reason}, {FIGURES}
                 FROM trafctl.{table} t JOIN {SHARES} ON t.ledger = s.ledger AND t.container + 0 = s.number
                     AND t.start + 0 >= s.begun AND t.start + 0 < s.ended
                 WHERE t.level = {} AND t.ledger = ANY($1) AND t.start >= $2 AND t.start < $3{filter}
                 GROUP BY 1, 2, 3, 4, 5",
                piece.level
            );
            let four = of_piece(piece, query);
            take(&sql, &with_shares(four, &columns))?;
        }
        if pieces.closed.is_empty() {
            continue;
        }
        let (ledgers, periods, steps, starts) = closed_columns(&pieces.closed);
        let sql = format!(
            "SELECT c.step::int, s.shown, {class}, {family}, (-1)::bigint, {FIGURES} FROM trafctl.closed_row t
             JOIN unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[]) c(ledger, period, step, start)
                 ON t.ledger = c.ledger AND t.period = c.period
             JOIN {SHARES} ON t.ledger = s.ledger AND t.number = s.number
                 AND c.start >= s.begun AND c.start < s.ended
             WHERE true{filter} GROUP BY 1, 2, 3, 4"
        );
        let four: [Parameter<'_>; 4] = [
            (&ledgers, Type::INT4_ARRAY),
            (&periods, Type::INT8_ARRAY),
            (&steps, Type::INT8_ARRAY),
            (&starts, Type::INT8_ARRAY),
        ];
        take(&sql, &with_shares(four, &columns))?;
    }
    Ok(all)
}

/// The faults of the interfaces of some tenants' containers, while they were theirs.
pub(super) fn faults(reader: &Reader, query: &StoredQuery<'_>) -> Result<Sums, LedgerError> {
    let mut total = [0_u64; 4];
    for Pass { columns, pieces } in passes(reader, query, false)? {
        for piece in &pieces.rows {
            let sql = format!(
                "SELECT coalesce(sum(t.in_packets), 0)::bigint, coalesce(sum(t.in_bytes), 0)::bigint,
                     coalesce(sum(t.out_packets), 0)::bigint, coalesce(sum(t.out_bytes), 0)::bigint
                 FROM trafctl.fault t
                 JOIN trafctl.interface i ON i.ledger = t.ledger AND i.number = t.interface
                 JOIN {SHARES} ON i.ledger = s.ledger AND i.container = s.number
                     AND t.start >= s.begun AND t.start < s.ended
                 WHERE t.level = {} AND t.ledger = ANY($1) AND t.start >= $2 AND t.start < $3",
                piece.level
            );
            let four = of_piece(piece, query);
            for row in &reader.rows(&sql, &with_shares(four, &columns))? {
                let sums = sums_of(row, 0)?;
                total.iter_mut().zip(sums).for_each(|(total, value)| *total = total.saturating_add(value));
            }
        }
    }
    Ok(total)
}
