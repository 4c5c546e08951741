//! What a report shows to those who bill: corrections in rows and sums, and gaps of the asked container only.

use jiff::SignedDuration;

use crate::{AdjustmentRequest, Basis, By, GapReason, ReportQuery, ReportRow, Split, TopQuery, testing::*};

/// November closed and corrected: 101 in class 1 twice, 103 without any figures, and class 0.
fn corrected() -> (File, Node) {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for _ in 0..60 {
        node.traffic("101", 1, [1, 100, 2, 10]).traffic("102", 0, [1, 7, 1, 7]);
        node.traffic("102", 2, [3, 5000, 4, 6000]).pass(86_400).drain(&mut file.ledger);
    }
    file.ledger.close_anyway("2026-11", node.wall).unwrap();
    let first = adjustment(node.wall);
    let second = AdjustmentRequest { packets: [2, -3], bytes: [30, -40], ..first.clone() };
    let third = AdjustmentRequest {
        container: "102".to_owned(),
        class: 3,
        packets: [0, 9],
        bytes: [0, 900],
        ..first.clone()
    };
    let zero = AdjustmentRequest {
        container: "102".to_owned(),
        class: 0,
        packets: [0; 2],
        bytes: [0, 5],
        ..first.clone()
    };
    for request in [first, second, third, zero] {
        file.ledger.adjust(&request).unwrap();
    }
    (file, node)
}

fn rows(file: &File, query: &ReportQuery) -> Vec<ReportRow> {
    file.ledger.report(query).unwrap().rows
}

/// Billed, corrected and to bill: packets and bytes in, packets and bytes out.
fn amounts(row: &ReportRow) -> ([i64; 4], [i64; 4]) {
    let billing = row.billing.unwrap();
    assert_eq!(billing.billed, row.figures);
    let of = |figures: crate::SignedFigures| {
        let (incoming, outgoing) = (figures.incoming.unwrap(), figures.outgoing.unwrap());
        assert_eq!(figures.total.bytes, incoming.bytes + outgoing.bytes);
        assert_eq!(figures.total.packets, incoming.packets + outgoing.packets);
        [incoming.packets, incoming.bytes, outgoing.packets, outgoing.bytes]
    };
    (of(billing.corrected), of(billing.to_bill))
}

#[test]
fn corrections_are_in_the_rows_of_their_months_and_in_the_sums() {
    let (file, _) = corrected();
    let months = ReportQuery { by: By::Month, ..ReportQuery::default() };
    let all = rows(&file, &months);
    let of = |period: &str, container: &str| {
        all.iter().find(|row| row.period == period && row.container == container && row.billed).unwrap()
    };
    assert_eq!(amounts(of("2026-11", "101")), ([1, -70, -3, -40], [21, 1930, 37, 160]));
    assert_eq!(amounts(of("2026-12", "101")), ([0; 4], [31, 3100, 62, 310]));
    assert_eq!(amounts(of("2026-11", "102")), ([0, 0, 9, 900], [60, 100_000, 89, 120_900]));
    let report = file.ledger.report(&months).unwrap();
    assert_eq!(report.billing.billed, report.total);
    assert_eq!(report.billing.corrected.total.bytes, -70 - 40 + 900);
    let sum: i64 = report.rows.iter().filter_map(|row| row.billing).map(|row| row.to_bill.total.bytes).sum();
    assert_eq!(report.billing.to_bill.total.bytes, sum);
    let in_rows: Vec<bool> = report.adjustments.iter().map(|adjustment| adjustment.in_rows).collect();
    assert_eq!(in_rows, [true, true, true, false], "class 0 is not billed");
    assert!(all.iter().all(|row| row.billing.is_some() == row.billed));
    // The month began before the ledger, and the row of the whole span contains it too.
    let whole = ReportQuery { containers: vec!["101".to_owned()], ..ReportQuery::default() };
    let whole = rows(&file, &whole);
    assert_eq!(amounts(&whole[0]), ([1, -70, -3, -40], [61, 5930, 117, 560]));
}

