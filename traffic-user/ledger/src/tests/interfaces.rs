use crate::{By, Gap, GapReason, InterfaceReport, LedgerError, ReportQuery, Split, testing::*};

fn ask(file: &File, query: &ReportQuery) -> InterfaceReport {
    file.ledger.report_interfaces(query).unwrap()
}

fn differences(report: &InterfaceReport) -> Vec<(String, [i64; 4])> {
    let numbers = |row: &crate::BalanceRow| {
        let (incoming, outgoing) = (row.incoming, row.outgoing);
        [
            incoming.difference_packets,
            incoming.difference_bytes,
            outgoing.difference_packets,
            outgoing.difference_bytes,
        ]
    };
    report.balance.iter().map(|row| (row.container.clone(), numbers(row))).collect()
}

#[test]
fn traffic_is_reported_by_interface_and_fault() {
    let (mut file, mut node) = node_with_faults();
    let report = ask(&file, &ReportQuery::default());
    let names: Vec<_> =
        report.interfaces.iter().map(|row| (row.interface.as_str(), row.container.as_str())).collect();
    assert_eq!(names, [("veth101.0", "101"), ("venet0", "(shared)")]);
    let own = &report.interfaces[0];
    assert_eq!((own.passed.incoming.unwrap().bytes, own.faults.outgoing.unwrap().packets), (3000, 2));
    let faults: Vec<_> =
        report.faults.iter().map(|row| (row.fault.as_str(), row.figures.total.packets)).collect();
    assert_eq!(faults, [("not_ip", 2), ("no_container", 3)]);
    assert_eq!(report.gaps[0].reason, GapReason::BeforeFirstCounters);
    // By day, one day later, summed or not.
    node.traffic("101", 1, [1, 100, 0, 0]).interface("veth101.0", Some("101"), 31, 4);
    node.pass(86_400).drain(&mut file.ledger);
    let days = ReportQuery { by: By::Day, ..ReportQuery::default() };
    let before = ask(&file, &days);
    let passed: Vec<_> =
        before.interfaces.iter().map(|row| (row.period.as_str(), row.passed.total.packets)).collect();
    assert_eq!(passed, [("2026-11-10", 30), ("2026-11-10", 5), ("2026-11-11", 1)]);
    file.ledger.maintain(node.wall).unwrap();
    assert_eq!(ask(&file, &days), before);
}

#[test]
fn a_balance_shows_missing_traffic_and_its_place() {
    let (file, _) = node_with_faults();
    let report = ask(&file, &ReportQuery::default());
    // 3 packets into 101 are missing; the faults were outgoing, where nothing passed.
    let expected = [
        ("101".to_owned(), [3, 300, -2, -120]),
        ("(shared)".to_owned(), [0, 0, -3, -180]),
        ("(node)".to_owned(), [3, 300, -5, -300]),
    ];
    assert_eq!(differences(&report), expected);
    let incoming = report.balance[2].incoming;
    assert_eq!((incoming.passed.packets, incoming.billed.packets, incoming.class_zero.packets), (35, 25, 7));
    let of_101 = ReportQuery { containers: vec!["101".to_owned()], ..ReportQuery::default() };
    assert_eq!(differences(&ask(&file, &of_101)), expected[..1]);
    let of_201 = ReportQuery { containers: vec!["201".to_owned()], ..ReportQuery::default() };
    assert_eq!(differences(&ask(&file, &of_201)), []);
}

#[test]
fn interfaces_have_no_classes() {
    let (file, _) = node_with_faults();
    for query in [
        ReportQuery { classes: vec![1], ..ReportQuery::default() },
        ReportQuery { percentile: Some(95.0), ..ReportQuery::default() },
        ReportQuery { split: Split { family: true, ..Split::default() }, ..ReportQuery::default() },
    ] {
        assert!(matches!(file.ledger.report_interfaces(&query), Err(LedgerError::Query(_))));
    }
}

