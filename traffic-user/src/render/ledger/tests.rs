use traffic_common::{Family, Fault};
use traffic_ledger::{AdjustmentRequest, Basis, By, GapReason, ReportQuery, TopQuery, testing::*};

use super::*;

fn time_at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A container with an interface of its own, one on a shared interface, and faults on both.
fn node_with_faults() -> (File, Node) {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [20, 2000, 0, 0]).traffic("101", 0, [7, 700, 0, 0]);
    node.traffic("201", 1, [5, 500, 0, 0]);
    node.interface("veth101.0", Some("101"), 30, 4).interface("venet0", None, 5, 0);
    node.fault("veth101.0", Fault::NotIp, 2).fault("venet0", Fault::NoContainer, 3);
    node.pass(60).drain(&mut file.ledger);
    (file, node)
}

#[test]
fn all_formats_carry_the_figures_and_the_gaps_are_said() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [10, 1000, 20, 2000]).interface("veth101.0", Some("101"), 30, 4);
    node.pass(60).drain(&mut file.ledger);
    node.traffic("101", 1, [10, 1000, 20, 2000]).pass(3600).drain(&mut file.ledger);
    let query = ReportQuery { by: By::Hour, percentile: Some(95.0), ..ReportQuery::default() };
    let figures = file.ledger.report(&query).unwrap();
    assert_eq!(figures.marked_buckets, 1);
    let reasons: Vec<_> = figures.gaps.iter().map(|gap| gap.reason).collect();
    assert_eq!(reasons, [GapReason::BeforeAttach, GapReason::MissedDrain]);
    let table = report(&figures, Format::Table).unwrap();
    assert!(
        table.contains("2 gaps touch this span, 1 of them with traffic that is not in the sums"),
        "{table}"
    );
    assert!(
        table.contains("before_attach, interface veth101.0, container 101, in 456 bytes in 4 buffers"),
        "{table}"
    );
    assert!(table.contains("nearest rank"), "{table}");
    let csv = report(&figures, Format::Csv).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(
        lines[0],
        "period,start,end,container,class,family,direction,in_packets,in_bytes,out_packets,out_bytes,packets,bytes,\
         in_bits_per_s,out_bits_per_s,total_bits_per_s"
    );
    assert!(lines[1].starts_with(
        "2026-11-10T12:00+00:00,2026-11-10T12:00:00Z,2026-11-10T13:00:00Z,101,,,,10,1000,20,2000,30,3000,"
    ));
    let json: serde_json::Value = serde_json::from_str(&report(&figures, Format::Json).unwrap()).unwrap();
    assert_eq!(json["rows"][0]["in"]["bytes"], 1000);
    assert_eq!(json["rows"][0]["total"]["packets"], 30);
    assert_eq!(json["gaps"][0]["reason"], "before_attach");
    assert!(gaps(&figures.gaps, Format::Csv).unwrap().contains("missed_drain,false"));
    assert!(gaps(&figures.gaps, Format::Table).unwrap().contains("veth101.0"));
}

#[test]
fn a_report_says_where_the_ledger_ends_and_which_steps_are_parts() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    for _ in 0..40 {
        node.traffic("101", 1, [1, 1, 0, 0]).pass(86_400).drain(&mut file.ledger);
    }
    let notes = |query: &ReportQuery| notes(&file.ledger.report(query).unwrap()).join("\n");
    let months = ReportQuery { by: By::Month, ..ReportQuery::default() };
    let told = notes(&months);
    assert!(told.contains("2026-12 is not whole: shown until 2026-12-20T12:00:00Z"), "{told}");
    assert!(told.contains("2026-11 is not whole: shown from 2026-11-11T11:55:00Z"), "{told}");
    // A span after the last reading is an empty one, and the reader learns why.
    let after = ReportQuery { from: Some(time(NOON + 90 * 86_400)), ..months };
    let told = notes(&after);
    assert!(told.contains("nothing is recorded after the last reading, 2026-12-20T12:00:00Z"), "{told}");
    let whole = ReportQuery {
        from: Some(time_at("2026-12-01T00:00:00Z")),
        to: Some(time_at("2026-12-02T00:00:00Z")),
        by: By::Day,
        ..ReportQuery::default()
    };
    let told = notes(&whole);
    assert!(!told.contains("not whole") && !told.contains("last reading"), "{told}");
}

