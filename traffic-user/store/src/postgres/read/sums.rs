//! Sums, added up by the server.

use std::fmt::Write as _;

use tokio_postgres::{Row, types::Type};
use traffic_ledger::{CountedOrDropped, InterfaceSums, LedgerError, LineKey, StoredQuery};

use super::{
    Reader, by_tenant,
    pieces::{ClosedPiece, Piece, pieces},
};
use crate::read::{Rows, key, reason};

/// Packets in, bytes in, packets out, bytes out.
pub(super) type Sums = [u64; 4];
/// Closed months as parameters of a statement.
type ClosedColumns = (Vec<i32>, Vec<i64>, Vec<i64>, Vec<i64>);

/// Which rows to add up: a table with its alias `t`, what they are grouped by, and which of them.
struct Sum<'a> {
    table: &'a str,
    /// Expressions whose values are whole numbers.
    groups: &'a [&'a str],
    filter: String,
}

pub(super) const FIGURES: &str = "sum(t.in_packets)::bigint, sum(t.in_bytes)::bigint, sum(t.out_packets)::bigint, \
                       sum(t.out_bytes)::bigint";

/// The condition for classes. They are numbers of ours, and no text of anybody.
pub(super) fn classes_filter(classes: &[u8]) -> String {
    let list: Vec<String> = classes.iter().map(u8::to_string).collect();
    if list.is_empty() { String::new() } else { format!(" AND t.class IN ({})", list.join(", ")) }
}

/// What a report groups by class and family: -1 where it does not.
pub(super) fn class_group(by_class: bool) -> &'static str {
    if by_class { "t.class::bigint" } else { "CASE WHEN t.class = 0 THEN 0 ELSE -1 END::bigint" }
}

pub(super) fn family_group(by_family: bool) -> &'static str {
    if by_family { "t.family::bigint" } else { "(-1)::bigint" }
}

/// The step and the sums of a row.
pub(super) fn sums_of(row: &Row, at: usize) -> Result<Sums, LedgerError> {
    let mut sums = [0; 4];
    for (place, sum) in sums.iter_mut().enumerate() {
        let value: i64 = row.get(at + place);
        *sum = u64::try_from(value).map_err(|_| {
            LedgerError::Store(
                "a sum in the store is beyond 2^63; ask for a shorter span or steps".to_owned(),
            )
        })?;
    }
    Ok(sums)
}

pub(super) fn step_of(row: &Row) -> usize {
    usize::try_from(row.get::<_, i32>(0)).unwrap_or_default()
}

/// Step, values of the groups, ledger, sums.
type Added = (usize, Vec<i64>, i32, Sums);

/// Adds up the rows of one piece.
fn add_up(
    reader: &Reader,
    query: &StoredQuery<'_>,
    piece: &Piece,
    sum: &Sum<'_>,
) -> Result<Vec<Added>, LedgerError> {
    let step = if query.starts.len() == 1 { "0" } else { "width_bucket(t.start, $4) - 1" };
    let mut sql = format!("SELECT {step}, t.ledger");
    for group in sum.groups {
        let _done = write!(sql, ", {group}");
    }
    let _done = write!(
        sql,
        ", {FIGURES} FROM trafctl.{} t WHERE t.level = {} AND t.ledger = ANY($1) AND t.start >= $2 AND t.start < $3{} \
         GROUP BY 1, 2",
        sum.table, piece.level, sum.filter
    );
    for at in 0..sum.groups.len() {
        let _done = write!(sql, ", {}", at + 3);
    }
    let (ledgers, numbers) = reader.members_of(query.containers.unwrap_or_default());
    let rows = reader.rows(
        &sql,
        &[
            (&piece.ledgers, Type::INT4_ARRAY),
            (&piece.span.0, Type::INT8),
            (&piece.span.1, Type::INT8),
            (&query.starts, Type::INT8_ARRAY),
            (&ledgers, Type::INT4_ARRAY),
            (&numbers, Type::INT8_ARRAY),
        ],
    )?;
    let groups = sum.groups.len();
    rows.iter()
        .map(|row| {
            let values = (0..groups).map(|at| row.get(at + 2)).collect();
            Ok((step_of(row), values, row.get(1), sums_of(row, groups + 2)?))
        })
        .collect()
}

/// The condition for containers, whose ledgers and numbers are $5 and $6. `+ 0`: one look at the rows for all of them.
pub(super) fn containers_filter(query: &StoredQuery<'_>) -> String {
    match query.containers {
        Some(_) => {
            " AND (t.ledger, t.container + 0) IN (SELECT * FROM unnest($5::int[], $6::bigint[]))".to_owned()
        }
        None => String::new(),
    }
}

/// The same for the interfaces of these containers.
fn interfaces_filter(query: &StoredQuery<'_>) -> String {
    match query.containers {
        Some(_) => " AND (t.ledger, t.interface) IN (SELECT i.ledger, i.number FROM trafctl.interface i
                     JOIN unnest($5::int[], $6::bigint[]) u(l, c) ON i.ledger = u.l AND i.container = u.c)"
            .to_owned(),
        None => String::new(),
    }
}

const NO_REASON: &str = "(-1)::bigint";
const COUNTED: Rows = Rows { table: "traffic", reason: NO_REASON, uses_closed: false };
const DROPPED: Rows = Rows { table: "dropped", reason: "t.reason::bigint", uses_closed: false };

pub(super) fn traffic(reader: &Reader, query: &StoredQuery<'_>) -> Result<Vec<(LineKey, Sums)>, LedgerError> {
    let rows = classed(reader, query, Rows { uses_closed: true, ..COUNTED })?;
    Ok(rows.into_iter().map(|(key, _, sums)| (key, sums)).collect())
}