#[test]
fn what_was_counted_too_often_is_one_growing_gap_that_the_audit_reports() {
    let (mut file, mut node) = (ledger(), Node::new(NOON));
    node.traffic("101", 1, [10, 1000, 0, 0]).interface("veth101.0", Some("101"), 10, 0);
    node.pass(60).drain(&mut file.ledger);
    let excess = |node: &mut Node, packets: u64| {
        let passed = &mut node.interfaces[0].passed.outgoing;
        passed.excess = traffic_common::Tally { packets, bytes: packets * 150 };
    };
    assert_eq!(file.ledger.audit().unwrap().problems, [""; 0]);
    excess(&mut node, 3000);
    assert_eq!(node.pass(60).drain(&mut file.ledger).gaps.len(), 1);
    excess(&mut node, 7000);
    assert_eq!(node.pass(60).drain(&mut file.ledger).gaps.len(), 0, "it is the same gap");
    let gaps = file.ledger.gaps(None, None).unwrap();
    let [gap] = gaps.as_slice() else { panic!("{gaps:?}") };
    assert_eq!((gap.reason, gap.reason.loses_traffic()), (GapReason::CountedTwice, false));
    assert_eq!((gap.start, gap.end), (Some(node.interfaces[0].attached), node.wall));
    assert_eq!((gap.interface.as_deref(), gap.container.as_deref()), (Some("veth101.0"), Some("101")));
    let size = gap.size.unwrap();
    assert_eq!((size.out_skbs, size.out_skb_bytes, size.in_skbs, size.in_skb_bytes), (7000, 1_050_000, 0, 0));
    let problems = file.ledger.audit().unwrap().problems;
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("counted too often: ") && problems[0].contains("veth101.0"),
        "{problems:?}"
    );
    // Attached again: another base, another gap.
    node.interfaces[0].attached = node.wall;
    excess(&mut node, 2000);
    assert_eq!(node.pass(60).drain(&mut file.ledger).gaps.len(), 1);
    assert_eq!(file.ledger.audit().unwrap().problems.len(), 2);
}

#[test]
fn small_segments_are_recorded_by_interface_and_day() {
    let (mut file, mut node) = (ledger(), Node::new(NOON));
    node.traffic("101", 1, [10, 1000, 0, 0]).interface("veth101.0", Some("101"), 10, 0);
    let counted = |node: &mut Node, incoming: u64, outgoing: u64| {
        let tally = |packets| traffic_common::Tally { packets, bytes: packets * 41 };
        let passed = &mut node.interfaces[0].passed;
        (passed.incoming.small_segments, passed.outgoing.small_segments) = (tally(incoming), tally(outgoing));
    };
    counted(&mut node, 500, 7);
    assert_eq!(node.pass(60).drain(&mut file.ledger).gaps.len(), 1);
    counted(&mut node, 900, 8);
    assert!(node.pass(60).drain(&mut file.ledger).gaps.is_empty(), "it is the same day");
    assert!(node.pass(60).drain(&mut file.ledger).gaps.is_empty());
    node.pass(86_400);
    counted(&mut node, 1000, 8);
    let outcome = node.drain(&mut file.ledger);
    let gap = outcome.gaps.iter().find(|gap| gap.reason == GapReason::SmallSegments).unwrap();
    assert_eq!((gap.interface.as_deref(), gap.container.as_deref()), (Some("veth101.0"), Some("101")));
    let gaps = file.ledger.gaps(None, None).unwrap();
    let sizes: Vec<_> = gaps
        .iter()
        .filter(|gap| gap.reason == GapReason::SmallSegments)
        .filter_map(|gap| gap.size.map(|size| (size.in_skbs, size.in_skb_bytes, size.out_skbs)))
        .collect();
    assert_eq!(sizes, [(900, 36_900, 8), (100, 4100, 0)]);
    assert_eq!(file.ledger.audit().unwrap().problems, [""; 0], "they are no problem");
    let text = gap.text(&traffic_model::local_time::LocalTime::of(file.ledger.calendar()));
    assert!(
        text.contains("small_segments") && text.contains("100 packets") && text.contains("layer 3"),
        "{text}"
    );
    // A report of the time shows them.
    let report = ask(&file, &ReportQuery::default());
    assert!(report.gaps.iter().any(|gap| gap.reason == GapReason::SmallSegments));
}

