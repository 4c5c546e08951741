//! Finished days as columns answer everything as their rows did.

use std::{collections::BTreeMap, process::Command, time::Duration};

use jiff::Timestamp;
use rusqlite::types::Value;
use traffic_common::{DropGroup, Fault};
use traffic_model::calendar::{Calendar, Level};

use crate::{
    Basis, By, Ledger, LedgerConfig, Report, ReportQuery, Split,
    schema::{KINDS, PACKED_LEVELS},
    testing::*,
};

const VIEWS: [&str; 8] = [
    "traffic_5min",
    "traffic_hour",
    "fault_5min",
    "fault_hour",
    "passed_5min",
    "passed_hour",
    "dropped_5min",
    "dropped_hour",
];

fn calendar(zone: &str) -> LedgerConfig {
    LedgerConfig { calendar: Calendar::new(zone, 1).unwrap(), ..LedgerConfig::default() }
}

/// Busy and quiet series, a container for one day only, counters beyond four bytes, and a late reading.
fn busy(config: LedgerConfig, begin: &str, days: u64) -> (File, Node) {
    let mut file = ledger_with(config);
    let mut node = Node::balanced(begin.parse::<Timestamp>().unwrap().as_second());
    for bucket in 0..days * 288 {
        node.traffic("101", 1, [1 + bucket % 7, 100 + bucket * 13 % 70_000, 2, 300 + bucket]);
        if bucket % 3 > 0 {
            node.traffic("101", 2, [0, 0, 5, 5 << (bucket % 40)]);
        }
        if bucket % 97 == 0 {
            node.traffic("102", 1, [1, 60, 0, 0]).traffic("101", 0, [3, 33, 1, 11]);
            node.fault("veth101.0", Fault::NotIp, 1 + bucket);
        }
        if (288..500).contains(&bucket) {
            node.traffic("103", 1, [9, 900, 0, 0]);
        }
        if bucket % 288 == 280 {
            // No reading for three hours over midnight.
            node.pass(36 * 300);
        }
        node.pass(300).drain(&mut file.ledger);
    }
    (file, node)
}

/// All rows of a view, in order.
fn rows(ledger: &Ledger, view: &str) -> Vec<Vec<Value>> {
    let mut statement = ledger.conn.prepare(&format!("SELECT * FROM {view} ORDER BY 1, 2, 3, 4, 5")).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| (0..columns).map(|at| row.get(at)).collect()).unwrap();
    rows.map(Result::unwrap).collect()
}

fn count(ledger: &Ledger, from: &str) -> i64 {
    ledger.conn.query_row(&format!("SELECT count(*) FROM {from}"), [], |row| row.get(0)).unwrap()
}

/// Reports of every kind that reads five-minute rows or hours.
fn reports(ledger: &Ledger) -> Vec<Report> {
    let mut reports = Vec::new();
    for by in [By::FiveMinutes, By::Hour, By::Day, By::Total] {
        for (basis, family) in [(Basis::L3, false), (Basis::L1, true)] {
            for containers in [Vec::new(), vec!["101".to_owned()]] {
                let split = Split { class: family, family, ..Split::default() };
                let percentile = (by != By::Hour && by != By::FiveMinutes).then_some(95.0);
                let query =
                    ReportQuery { by, split, containers, basis, percentile, ..ReportQuery::default() };
                reports.push(ledger.report(&query).unwrap());
                // From within one day to within another, in the zone of somebody else.
                let query = ReportQuery {
                    from: Some(reports[0].from + jiff::SignedDuration::from_secs(31 * 3600 + 300)),
                    to: Some(reports[0].to - jiff::SignedDuration::from_secs(17 * 3600)),
                    calendar: Some(Calendar::new("Asia/Kathmandu", 1).unwrap()),
                    ..query
                };
                reports.push(ledger.report(&query).unwrap());
            }
        }
    }
    reports
}

#[test]
fn packed_days_answer_as_their_rows_did() {
    // With a day of 25 hours, one of 23, and hours that begin between two of UTC.
    for (zone, begin) in [
        ("Europe/Berlin", "2026-10-24T05:00:00Z"),
        ("Europe/Berlin", "2027-03-27T05:00:00Z"),
        ("Asia/Kathmandu", "2026-11-10T12:00:00Z"),
    ] {
        let (mut file, node) = busy(calendar(zone), begin, 3);
        let open = rows(&file.ledger, "traffic_5min");
        // Sums and rows as they are without packing.
        file.ledger.roll_up_only().unwrap();
        let before = VIEWS.map(|view| rows(&file.ledger, view));
        assert_eq!(before[0], open);
        let (reports_before, balance) = (reports(&file.ledger), balance(&file.ledger));
        let samples = plain_samples(&file.ledger);

        let done = file.ledger.maintain(node.wall).unwrap();
        assert!(done.packed_series > 30, "{done:?}");
        assert!(count(&file.ledger, "traffic_5min_days WHERE form = 1 AND buckets IS NULL") > 3, "busy ones");
        assert!(count(&file.ledger, "traffic_5min_days WHERE buckets IS NOT NULL") > 3, "quiet ones");
        for (view, before) in VIEWS.iter().zip(before) {
            assert_eq!(rows(&file.ledger, view), before, "{view} in {zone}");
        }
        assert_eq!(reports(&file.ledger), reports_before);
        assert_eq!(self::balance(&file.ledger), balance);
        assert_eq!(plain_samples(&file.ledger), samples);
        assert_eq!(file.ledger.audit().unwrap().problems, [""; 0]);
        assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
        // Only the open day is left as rows.
        let days = format!("traffic_5min_rows WHERE start < {}", start_of_today(&file.ledger, &node));
        assert_eq!(count(&file.ledger, &days), 0);
    }
}

