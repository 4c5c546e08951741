//! Sums, added up by the server.

use std::{collections::HashSet, thread::sleep, time::Duration};

use jiff::Timestamp;
use traffic_ledger::{CountedOrDropped, InterfaceSums, LedgerError, LineKey, StoredQuery};

use super::{Reader, Row, by_tenant, days::cut, list, text, value};
use crate::{
    clickhouse::{schema::PART, sql},
    read::{Rows, key, pieces::Piece, reason},
};

/// Packets in, bytes in, packets out, bytes out.
pub(super) type Sums = [u64; 4];

pub(super) const FIGURES: &str = "ifNull(sum(in_packets), 0), ifNull(sum(in_bytes), 0), ifNull(sum(out_packets), 0), \
                                  ifNull(sum(out_bytes), 0)";

/// Which rows to add up: a table, expressions whose values are whole numbers, and a condition.
pub(super) struct Sum<'a> {
    pub table: &'a str,
    pub groups: &'a [&'a str],
    pub filter: String,
}

/// The condition for classes. They are numbers of ours, and no text of anybody.
pub(super) fn classes_filter(classes: &[u8]) -> String {
    if classes.is_empty() { String::new() } else { format!(" AND class IN ({})", list(classes)) }
}

/// What a report groups by class and family: -1 where it does not.
pub(super) fn class_group(by_class: bool) -> &'static str {
    if by_class { "toInt64(class)" } else { "toInt64(if(class = 0, 0, -1))" }
}

pub(super) fn family_group(by_family: bool) -> &'static str {
    if by_family { "toInt64(family)" } else { "toInt64(-1)" }
}

/// The sums of a row.
pub(super) fn sums_of(row: &Row, at: usize) -> Result<Sums, LedgerError> {
    let mut sums = [0; 4];
    for (place, sum) in sums.iter_mut().enumerate() {
        let added: i64 = value(row, at + place)?;
        *sum = u64::try_from(added).map_err(|_| {
            LedgerError::Store(
                "a sum in the store is beyond 2^63; ask for a shorter span or steps".to_owned(),
            )
        })?;
    }
    Ok(sums)
}

/// The condition for the units of a piece.
pub(super) fn of_piece(reader: &Reader, piece: &Piece) -> String {
    let part = if piece.level == 0 { "5min" } else { "day" };
    format!(
        "{} AND part = '{part}' AND part_number >= {} AND part_number < {}",
        reader.of_ledgers(&piece.ledgers),
        piece.span.0,
        piece.span.1
    )
}

/// Step, values of the groups, ledger, sums.
pub(super) type Added = (usize, Vec<i64>, i32, Sums);

/// How often the days of a piece are asked for with the table merged, before a report fails.
const TRIES: u32 = 4;
/// The wait before a repetition, which replicas need that do not have everything yet.
const PAUSE: Duration = Duration::from_millis(200);

/// Adds up the rows of one piece.
pub(super) fn add_up(
    reader: &Reader,
    query: &StoredQuery<'_>,
    piece: &Piece,
    sum: &Sum<'_>,
) -> Result<Vec<Added>, LedgerError> {
    // Five minutes that go on come again with every round, and a report takes them as they are.
    if piece.level == 0 {
        let (select, group) = selected(reader, query, sum);
        let rows = reader.rows_of(sum.table, &of_piece(reader, piece));
        let answer = reader.ask(&format!("{select} FROM {rows}{} {group}", sum.filter))?;
        return answer.iter().map(|row| added(reader, query, row, sum.groups.len())).collect();
    }
    // A repetition that is not merged is there until it is. What a replacement hides is there the next time.
    let mut at_fault = match days(reader, query, piece, sum, false)? {
        Ok(all) => return Ok(all),
        Err(at_fault) => at_fault,
    };
    for attempt in 0..TRIES {
        if attempt > 0 {
            sleep(PAUSE.min(reader.limit.left()));
        }
        at_fault = match days(reader, query, piece, sum, true)? {
            Ok(all) => return Ok(all),
            Err(at_fault) => at_fault,
        };
    }
    let (ledger, start) = at_fault;
    Err(LedgerError::Store(format!(
        "the day of node {} that begins at {} is being replaced in the store, or a replica does not have it yet; ask again in \
         a moment",
        reader.book.node(ledger),
        Timestamp::from_second(start)?
    )))
}

