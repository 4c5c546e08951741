//! Drops: what readings of their counters mean, where they are recorded, and from when to when they are not known.

use jiff::Timestamp;
use traffic_common::DropGroup::{Firewall, Other, Shaper};
use traffic_model::{ContainerId, calendar::Level};

use crate::{
    Basis, By, Delivery, GapReason, Ledger, LedgerConfig, ReportQuery, Split, schema::DROPPED, testing::*,
    write::attribution::has_open_rows,
};

/// All rows of drops on a level: label, class, reason, sums.
fn drops(ledger: &Ledger, level: Level) -> Vec<(String, u8, u8, Sums)> {
    let sql = format!(
        "SELECT c.label, t.class, t.reason, sum(in_packets), sum(in_bytes), sum(out_packets), sum(out_bytes)
         FROM {} t JOIN container c ON c.id = t.container GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        DROPPED.table(level)
    );
    let mut statement = ledger.conn.prepare(&sql).unwrap();
    let rows = statement.query_map([], |row| {
        let value = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, [value(3)?, value(4)?, value(5)?, value(6)?]))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn row(container: &str, class: u8, reason: u8, sums: Sums) -> (String, u8, u8, Sums) {
    (container.to_owned(), class, reason, sums)
}

/// The gaps of drops, in seconds after noon.
fn gaps(ledger: &Ledger) -> Vec<(i64, i64)> {
    let gaps = ledger.gaps(None, None).unwrap().into_iter();
    let gaps = gaps.filter(|gap| gap.reason == GapReason::DropsNotCounted);
    gaps.map(|gap| (gap.start.map_or(-1, Timestamp::as_second) - NOON, gap.end.as_second() - NOON)).collect()
}

fn counting() -> (File, Node) {
    let mut node = Node::balanced(NOON);
    node.count_drops();
    (ledger(), node)
}

fn audited(ledger: &Ledger) {
    assert_eq!(ledger.audit().unwrap().problems, [""; 0]);
}

#[test]
fn drops_are_recorded_by_container_class_and_reason_on_all_levels() {
    let (mut file, mut node) = counting();
    node.ipv6.insert("102".to_owned());
    node.traffic("101", 1, [10, 1000, 20, 2000]).traffic("102", 2, [30, 3000, 40, 4000]);
    node.dropped("101", 1, Shaper, [1, 100, 2, 200]).dropped("102", 2, Firewall, [0, 0, 3, 300]);
    let outcome = node.pass(60).drain(&mut file.ledger);
    assert_eq!((outcome.traffic_rows, outcome.drop_rows), (2, 2));
    // Those that did not move are not written again.
    node.traffic("101", 1, [1, 50, 0, 0]).dropped("101", 1, Other, [1, 50, 0, 0]);
    assert_eq!(node.pass(60).drain(&mut file.ledger).drop_rows, 1);
    let expected = [
        row("101", 1, 0, [1, 100, 2, 200]),
        row("101", 1, 6, [1, 50, 0, 0]),
        row("102", 2, 1, [0, 0, 3, 300]),
    ];
    assert_eq!(drops(&file.ledger, Level::FiveMinutes), expected);
    node.pass(25 * 86_400).traffic("101", 1, [1, 100, 0, 0]).drain(&mut file.ledger);
    file.ledger.maintain(node.wall).unwrap();
    for level in Level::ALL {
        assert_eq!(drops(&file.ledger, level), expected, "{level:?}");
    }
    audited(&file.ledger);
    let family = "SELECT count(DISTINCT family) FROM dropped_month";
    assert_eq!(file.ledger.conn.query_row(family, [], |row| row.get(0)), Ok(2));
    assert_eq!(gaps(&file.ledger), []);
}

#[test]
fn a_set_that_is_replaced_is_recorded_from_zero_and_the_time_between_is_a_gap() {
    let (mut file, mut node) = counting();
    node.traffic("101", 1, [90, 9000, 0, 0]).dropped("101", 1, Shaper, [5, 500, 0, 0]);
    node.pass(60).drain(&mut file.ledger);
    // More than the old set ever had: a difference would hide it.
    node.dropped("101", 1, Shaper, [2, 200, 0, 0]).pass(25).count_drops();
    node.dropped("101", 1, Shaper, [8, 800, 0, 0]).pass(35).drain(&mut file.ledger);
    assert_eq!(drops(&file.ledger, Level::FiveMinutes), [row("101", 1, 0, [13, 1300, 0, 0])]);
    assert_eq!(gaps(&file.ledger), [(60, 85)]);
    node.dropped("101", 1, Shaper, [1, 100, 0, 0]).pass(60).drain(&mut file.ledger);
    assert_eq!(drops(&file.ledger, Level::FiveMinutes), [row("101", 1, 0, [14, 1400, 0, 0])]);
    assert_eq!(gaps(&file.ledger), [(60, 85)]);
    audited(&file.ledger);
}

#[test]
fn a_counter_that_a_new_set_lacks_at_first_begins_at_zero() {
    let (mut file, mut node) = counting();
    node.traffic("101", 1, [90, 9000, 0, 0]).dropped("101", 1, Shaper, [5, 500, 0, 0]);
    node.pass(60).drain(&mut file.ledger);
    node.count_drops().pass(60).drain(&mut file.ledger);
    // Fewer than the old set had: as a continuation of that, they would be a counter that fell.
    node.dropped("101", 1, Shaper, [2, 200, 0, 0]).pass(60).drain(&mut file.ledger);
    assert_eq!(drops(&file.ledger, Level::FiveMinutes), [row("101", 1, 0, [7, 700, 0, 0])]);
    assert_eq!(gaps(&file.ledger).len(), 1, "that between the sets");
    audited(&file.ledger);
}

#[test]
fn counters_that_cannot_be_read_for_a_while_lose_nothing() {
    let (mut file, mut node) = counting();
    node.traffic("101", 1, [90, 9000, 0, 0]).dropped("101", 1, Shaper, [5, 500, 0, 0]);
    node.pass(60).drain(&mut file.ledger);
    node.drops_hidden = true;
    node.dropped("101", 1, Shaper, [1, 100, 0, 0]).pass(60).drain(&mut file.ledger);
    assert_eq!(gaps(&file.ledger), [(60, 120)]);
    node.pass(60).drain(&mut file.ledger);
    assert_eq!(gaps(&file.ledger), [(60, 180)], "it grows, and is one");
    node.drops_hidden = false;
    node.pass(60).drain(&mut file.ledger);
    assert_eq!(drops(&file.ledger, Level::FiveMinutes), [row("101", 1, 0, [6, 600, 0, 0])]);
    assert_eq!(gaps(&file.ledger), [], "all of it was counted");
    audited(&file.ledger);
}

#[test]
fn an_older_set_that_comes_back_is_not_recorded_again() {
    let (mut file, mut node) = counting();
    node.traffic("101", 1, [90, 9000, 0, 0]).dropped("101", 1, Shaper, [5, 500, 0, 0]);
    node.pass(60).drain(&mut file.ledger);
    // Out of sight it goes on counting, beside another one.
    let (set, counters) = (node.drop_set, node.drops.clone());
    node.pass(25).count_drops().dropped("101", 1, Shaper, [3, 300, 0, 0]).pass(35).drain(&mut file.ledger);
    (node.drop_set, node.drops) = (set, counters);
    node.dropped("101", 1, Shaper, [4, 400, 0, 0]).pass(60).drain(&mut file.ledger);
    assert_eq!(drops(&file.ledger, Level::FiveMinutes), [row("101", 1, 0, [8, 800, 0, 0])]);
    assert_eq!(gaps(&file.ledger), [(60, 85), (120, 180)]);
    node.dropped("101", 1, Shaper, [1, 100, 0, 0]).pass(60).drain(&mut file.ledger);
    assert_eq!(drops(&file.ledger, Level::FiveMinutes), [row("101", 1, 0, [9, 900, 0, 0])]);
    assert_eq!(gaps(&file.ledger).len(), 2);
    audited(&file.ledger);
}

#[test]
fn a_gap_ends_where_the_next_set_begins() {
    let (mut file, mut node) = counting();
    node.traffic("101", 1, [90, 9000, 0, 0]).pass(60).drain(&mut file.ledger);
    node.stop_drops().pass(60).drain(&mut file.ledger);
    node.pass(60).drain(&mut file.ledger);
    node.pass(20).count_drops().dropped("101", 1, Shaper, [1, 100, 0, 0]).pass(40).drain(&mut file.ledger);
    assert_eq!(gaps(&file.ledger), [(60, 200)]);
    // After a boot, until the program is loaded.
    node.stop_drops().reboot(600).pass(10).traffic("101", 1, [1, 100, 0, 0]).drain(&mut file.ledger);
    assert_eq!(gaps(&file.ledger), [(60, 200), (840, 850)]);
    node.pass(5).count_drops().dropped("101", 1, Shaper, [1, 100, 0, 0]).pass(40).drain(&mut file.ledger);
    assert_eq!(gaps(&file.ledger), [(60, 200), (840, 855)]);
    assert_eq!(drops(&file.ledger, Level::FiveMinutes), [row("101", 1, 0, [2, 200, 0, 0])]);
    // What is counted from the first moment on has none.
    node.reboot(600).traffic("101", 1, [1, 100, 0, 0]).pass(60).drain(&mut file.ledger);
    assert_eq!(gaps(&file.ledger).len(), 2);
    assert!(!GapReason::DropsNotCounted.loses_traffic());
    audited(&file.ledger);
}

#[test]
fn a_ledger_that_never_saw_drops_misses_none() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for _ in 0..3 {
        node.traffic("101", 1, [1, 100, 0, 0]).pass(60).drain(&mut file.ledger);
    }
    assert_eq!(gaps(&file.ledger), []);
    node.count_drops().dropped("101", 1, Shaper, [1, 100, 0, 0]).pass(60).drain(&mut file.ledger);
    assert_eq!(drops(&file.ledger, Level::FiveMinutes), [row("101", 1, 0, [1, 100, 0, 0])]);
    assert_eq!(gaps(&file.ledger), []);
}

