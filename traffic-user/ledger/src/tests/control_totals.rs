//! The audit finds rows that differ from the control totals and traffic that is missing, and nothing else.

use traffic_common::Fault;

use crate::{Ledger, LedgerConfig, testing::*};

/// Three days of traffic; the first ones are summed.
fn filled() -> (File, Node) {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for day in 0..3 {
        node.traffic("101", 1, [3, 300 + day, 2, 200]).traffic("102", 0, [5, 500, 7, 700 + day]);
        node.fault(&format!("veth{day}"), Fault::NotIp, 4 + day).pass(3600).drain(&mut file.ledger);
        node.pass(82_800);
    }
    file.ledger.maintain(node.wall).unwrap();
    node.traffic("101", 2, [1, 60, 0, 0]).drain(&mut file.ledger);
    (file, node)
}

fn problems(ledger: &Ledger) -> Vec<String> {
    ledger.audit().unwrap().problems
}

/// Applies a change on every level, so that the levels agree with each other.
fn everywhere(kind: &str, change: &str) -> String {
    let as_rows = ["5min", "hour"].map(|level| {
        let of_level = format!("{kind}_{level}");
        format!(
            "CREATE TEMP TABLE whole AS SELECT * FROM {of_level};
             DELETE FROM {of_level}_days; DELETE FROM {of_level}_rows;
             INSERT INTO {of_level}_rows SELECT * FROM whole; DROP TABLE whole;"
        )
    });
    let tables = ["5min_rows", "hour_rows", "day", "month"];
    as_rows.concat() + &tables.map(|level| change.replace("ROWS", &format!("{kind}_{level}"))).join(";")
}

#[test]
fn the_audit_of_an_unchanged_ledger_finds_nothing() {
    let (mut file, mut node) = filled();
    let audit = file.ledger.audit().unwrap();
    assert_eq!((audit.problems, audit.counter_sets, audit.counter_sets_skipped), (vec![], 1, 0));
    // A second epoch, and a ledger older than its retention.
    node.reboot(300).traffic("101", 1, [1, 100, 1, 100]).pass(60).drain(&mut file.ledger);
    node.pass(60 * 86_400).traffic("101", 1, [1, 100, 1, 100]).drain(&mut file.ledger);
    file.ledger.conn.execute("UPDATE meta SET value = 0 WHERE key = 'steady_since'", []).unwrap();
    assert!(file.ledger.maintain(node.wall).unwrap().dropped_rows > 0);
    let audit = file.ledger.audit().unwrap();
    assert_eq!((audit.problems, audit.counter_sets), (vec![], 2));
}

#[test]
fn the_audit_finds_a_row_changed_on_all_levels() {
    for (kind, change, expected) in [
        ("traffic", "UPDATE ROWS SET in_bytes = in_bytes - 1 WHERE class = 1", "the rows of traffic hold"),
        (
            "traffic",
            "UPDATE ROWS SET out_packets = out_packets + 1 WHERE class = 0",
            "the rows of traffic hold",
        ),
        ("traffic", "DELETE FROM ROWS WHERE class = 2", "the rows of traffic hold"),
        ("fault", "UPDATE ROWS SET out_bytes = 0", "the rows of fault hold"),
        ("passed", "UPDATE ROWS SET in_packets = 0", "the rows of passed hold"),
        (
            "booked",
            "UPDATE booked SET in_bytes = in_bytes + 1 WHERE kind = 0",
            "neither in classes nor in faults",
        ),
    ] {
        let (file, _) = filled();
        let change = if kind == "booked" { change.to_owned() } else { everywhere(kind, change) };
        from_outside(&file.ledger, &change);
        let found = problems(&file.ledger);
        assert!(found.iter().any(|problem| problem.contains(expected)), "{change}: {found:?}");
        assert!(
            found.iter().all(|problem| problem.starts_with("counters feed000000000001 of ")
                || problem.ends_with("by something else than trafctl")),
            "{found:?}"
        );
    }
}

#[test]
fn unclassified_traffic_is_found_beyond_what_torn_readings_explain() {
    let (mut file, mut node) = filled();
    // One packet per drain is unclassified while others move: that is within what torn readings explain,
    for drain in 1..=3_u64 {
        node.traffic("101", 1, [1, 100, 0, 0]);
        add(node.passed.as_mut().unwrap(), [1, 100, 0, 0]);
        node.pass(60).drain(&mut file.ledger);
        let found = problems(&file.ledger);
        // until it is more than that.
        assert_eq!(found.is_empty(), drain <= 2, "{found:?}");
    }
    assert!(
        problems(&file.ledger)[0]
            .contains("3 packets and 300 bytes in, 0 packets and 0 bytes out passed, but are neither")
    );
}

#[test]
fn without_traffic_every_byte_must_be_accounted_for() {
    let (mut file, mut node) = filled();
    add(node.passed.as_mut().unwrap(), [0, 0, 0, 1]);
    node.pass(60).drain(&mut file.ledger);
    assert_eq!(problems(&file.ledger), Vec::<String>::new(), "the classes may have been read before");
    node.pass(60).drain(&mut file.ledger);
    assert!(problems(&file.ledger)[0].contains("0 packets and 1 bytes out passed, but are neither"));
}

#[test]
fn owners_gone_before_the_ledger_began_cause_no_mismatch() {
    let mut node = Node::balanced(NOON);
    node.traffic("101", 1, [9, 900, 8, 800]).give_away("101").traffic("102", 1, [1, 100, 1, 100]);
    let mut file = ledger();
    for _ in 0..2 {
        node.pass(60).drain(&mut file.ledger);
    }
    node.traffic("102", 1, [1, 100, 1, 100]).pass(60).drain(&mut file.ledger);
    node.give_away("102").pass(60).drain(&mut file.ledger);
    assert_eq!(problems(&file.ledger), Vec::<String>::new());
}

#[test]
fn a_fallen_counter_is_a_gap_and_causes_no_mismatch() {
    let (mut file, mut node) = filled();
    node.counters.insert(("101".to_owned(), 1, 1), [0; 4]);
    node.pass(60).drain(&mut file.ledger);
    node.pass(60).drain(&mut file.ledger);
    assert_eq!(problems(&file.ledger), Vec::<String>::new());
}

#[test]
fn an_older_ledger_without_control_totals_has_no_problems() {
    let (mut file, mut node) = filled();
    let former = "DROP TABLE booked; ALTER TABLE adjustment DROP COLUMN number; PRAGMA user_version = 1";
    from_outside(&file.ledger, &as_version_3());
    from_outside(&file.ledger, former);
    let path = file.ledger.path().to_owned();
    file.ledger = Ledger::open(&path, LedgerConfig::default()).unwrap();
    assert!(path.with_file_name("ledger.sqlite.v1-backup").exists());
    node.traffic("101", 1, [1, 100, 1, 100]).pass(60).drain(&mut file.ledger);
    let audit = file.ledger.audit().unwrap();
    assert_eq!((audit.problems, audit.counter_sets, audit.counter_sets_skipped), (vec![], 0, 1));
    node.reboot(60).traffic("101", 1, [1, 100, 1, 100]).pass(60).drain(&mut file.ledger);
    assert_eq!(file.ledger.audit().unwrap().counter_sets, 1);
}