/// The columns that are added up, and the groups.
fn selected(reader: &Reader, query: &StoredQuery<'_>, sum: &Sum<'_>) -> (String, String) {
    // A time in the step, which tells it.
    let step = reader.start_of("part_number", query.starts, false);
    let groups: String =
        sum.groups.iter().enumerate().map(|(at, group)| format!(", {group} AS g{at}")).collect();
    let names: String = (0..sum.groups.len()).map(|at| format!(", g{at}")).collect();
    (
        format!("SELECT {step} AS begun_at, place{groups}, {FIGURES}"),
        format!("GROUP BY begun_at, place{names}"),
    )
}

/// The sums of days; or ledger and start of one that the answer does not have once.
type Days = Result<Vec<Added>, (i32, i64)>;

/// Adds up days, if the answer has each of them once.
fn days(
    reader: &Reader,
    query: &StoredQuery<'_>,
    piece: &Piece,
    sum: &Sum<'_>,
    merged: bool,
) -> Result<Days, LedgerError> {
    let ((select, group), count) = (selected(reader, query, sum), sum.groups.len());
    let rows = sql::counted_with_parts(reader.server.tables(), sum.table, &of_piece(reader, piece), merged);
    let of_part = format!("entity = '{PART}'");
    let answer = reader.ask(&format!(
        "{select}, toUInt8({of_part}) AS is_part, if({of_part}, part_number, -1) AS of_part, count() FROM {rows} AND \
         ({of_part} OR (1 = 1{})) {group}, is_part, of_part",
        sum.filter
    ))?;
    let (parts, rows): (Vec<&Row>, Vec<&Row>) = answer.iter().partition(|row| text(row, count + 6) == "1");
    let mut once = HashSet::new();
    for row in parts {
        let day = (reader.ledger(row, 1)?, value(row, count + 7)?);
        if text(row, count + 8) != "1" {
            return Ok(Err(day));
        }
        once.insert(day);
    }
    if let Some(day) = piece.days.iter().find(|day| !once.contains(day)) {
        return Ok(Err(*day));
    }
    rows.into_iter().map(|row| added(reader, query, row, count)).collect::<Result<_, _>>().map(Ok)
}

/// What a row of an answer says, with so many groups.
fn added(reader: &Reader, query: &StoredQuery<'_>, row: &Row, count: usize) -> Result<Added, LedgerError> {
    let step = query.step(value(row, 0)?).unwrap_or_default();
    let values = (0..count).map(|at| value(row, at + 2)).collect::<Result<Vec<i64>, _>>()?;
    Ok((step, values, reader.ledger(row, 1)?, sums_of(row, count + 2)?))
}

/// The condition for containers.
fn containers_filter(reader: &Reader, query: &StoredQuery<'_>, columns: &str) -> String {
    let of = |asked| format!(" AND {}", reader.of_pairs(columns, &reader.book.members_of(asked)));
    query.containers.map(of).unwrap_or_default()
}

/// The condition for the interfaces of these containers.
fn interfaces_filter(reader: &Reader, query: &StoredQuery<'_>) -> Result<String, LedgerError> {
    let Some(asked) = query.containers else { return Ok(String::new()) };
    let of = reader.of_pairs("place, ifNull(container, 0)", &reader.book.members_of(asked));
    let sql = format!("SELECT place, part_number FROM {} AND {of}", reader.all_of("interface"));
    let pair = |row: &Row| Ok((reader.ledger(row, 0)?, value(row, 1)?));
    let pairs: Vec<(i32, i64)> = reader.ask(&sql)?.iter().map(pair).collect::<Result<_, LedgerError>>()?;
    Ok(format!(" AND {}", reader.of_pairs("place, interface", &pairs)))
}

const COUNTED: Rows = Rows { table: "traffic", reason: "toInt64(-1)", uses_closed: false };
/// Their reason is in the column of faults.
const DROPPED: Rows = Rows { table: "dropped", reason: "toInt64(fault)", uses_closed: false };

pub(super) fn traffic(reader: &Reader, query: &StoredQuery<'_>) -> Result<Vec<(LineKey, Sums)>, LedgerError> {
    let rows = classed(reader, query, Rows { uses_closed: true, ..COUNTED })?;
    Ok(rows.into_iter().map(|(key, _, sums)| (key, sums)).collect())
}

pub(super) fn drops(reader: &Reader, query: &StoredQuery<'_>) -> Result<Vec<CountedOrDropped>, LedgerError> {
    if !reader.server.has_drops {
        return Err(LedgerError::Store(
            "the schema of the store is older than drops; run `trafctl store migrate` as the owner of the database"
                .to_owned(),
        ));
    }
    let mut all = classed(reader, query, COUNTED)?;
    all.extend(classed(reader, query, DROPPED)?);
    Ok(all)
}

