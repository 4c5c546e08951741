//! Imports of PVA databases that the tests create.

mod identity;
mod long_samples;
mod skips;

use std::path::PathBuf;

use proptest::prelude::*;
use rusqlite::{Connection, ToSql, TransactionBehavior, params};
use traffic_model::calendar::Retention;

use crate::{
    By, GapReason, Ledger, LedgerConfig, LedgerError, PvaImport, PvaImported, PvaProgress, ReportQuery,
    SkipReason, testing::*,
};

const IN_BYTES: &str = "counter_net_incoming_bytes";
const OUT_BYTES: &str = "counter_net_outgoing_bytes";
const DAY: i64 = 86_400;

/// A database as PVA's agent writes it.
struct Pva {
    path: PathBuf,
    conn: Connection,
    /// The next free counter number.
    next: i64,
}

impl Pva {
    fn new(file: &File, name: &str) -> Self {
        let path = file.dir.path().join(name);
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(
            "PRAGMA synchronous = OFF; CREATE TABLE log_def (id, eid, lclass, instance, counter);
             CREATE TABLE log_data (id, startTime, avg);",
        )
        .unwrap();
        Self { path, conn, next: 1 }
    }

    fn define(&mut self, eid: &str, lclass: &str, instance: &str, counter: &str) -> i64 {
        let id = self.next;
        self.next += 1;
        self.conn
            .execute(
                "INSERT INTO log_def VALUES (?, ?, ?, ?, ?)",
                params![id, eid, lclass, instance, counter],
            )
            .unwrap();
        id
    }

    /// Defines the counter of a container's incoming bytes over all classes.
    fn bytes_in(&mut self, eid: &str) -> i64 {
        self.define(eid, "counters_vz_net", "", IN_BYTES)
    }

    fn sample(&self, id: i64, start: impl ToSql, avg: impl ToSql) -> &Self {
        self.conn.execute("INSERT INTO log_data VALUES (?, ?, ?)", params![id, start, avg]).unwrap();
        self
    }

    /// Adds one sample per minute.
    fn minutes(&self, id: i64, start: i64, amounts: &[i64]) -> &Self {
        for (at, amount) in (0..).zip(amounts) {
            self.sample(id, start + 60 * at, amount);
        }
        self
    }
}

/// A ledger that began to count at noon.
fn begun_at_noon() -> (File, Node) {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    node.traffic("101", 1, [1, 100, 1, 10]).pass(60).drain(&mut file.ledger);
    (file, node)
}

fn import() -> PvaImport {
    PvaImport { node: "node1".to_owned(), class: 1, until: None, dry_run: false, now: time(NOON + DAY) }
}

fn take(file: &mut File, pva: &Pva) -> PvaImported {
    file.ledger.import_pva(&pva.path, &import(), &mut |_| ()).unwrap()
}

