//! Compares a ledger with what it must hold.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    book::{Book, Totals},
    drops::{self, Dropped},
    world::{World, at},
};
use crate::{
    By, Ledger, ReportQuery, SignedVolume, query::query_plan::Split, testing::add,
    write::last_reading::latest_reading,
};

/// What a ledger holds as a whole: sums, drops, names of the closed months, number of corrections, the last reading.
pub type State = (Totals, Dropped, Vec<String>, usize, Option<(String, u128)>);

/// Reads the state of a ledger.
pub fn state(ledger: &Ledger) -> State {
    let totals = steps(ledger, By::Total).into_values().next().unwrap_or_default();
    let closed = ledger.closed_periods().unwrap().into_iter().map(|period| period.name).collect();
    let chained = "SELECT (SELECT count(*) FROM adjustment) + (SELECT count(*) FROM key_change)";
    let chained: i64 = ledger.conn.query_row(chained, [], |row| row.get(0)).unwrap();
    let last = latest_reading(&ledger.conn).unwrap();
    let last = last.map(|last| (last.boot_id, u128::from(last.boottime_ns)));
    (totals, drops::totals(ledger), closed, usize::try_from(chained).unwrap(), last)
}

/// The same of what it must hold.
pub fn expected(book: &Book) -> State {
    (
        book.totals(),
        book.drops.totals(),
        book.closed.keys().cloned().collect(),
        book.chained(),
        book.last_reading(),
    )
}

/// Sums by step, container and class. A row may hold corrections alone: of a container that did not count in the month.
fn steps(ledger: &Ledger, by: By) -> BTreeMap<String, Totals> {
    let split = Split { class: true, ..Split::default() };
    let report = ledger.report(&ReportQuery { by, split, ..ReportQuery::default() }).unwrap();
    let mut steps: BTreeMap<String, Totals> = BTreeMap::new();
    for row in report.rows {
        let (incoming, outgoing) = (row.figures.incoming.unwrap(), row.figures.outgoing.unwrap());
        let sums = [incoming.packets, incoming.bytes, outgoing.packets, outgoing.bytes];
        if sums == [0; 4]
            && row.billing.is_some_and(|billing| billing.corrected.total != SignedVolume::default())
        {
            continue;
        }
        let key = (row.container, row.class.unwrap());
        let step = steps.entry(row.period.clone()).or_default();
        let before = step.insert(key, sums);
        assert_eq!(before, None, "each name of a step stands for one step: {by:?} {}", row.period);
    }
    steps
}

/// Sums of the months.
pub fn months(ledger: &Ledger) -> BTreeMap<String, Totals> {
    steps(ledger, By::Month)
}

/// Compares the sums alone.
pub fn check_state(world: &mut World) {
    let expected = expected(&world.book);
    assert_eq!(state(world.ledger()), expected, "a step before the end");
}

/// Compares everything.
pub fn check(world: &mut World) {
    let (book, calm, calendar) = (world.book.clone(), world.calm, world.calendar.clone());
    let ledger = world.ledger();
    let audit = ledger.audit().unwrap();
    assert_eq!(audit.chain_entries, u64::try_from(book.closed.len() + book.chained()).unwrap());
    let mut problems = audit.problems;
    if book.misses_slots {
        problems.retain(|problem| !problem.contains("neither in classes nor in faults"));
    }
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(state(ledger), expected(&book));
    let months = months(ledger);
    assert_eq!(sum(&months), book.totals());
    check_corrections(ledger, book.adjustments.1);
    if calm {
        let days = steps(ledger, By::Day);
        let day = |bucket: i64| at(bucket).to_zoned(calendar.zone().clone()).date().to_string();
        assert_eq!(days, book.by(day));
        assert_eq!(months, book.by(|bucket| day(bucket)[..7].to_owned()));
        check_gaps(ledger, &book);
    }
    for (name, frozen) in &book.closed {
        assert_eq!(frozen_rows(ledger, name), bytes(frozen), "{name} was closed");
        assert_eq!(bytes(&months.get(name).cloned().unwrap_or_default()), bytes(frozen), "{name} was closed");
    }
    check_borders(ledger);
}