#[test]
fn a_migrated_ledger_does_not_take_what_was_dropped_before() {
    let (mut file, mut node) = counting();
    node.traffic("101", 1, [90, 9000, 0, 0]).pass(60).drain(&mut file.ledger);
    from_outside(
        &file.ledger,
        &(without_drops() + "DELETE FROM digest WHERE name = 'drop_set'; PRAGMA user_version = 11"),
    );
    let path = file.ledger.path().to_owned();
    node.dropped("101", 1, Shaper, [5, 500, 0, 0]);
    file.ledger = Ledger::open(&path, LedgerConfig::default()).unwrap();
    node.pass(60).drain(&mut file.ledger);
    assert_eq!(drops(&file.ledger, Level::FiveMinutes), []);
    node.dropped("101", 1, Shaper, [1, 100, 0, 0]).pass(60).drain(&mut file.ledger);
    assert_eq!(drops(&file.ledger, Level::FiveMinutes), [row("101", 1, 0, [1, 100, 0, 0])]);
    audited(&file.ledger);
}

#[test]
fn drops_go_with_a_pending_owner() {
    let (mut file, mut node) = counting();
    let pending = ContainerId::pending("veth1", 1, 1_794_312_000);
    let pending = pending.as_str();
    node.traffic_in(pending, 9, 1, [9, 900, 0, 0]).dropped_in((pending, 9), 1, Shaper, [1, 100, 0, 0]);
    node.pass(60).drain(&mut file.ledger);
    assert_eq!(drops(&file.ledger, Level::FiveMinutes), [row(pending, 1, 0, [1, 100, 0, 0])]);
    let number = "SELECT id FROM container WHERE name LIKE 'pending:%'";
    let number: i64 = file.ledger.conn.query_row(number, [], |row| row.get(0)).unwrap();
    file.ledger.attribute(pending, &id("101"), "found", node.wall).unwrap().unwrap();
    assert!(!has_open_rows(&file.ledger.conn, number));
    // The counters still have the pending id.
    node.dropped_in((pending, 9), 1, Shaper, [2, 200, 0, 0]).pass(60).drain(&mut file.ledger);
    assert_eq!(drops(&file.ledger, Level::FiveMinutes), [row("101", 1, 0, [3, 300, 0, 0])]);
    audited(&file.ledger);
}