#[test]
fn all_formats_carry_interfaces_and_faults_and_reports_mention_them() {
    let (file, _) = node_with_faults();
    let figures = file.ledger.report_interfaces(&ReportQuery::default()).unwrap();
    let csv = interfaces(&figures, Part::Interfaces, Format::Csv).unwrap();
    assert_eq!(
        csv.lines().collect::<Vec<_>>(),
        [
            "period,start,end,interface,container,in_packets,in_bytes,out_packets,out_bytes,in_fault_packets,\
             in_fault_bytes,out_fault_packets,out_fault_bytes",
            "total,2026-11-10T12:00:00Z,2026-11-10T12:05:00Z,veth101.0,101,30,3000,0,0,0,0,2,120",
            "total,2026-11-10T12:00:00Z,2026-11-10T12:05:00Z,venet0,(shared),5,500,0,0,0,0,3,180",
        ]
    );
    let table = interfaces(&figures, Part::Faults, Format::Table).unwrap();
    assert!(table.contains("total   venet0     (shared)   no_container"), "{table}");
    assert!(table.contains("before_attach"), "{table}");
    let json = interfaces(&figures, Part::Faults, Format::Json).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["balance"][0]["in"]["difference_bytes"], 300);
    assert_eq!(json["faults"][1]["fault"], "no_container");
    // The ordinary report says how much is in no class, of the containers that it is about.
    let bill = file.ledger.report(&ReportQuery::default()).unwrap();
    assert_eq!((bill.faults.total.packets, bill.faults.total.bytes), (5, 300));
    let text = report(&bill, Format::Table).unwrap();
    assert!(text.contains("faults, in no class"), "{text}");
    let of_101 = ReportQuery { containers: vec!["101".to_owned()], ..ReportQuery::default() };
    assert_eq!(file.ledger.report(&of_101).unwrap().faults.total.packets, 2);
}

#[test]
fn every_report_states_its_basis() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [10, 1000, 20, 2000]).pass(60).drain(&mut file.ledger);
    for basis in [Basis::L3, Basis::L2, Basis::L1] {
        let figures = file.ledger.report(&ReportQuery { basis, ..ReportQuery::default() }).unwrap();
        assert!(report(&figures, Format::Table).unwrap().contains(basis.statement()));
    }
}

#[test]
fn top_talkers_show_class_0_apart() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("104", 1, [1, 200, 1, 2000]).traffic("104", 0, [1, 4_000_000, 0, 0]);
    node.pass(60).drain(&mut file.ledger);
    let query =
        TopQuery { count: 1, from: None, to: None, classes: vec![], by_class: true, basis: Basis::L3 };
    let table = top(&file.ledger.top_talkers(&query).unwrap(), Format::Table).unwrap();
    assert!(table.contains("104") && table.contains("class 0, not ranked: in 4000000 bytes"), "{table}");
}

#[test]
fn the_balance_has_a_line_for_the_whole_node() {
    let (file, _) = node_with_faults();
    let figures = file.ledger.report_interfaces(&ReportQuery::default()).unwrap();
    let table = interfaces(&figures, Part::Balance, Format::Table).unwrap();
    let line = table.lines().find(|line| line.contains("(node)")).unwrap();
    let fields: Vec<_> = line.split_whitespace().collect();
    assert_eq!(fields, ["total", "(node)", "in", "bytes", "3500", "2500", "700", "0", "300"]);
}

#[test]
fn corrections_are_shown_beside_the_frozen_figures() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for _ in 0..60 {
        node.traffic("101", 1, [1, 100, 1, 10]).pass(86_400).drain(&mut file.ledger);
    }
    file.ledger.maintain(node.wall).unwrap();
    file.ledger.close("2026-11", node.wall).unwrap();
    let request = |packets, bytes, reason: &str| AdjustmentRequest {
        period: "2026-11".to_owned(),
        container: "101".to_owned(),
        class: 1,
        family: Some(Family::Ipv4),
        packets,
        bytes,
        reason: reason.to_owned(),
        made: node.wall,
    };
    file.ledger.adjust(&request([-1, 0], [-100, 0], "attack, credited")).unwrap();
    let second = file.ledger.adjust(&request([2, -3], [30, -40], "recount")).unwrap();
    let shown = adjusted(&second, Format::Table).unwrap();
    assert!(shown.contains("written as entry 3 of the chain"), "{shown}");
    let figures = file.ledger.report(&ReportQuery::default()).unwrap();
    let table = report(&figures, Format::Table).unwrap();
    assert!(table.contains("attack, credited"), "{table}");
    let row = table.lines().find(|line| line.starts_with("2026-11  101        1      in")).unwrap();
    assert_eq!(row.split_whitespace().skip(4).collect::<Vec<_>>(), ["2000", "-70", "1930", "20", "+1", "21"]);
}