pub(super) fn drops(reader: &Reader, query: &StoredQuery<'_>) -> Result<Vec<CountedOrDropped>, LedgerError> {
    let mut all = classed(reader, query, COUNTED)?;
    all.extend(classed(reader, query, DROPPED)?);
    Ok(all)
}

fn classed(
    reader: &Reader,
    query: &StoredQuery<'_>,
    rows: Rows,
) -> Result<Vec<CountedOrDropped>, LedgerError> {
    if reader.shares.is_some() {
        return by_tenant::classed(reader, query, rows);
    }
    let found = pieces(reader, query, rows.uses_closed)?;
    let (class, family) = (class_group(query.split.class), family_group(query.split.family));
    let groups = ["t.container::bigint", class, family, rows.reason];
    let filter = classes_filter(query.classes) + &containers_filter(query);
    let sum = Sum { table: rows.table, groups: &groups, filter };
    let mut all = Vec::new();
    for piece in &found.rows {
        for (step, values, ledger, sums) in add_up(reader, query, piece, &sum)? {
            let key = key(step, reader.container(ledger, values[0]), values[1], values[2]);
            all.push((key, reason(values[3]), sums));
        }
    }
    if found.closed.is_empty() {
        return Ok(all);
    }
    let (ledgers, numbers) = reader.members_of(query.containers.unwrap_or_default());
    let (closed_ledgers, periods, steps, _) = closed_columns(&found.closed);
    let filter = classes_filter(query.classes) + &containers_filter(query).replace("t.container", "t.number");
    let sql = format!(
        "SELECT c.step::int, t.ledger, t.number, {}, {}, {FIGURES} FROM trafctl.closed_row t
         JOIN unnest($1::int[], $2::bigint[], $3::bigint[]) c(ledger, period, step)
             ON t.ledger = c.ledger AND t.period = c.period
         WHERE true{filter} GROUP BY 1, 2, 3, 4, 5",
        class_group(query.split.class),
        family_group(query.split.family)
    );
    let rows = reader.rows(
        &sql,
        &[
            (&closed_ledgers, Type::INT4_ARRAY),
            (&periods, Type::INT8_ARRAY),
            (&steps, Type::INT8_ARRAY),
            (&query.starts, Type::INT8_ARRAY),
            (&ledgers, Type::INT4_ARRAY),
            (&numbers, Type::INT8_ARRAY),
        ],
    )?;
    for row in &rows {
        let container = reader.container(row.get(1), row.get(2));
        all.push((key(step_of(row), container, row.get(3), row.get(4)), None, sums_of(row, 5)?));
    }
    Ok(all)
}

/// Ledgers, periods, steps and starts of closed months.
pub(super) fn closed_columns(closed: &[ClosedPiece]) -> ClosedColumns {
    let of = |value: fn(&ClosedPiece) -> i64| closed.iter().map(value).collect();
    (
        closed.iter().map(|one| one.ledger).collect(),
        of(|one| one.period),
        of(|one| i64::try_from(one.step).unwrap_or_default()),
        of(|one| one.start),
    )
}

pub(super) fn faults(reader: &Reader, query: &StoredQuery<'_>) -> Result<Sums, LedgerError> {
    if reader.shares.is_some() && query.containers.is_some() {
        return by_tenant::faults(reader, query);
    }
    let sum = Sum { table: "fault", groups: &[], filter: interfaces_filter(query) };
    let mut total = [0_u64; 4];
    for piece in &pieces(reader, query, false)?.rows {
        for (_, _, _, sums) in add_up(reader, query, piece, &sum)? {
            total.iter_mut().zip(sums).for_each(|(total, value)| *total = total.saturating_add(value));
        }
    }
    Ok(total)
}

pub(super) fn interfaces(reader: &Reader, query: &StoredQuery<'_>) -> Result<InterfaceSums, LedgerError> {
    let ledgers = reader.ledger_numbers();
    let sql = "SELECT 1 FROM trafctl.series WHERE ledger = ANY($1) AND boot_id = 'pva-import' LIMIT 1";
    let has_pva = !reader.rows(sql, &[(&ledgers, Type::INT4_ARRAY)])?.is_empty();
    let mut all = InterfaceSums { has_pva, ..InterfaceSums::default() };
    let interface = |ledger, number| reader.interfaces.get(&(ledger, number)).copied().unwrap_or(0);
    let filter = interfaces_filter(query);
    let passed = Sum { table: "passed", groups: &["t.interface::bigint"], filter: filter.clone() };
    let faults = Sum { table: "fault", groups: &["t.interface::bigint", "t.fault::bigint"], filter };
    let no_pva = if has_pva {
        " AND (t.ledger, t.series) NOT IN (SELECT s.ledger, s.number FROM trafctl.series s
          WHERE s.boot_id = 'pva-import')"
    } else {
        ""
    };
    let classes = Sum {
        table: "traffic",
        groups: &["t.container::bigint", "(t.class <> 0)::int::bigint"],
        filter: containers_filter(query) + no_pva,
    };
    for piece in &pieces(reader, query, false)?.rows {
        for (step, values, ledger, sums) in add_up(reader, query, piece, &passed)? {
            all.passed.push(((step, interface(ledger, values[0])), sums));
        }
        for (step, values, ledger, sums) in add_up(reader, query, piece, &faults)? {
            all.faults.push(((step, interface(ledger, values[0]), values[1]), sums));
        }
        for (step, values, ledger, sums) in add_up(reader, query, piece, &classes)? {
            all.classes.push(((step, reader.container(ledger, values[0]), values[1] != 0), sums));
        }
    }
    Ok(all)
}