fn start_of_today(ledger: &Ledger, node: &Node) -> i64 {
    ledger.calendar.start(Level::Day, node.wall.as_second() - 3600).unwrap()
}

fn balance(ledger: &Ledger) -> crate::InterfaceReport {
    ledger.report_interfaces(&ReportQuery { by: By::Hour, ..ReportQuery::default() }).unwrap()
}

/// What any program sees that opens the file: the samples of all counters.
fn plain_samples(ledger: &Ledger) -> String {
    let sql = "select id, startTime, avg from log_data order by 1, 2";
    let output = Command::new("sqlite3").arg(ledger.path()).arg(sql).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn packing_stops_and_continues_and_readers_see_no_difference() {
    let (mut file, mut node) = busy(LedgerConfig::default(), "2026-11-10T12:00:00Z", 3);
    file.ledger.roll_up_only().unwrap();
    let truth = rows(&file.ledger, "traffic_5min");
    let query = ReportQuery { by: By::Total, percentile: Some(95.0), ..ReportQuery::default() };
    let report = file.ledger.report(&query).unwrap();
    let mut calls = 0;
    loop {
        let done = file.ledger.maintain_for(node.wall, Duration::ZERO).unwrap();
        assert_eq!(rows(&file.ledger, "traffic_5min"), truth);
        assert_eq!(file.ledger.report(&query).unwrap(), report);
        if !done.unfinished {
            break;
        }
        calls += 1;
        if calls == 5 {
            // Another process goes on.
            let path = file.ledger.path().to_owned();
            file.ledger = Ledger::open(&path, LedgerConfig::default()).unwrap();
            assert_eq!(file.ledger.audit().unwrap().problems, [""; 0]);
        }
    }
    assert!(calls > 10, "{calls}");
    node.traffic("101", 1, [1, 1, 1, 1]).pass(60).drain(&mut file.ledger);
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
}

#[test]
fn late_traffic_joins_its_packed_day() {
    let (mut file, mut node) = busy(LedgerConfig::default(), "2026-11-10T12:00:00Z", 3);
    file.ledger.maintain(node.wall).unwrap();
    let whole = rows(&file.ledger, "traffic_5min").len();
    // The clock points into a packed day for a moment: once to a bucket with rows, once to a container that
    // had none there.
    for (container, back) in [("101", 40 * 3600), ("103", 50 * 3600)] {
        node.set_clock(-back).traffic(container, 1, [1, 77, 0, 0]).pass(60).drain(&mut file.ledger);
        node.set_clock(back).pass(3600).drain(&mut file.ledger);
        assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth, "as a row beside the day");
        assert_eq!(file.ledger.audit().unwrap().problems, [""; 0]);
        file.ledger.maintain(node.wall).unwrap();
        for table in ["traffic_5min", "traffic_hour"] {
            let today = start_of_today(&file.ledger, &node);
            assert_eq!(
                count(&file.ledger, &format!("{table}_rows WHERE start < {today}")),
                0,
                "packed again"
            );
        }
        assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
        assert_eq!(file.ledger.audit().unwrap().problems, [""; 0]);
    }
    assert!(rows(&file.ledger, "traffic_5min").len() > whole);
}

