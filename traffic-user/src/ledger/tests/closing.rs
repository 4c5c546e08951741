use super::node::*;
use crate::ledger::{Adjustment, LedgerError, ReportQuery};

/// Two months of one drain a day, from November 10.
fn two_months() -> (File, Node) {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    for _ in 0..60 {
        node.traffic("101", 1, [1, 100, 1, 10])
            .traffic("102", 0, [1, 7, 1, 7])
            .pass(86_400)
            .drain(&mut file.ledger);
    }
    (file, node)
}

fn adjustment() -> Adjustment {
    Adjustment {
        period: "2026-11".to_owned(),
        made: time(NOON + 60 * 86_400),
        container: "101".to_owned(),
        class: 1,
        family: 0,
        packets: [-1, 0],
        bytes: [-100, 0],
        reason: "attack, credited".to_owned(),
    }
}

#[test]
fn periods_are_closed_in_order_and_once_they_are_over() {
    let (mut file, node) = two_months();
    let reason = |result| match result {
        Err(LedgerError::NotClosable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(file.ledger.close("2027-01", node.wall)).contains("last drain"));
    let december = file.ledger.close("2026-12", node.wall).unwrap();
    assert_eq!((december.name.as_str(), december.rows), ("2026-12", 2));
    assert!(reason(file.ledger.close("2026-11", node.wall)).contains("closed"));
    assert!(reason(file.ledger.close("2026-12", node.wall)).contains("closed"));
    assert!(file.ledger.close("December", node.wall).is_err());
}

#[test]
fn nothing_is_booked_into_a_closed_period() {
    let (mut file, mut node) = two_months();
    file.ledger.close("2026-12", node.wall).unwrap();
    node.set_clock(-20 * 86_400).traffic("101", 1, [1, 1000, 0, 0]).pass(60).drain(&mut file.ledger);
    file.ledger.maintain(node.wall).unwrap();
    let report = file.ledger.report(&ReportQuery::default()).unwrap();
    assert_eq!(report.total.total.bytes, 60 * 110 + 1000);
    let audit = file.ledger.audit().unwrap();
    assert_eq!(audit.problems, Vec::<String>::new());
    assert_eq!(audit.chain_entries, 1);
}

#[test]
fn corrections_are_shown_and_chained() {
    let (mut file, node) = two_months();
    let unclosed = file.ledger.adjust(&adjustment());
    assert!(matches!(unclosed, Err(LedgerError::NotClosed(_))));
    let november = file.ledger.close("2026-11", node.wall).unwrap();
    file.ledger.adjust(&adjustment()).unwrap();
    let december = file.ledger.close("2026-12", node.wall).unwrap();
    assert_ne!(november.hash, december.hash);
    let query = ReportQuery { to: Some(november.end), ..ReportQuery::default() };
    let report = file.ledger.report(&query).unwrap();
    assert_eq!(report.closed, [november]);
    assert_eq!(report.adjustments, [adjustment()]);
    assert_eq!(report.total.total.bytes, 20 * 110);
    let audit = file.ledger.audit().unwrap();
    assert_eq!(audit.problems, Vec::<String>::new());
    assert_eq!((audit.chain_entries, audit.chain_hash), (3, Some(december.hash)));
    assert!(audit.units > 60);
}

#[test]
fn an_audit_finds_what_was_changed() {
    for (tamper, finding) in [
        ("UPDATE closed_row SET in_bytes = in_bytes + 1 WHERE class = 1", "does not fit"),
        ("UPDATE adjustment SET reason = 'none'", "does not fit"),
        ("DELETE FROM chain WHERE seq = 2", "missing"),
        (
            "UPDATE traffic_day SET out_bytes = 0 WHERE start = (SELECT max(start) FROM traffic_day)",
            "traffic_day",
        ),
        ("DELETE FROM traffic_hour WHERE start = (SELECT max(start) FROM traffic_hour)", "traffic_day"),
        ("UPDATE traffic_month SET in_packets = 0 WHERE class = 1", "differ from its month"),
        ("INSERT INTO traffic_5min VALUES (300, 1, 1, 0, 1, 1, 1, 1, 1)", "not listed"),
    ] {
        let (mut file, node) = two_months();
        file.ledger.close("2026-11", node.wall).unwrap();
        file.ledger.adjust(&adjustment()).unwrap();
        file.ledger.close("2026-12", node.wall).unwrap();
        assert!(file.ledger.conn.execute(tamper, []).unwrap() > 0, "{tamper}");
        let problems = file.ledger.audit().unwrap().problems;
        assert!(problems.iter().any(|problem| problem.contains(finding)), "{tamper}: {problems:?}");
    }
}