#[test]
fn the_audit_finds_changed_drops() {
    let (mut file, mut node) = counting();
    node.traffic("101", 1, [9, 900, 0, 0]).dropped("101", 1, Shaper, [2, 200, 0, 0]);
    node.pass(60).drain(&mut file.ledger);
    from_outside(&file.ledger, "UPDATE dropped_5min_rows SET in_bytes = 0");
    let problems = file.ledger.audit().unwrap().problems;
    assert!(problems.iter().any(|problem| problem.contains("the rows of dropped hold")), "{problems:?}");
    assert!(problems.iter().any(|problem| problem.contains("dropped_5min_rows")), "{problems:?}");
}

#[test]
fn a_drop_counter_that_falls_is_a_gap_of_drops_only() {
    let (mut file, mut node) = counting();
    node.traffic("101", 1, [9, 900, 0, 0]).dropped("101", 1, Shaper, [5, 500, 0, 0]);
    node.pass(60).drain(&mut file.ledger);
    node.drops.clear();
    node.traffic("101", 1, [1, 100, 0, 0]).dropped("101", 1, Shaper, [1, 100, 0, 0]);
    let outcome = node.pass(60).drain(&mut file.ledger);
    assert_eq!(outcome.gaps.iter().map(|gap| gap.reason).collect::<Vec<_>>(), [GapReason::DropsNotCounted]);
    assert_eq!(drops(&file.ledger, Level::FiveMinutes), [row("101", 1, 0, [5, 500, 0, 0])]);
    // What passed is still compared with the classes.
    add(node.passed.as_mut().unwrap(), [7, 700, 0, 0]);
    for _ in 0..2 {
        node.pass(60).drain(&mut file.ledger);
    }
    assert!(file.ledger.audit().unwrap().problems[0].contains("neither in classes nor in faults"));
}