#[test]
fn a_ledger_of_version_5_is_packed_while_drains_continue() {
    let (mut file, mut node) = busy(LedgerConfig::default(), "2026-11-10T12:00:00Z", 3);
    file.ledger.maintain(node.wall).unwrap();
    let truth = rows(&file.ledger, "traffic_5min");
    let own = "CREATE VIEW mine AS SELECT sum(in_bytes) AS bytes FROM traffic_5min;";
    from_outside(&file.ledger, &(as_version_5() + own));
    let former = rusqlite::Connection::open(file.ledger.path()).unwrap();
    crate::digest::create(&former).unwrap();
    let digests = |conn: &rusqlite::Connection| -> i64 {
        let sql = "SELECT sum(rows) FROM digest WHERE name LIKE '%5min%' OR name LIKE '%hour%'";
        conn.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let (known, open) = (digests(&former), count(&file.ledger, "traffic_5min"));
    assert!(known > open);
    drop(former);
    let path = file.ledger.path().to_owned();
    file.ledger = Ledger::open(&path, LedgerConfig::default()).unwrap();
    assert_eq!(count(&file.ledger, "traffic_5min_days"), 0, "the migration itself packs nothing");
    assert_eq!(digests(&file.ledger.conn), known);
    assert_eq!(file.ledger.audit().unwrap().problems, [""; 0]);
    assert_eq!(rows(&file.ledger, "traffic_5min"), truth);
    while file.ledger.maintain_for(node.wall, Duration::ZERO).unwrap().unfinished {
        node.traffic("101", 1, [1, 100, 0, 0]).pass(60).drain(&mut file.ledger);
    }
    assert!(count(&file.ledger, "traffic_5min_days") > 8);
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    let bytes: i64 = file.ledger.conn.query_row("SELECT bytes FROM mine", [], |row| row.get(0)).unwrap();
    let known: u64 = node.truth.values().map(|sums| sums[1]).sum();
    assert_eq!(bytes.cast_unsigned(), known, "somebody's own view shows both forms");
    assert_eq!(file.ledger.audit().unwrap().problems, [""; 0]);
}

/// The views of version 10 took three times as long to read, and to open the file with.
#[test]
fn a_ledger_of_version_10_gets_the_present_views() {
    let (mut file, node) = busy(LedgerConfig::default(), "2026-11-10T12:00:00Z", 3);
    file.ledger.maintain(node.wall).unwrap();
    let of = |ledger: &Ledger, view: &&str| -> String {
        let sql =
            format!("SELECT group_concat(sql) FROM sqlite_schema WHERE name IN ('{view}', '{view}_bytes')");
        ledger.conn.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    let all = VIEWS.iter().chain(["log_data", "byte_at"].iter());
    let present: Vec<String> = all.clone().map(|view| of(&file.ledger, view)).collect();
    let mut former = without_drops() + "DROP VIEW byte_at; PRAGMA user_version = 10;";
    for view in &VIEWS[..6] {
        former += &format!(
            "DROP VIEW {view}_bytes; DROP VIEW {view}; CREATE VIEW {view} AS SELECT * FROM {view}_rows;"
        );
    }
    from_outside(&file.ledger, &former);
    assert_ne!(sums(&file.ledger, "traffic_5min"), node.truth);
    let path = file.ledger.path().to_owned();
    file.ledger = Ledger::open(&path, LedgerConfig::default()).unwrap();
    assert_eq!(all.map(|view| of(&file.ledger, view)).collect::<Vec<_>>(), present);
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    assert_eq!(file.ledger.audit().unwrap().problems, [""; 0]);
}

/// Values that no counter has, but a file may.
#[test]
fn the_views_show_every_number() {
    let (mut file, mut node) = (ledger(), Node::balanced(NOON));
    node.traffic("101", 1, [1, 1, 1, 1]).pass(300).drain(&mut file.ledger);
    let values: BTreeMap<i64, [i64; 4]> = (0..64)
        .map(|bit| (NOON + 300 * bit, [1_i64 << bit, (1_i64 << bit).wrapping_sub(1), -bit, 0]))
        .collect();
    for (start, [a, b, c, d]) in &values {
        let row = format!(
            "INSERT OR REPLACE INTO traffic_5min_rows VALUES ({start}, 1, 1, 0, 1, {a}, {b}, {c}, {d});
             INSERT OR IGNORE INTO unit VALUES (0, {start}, {start} + 300, 1, 1);"
        );
        file.ledger.conn.execute_batch(&row).unwrap();
    }
    let before = rows(&file.ledger, "traffic_5min");
    file.ledger.conn.execute_batch("UPDATE unit SET dirty = 0").unwrap();
    node.pass(2 * 86_400).traffic("101", 1, [0, 0, 1, 1]).drain(&mut file.ledger);
    assert!(file.ledger.maintain(node.wall).unwrap().packed_series > 0);
    assert_eq!(count(&file.ledger, "traffic_5min_rows"), 1);
    let mut after = rows(&file.ledger, "traffic_5min");
    after.pop();
    assert_eq!(after, before);
}

#[test]
fn every_packed_table_has_a_view_and_rows_of_it() {
    let (mut file, mut node) = busy(LedgerConfig::default(), "2026-11-10T12:00:00Z", 2);
    for group in [DropGroup::Shaper, DropGroup::Other] {
        // Of two more days, the first is packed.
        node.count_drops().dropped("101", 1, group, [0, 0, 1, 60]).pass(300).drain(&mut file.ledger);
        node.pass(2 * 86_400).traffic("101", 1, [1, 60, 0, 0]).drain(&mut file.ledger);
    }
    file.ledger.maintain(node.wall).unwrap();
    for (kind, level) in KINDS.iter().flat_map(|kind| PACKED_LEVELS.map(|level| (kind, level))) {
        let days = kind.days_table(level).unwrap();
        assert!(count(&file.ledger, &days) > 0, "{days}");
        assert!(VIEWS.contains(&kind.table(level).as_str()));
    }
}
