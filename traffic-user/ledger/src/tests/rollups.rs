use std::time::Duration;

use traffic_model::calendar::{Calendar, Level, Retention};

use crate::{By, Ledger, LedgerConfig, Maintenance, ReportQuery, testing::*, write::rollup::roll_up_unit};

#[test]
fn all_levels_hold_the_same_sums() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    for _ in 0..40 {
        node.traffic("101", 1, [1, 100, 2, 7])
            .traffic("102", 0, [3, 30, 1, 1])
            .pass(1800)
            .drain(&mut file.ledger);
    }
    node.pass(40 * 86_400).traffic("103", 1, [1, 1, 1, 1]).drain(&mut file.ledger);
    let rolled = file.ledger.maintain(node.wall).unwrap();
    assert!(rolled.rolled_up > 20, "{rolled:?}");
    let mut over = node.truth.clone();
    over.retain(|(container, _), _| container != "103");
    for table in ["traffic_hour", "traffic_day", "traffic_month"] {
        assert_eq!(sums(&file.ledger, table), over, "{table}");
    }
    assert_eq!(file.ledger.maintain(node.wall).unwrap().rolled_up, 0);
}

/// Twenty days with a drain every four hours, none summed. The first ten days exceed the retention.
fn backlog() -> (File, Node) {
    let mut file = ledger();
    file.ledger.retention = Retention { five_minutes_days: 10, hours_months: 1 };
    let mut node = Node::balanced(NOON);
    for _ in 0..120 {
        node.traffic("101", 1, [1, 100, 2, 7]).pass(4 * 3600).drain(&mut file.ledger);
    }
    (file, node)
}

