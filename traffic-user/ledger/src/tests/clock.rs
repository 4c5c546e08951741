//! Clocks that are wrong, set, or start again.

use traffic_model::calendar::Level;

use crate::{By, GapReason, Ledger, ReportQuery, testing::*};

const DAY: i64 = 86_400;

/// Drains every hour for some hours, with the same traffic each time.
fn run(node: &mut Node, ledger: &mut Ledger, hours: i64) {
    for _ in 0..hours {
        node.traffic("101", 1, [1, 100, 2, 7]).pass(3600).drain(ledger);
    }
}

fn days(ledger: &Ledger) -> Vec<(String, u64)> {
    let query = ReportQuery { by: By::Day, ..ReportQuery::default() };
    let report = ledger.report(&query).unwrap();
    let bytes = |row: &crate::ReportRow| row.figures.incoming.unwrap().bytes;
    report.rows.iter().map(|row| (row.period.clone(), bytes(row))).collect()
}

fn count(ledger: &Ledger, what: &str) -> i64 {
    ledger.conn.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap()
}

fn problems(ledger: &Ledger) -> Vec<String> {
    ledger.audit().unwrap().problems
}

#[test]
fn a_trusted_clock_that_is_months_ahead_for_two_days_changes_nothing() {
    let (mut right, mut wrong) = (ledger(), ledger());
    let (mut node, mut ahead) = (Node::balanced(NOON), Node::balanced(NOON));
    for (node, file, by_s) in [(&mut node, &mut right, 0), (&mut ahead, &mut wrong, 60 * DAY)] {
        run(node, &mut file.ledger, 10 * 24);
        node.set_clock(by_s);
        run(node, &mut file.ledger, 48);
        file.ledger.maintain(node.wall).unwrap();
        let early = file.ledger.close("2026-11", node.wall).unwrap_err().to_string();
        assert!(early.contains("2026-11"), "{early}");
        node.set_clock(-by_s);
        run(node, &mut file.ledger, 23 * 24);
        file.ledger.maintain(node.wall).unwrap();
    }
    assert_eq!(days(&wrong.ledger), days(&right.ledger));
    for table in ["traffic_5min", "traffic_hour", "traffic_day", "unit", "border"] {
        assert_eq!(count(&wrong.ledger, table), count(&right.ledger, table), "{table}");
    }
    assert_eq!(problems(&wrong.ledger), Vec::<String>::new());
    let stepped = wrong.ledger.gaps(None, None).unwrap();
    assert!(stepped.iter().any(|gap| gap.reason == GapReason::ClockStepped), "it is recorded");
    assert!(stepped.iter().all(|gap| gap.end <= node.wall), "no gap reaches into the future");
}

#[test]
fn a_first_start_in_another_decade_moves_to_the_true_time() {
    for wrong_by in [-NOON, 10 * 365 * DAY] {
        let mut file = ledger();
        let mut node = Node::balanced(NOON + wrong_by);
        run(&mut node, &mut file.ledger, 3);
        file.ledger.maintain(node.wall).unwrap();
        node.set_clock(-wrong_by);
        run(&mut node, &mut file.ledger, 2);
        file.ledger.maintain(node.wall).unwrap();
        assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
        let report = file.ledger.report(&ReportQuery::default()).unwrap();
        assert!(report.from >= time(NOON - DAY) && report.to <= time(NOON + DAY), "{report:?}");
        assert!(report.gaps.iter().all(|gap| gap.end <= time(NOON + DAY)), "{:?}", report.gaps);
        assert_eq!(days(&file.ledger), [("2026-11-10".to_owned(), 500)]);
        assert_eq!(problems(&file.ledger), Vec::<String>::new());
        let created = count(&file.ledger, &format!("epoch WHERE created BETWEEN {} AND {NOON}", NOON - DAY));
        assert_eq!(created, 1, "the start of own counting is true as well");
    }
}

#[test]
fn one_drain_in_2036_marks_at_most_its_own_bucket() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    run(&mut node, &mut file.ledger, 24);
    // The node boots in 2036, drains once, and boots again with the right clock.
    node.reboot(60).set_clock(10 * 365 * DAY);
    node.renew_maps().traffic("101", 1, [1, 100, 2, 7]).pass(60).drain(&mut file.ledger);
    node.reboot(60).set_clock(-10 * 365 * DAY);
    node.renew_maps();
    let before = count(&file.ledger, "span");
    for _ in 0..600 {
        node.traffic("101", 1, [1, 100, 2, 7]).pass(60).drain(&mut file.ledger);
    }
    assert_eq!(count(&file.ledger, "span"), before);
    let report = ReportQuery { to: Some(node.wall), ..ReportQuery::default() };
    let gaps = file.ledger.report(&report).unwrap().gaps;
    assert!(gaps.iter().all(|gap| gap.end <= node.wall), "{gaps:?}");
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    assert_eq!(problems(&file.ledger), Vec::<String>::new());
}