#[test]
fn what_passes_an_attached_interface_unseen_is_one_gap_that_grows() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    let sized = |file: &File| {
        let gaps = file.ledger.gaps(None, None).unwrap();
        let size = |gap: &Gap| (gap.reason.name(), gap.size.unwrap().in_skbs, gap.end.as_second() - NOON);
        gaps.iter().filter(|gap| gap.size.is_some()).map(size).collect::<Vec<_>>()
    };
    node.interface("veth7", Some("101"), 0, 3).pass(60).drain(&mut file.ledger);
    let first = sized(&file);
    assert_eq!(first.len(), 1);
    // It stays attached, and the kernel's statistics run away from ours.
    let attached = node.interfaces[0].attached;
    let bypassed = |node: &mut Node, file: &mut File, before, missed| {
        node.interface("veth7", Some("101"), 0, before).bypassed(missed);
        node.interfaces[0].attached = attached;
        node.pass(60).drain(&mut file.ledger);
    };
    for missed in [37, 37, 42] {
        bypassed(&mut node, &mut file, 3, missed);
    }
    assert_eq!(sized(&file), [first[0], ("bypassed", 42, 240)]);
    let gap = file.ledger.gaps(None, None).unwrap().into_iter().find(|gap| gap.reason == GapReason::Bypassed);
    let gap = gap.unwrap();
    assert_eq!((gap.start, gap.container.as_deref()), (Some(time(NOON + 60)), Some("101")));
    assert!(gap.reason.loses_traffic());
    // Another daemon has to find it again.
    for missed in [0, 0, 42, 42, 43] {
        bypassed(&mut node, &mut file, 3, missed);
    }
    assert_eq!(sized(&file), [first[0], ("bypassed", 43, 540)]);
    // Attached again, it has a base of its own, and what was missed until then is known.
    node.interface("veth7", Some("101"), 0, 46).pass(60).drain(&mut file.ledger);
    assert_eq!(sized(&file).len(), 2);
    node.interface("veth7", Some("101"), 0, 46).bypassed(2).pass(60).drain(&mut file.ledger);
    assert_eq!(sized(&file)[2], ("bypassed", 2, 660));
    assert_eq!(file.ledger.audit().unwrap().problems, [""; 0]);
}

#[test]
fn what_was_missed_before_an_attach_and_what_was_bypassed_after_it_are_two_gaps() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    node.pass(60).drain(&mut file.ledger);
    // No drain succeeded between the attach and the finding.
    node.interface("veth7", Some("101"), 0, 3).bypassed(5).pass(60).drain(&mut file.ledger);
    let gaps = file.ledger.gaps(None, None).unwrap();
    let of_interface = gaps.iter().filter(|gap| gap.interface.is_some());
    let found: Vec<_> = of_interface.map(|gap| (gap.reason.name(), gap.size.unwrap().in_skbs)).collect();
    assert_eq!(found, [("before_attach", 3), ("bypassed", 5)]);
}

#[test]
fn the_second_of_an_attach_decides_nothing() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    node.drain(&mut file.ledger);
    node.wall += jiff::SignedDuration::from_millis(700);
    node.pass(60).drain(&mut file.ledger);
    node.interface("veth7", Some("101"), 0, 3);
    // The record of an attach has whole seconds: this one was after the drain, and seems to be before it.
    node.interfaces[0].attached = time(NOON + 60);
    node.pass(60).drain(&mut file.ledger);
    node.interface("veth7", Some("101"), 0, 3).bypassed(4);
    // This one seems to be after the drain that first saw it.
    node.interfaces[0].attached = node.wall;
    node.pass(60).drain(&mut file.ledger);
    let gaps = file.ledger.gaps(None, None).unwrap();
    let of_interface: Vec<_> = gaps.iter().filter(|gap| gap.interface.is_some()).collect();
    let reasons = of_interface.iter().map(|gap| gap.reason.name()).collect::<Vec<_>>();
    assert_eq!(reasons, ["before_attach", "bypassed"]);
}