#[test]
fn a_report_shows_what_was_counted_dropped_and_delivered() {
    let (mut file, mut node) = counting();
    node.traffic("101", 1, [10, 1000, 20, 2000]).traffic("101", 0, [5, 500, 0, 0]);
    node.traffic("102", 2, [7, 700, 0, 0]);
    node.dropped("101", 1, Shaper, [1, 100, 2, 200]).dropped("101", 1, Firewall, [0, 0, 3, 300]);
    node.dropped("101", 0, Other, [4, 400, 0, 0]);
    node.pass(60).drain(&mut file.ledger);
    let report = file.ledger.report_drops(&ReportQuery::default()).unwrap();
    assert_eq!(report.recorded_from, Some(time(NOON)));
    let rows: Vec<_> = report
        .rows
        .iter()
        .map(|row| {
            let Delivery { counted, dropped, delivered, reasons } = &row.delivery;
            let all = [counted, dropped, delivered].map(|figures| figures.total.packets);
            let reasons = reasons.iter().map(|of| format!("{} {}", of.reason, of.figures.total.bytes));
            (row.container.as_str(), row.billed, all, reasons.collect::<Vec<_>>().join(" "))
        })
        .collect();
    assert_eq!(
        rows,
        [
            ("101", true, [30, 6, 24], "shaper 300 firewall 300".to_owned()),
            ("101", false, [5, 4, 1], "other 400".to_owned()),
            ("102", true, [7, 0, 7], String::new()),
        ]
    );
    assert_eq!(report.total.delivered.total.bytes, 3100);
    assert_eq!(report.class_zero.dropped.total.bytes, 400);
    // A layer counts each dropped packet too; each direction by itself.
    let split = Split { direction: true, ..Split::default() };
    let query = ReportQuery { basis: Basis::L2, split, classes: vec![1], ..ReportQuery::default() };
    let report = file.ledger.report_drops(&query).unwrap();
    let rows: Vec<_> = report
        .rows
        .iter()
        .map(|row| (row.direction, row.delivery.delivered.total.bytes, row.delivery.reasons.len()))
        .collect();
    assert_eq!(rows, [(Some("in"), 900 + 9 * 18, 1), (Some("out"), 1500 + 15 * 18, 2)]);
    let refused = file.ledger.report_drops(&ReportQuery { percentile: Some(95.0), ..ReportQuery::default() });
    assert!(refused.unwrap_err().to_string().contains("--show containers"));
    // More was dropped of a packet that an earlier step counted: never below zero.
    node.pass(86_400).dropped("102", 2, Shaper, [2, 200, 0, 0]).drain(&mut file.ledger);
    let query = ReportQuery { by: By::Day, containers: vec!["102".to_owned()], ..ReportQuery::default() };
    let report = file.ledger.report_drops(&query).unwrap();
    let delivered: Vec<_> = report.rows.iter().map(|row| row.delivery.delivered.total.packets).collect();
    assert_eq!(delivered, [7, 0]);
    assert_eq!(report.total.delivered.total.packets, 5);
}