#[test]
fn a_correction_without_figures_has_a_row_of_its_own() {
    let (file, _) = corrected();
    let split = Split { class: true, family: true, ..Split::default() };
    let query = ReportQuery { by: By::Month, split, classes: vec![3], ..ReportQuery::default() };
    let all = rows(&file, &query);
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].class, all[0].family, all[0].figures.total.bytes), (Some(3), Some("ipv4"), 0));
    assert_eq!(amounts(&all[0]), ([0, 0, 9, 900], [0, 0, 9, 900]));
    let l2 = ReportQuery { basis: Basis::L2, ..query.clone() };
    assert_eq!(amounts(&rows(&file, &l2)[0]).0, [0, 0, 9, 900 + 9 * 18]);
    let by_direction = ReportQuery { split: Split { direction: true, ..split }, ..query };
    let [incoming, outgoing] = rows(&file, &by_direction).try_into().unwrap();
    assert_eq!(incoming.billing.unwrap().to_bill.total.bytes, 0);
    let billing = outgoing.billing.unwrap();
    assert_eq!((billing.corrected.total.bytes, billing.corrected.incoming), (900, None));
}

#[test]
fn a_correction_is_in_the_report_when_a_corrected_clock_took_its_months_traffic_elsewhere() {
    // After all that is recorded, at once or later, and in the last month beyond its last reading.
    for (days, month) in [(92, "2027-01"), (61, "2026-12"), (25, "2026-11")] {
        let mut file = ledger();
        let mut node = Node::balanced(NOON);
        node.traffic("101", 1, [1, 100, 2, 10]).pass(60).drain(&mut file.ledger);
        let noon = node.wall;
        node.wall += SignedDuration::from_hours(24 * days);
        node.traffic("101", 1, [1, 100, 2, 10]).pass(60).drain(&mut file.ledger);
        file.ledger.close_anyway(month, node.wall).unwrap();
        let change = AdjustmentRequest { packets: [1, 0], bytes: [100, 0], ..adjustment(node.wall) };
        let request = AdjustmentRequest { period: month.to_owned(), ..change };
        file.ledger.adjust(&request).unwrap();
        node.wall = noon;
        for _ in 0..3 {
            node.traffic("101", 1, [1, 100, 2, 10]).pass(3600).drain(&mut file.ledger);
        }
        let of_month = |row: &&ReportRow| row.period == month && row.container == "101" && row.billed;
        let months = rows(&file, &ReportQuery { by: By::Month, ..ReportQuery::default() });
        let corrected = months.iter().find(of_month).map(|row| row.billing.unwrap().corrected.total.bytes);
        assert_eq!(corrected, Some(request.bytes.iter().sum()), "{month}: {months:#?}");
        // Months without traffic until then are not to be closed. What a closed month cannot take is in the next one.
        let open = file.ledger.standing().unwrap().open_months;
        let open: Vec<_> = open.iter().map(|open| open.name.as_str()).collect();
        assert_eq!(open, [if month == "2026-11" { "2026-12" } else { "2026-11" }], "{month}");
    }
}

#[test]
fn a_correction_is_in_no_row_that_has_only_a_part_of_its_month() {
    let (file, node) = corrected();
    let days = ReportQuery { by: By::Day, ..ReportQuery::default() };
    let late = ReportQuery { from: Some(time(NOON + 5 * 86_400)), ..ReportQuery::default() };
    let early = ReportQuery { to: Some(time(NOON + 5 * 86_400)), by: By::Month, ..ReportQuery::default() };
    for query in [days, late, early] {
        let report = file.ledger.report(&query).unwrap();
        assert_eq!(
            report.billing.corrected,
            crate::Billing::new(Default::default(), [0; 4], Basis::L3).corrected,
            "{query:?}"
        );
        assert_eq!(report.adjustments.iter().filter(|adjustment| adjustment.in_rows).count(), 0);
        assert_eq!(report.adjustments.len(), 4);
    }
    let december =
        ReportQuery { from: Some("2026-12-01T00:00:00Z".parse().unwrap()), ..ReportQuery::default() };
    assert_eq!(file.ledger.report(&december).unwrap().adjustments, []);
    assert!(node.wall > time(NOON));
}