#[test]
fn a_boot_months_ahead_is_moved_when_its_clock_is_set() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    run(&mut node, &mut file.ledger, 30 * 24);
    node.reboot(60).set_clock(60 * DAY);
    node.renew_maps();
    run(&mut node, &mut file.ledger, 48);
    file.ledger.maintain(node.wall).unwrap();
    assert_eq!(
        count(&file.ledger, "meta WHERE key = 'dropped_before_5min'"),
        0,
        "nothing is dropped meanwhile"
    );
    node.set_clock(-60 * DAY);
    run(&mut node, &mut file.ledger, 24);
    file.ledger.maintain(node.wall).unwrap();
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    let days = days(&file.ledger);
    assert_eq!(days.len(), 34, "{days:?}");
    assert!(days[1..33].iter().all(|(_, bytes)| (2300..=2400).contains(bytes)), "{days:?}");
    assert_eq!(problems(&file.ledger), Vec::<String>::new());
    for level in [Level::Hour, Level::Day, Level::Month] {
        let future = format!("unit WHERE level = {} AND start > {}", level as u8, node.wall.as_second());
        assert_eq!(count(&file.ledger, &future), 0, "{level:?}");
    }
}

#[test]
fn a_node_reverted_with_its_memory_continues_with_a_gap() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    run(&mut node, &mut file.ledger, 24);
    let (wall, boottime, counters, passed) = (node.wall, node.boottime, node.counters.clone(), node.passed);
    run(&mut node, &mut file.ledger, 5 * 24);
    // A container that did not exist at the time of the snapshot.
    node.traffic_in("102", 7, 1, [1, 50, 1, 50]).pass(60).drain(&mut file.ledger);
    let recorded = node.truth.clone();
    let last = node.wall;
    (node.wall, node.boottime, node.counters, node.passed) = (wall, boottime, counters, passed);
    node.traffic("101", 1, [9, 900, 9, 900]).pass(60);
    let outcome = node.drain(&mut file.ledger);
    assert_eq!(outcome.gaps.iter().map(|gap| gap.reason).collect::<Vec<_>>(), [GapReason::Reverted]);
    assert_eq!(sums(&file.ledger, "traffic_5min"), recorded, "what it counted since is unknown");
    // From here on everything counts, also in a slot whose number was used before.
    node.truth = recorded;
    node.wall = last;
    node.traffic("101", 1, [1, 100, 2, 7])
        .traffic_in("103", 7, 1, [2, 80, 1, 40])
        .pass(120)
        .drain(&mut file.ledger);
    run(&mut node, &mut file.ledger, 3);
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    assert_eq!(problems(&file.ledger), Vec::<String>::new());
}

#[test]
fn a_node_reverted_into_an_earlier_boot_counts_nothing_twice() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    run(&mut node, &mut file.ledger, 24);
    let snapshot = node.clone();
    run(&mut node, &mut file.ledger, 2);
    node.reboot(300);
    run(&mut node, &mut file.ledger, 24);
    let recorded = node.truth.clone();
    node = Node { wall: node.wall, truth: recorded.clone(), ..snapshot };
    let outcome = node.pass(60).drain(&mut file.ledger);
    assert_eq!(outcome.gaps.iter().map(|gap| gap.reason).collect::<Vec<_>>(), [GapReason::Reverted]);
    assert_eq!(sums(&file.ledger, "traffic_5min"), recorded);
    run(&mut node, &mut file.ledger, 3);
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    // A boot that never was there is a reboot again.
    node.boot_id = "boot-9".to_owned();
    node.epoch += 7;
    let outcome = node.reboot(300).traffic("101", 1, [5, 50, 5, 50]).pass(60).drain(&mut file.ledger);
    assert_eq!(outcome.gaps.iter().map(|gap| gap.reason).collect::<Vec<_>>(), [GapReason::Reboot]);
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    assert_eq!(problems(&file.ledger), Vec::<String>::new());
}

#[test]
fn a_node_suspended_for_hours_goes_on() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    run(&mut node, &mut file.ledger, 3);
    // The time since boot stood still.
    node.set_clock(7 * 3600).traffic("101", 1, [1, 100, 2, 7]).pass(60).drain(&mut file.ledger);
    // The time since boot went on.
    node.traffic("101", 1, [1, 100, 2, 7]).pass(7 * 3600).drain(&mut file.ledger);
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    let last = buckets(&file.ledger).last().copied().unwrap().0;
    assert!((0..600).contains(&(node.wall.as_second() - last)), "{last}");
    assert_eq!(problems(&file.ledger), Vec::<String>::new());
}