fn classed(
    reader: &Reader,
    query: &StoredQuery<'_>,
    rows: Rows,
) -> Result<Vec<CountedOrDropped>, LedgerError> {
    if let Some(shares) = &reader.book.shares {
        return by_tenant::classed(reader, shares, (query, rows));
    }
    let found = cut(reader, query, rows.uses_closed)?;
    let (class, family) = (class_group(query.split.class), family_group(query.split.family));
    let groups = ["container", class, family, rows.reason];
    let filter = classes_filter(query.classes) + &containers_filter(reader, query, "place, container");
    let sum = Sum { table: rows.table, groups: &groups, filter };
    let mut all = Vec::new();
    for piece in &found.rows {
        for (step, values, ledger, sums) in add_up(reader, query, piece, &sum)? {
            let key = key(step, reader.book.container(ledger, values[0]), values[1], values[2]);
            all.push((key, reason(values[3]), sums));
        }
    }
    if found.closed.is_empty() {
        return Ok(all);
    }
    let periods: Vec<(i32, i64)> = found.closed.iter().map(|one| (one.ledger, one.period)).collect();
    let sql = format!(
        "SELECT place, part_number, number, {} AS of_class, {} AS of_family, {FIGURES} FROM {}{}{} GROUP BY place, part_number, \
         number, of_class, of_family",
        class_group(query.split.class),
        family_group(query.split.family),
        reader.rows_of("closed_row", &reader.of_pairs("place, part_number", &periods)),
        classes_filter(query.classes),
        containers_filter(reader, query, "place, number")
    );
    for row in reader.ask(&sql)? {
        let (ledger, period) = (reader.ledger(&row, 0)?, value::<i64>(&row, 1)?);
        let closed = found.closed.iter().find(|one| (one.ledger, one.period) == (ledger, period));
        let step = closed.map_or(0, |one| one.step);
        let container = reader.book.container(ledger, value(&row, 2)?);
        all.push((key(step, container, value(&row, 3)?, value(&row, 4)?), None, sums_of(&row, 5)?));
    }
    Ok(all)
}

pub(super) fn faults(reader: &Reader, query: &StoredQuery<'_>) -> Result<Sums, LedgerError> {
    if let Some(shares) = reader.book.shares.as_ref().filter(|_| query.containers.is_some()) {
        return by_tenant::faults(reader, shares, query);
    }
    let sum = Sum { table: "fault", groups: &[], filter: interfaces_filter(reader, query)? };
    let mut total = [0_u64; 4];
    for piece in &cut(reader, query, false)?.rows {
        for (_, _, _, sums) in add_up(reader, query, piece, &sum)? {
            total.iter_mut().zip(sums).for_each(|(total, value)| *total = total.saturating_add(value));
        }
    }
    Ok(total)
}

pub(super) fn interfaces(reader: &Reader, query: &StoredQuery<'_>) -> Result<InterfaceSums, LedgerError> {
    let sql =
        format!("SELECT place, part_number FROM {} AND boot_id = 'pva-import'", reader.all_of("series"));
    let pair = |row: &Row| Ok((reader.ledger(row, 0)?, value(row, 1)?));
    let imported: Vec<(i32, i64)> = reader.ask(&sql)?.iter().map(pair).collect::<Result<_, LedgerError>>()?;
    let mut all = InterfaceSums { has_pva: !imported.is_empty(), ..InterfaceSums::default() };
    let interface = |ledger, number| reader.book.interfaces.get(&(ledger, number)).copied().unwrap_or(0);
    let filter = interfaces_filter(reader, query)?;
    let passed = Sum { table: "passed", groups: &["interface"], filter: filter.clone() };
    let faults = Sum { table: "fault", groups: &["interface", "fault"], filter };
    let no_pva = if imported.is_empty() {
        String::new()
    } else {
        format!(" AND NOT ({})", reader.of_pairs("place, series", &imported))
    };
    let classes = Sum {
        table: "traffic",
        groups: &["container", "toInt64(class != 0)"],
        filter: containers_filter(reader, query, "place, container") + &no_pva,
    };
    for piece in &cut(reader, query, false)?.rows {
        for (step, values, ledger, sums) in add_up(reader, query, piece, &passed)? {
            all.passed.push(((step, interface(ledger, values[0])), sums));
        }
        for (step, values, ledger, sums) in add_up(reader, query, piece, &faults)? {
            all.faults.push(((step, interface(ledger, values[0]), values[1]), sums));
        }
        for (step, values, ledger, sums) in add_up(reader, query, piece, &classes)? {
            all.classes.push(((step, reader.book.container(ledger, values[0]), values[1] != 0), sums));
        }
    }
    Ok(all)
}