fn rows(ledger: &Ledger, table: &str) -> i64 {
    ledger.conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

fn dropped_before(ledger: &Ledger) -> Option<i64> {
    let mut statement =
        ledger.conn.prepare("SELECT value FROM meta WHERE key = 'dropped_before_5min'").unwrap();
    statement.query_row([], |row| row.get(0)).ok()
}

#[test]
fn limited_maintenance_stops_and_continues_with_the_next_call() {
    let (mut at_once, node) = backlog();
    let whole = at_once.ledger.maintain(node.wall).unwrap();
    assert!(whole.rolled_up > 80 && whole.packed_series > 40 && !whole.unfinished, "{whole:?}");
    // One for each day and kind.
    assert_eq!(whole.dropped_rows, 20);

    let (mut file, node) = backlog();
    let days = |ledger: &Ledger| -> Vec<_> {
        let query = ReportQuery { by: By::Day, ..ReportQuery::default() };
        let rows = ledger.report(&query).unwrap().rows;
        rows.into_iter().map(|row| (row.period, row.container, row.figures)).collect()
    };
    let truth = days(&file.ledger);
    let mut sum = Maintenance { unfinished: true, ..Maintenance::default() };
    let mut drops = 0;
    while sum.unfinished {
        let fine = rows(&file.ledger, "traffic_5min");
        let done = file.ledger.maintain_for(node.wall, Duration::ZERO).unwrap();
        let (packed, dropped) = (usize::from(done.packed_series > 0), usize::from(done.dropped_rows > 0));
        assert!(done.rolled_up + packed + dropped <= 1, "one unit: {done:?}");
        // Nothing is dropped before all of its time is summed.
        let dirty = format!(
            "unit WHERE dirty AND level = 0 AND start < {}",
            dropped_before(&file.ledger).unwrap_or(0)
        );
        assert_eq!(rows(&file.ledger, &dirty), 0);
        assert!(done.dropped_rows > 0 || rows(&file.ledger, "traffic_5min") == fine);
        drops += usize::from(done.dropped_rows > 0);
        sum.rolled_up += done.rolled_up;
        sum.packed_series += done.packed_series;
        sum.dropped_rows += done.dropped_rows;
        sum.unfinished = done.unfinished;
        assert_eq!(days(&file.ledger), truth, "{sum:?}");
        if sum.rolled_up.is_multiple_of(8) || done.dropped_rows > 0 {
            assert_eq!(file.ledger.audit().unwrap().problems, Vec::<String>::new());
        }
    }
    assert_eq!(sum, whole);
    assert!(drops > 5, "{drops}");
    for table in ["traffic_5min", "traffic_hour", "traffic_day", "traffic_month", "unit", "span"] {
        assert_eq!(rows(&file.ledger, table), rows(&at_once.ledger, table), "{table}");
    }
    assert_eq!(dropped_before(&file.ledger), dropped_before(&at_once.ledger));
    assert_eq!(file.ledger.maintain_for(node.wall, Duration::ZERO).unwrap(), Maintenance::default());
}

#[test]
fn late_traffic_is_summed_before_anything_is_dropped() {
    let (mut file, mut node) = backlog();
    while file.ledger.maintain_for(node.wall, Duration::ZERO).unwrap().dropped_rows == 0 {}
    let fine = rows(&file.ledger, "traffic_5min");
    // The clock was wrong for a moment and pointed into the time to be dropped next.
    let back = node.wall.as_second() - dropped_before(&file.ledger).unwrap() - 4 * 3600;
    node.set_clock(-back).traffic("101", 1, [1, 100, 2, 7]).pass(60).drain(&mut file.ledger);
    node.set_clock(back).pass(86_400).traffic("101", 1, [1, 1, 1, 1]).drain(&mut file.ledger);
    node.pass(86_400).drain(&mut file.ledger);
    let kept = fine + 2;
    while rows(&file.ledger, "unit WHERE dirty AND level = 0") > 1 {
        assert_eq!(rows(&file.ledger, "traffic_5min"), kept);
        file.ledger.maintain_for(node.wall, Duration::ZERO).unwrap();
    }
    assert!(file.ledger.maintain(node.wall).unwrap().dropped_rows > 0);
    assert_eq!(sums(&file.ledger, "traffic_day")[&("101".to_owned(), 1)][1], 121 * 100 + 1);
    assert_eq!(file.ledger.audit().unwrap().problems, Vec::<String>::new());
}

/// Since this process listed the unit, another one may have summed it and dropped the rows below.
#[test]
fn a_unit_summed_by_another_process_is_left_unchanged() {
    let (mut file, node) = backlog();
    let hour = Calendar::utc().start(Level::Hour, NOON + 4 * 3600 - 1).unwrap();
    let of_hour = format!("traffic_hour WHERE start = {hour}");
    let mut other = Ledger::open(file.ledger.path(), LedgerConfig::default()).unwrap();
    other.retention = file.ledger.retention;
    assert!(other.maintain(node.wall).unwrap().dropped_rows > 0);
    let transaction = file.ledger.conn.transaction().unwrap();
    assert!(!roll_up_unit(&transaction, Level::Hour, Level::FiveMinutes, hour, hour + 3600).unwrap());
    transaction.commit().unwrap();
    assert_eq!(rows(&file.ledger, &of_hour), 1);
}

/// Otherwise a day would be summed again from the single hour that was written late.
#[test]
fn hours_are_kept_as_long_as_five_minute_rows() {
    let mut file = ledger();
    file.ledger.retention = Retention { five_minutes_days: 60, hours_months: 1 };
    let mut node = Node::balanced(NOON);
    for _ in 0..100 {
        node.traffic("101", 1, [1, 100, 2, 7]).pass(12 * 3600).drain(&mut file.ledger);
    }
    file.ledger.maintain(node.wall).unwrap();
    // The clock was wrong for a moment.
    let back = 40 * 86_400;
    node.set_clock(-back).traffic("101", 1, [1, 1, 1, 1]).pass(60).drain(&mut file.ledger);
    node.set_clock(back).pass(86_400).drain(&mut file.ledger);
    file.ledger.maintain(node.wall).unwrap();
    let report = file.ledger.report(&ReportQuery { by: By::Day, ..ReportQuery::default() }).unwrap();
    assert_eq!(report.total.incoming.unwrap().bytes, 100 * 100 + 1);
    assert_eq!(file.ledger.audit().unwrap().problems, Vec::<String>::new());
}

#[test]
fn the_audit_finds_each_hour_that_is_not_the_sum_of_its_five_minutes() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for _ in 0..3 * 24 * 4 {
        node.traffic("101", 1, [1, 1000, 1, 100]).traffic("102", 2, [2, 500, 1, 10]);
        node.pass(900).drain(&mut file.ledger);
    }
    // Its first days are packed, its last hours are not.
    file.ledger.maintain(node.wall).unwrap();
    assert_eq!(file.ledger.audit().unwrap().problems, Vec::<String>::new());
    let hours: Vec<i64> = {
        let sql = "SELECT start FROM unit WHERE level = 1 ORDER BY start";
        let mut statement = file.ledger.conn.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert!(hours.len() > 60);
    for hour in hours {
        let transaction = file.ledger.conn.unchecked_transaction().unwrap();
        // One more of a series, as if it had been summed wrongly.
        transaction
            .execute(
                "INSERT INTO traffic_hour_rows (start, container, class, family, stream, in_packets, in_bytes,
                     out_packets, out_bytes)
                 SELECT ?1, container, class, family, stream, 0, 1, 0, 0 FROM traffic_hour WHERE start = ?1 LIMIT 1
                 ON CONFLICT DO UPDATE SET in_bytes = in_bytes + 1",
                [hour],
            )
            .unwrap();
        let level = Level::Hour;
        let mut audit = crate::Audit::default();
        file.ledger.audit_level(&transaction, level, &mut audit).unwrap();
        let label = file.ledger.calendar.label(level, hour).unwrap();
        assert_eq!(
            audit.problems,
            [format!("traffic_hour {label}: 2 rows are not the sums of traffic_5min")]
        );
        transaction.rollback().unwrap();
    }
}