#[test]
fn a_class_is_billed_by_what_was_delivered() {
    let config = || LedgerConfig { delivered: [1].into(), ..LedgerConfig::default() };
    let mut file = ledger_with(config());
    let mut node = Node::balanced(NOON);
    node.count_drops().traffic("101", 1, [10, 1000, 20, 2000]).traffic("101", 2, [10, 1000, 0, 0]);
    node.dropped("101", 1, Shaper, [1, 100, 2, 200]).dropped("101", 2, Shaper, [5, 500, 0, 0]);
    node.pass(60).drain(&mut file.ledger);
    let split = Split { class: true, ..Split::default() };
    let to_bill = |ledger: &Ledger, by: By| -> Vec<(Option<u8>, i64, u64)> {
        let report = ledger.report(&ReportQuery { by, split, ..ReportQuery::default() }).unwrap();
        let rows = report.rows.into_iter().filter(|row| row.figures.total.bytes > 0);
        rows.map(|row| (row.class, row.billing.unwrap().to_bill.total.bytes, row.figures.total.bytes))
            .collect()
    };
    let expected = [(Some(1), 2700, 3000), (Some(2), 1000, 1000)];
    assert_eq!(to_bill(&file.ledger, By::Month), expected);
    assert_eq!(to_bill(&file.ledger, By::Day), expected);
    let months = file.ledger.months(&ReportQuery::default(), 9).unwrap().months;
    assert_eq!(months[0].billing.to_bill.total.bytes, 3700);
    let report = file.ledger.report(&ReportQuery::default()).unwrap();
    assert_eq!((report.billed_as_delivered, report.billing.to_bill.total.bytes), (vec![1], 3700));
    // Closed, it is a correction, and the setting does not matter any more.
    node.pass(30 * 86_400).traffic("101", 1, [1, 100, 0, 0]).drain(&mut file.ledger);
    let preview = file.ledger.preview_close("2026-11", node.wall, true).unwrap().delivered;
    let preview: Vec<_> = preview
        .iter()
        .map(|of| (of.class, of.corrections, of.dropped.total.packets, of.dropped.total.bytes))
        .collect();
    assert_eq!(preview, [(1, 1, 3, 300)]);
    file.ledger.close_anyway("2026-11", node.wall).unwrap();
    let path = file.ledger.path().to_owned();
    for delivered in [[1].into(), Default::default()] {
        drop(file.ledger);
        file.ledger = Ledger::open(&path, LedgerConfig { delivered, ..config() }).unwrap();
        let rows = to_bill(&file.ledger, By::Month);
        assert_eq!(rows[..2], expected);
        assert_eq!(rows.len(), 3, "{rows:?}");
    }
    let report = file.ledger.report(&ReportQuery { by: By::Month, ..ReportQuery::default() }).unwrap();
    assert_eq!(report.billed_as_delivered, [0; 0]);
    assert_eq!(report.adjustments.len(), 1);
    let corrected = &report.adjustments[0].adjustment;
    assert_eq!((corrected.packets, corrected.bytes), ([-1, -2], [-100, -200]), "as the preview had it");
    assert!(report.adjustments[0].in_rows && report.adjustments[0].adjustment.reason.contains("delivered"));
    audited(&file.ledger);
}
