use jiff::Timestamp;
use rusqlite::params;
use traffic_common::Family;

use crate::{
    AdjustmentRequest, Ledger, LedgerConfig, LedgerError, OpenGaps, OpenMonth, Report, ReportQuery,
    ReportedAdjustment, Standing,
    closing::chain::{Entry, hash_v1},
    testing::*,
};

/// A ledger with two months of one drain per day, from November 10.
fn two_months() -> (File, Node) {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for _ in 0..60 {
        node.traffic("101", 1, [1, 100, 1, 10])
            .traffic("102", 0, [1, 7, 1, 7])
            .pass(86_400)
            .drain(&mut file.ledger);
    }
    (file, node)
}

/// When corrections are made.
fn made() -> Timestamp {
    time(NOON + 60 * 86_400)
}

fn refusal(file: &mut File, request: &AdjustmentRequest) -> String {
    let previewed = file.ledger.preview_adjustment(request).unwrap_err().to_string();
    let refused = file.ledger.adjust(request).unwrap_err().to_string();
    assert_eq!(previewed, refused);
    refused
}

#[test]
fn periods_close_in_order_and_only_after_their_end() {
    let (mut file, node) = two_months();
    let reason = |result| match result {
        Err(LedgerError::NotClosable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    for skipping in ["2026-12", "2027-01"] {
        assert!(
            reason(file.ledger.close_anyway(skipping, node.wall))
                .contains("run `trafctl close 2026-11` first")
        );
    }
    assert_eq!(file.ledger.close_anyway("2026-11", node.wall).unwrap().name, "2026-11");
    let december = file.ledger.close_anyway("2026-12", node.wall).unwrap();
    assert_eq!((december.name.as_str(), december.rows), ("2026-12", 2));
    for closed in ["2026-11", "2026-12"] {
        assert!(reason(file.ledger.close_anyway(closed, node.wall)).contains("already closed"));
    }
    let early = reason(file.ledger.close_anyway("2027-01", node.wall));
    assert_eq!(early, "it ends at 2027-02-01T00:00+00:00; close it after the first drain from then on");
    let unbegun = reason(file.ledger.close_anyway("2027-03", node.wall));
    assert_eq!(unbegun, "it begins only at 2027-03-01T00:00+00:00; close a month that is over");
    let over = "2027-02-01T00:00:00Z".parse().unwrap();
    assert!(reason(file.ledger.close_anyway("2027-01", over)).contains("last drain"));
    for (month, message) in [
        ("December", "\"December\" is not a billing month; write it like 2026-10"),
        ("2026-13", "month 13 does not exist; write it like 2026-10"),
        ("2026-00", "month 00 does not exist; write it like 2026-10"),
    ] {
        assert_eq!(file.ledger.close_anyway(month, node.wall).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_month_without_figures_need_not_be_closed() {
    let (mut file, mut node) = two_months();
    // January ends, February and March have no traffic, and the drain in April has traffic again.
    node.pass(90 * 86_400).traffic("101", 1, [1, 100, 1, 10]).drain(&mut file.ledger);
    node.pass(30 * 86_400).drain(&mut file.ledger);
    for month in ["2026-11", "2026-12", "2027-01", "2027-04"] {
        file.ledger.close_anyway(month, node.wall).unwrap();
    }
    let audit = file.ledger.audit().unwrap();
    assert_eq!((audit.problems, audit.chain_entries), (vec![], 4));
}

#[test]
fn nothing_is_written_into_a_closed_period() {
    let (mut file, mut node) = two_months();
    file.ledger.close_anyway("2026-11", node.wall).unwrap();
    file.ledger.close_anyway("2026-12", node.wall).unwrap();
    node.set_clock(-20 * 86_400).traffic("101", 1, [1, 1000, 0, 0]).pass(60).drain(&mut file.ledger);
    file.ledger.maintain(node.wall).unwrap();
    let report = file.ledger.report(&ReportQuery::default()).unwrap();
    assert_eq!(report.total.total.bytes, 60 * 110 + 1000);
    let audit = file.ledger.audit().unwrap();
    assert_eq!(audit.problems, Vec::<String>::new());
    assert_eq!(audit.chain_entries, 2);
}

#[test]
fn corrections_are_reported_and_chained() {
    let (mut file, node) = two_months();
    let unclosed = file.ledger.adjust(&adjustment(made()));
    assert!(matches!(unclosed, Err(LedgerError::NotClosed(_))));
    let november = file.ledger.close_anyway("2026-11", node.wall).unwrap();
    let made = file.ledger.adjust(&adjustment(made())).unwrap().adjustment;
    let december = file.ledger.close_anyway("2026-12", node.wall).unwrap();
    assert_ne!(november.hash, december.hash);
    let query = ReportQuery { to: Some(november.end), ..ReportQuery::default() };
    let report = file.ledger.report(&query).unwrap();
    assert_eq!(report.closed, [november]);
    assert_eq!(report.adjustments, [ReportedAdjustment { adjustment: made, in_rows: true }]);
    assert_eq!(report.total.total.bytes, 20 * 110);
    assert_eq!(report.billing.to_bill.total.bytes, 20 * 110 - 100);
    let audit = file.ledger.audit().unwrap();
    assert_eq!(audit.problems, Vec::<String>::new());
    assert_eq!((audit.chain_entries, audit.chain_hash), (3, Some(december.hash)));
    assert!(audit.units > 60);
}

#[test]
fn a_correction_can_be_previewed_and_leaves_frozen_figures_unchanged() {
    let (mut file, node) = two_months();
    file.ledger.close_anyway("2026-11", node.wall).unwrap();
    let preview = file.ledger.preview_adjustment(&adjustment(made())).unwrap();
    assert_eq!((preview.frozen, preview.corrected_before), ([20, 2000, 20, 200], [0; 4]));
    assert_eq!((preview.to_bill, preview.chained.is_none()), ([19, 1900, 20, 200], true));
    assert_eq!(file.ledger.audit().unwrap().chain_entries, 1);
    file.ledger.adjust(&adjustment(made())).unwrap();
    let other = AdjustmentRequest { packets: [2, -3], bytes: [30, -40], ..adjustment(made()) };
    let second = file.ledger.adjust(&other).unwrap();
    assert_eq!((second.corrected_before, second.to_bill), ([-1, -100, 0, 0], [21, 1930, 17, 160]));

    let report = |query: &ReportQuery| file.ledger.report(query).unwrap();
    let whole = report(&ReportQuery::default());
    assert_eq!(whole.total.total.bytes, 60 * 110, "the rows are unchanged");
    assert_eq!(whole.corrected.len(), 1);
    let line = &whole.corrected[0];
    assert_eq!((line.frozen, line.corrections), ([20, 2000, 20, 200], [1, -70, -3, -40]));
    assert_eq!(line.to_bill, [21, 1930, 17, 160]);
    for (containers, classes, shown) in
        [(vec!["101"], vec![], 2), (vec!["102"], vec![], 0), (vec![], vec![2], 0)]
    {
        let containers = containers.into_iter().map(str::to_owned).collect();
        let query = ReportQuery { containers, classes, ..ReportQuery::default() };
        assert_eq!(report(&query).adjustments.len(), shown);
    }
    assert_eq!(file.ledger.audit().unwrap().problems, Vec::<String>::new());
}

#[test]
fn an_invalid_correction_is_refused() {
    let (mut file, node) = two_months();
    file.ledger.close_anyway("2026-11", node.wall).unwrap();
    let with = |change: fn(&mut AdjustmentRequest)| {
        let mut request = adjustment(made());
        change(&mut request);
        request
    };
    for (request, why) in [
        (with(|request| request.reason = " ".to_owned()), "reason"),
        (with(|request| request.reason = "two\nlines".to_owned()), "reason"),
        (with(|request| (request.packets, request.bytes) = ([0; 2], [0; 2])), "changes nothing"),
        (with(|request| request.bytes = [-2001, 0]), "2026-11 has 2000 bytes in of 101 class 1 ipv4"),
        (with(|request| request.packets = [0, -21]), "20 packets out"),
        (with(|request| request.family = Some(Family::Ipv6)), "0 packets in"),
        (with(|request| request.class = 7), "0 packets in"),
        (with(|request| request.container = "999".to_owned()), "no container 999 is known"),
        (with(|request| request.period = "2026-12".to_owned()), "not closed"),
        (with(|request| request.period = "November".to_owned()), "write it like 2026-10"),
    ] {
        let refused = refusal(&mut file, &request);
        assert!(refused.contains(why), "{refused}");
    }
    file.ledger.adjust(&adjustment(made())).unwrap();
    assert!(refusal(&mut file, &adjustment(made())).contains("already made at"));
    let added = with(|request| (request.class, request.packets, request.bytes) = (7, [1, 0], [50, 0]));
    let remarks = file.ledger.adjust(&added).unwrap().remarks;
    assert!(remarks[0].contains("no frozen row"), "{remarks:?}");
}

#[test]
fn a_correction_belongs_to_the_owner_at_the_time_of_closing() {
    let (mut file, mut node) = two_months();
    file.ledger.close_anyway("2026-11", node.wall).unwrap();
    let retired = file.ledger.retire("101", node.wall).unwrap();
    node.traffic_in("101", 2, 1, [1, 5, 1, 5]).pass(60).drain(&mut file.ledger);
    let adjusted = file.ledger.adjust(&adjustment(made())).unwrap();
    assert_eq!((adjusted.frozen[1], adjusted.container_now), (2000, Some(retired.clone())));
    let of = |container: &str| {
        let query = ReportQuery { containers: vec![container.to_owned()], ..ReportQuery::default() };
        file.ledger.report(&query).unwrap().adjustments.len()
    };
    assert_eq!((of(&retired), of("101")), (1, 0));
}

/// November is closed without figures of 103. Then 103 gets a correction for it, and its id goes to another
/// customer. Also returns the label of the retired container.
fn corrected_without_a_frozen_row() -> (File, Node, String) {
    let (mut file, mut node) = two_months();
    node.traffic("103", 1, [1, 9, 1, 9]).pass(60).drain(&mut file.ledger);
    file.ledger.close_anyway("2026-11", node.wall).unwrap();
    let made = file.ledger.adjust(&of_103(node.wall)).unwrap();
    assert!(made.remarks[0].contains("no frozen row"), "{made:?}");
    let retired = file.ledger.retire("103", node.pass(60).wall).unwrap();
    node.traffic_in("103", 2, 1, [1, 5, 1, 5]).pass(60).drain(&mut file.ledger);
    (file, node, retired)
}

fn of_103(made: Timestamp) -> AdjustmentRequest {
    AdjustmentRequest { container: "103".to_owned(), packets: [1, 0], bytes: [50, 0], ..adjustment(made) }
}

fn report_of(ledger: &Ledger, container: &str) -> Report {
    let query = ReportQuery { containers: vec![container.to_owned()], ..ReportQuery::default() };
    ledger.report(&query).unwrap()
}

#[test]
fn a_correction_does_not_pass_to_the_next_owner_of_the_id() {
    let (mut file, mut node, retired) = corrected_without_a_frozen_row();
    let of_old = report_of(&file.ledger, &retired).corrected;
    assert_eq!((of_old.len(), of_old[0].to_bill), (1, [1, 50, 0, 0]));
    assert_eq!(of_old[0].container_now.as_ref(), Some(&retired));
    let of_new = report_of(&file.ledger, "103");
    assert_eq!((of_new.corrected, of_new.adjustments), (vec![], vec![]));
    // The same request for the new owner is another correction, which starts from zero.
    let of_new = file.ledger.adjust(&of_103(node.pass(60).wall)).unwrap();
    assert_eq!((of_new.corrected_before, of_new.to_bill), ([0; 4], [1, 50, 0, 0]));
    let whole = file.ledger.report(&ReportQuery::default()).unwrap();
    let names: Vec<_> = whole.corrected.iter().map(|line| line.container_now.clone()).collect();
    assert_eq!(names, [Some(retired.clone()), None]);
    // Both the current and the former name work.
    let more = AdjustmentRequest { container: retired.clone(), ..of_103(node.wall) };
    let more = AdjustmentRequest { reason: "more".to_owned(), ..more };
    assert_eq!(file.ledger.adjust(&more).unwrap().to_bill, [2, 100, 0, 0]);
    assert_eq!(report_of(&file.ledger, &retired).corrected[0].to_bill, [2, 100, 0, 0]);
    assert_eq!(file.ledger.audit().unwrap().problems, Vec::<String>::new());
}

#[test]
fn migration_assigns_old_corrections_to_their_containers() {
    let (mut file, mut node, retired) = corrected_without_a_frozen_row();
    file.ledger.adjust(&adjustment(made())).unwrap();
    let of_retired = AdjustmentRequest { container: retired.clone(), ..of_103(node.pass(60).wall) };
    file.ledger.adjust(&AdjustmentRequest { reason: "late".to_owned(), ..of_retired }).unwrap();
    file.ledger.adjust(&of_103(node.wall)).unwrap();
    let numbers = |ledger: &Ledger| -> Vec<i64> {
        let mut statement = ledger.conn.prepare("SELECT number FROM adjustment ORDER BY id").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let before = numbers(&file.ledger);
    assert_eq!((before[0], before[3] != before[0]), (before[2], true));
    // Rewrite them as version 2 did.
    for seq in 1..=5_i64 {
        let conn = &file.ledger.conn;
        let hash = |seq: i64| -> String {
            conn.query_row("SELECT hash FROM chain WHERE seq = ?1", [seq], |row| row.get(0)).unwrap()
        };
        let previous = (seq > 1).then(|| hash(seq - 1));
        let (kind, subject) = if seq == 1 { ("period", 1) } else { ("adjustment", seq - 1) };
        let entry = Entry { seq, kind, subject, previous: previous.as_deref() };
        let former = hash_v1(conn, &entry, true).unwrap();
        assert_ne!(former, hash(seq));
        conn.execute("UPDATE chain SET hash = ?2 WHERE seq = ?1", params![seq, former]).unwrap();
    }
    let former = "ALTER TABLE adjustment DROP COLUMN number; PRAGMA user_version = 2";
    from_outside(&file.ledger, &as_version_3());
    from_outside(&file.ledger, former);
    let path = file.ledger.path().to_owned();
    file.ledger = Ledger::open(&path, LedgerConfig::default()).unwrap();
    assert!(path.with_file_name("ledger.sqlite.v2-backup").exists());
    assert_eq!(numbers(&file.ledger), before);
    assert_eq!(file.ledger.audit().unwrap().problems, Vec::<String>::new());
    let other = AdjustmentRequest { reason: "later".to_owned(), ..adjustment(made()) };
    file.ledger.adjust(&other).unwrap();
    let audit = file.ledger.audit().unwrap();
    assert_eq!((audit.problems, audit.chain_entries), (vec![], 6));
}

#[test]
fn the_audit_finds_changed_rows() {
    for (tamper, finding) in [
        ("UPDATE closed_row SET in_bytes = in_bytes + 1 WHERE class = 1", "does not match"),
        ("UPDATE adjustment SET reason = 'none'", "does not match"),
        ("UPDATE adjustment SET number = number + 1", "does not match"),
        ("DELETE FROM chain WHERE seq = 2", "missing"),
        (
            "UPDATE traffic_day SET out_bytes = 0 WHERE start = (SELECT max(start) FROM traffic_day)",
            "traffic_day",
        ),
        (
            "DELETE FROM traffic_hour_days WHERE start = (SELECT max(start) FROM traffic_hour_days)",
            "traffic_day",
        ),
        ("UPDATE traffic_5min_days SET first = first + 1", "traffic_hour"),
        ("UPDATE traffic_5min_days SET start = start + 300", "not listed"),
        ("UPDATE traffic_month SET in_packets = 0 WHERE class = 1", "differ from its month"),
        ("INSERT INTO traffic_5min_rows VALUES (300, 1, 1, 0, 1, 1, 1, 1, 1)", "not listed"),
    ] {
        let (mut file, node) = two_months();
        file.ledger.close_anyway("2026-11", node.wall).unwrap();
        file.ledger.adjust(&adjustment(made())).unwrap();
        file.ledger.close_anyway("2026-12", node.wall).unwrap();
        from_outside(&file.ledger, tamper);
        let problems = file.ledger.audit().unwrap().problems;
        assert!(problems.iter().any(|problem| problem.contains(finding)), "{tamper}: {problems:?}");
    }
}

#[test]
fn the_standing_is_about_the_months_that_are_not_closed() {
    let mut file = ledger();
    assert_eq!(file.ledger.standing().unwrap().open_months, []);
    let mut node = Node::balanced(NOON);
    node.interface("veth101.0", Some("101"), 10, 0).traffic("101", 1, [10, 1000, 0, 0]);
    node.pass(60).drain(&mut file.ledger);
    // Packets pass the interface unseen.
    node.bypassed(7).pass(60).drain(&mut file.ledger);
    for _ in 0..30 {
        node.pass(86_400).drain(&mut file.ledger);
    }
    let standing = file.ledger.standing().unwrap();
    let november = OpenMonth {
        name: "2026-11".to_owned(),
        start: time(1_793_491_200),
        end: time(1_796_083_200),
        complete: true,
    };
    let december = OpenMonth {
        name: "2026-12".to_owned(),
        start: time(1_796_083_200),
        end: time(1_798_761_600),
        complete: false,
    };
    let expected = Standing {
        last_reading: Some(node.wall),
        open_months: vec![november, december.clone()],
        // The other gaps are drains that came late, and lost nothing.
        gaps: OpenGaps { losing: 1, of_unknown_size: 0, bytes: 7 * 114 },
    };
    assert_eq!(standing, expected);

    file.ledger.close_anyway("2026-11", node.wall).unwrap();
    let standing = file.ledger.standing().unwrap();
    assert_eq!((standing.open_months, standing.gaps), (vec![december], OpenGaps::default()));

    // New counters begin again, and what the former ones had is lost.
    node.renew_maps().traffic("101", 1, [1, 100, 0, 0]).pass(60).drain(&mut file.ledger);
    let gaps = file.ledger.standing().unwrap().gaps;
    assert_eq!((gaps.losing, gaps.of_unknown_size, gaps.bytes), (1, 1, 0));
}