/// Corrections are stored as they were made, and are in the reports of what is billed, which class 0 is not. Those of
/// attributions move bytes from one container to another.
fn check_corrections(ledger: &Ledger, expected: i64) {
    let stored = |of: &str| -> i64 {
        let sql = format!("SELECT coalesce(sum(in_bytes), 0) FROM adjustment {of}");
        ledger.conn.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(stored(""), expected, "corrections");
    let split = Split { class: true, ..Split::default() };
    let report = ledger.report(&ReportQuery { by: By::Month, split, ..ReportQuery::default() }).unwrap();
    let reported = report.rows.iter().filter_map(|row| row.billing);
    let reported: i64 = reported.map(|billing| billing.corrected.total.bytes).sum();
    assert_eq!(reported, stored("WHERE class <> 0"), "corrections in the report");
}

fn sum(steps: &BTreeMap<String, Totals>) -> Totals {
    let mut sums = Totals::new();
    for (key, values) in steps.values().flatten() {
        add(sums.entry(key.clone()).or_default(), *values);
    }
    sums
}

/// Bytes in and out by class. A container may be retired after its month was closed.
fn bytes(totals: &Totals) -> BTreeMap<u8, [u64; 2]> {
    let mut sums: BTreeMap<u8, [u64; 2]> = BTreeMap::new();
    for ((_, class), values) in totals {
        let of_class = sums.entry(*class).or_default();
        of_class[0] += values[1];
        of_class[1] += values[3];
    }
    sums
}

fn frozen_rows(ledger: &Ledger, name: &str) -> BTreeMap<u8, [u64; 2]> {
    let sql = "SELECT r.class, sum(r.in_bytes), sum(r.out_bytes) FROM closed_row r
        JOIN period p ON p.id = r.period WHERE p.name = ?1 GROUP BY 1";
    let mut statement = ledger.conn.prepare_cached(sql).unwrap();
    let value = |row: &rusqlite::Row<'_>, at| row.get::<_, i64>(at).map(i64::cast_unsigned);
    let rows = statement.query_map([name], |row| Ok((row.get(0)?, [value(row, 1)?, value(row, 2)?])));
    rows.unwrap().map(Result::unwrap).collect()
}

/// Whatever was lost is in a gap that says so.
fn check_gaps(ledger: &Ledger, book: &Book) {
    let gaps = ledger.gaps(None, None).unwrap();
    let mut spans: Vec<(i64, i64)> = gaps
        .iter()
        .filter(|gap| gap.reason.loses_traffic() && gap.interface.is_none())
        .map(|gap| (gap.start.unwrap_or(Timestamp::MIN).as_second(), gap.end.as_second()))
        .collect();
    spans.sort_unstable();
    for &(from, until) in &book.lost {
        let covered = spans.iter().fold(from, |at, &(start, end)| if start <= at { at.max(end) } else { at });
        assert!(covered >= until, "traffic from {} to {} was lost without a gap", at(covered), at(until));
    }
}

/// Stored days and months do not overlap, have names in order, and nest.
fn check_borders(ledger: &Ledger) {
    let of_level = |level: u8| -> Vec<(i64, i64, String)> {
        let mut statement = ledger
            .conn
            .prepare_cached("SELECT start, end, name FROM border WHERE level = ?1 ORDER BY start")
            .unwrap();
        let rows = statement.query_map([level], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        rows.unwrap().map(Result::unwrap).collect()
    };
    let (days, months) = (of_level(2), of_level(3));
    for units in [&days, &months] {
        for pair in units.windows(2) {
            assert!(pair[0].0 < pair[0].1 && pair[0].1 <= pair[1].0 && pair[0].2 < pair[1].2, "{pair:?}");
        }
    }
    for day in &days {
        assert!(months.iter().any(|month| month.0 <= day.0 && day.1 <= month.1), "{day:?} in {months:?}");
    }
}