fn refusal(file: &mut File, pva: &Pva, import: &PvaImport) -> String {
    match file.ledger.import_pva(&pva.path, import, &mut |_| ()) {
        Err(LedgerError::Query(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn bytes(file: &File, table: &str, container: &str, class: u8) -> [u64; 2] {
    let sums = sums(&file.ledger, table).get(&(container.to_owned(), class)).copied().unwrap_or_default();
    [sums[1], sums[3]]
}

fn assert_sound(file: &File) {
    assert_eq!(file.ledger.audit().unwrap().problems, Vec::<String>::new());
}

fn reasons(imported: &PvaImported) -> Vec<(SkipReason, u64)> {
    imported.skipped.iter().map(|skipped| (skipped.reason, skipped.count)).collect()
}

#[test]
fn importing_the_same_file_twice_changes_nothing() {
    let (mut file, node) = begun_at_noon();
    let mut pva = Pva::new(&file, "pva");
    let old = NOON - 30 * DAY;
    let incoming = pva.bytes_in("101");
    let outgoing = pva.define("101", "counters_vz_net", "", OUT_BYTES);
    let machine = pva.define("{FC6E1D2D-3B2C-4F1C-9E2A-000000000007}", "counters_vzp_net", "", IN_BYTES);
    let cpu = pva.define("102", "counters_vz_cpu", "", "counter_cpu_used");
    pva.minutes(incoming, old, &[500, 500])
        .sample(outgoing, old, 70)
        .sample(machine, old, 9)
        .sample(cpu, old, 99);
    pva.sample(incoming, NOON + 30, 12_345);
    let first = take(&mut file, &pva);
    assert_eq!((first.samples, first.rows.five_minutes), (4, 2));
    assert_eq!(reasons(&first), [(SkipReason::AfterUntil, 1)]);
    file.ledger.maintain(node.wall).unwrap();
    let uuid = "fc6e1d2d-3b2c-4f1c-9e2a-000000000007";
    let expected = [(("101".to_owned(), 1), [1, 1100, 1, 80]), ((uuid.to_owned(), 1), [0, 9, 0, 0])];
    for _ in 0..2 {
        assert_eq!(sums(&file.ledger, "traffic_5min").into_iter().collect::<Vec<_>>(), expected);
        let again = take(&mut file, &pva);
        assert_eq!((again.samples, again.samples_imported_before), (0, 4));
        assert_eq!((again.rows, again.conflicts.count), (Default::default(), 0));
        file.ledger.maintain(node.wall).unwrap();
    }
    let kind = "SELECT kind FROM container WHERE name = ?1";
    let kind: String = file.ledger.conn.query_row(kind, [uuid], |row| row.get(0)).unwrap();
    assert_eq!(kind, "vm");
    assert_eq!(file.ledger.report(&ReportQuery::default()).unwrap().total.total.bytes, 1189);
    assert_sound(&file);
}

#[test]
fn history_older_than_the_retention_becomes_hours_and_days() {
    let (mut file, mut node) = begun_at_noon();
    file.ledger.retention = Retention { five_minutes_days: 10, hours_months: 1 };
    // The clock was steady for two days, so the ledger drops everything older than its retention.
    for _ in 0..3 {
        node.traffic("101", 1, [0, 1, 0, 0]).pass(DAY.unsigned_abs()).drain(&mut file.ledger);
    }
    file.ledger.maintain(node.wall).unwrap();
    let mut pva = Pva::new(&file, "pva");
    let id = pva.bytes_in("101");
    let (ancient, old, recent) = (NOON - 90 * DAY, NOON - 20 * DAY, NOON - 2 * DAY);
    pva.minutes(id, ancient, &[1000; 120]).minutes(id, old, &[10; 120]).minutes(id, recent, &[7; 10]);
    let imported = take(&mut file, &pva);
    assert_eq!(imported.samples, 250);
    assert_eq!((imported.rows.days, imported.rows.hours, imported.rows.five_minutes), (1, 2, 2));
    let query = ReportQuery { by: By::Month, ..ReportQuery::default() };
    let months = |file: &File| -> Vec<(String, u64)> {
        let report = file.ledger.report(&query).unwrap();
        report.rows.iter().map(|row| (row.period.clone(), row.figures.incoming.unwrap().bytes)).collect()
    };
    let expected =
        [("2026-08".to_owned(), 120_000), ("2026-10".to_owned(), 1200), ("2026-11".to_owned(), 70 + 103)];
    assert_eq!(months(&file), expected, "before it is summed up");
    assert_sound(&file);
    file.ledger.maintain(node.wall).unwrap();
    assert_eq!(months(&file), expected, "and after");
    assert_sound(&file);
    // Import again, and once more after the hours and five-minute rows of that time were dropped.
    for _ in 0..3 {
        let again = take(&mut file, &pva);
        assert_eq!((again.samples, again.conflicts.count), (0, 0), "{again:?}");
        for _ in 0..20 {
            node.pass(DAY.unsigned_abs()).drain(&mut file.ledger);
        }
        file.ledger.maintain(node.wall).unwrap();
        assert_eq!(months(&file), expected);
        assert_sound(&file);
    }
    assert_eq!(bytes(&file, "traffic_day", "101", 1), [121_373, 10]);
    assert_eq!(bytes(&file, "traffic_hour", "101", 1), [0, 0]);
}

#[test]
fn without_a_reading_the_end_must_be_given() {
    let mut file = ledger();
    let mut pva = Pva::new(&file, "pva");
    let id = pva.bytes_in("101");
    pva.minutes(id, NOON - 600, &[1, 2, 3, 4, 5, 6]);
    assert!(refusal(&mut file, &pva, &import()).contains("--until"));
    let given = PvaImport { until: Some(time(NOON - 360)), ..import() };
    assert_eq!(file.ledger.import_pva(&pva.path, &given, &mut |_| ()).unwrap().samples, 4);
    assert_eq!(bytes(&file, "traffic_5min", "101", 1), [10, 0]);
    // Once the ledger counts, it takes nothing from its own time.
    let mut node = Node::balanced(NOON - 360);
    node.pass(60).drain(&mut file.ledger);
    let late = PvaImport { until: Some(time(NOON - 359)), ..import() };
    assert!(refusal(&mut file, &pva, &late).contains("count twice"));
    assert_eq!(take(&mut file, &pva).samples, 0);
}

#[test]
fn a_longer_file_adds_new_samples_and_a_shorter_one_adds_none() {
    let (mut file, _) = begun_at_noon();
    let start = NOON - DAY;
    let mut short = Pva::new(&file, "short");
    let id = short.bytes_in("101");
    short.minutes(id, start, &[1, 2, 4]);
    let mut long = Pva::new(&file, "long");
    let other = long.bytes_in("7");
    let id = long.bytes_in("101");
    long.minutes(id, start - 120, &[64, 32, 1, 2, 4, 8, 16]).minutes(other, start, &[5]);
    assert_eq!(take(&mut file, &short).samples, 3);
    assert_eq!(bytes(&file, "traffic_5min", "101", 1), [107, 10]);
    let more = take(&mut file, &long);
    assert_eq!((more.samples, more.samples_imported_before, more.conflicts.count), (5, 3, 0));
    assert_eq!(bytes(&file, "traffic_5min", "101", 1), [227, 10]);
    for pva in [&short, &long] {
        let again = take(&mut file, pva);
        assert_eq!((again.samples, again.conflicts.count), (0, 0), "{again:?}");
    }
    assert_eq!(bytes(&file, "traffic_5min", "101", 1), [227, 10]);
}

#[test]
fn differing_values_are_reported_and_the_ledger_keeps_its_own() {
    let (mut file, _) = begun_at_noon();
    let start = NOON - DAY;
    let mut pva = Pva::new(&file, "pva");
    let id = pva.bytes_in("102");
    pva.minutes(id, start, &[100, 200, 300, 400, 500, 600]);
    take(&mut file, &pva);
    pva.conn.execute("UPDATE log_data SET avg = 222 WHERE avg = 200", []).unwrap();
    pva.minutes(id, start + 360, &[700]);
    let again = take(&mut file, &pva);
    assert_eq!((again.samples, again.conflicts.count), (1, 1));
    assert_eq!(
        again.conflicts.first,
        [format!(
            "{IN_BYTES} of 102 class 1, 5min from 2026-11-09T12:00:00Z: the ledger has 1500, this file 1522"
        )]
    );
    assert_eq!(bytes(&file, "traffic_5min", "102", 1), [2800, 0]);
    // A sample that appears in between is not new: it would change what was billed.
    let (mut file, _) = begun_at_noon();
    let mut pva = Pva::new(&file, "holes");
    let id = pva.bytes_in("102");
    pva.minutes(id, start, &[100, 200, 300]).sample(id, start + 600, 1);
    take(&mut file, &pva);
    pva.sample(id, start + 30, 50).sample(id, start + 300, 9);
    let again = take(&mut file, &pva);
    assert_eq!((again.samples, again.conflicts.count), (1, 1));
    assert_eq!(bytes(&file, "traffic_5min", "102", 1), [610, 0]);
}

#[test]
fn history_belongs_to_the_owner_at_that_time() {
    let (mut file, mut node) = begun_at_noon();
    let retired = file.ledger.retire("101", node.wall).unwrap();
    node.traffic_in("101", 2, 1, [1, 5, 1, 5]).pass(60).drain(&mut file.ledger);
    let mut pva = Pva::new(&file, "pva");
    let id = pva.bytes_in("101");
    pva.minutes(id, NOON - 300, &[1000, 2000]);
    let imported = take(&mut file, &pva);
    assert_eq!(imported.containers.len(), 1);
    let container = &imported.containers[0];
    assert_eq!((container.eid.as_str(), container.retired), ("101", true));
    assert_eq!((&container.container, container.in_bytes), (&retired, 3000));
    assert_eq!(bytes(&file, "traffic_5min", &retired, 1), [3100, 10]);
    assert_eq!(bytes(&file, "traffic_5min", "101", 1), [5, 5]);
}

#[test]
fn a_dry_run_reports_the_same_and_writes_nothing() {
    let (mut file, _) = begun_at_noon();
    let mut pva = Pva::new(&file, "pva");
    let id = pva.bytes_in("102");
    pva.minutes(id, NOON - 300, &[1, 2, 3, 4]);
    let tables =
        "SELECT group_concat(name) || (SELECT count(*) FROM unit) || (SELECT count(*) FROM container)
        || (SELECT count(*) FROM gap) FROM sqlite_schema";
    let state = |file: &File| -> String { file.ledger.conn.query_row(tables, [], |row| row.get(0)).unwrap() };
    let before = state(&file);
    let dry = PvaImport { dry_run: true, ..import() };
    let reported = file.ledger.import_pva(&pva.path, &dry, &mut |_| ()).unwrap();
    assert_eq!(state(&file), before);
    let done = take(&mut file, &pva);
    assert_eq!(PvaImported { dry_run: false, ..reported }, done);
    assert_ne!(state(&file), before);
}

/// Otherwise drains would wait for it and fail after five seconds.
#[test]
fn a_dry_run_needs_only_read_access() {
    let (mut file, node) = begun_at_noon();
    let mut pva = Pva::new(&file, "pva");
    let (first, second) = (pva.bytes_in("101"), pva.bytes_in("102"));
    pva.minutes(first, NOON - 900, &[1, 2, 3, 4]);
    take(&mut file, &pva);
    pva.minutes(first, NOON - 660, &[5]).minutes(second, NOON - 600, &[6, 7]);
    pva.conn.execute("UPDATE log_data SET avg = 33 WHERE avg = 3", []).unwrap();
    let dry = PvaImport { dry_run: true, ..import() };
    let mut other = Ledger::open(file.ledger.path(), LedgerConfig::default()).unwrap();
    let writer = other.conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    // Opened while another process writes, like a command next to the daemon.
    let mut beside = Ledger::open(file.ledger.path(), LedgerConfig::default()).unwrap();
    beside.conn.busy_timeout(std::time::Duration::ZERO).unwrap();
    let reported = beside.import_pva(&pva.path, &dry, &mut |_| ()).unwrap();
    drop(writer);
    // Another process can write during the dry run.
    let mut drained = false;
    let again = beside.import_pva(&pva.path, &dry, &mut |progress| {
        if matches!(progress, PvaProgress::Written(..)) && !drained {
            node.drain(&mut other);
            drained = true;
        }
    });
    assert_eq!((again.unwrap(), drained), (reported.clone(), true));
    assert_eq!((reported.samples, reported.conflicts.count, reported.containers.len()), (3, 1, 2));
    assert_eq!(PvaImported { dry_run: false, ..reported }, take(&mut file, &pva));
}

#[test]
fn buckets_of_hourly_samples_are_mixed() {
    let (mut file, _) = begun_at_noon();
    let mut pva = Pva::new(&file, "pva");
    let id = pva.bytes_in("102");
    for hour in 1..=5 {
        pva.sample(id, NOON - 3600 * hour, 100);
    }
    take(&mut file, &pva);
    let report = file.ledger.report(&ReportQuery::default()).unwrap();
    // Each hour is shared among twelve.
    assert_eq!(report.mixed_buckets, 60);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever parts of a history are imported in whatever order, the result is that of the whole file.
    #[test]
    fn parts_of_a_history_add_up_to_the_whole(
        amounts in proptest::collection::vec((1_i64..1000, any::<bool>()), 1..60),
        parts in proptest::collection::vec((0_usize..60, 1_usize..40), 0..5),
    ) {
        let start = NOON - DAY;
        let write = |file: &File, name: &str, from: usize, to: usize| {
            let mut pva = Pva::new(file, name);
            let (total, one) = (pva.bytes_in("102"), pva.define("102", "counters_vz_net", "2", IN_BYTES));
            for (at, &(amount, by_class)) in (0..).zip(&amounts).skip(from).take(to.saturating_sub(from)) {
                pva.sample(total, start + at * 60, amount);
                if by_class {
                    pva.sample(one, start + at * 60, amount);
                }
            }
            pva
        };
        let (mut at_once, _) = begun_at_noon();
        let whole = write(&at_once, "whole", 0, amounts.len());
        take(&mut at_once, &whole);
        let (mut in_parts, _) = begun_at_noon();
        for (number, &(from, length)) in parts.iter().enumerate() {
            let part = write(&in_parts, &format!("part{number}"), from, from + length);
            take(&mut in_parts, &part);
        }
        take(&mut in_parts, &whole);
        let all = |file: &File| -> i64 {
            file.ledger.conn.query_row("SELECT sum(in_bytes) FROM traffic_5min", [], |row| row.get(0)).unwrap()
        };
        let sum: i64 = amounts.iter().map(|(amount, _)| amount).sum();
        prop_assert_eq!(all(&at_once), 100 + sum);
        prop_assert_eq!(all(&in_parts), 100 + sum);
        prop_assert_eq!(take(&mut in_parts, &whole).samples, 0);
    }
}