#[test]
fn rankings_show_what_to_bill_and_keep_their_order() {
    let (file, _) = corrected();
    let query = TopQuery {
        count: 5,
        from: None,
        to: None,
        classes: vec![],
        by_class: false,
        calendar: None,
        basis: Basis::L3,
    };
    let top = file.ledger.top_talkers(&query).unwrap();
    let rows: Vec<_> = top
        .rows
        .iter()
        .map(|row| (row.container.as_str(), row.billing.unwrap().to_bill.total.bytes))
        .collect();
    assert_eq!(rows, [("102", 60 * 11_000 + 900), ("101", 60 * 110 - 110)]);
    assert_eq!(top.billing.to_bill.total.bytes, 60 * 11_110 + 790);
}

#[test]
fn the_report_of_a_container_names_no_other() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.interface("veth101.0", Some("101"), 0, 0).interface("venet0", None, 0, 0);
    node.traffic("101", 1, [1, 1, 1, 1]).traffic("102", 1, [2, 2, 2, 2]);
    node.pass(60).drain(&mut file.ledger);
    // Each gap has another size.
    node.interface("veth101.0", Some("101"), 8, 5).interface("veth102.0", Some("102"), 8, 6);
    node.interface("venet0", None, 8, 7);
    node.pass(3600).drain(&mut file.ledger);
    // A counter that falls is a gap of its interface, without a container.
    for (name, container) in [("veth101.0", Some("101")), ("veth102.0", Some("102")), ("venet0", None)] {
        node.interface(name, container, 1, 8);
    }
    node.pass(60).drain(&mut file.ledger);
    let all = file.ledger.gaps(None, None).unwrap();
    let of_102 = all.iter().filter(|gap| format!("{gap:?}").contains("102")).count();
    assert_eq!(of_102, 3, "{all:#?}");
    let query = ReportQuery { containers: vec!["101".to_owned()], ..ReportQuery::default() };
    let report = file.ledger.report(&query).unwrap();
    let named: Vec<_> = report.gaps.iter().map(|gap| gap.interface.as_deref().unwrap_or("-")).collect();
    assert_eq!(named.iter().filter(|name| **name == "veth101.0").count(), 3, "{named:?}");
    assert!(named.contains(&"venet0") && report.gaps.iter().any(|gap| gap.reason == GapReason::MissedDrain));
    assert_eq!(report.gaps, file.ledger.gaps_of(&["101".to_owned()], None, None).unwrap());
    let interfaces = file.ledger.report_interfaces(&query).unwrap();
    assert_eq!(interfaces.gaps, report.gaps);
    for text in [format!("{report:?}"), format!("{interfaces:?}")] {
        assert!(!text.contains("102"), "{text}");
    }
}

#[test]
fn the_life_of_interfaces_before_the_first_counters_is_no_loss() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.interface("veth101.0", Some("101"), 0, 500).pass(5).drain(&mut file.ledger);
    let reasons = |file: &File| -> Vec<_> {
        file.ledger
            .gaps(None, None)
            .unwrap()
            .iter()
            .map(|gap| (gap.reason, gap.reason.loses_traffic()))
            .collect()
    };
    let first = (GapReason::BeforeFirstCounters, false);
    assert_eq!(reasons(&file), [first]);
    // What passes the same interface, or one that appears later, while nothing is attached is a loss.
    node.interface("veth101.0", Some("101"), 0, 600).interface("veth102.0", Some("102"), 0, 7);
    node.pass(60).drain(&mut file.ledger);
    let loss = (GapReason::BeforeAttach, true);
    assert_eq!(reasons(&file), [first, loss, loss]);

    // Attached long after the counters were created: what passed in between should have been counted.
    let mut late = ledger();
    let mut node = Node::new(NOON);
    node.interface("veth101.0", Some("101"), 0, 500);
    node.interfaces[0].attached = time(NOON + 300);
    node.pass(600).drain(&mut late.ledger);
    assert_eq!(reasons(&late), [loss]);
}
