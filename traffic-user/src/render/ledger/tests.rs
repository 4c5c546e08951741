use jiff::Timestamp;
use traffic_common::DropGroup;
use traffic_ledger::{
    AdjustmentRequest, Basis, By, ContainerNames, Gap, GapReason, LedgerConfig, PvaImport, ReportQuery,
    Split, TopQuery, testing::*,
};
use traffic_model::calendar::Calendar;
use traffic_model::local_time::LocalTime;

use super::{report::notes, *};
use crate::render::ClassNames;

fn utc() -> LocalTime {
    LocalTime::named("UTC")
}

fn time_at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn all_formats_contain_figures_and_gaps() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [10, 1000, 20, 2000]).pass(60).drain(&mut file.ledger);
    node.interface("veth101.0", Some("101"), 30, 1004);
    node.traffic("101", 1, [10, 1000, 20, 2000]).pass(3600).drain(&mut file.ledger);
    let query = ReportQuery { by: By::Hour, percentile: Some(95.0), ..ReportQuery::default() };
    let figures = file.ledger.report(&query).unwrap();
    assert_eq!(figures.mixed_buckets, 1);
    let reasons: Vec<_> = figures.gaps.iter().map(|gap| gap.reason).collect();
    assert_eq!(reasons, [GapReason::BeforeAttach, GapReason::MissedDrain]);
    let table = report(&figures, Format::Table).unwrap();
    assert!(
        table.contains("1 gap overlaps this span, 1 of them with traffic that is not in the sums:\n  ")
            && table.contains("1 small gap, 0 bytes (each lost nothing, or less than 100 kB; "),
        "{table}"
    );
    assert!(
        table.contains("before_attach, interface veth101.0, container 101, in 114456 bytes in 1004 buffers"),
        "{table}"
    );
    assert!(!table.contains("missed_drain"), "{table}");
    assert!(table.contains("nearest rank"), "{table}");
    let csv = report(&figures, Format::Csv).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(
        lines[0],
        "period,start,end,container,class,family,direction,in_packets,in_bytes,out_packets,out_bytes,\
         packets,bytes,in_bits_per_s,out_bits_per_s,total_bits_per_s,billed_in_packets,billed_in_bytes,\
         billed_out_packets,billed_out_bytes,billed_packets,billed_bytes,corrected_in_packets,\
         corrected_in_bytes,corrected_out_packets,corrected_out_bytes,corrected_packets,corrected_bytes,\
         to_bill_in_packets,to_bill_in_bytes,to_bill_out_packets,to_bill_out_bytes,to_bill_packets,\
         to_bill_bytes,container_name,class_name"
    );
    let by_class = ReportQuery { split: Split { class: true, ..Split::default() }, ..ReportQuery::default() };
    let by_class = file.ledger.report(&by_class).unwrap();
    let names = ClassNames::from([(1, "All, \"others\"".to_owned())]);
    let named = report_with(&by_class, None, Format::Csv, &names).unwrap();
    assert!(named.lines().nth(1).unwrap().ends_with(",\"All, \"\"others\"\"\""), "{named}");
    assert!(named.contains(",101,1,,,"), "the number stands alone: {named}");
    let table = report_with(&by_class, None, Format::Table, &names).unwrap();
    assert!(table.contains("  1 All, \"others\"  "), "{table}");
    assert!(lines[1].starts_with(
        "2026-11-10T12:00+00:00,2026-11-10T12:00:00Z,2026-11-10T13:00:00Z,101,,,,10,1000,20,2000,30,3000,"
    ));
    let json: serde_json::Value = serde_json::from_str(&report(&figures, Format::Json).unwrap()).unwrap();
    assert_eq!(json["rows"][0]["in"]["bytes"], 1000);
    assert_eq!(json["rows"][0]["total"]["packets"], 30);
    assert_eq!(json["gaps"][0]["reason"], "before_attach");
    assert!(
        gaps(&figures.gaps, &ContainerNames::default(), Format::Csv, &utc())
            .unwrap()
            .contains("missed_drain,false")
    );
    let table = gaps(&figures.gaps, &ContainerNames::default(), Format::Table, &utc()).unwrap();
    assert!(table.contains("veth101.0") && table.contains("  no  ") && !table.contains("false"), "{table}");
    let unknown = Gap { start: None, ..figures.gaps[0].clone() };
    let text = unknown.text(&utc());
    assert!(
        text.starts_with("until 2026-11-10T") && text.contains("Z (start unknown): before_attach"),
        "{text}"
    );
}

#[test]
fn a_report_notes_where_the_ledger_ends_and_which_steps_are_incomplete() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    for _ in 0..40 {
        node.traffic("101", 1, [1, 1, 0, 0]).pass(86_400).drain(&mut file.ledger);
    }
    let notes =
        |query: &ReportQuery| notes(&file.ledger.report(query).unwrap(), &ClassNames::new()).join("\n");
    let months = ReportQuery { by: By::Month, ..ReportQuery::default() };
    let text = notes(&months);
    assert!(text.contains("2026-12 is incomplete: shown until 2026-12-20T12:00:00Z"), "{text}");
    assert!(text.contains("2026-11 is incomplete: shown from 2026-11-11T11:55:00Z"), "{text}");
    let last = "figures up to the last drain at 2026-12-20T12:00:00Z; `trafctl dump` has what came since";
    let future = ReportQuery { to: Some(time(NOON + 90 * 86_400)), ..months.clone() };
    assert!(notes(&future).contains(last), "{}", notes(&future));
    // Where the ledger begins is noted once.
    let early = ReportQuery { from: Some(time_at("2026-10-20T10:00:00Z")), ..months };
    let text = notes(&early);
    assert!(text.contains("the ledger begins at 2026-11-11T11:55:00Z"), "{text}");
    assert!(!text.contains("2026-10 is incomplete"), "{text}");
    let whole = ReportQuery {
        from: Some(time_at("2026-12-01T00:00:00Z")),
        to: Some(time_at("2026-12-02T00:00:00Z")),
        by: By::Day,
        ..ReportQuery::default()
    };
    let text = notes(&whole);
    assert!(!text.contains("incomplete") && !text.contains("last drain"), "{text}");
}

#[test]
fn all_formats_contain_interfaces_and_faults_and_reports_mention_them() {
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
    assert!(table.contains("1 small gap, 0 bytes"), "{table}");
    let json = interfaces(&figures, Part::Faults, Format::Json).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["balance"][0]["in"]["difference_bytes"], 300);
    assert_eq!(json["faults"][1]["fault"], "no_container");
    // The report by container states the unclassified traffic of its containers.
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
fn top_talkers_show_class_0_separately() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("104", 1, [1, 200, 1, 2000]).traffic("104", 0, [1, 4_000_000, 0, 0]);
    node.pass(60).drain(&mut file.ledger);
    let query = TopQuery {
        count: 1,
        from: None,
        to: None,
        calendar: None,
        classes: vec![],
        by_class: true,
        basis: Basis::L3,
    };
    let table = top(&file.ledger.top_talkers(&query).unwrap(), Format::Table).unwrap();
    assert!(table.contains("104") && table.contains("class 0, not ranked: in 4000000 bytes"), "{table}");
}

#[test]
fn the_balance_has_a_row_for_the_whole_node() {
    let (file, _) = node_with_faults();
    let figures = file.ledger.report_interfaces(&ReportQuery::default()).unwrap();
    let table = interfaces(&figures, Part::Balance, Format::Table).unwrap();
    let line = table.lines().find(|line| line.contains("(node)")).unwrap();
    let fields: Vec<_> = line.split_whitespace().collect();
    assert_eq!(fields, ["total", "(node)", "in", "bytes", "3500", "2500", "700", "0", "300"]);
}

#[test]
fn corrections_are_shown_next_to_the_frozen_figures() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for _ in 0..60 {
        node.traffic("101", 1, [1, 100, 1, 10]).pass(86_400).drain(&mut file.ledger);
    }
    file.ledger.maintain(node.wall).unwrap();
    file.ledger.close_anyway("2026-11", node.wall).unwrap();
    let request = |packets, bytes, reason: &str| AdjustmentRequest {
        packets,
        bytes,
        reason: reason.to_owned(),
        ..adjustment(node.wall)
    };
    file.ledger.adjust(&request([-1, 0], [-100, 0], "attack, credited")).unwrap();
    let second = file.ledger.adjust(&request([2, -3], [30, -40], "recount")).unwrap();
    let shown = adjusted(&second, Format::Table, &ClassNames::new()).unwrap();
    assert!(shown.contains("written as entry 3 of the chain"), "{shown}");
    let figures = file.ledger.report(&ReportQuery::default()).unwrap();
    let table = report(&figures, Format::Table).unwrap();
    assert!(table.contains("attack, credited"), "{table}");
    let row = table.lines().find(|line| line.starts_with("2026-11  101        1      in")).unwrap();
    assert_eq!(row.split_whitespace().skip(4).collect::<Vec<_>>(), ["2000", "-70", "1930", "20", "+1", "21"]);
}

#[test]
fn a_report_shows_its_span_and_gaps_in_its_zone() {
    let (file, _) = node_with_faults();
    let calendar = Some(Calendar::new("America/New_York", 1).unwrap());
    let query = ReportQuery { by: By::Hour, calendar, ..ReportQuery::default() };
    let figures = file.ledger.report(&query).unwrap();
    let table = report(&figures, Format::Table).unwrap();
    assert!(
        table.contains("from 2026-11-10T07:00:00-05:00 to 2026-11-10T07:05:00-05:00, zone America/New_York"),
        "{table}"
    );
    let listed =
        gaps(&figures.gaps, &ContainerNames::default(), Format::Table, &LocalTime::named(&figures.zone))
            .unwrap();
    assert!(listed.contains("2026-11-10T07:00:00-05:00  before_first_counters  no"), "{listed}");
    assert!(!table.contains("00Z"), "{table}");
    let json = report(&figures, Format::Json).unwrap();
    assert!(json.contains("\"from\": \"2026-11-10T12:00:00Z\""), "{json}");
    let interfaces = interfaces(&file.ledger.report_interfaces(&query).unwrap(), Part::Faults, Format::Table);
    assert!(!interfaces.unwrap().contains("00Z"));
}

#[test]
fn a_report_by_direction_has_no_blank_columns() {
    let (file, _) = node_with_faults();
    let query = ReportQuery {
        containers: vec!["201".to_owned()],
        split: Split { direction: true, ..Split::default() },
        percentile: Some(100.0),
        ..ReportQuery::default()
    };
    let table = report(&file.ledger.report(&query).unwrap(), Format::Table).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().take(3).map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(
        rows[0],
        ["PERIOD", "CONTAINER", "DIRECTION", "PACKETS", "BYTES", "100TH", "BITS", "PER", "S"]
    );
    assert_eq!(rows[1], ["total", "201", "in", "5", "500", "13"]);
    assert_eq!(rows[2], ["total", "201", "out", "0", "0", "0"]);
}

#[test]
fn a_report_notes_that_its_span_begins_before_the_ledger() {
    let (file, _) = node_with_faults();
    let early = ReportQuery { from: Some(time(NOON - 86_400)), ..ReportQuery::default() };
    let text = notes(&file.ledger.report(&early).unwrap(), &ClassNames::new()).join("\n");
    assert!(text.contains("the ledger begins at 2026-11-10T12:00:00Z; nothing is recorded before"), "{text}");
    let text = notes(&file.ledger.report(&ReportQuery::default()).unwrap(), &ClassNames::new()).join("\n");
    assert!(!text.contains("the ledger begins"), "{text}");
}

#[test]
fn without_closed_months_the_list_is_a_sentence() {
    assert_eq!(closed(&[], None, Format::Table, &utc()).unwrap(), "no month has been closed yet\n");
}

#[test]
fn closing_a_month_reports_its_losses_with_the_result() {
    let (mut file, node) = two_closed_months();
    let periods = file.ledger.closed_periods().unwrap();
    let text = closed(&periods[1..], Some(2), Format::Table, &utc()).unwrap();
    assert!(text.contains("2 gaps in this month have traffic that is not in the sums"), "{text}");
    assert!(text.contains("can prove that the month was not changed"), "{text}");
    let preview = file.ledger.preview_adjustment(&adjustment(node.wall)).unwrap();
    let text = adjusted(&preview, Format::Table, &ClassNames::new()).unwrap();
    assert!(text.contains("nothing was written; repeat the command with --yes"), "{text}");
    file.ledger.adjust(&adjustment(node.wall)).unwrap();
}

/// November and December, both closed.
fn two_closed_months() -> (File, Node) {
    let mut file = ledger_with(LedgerConfig::default());
    let mut node = Node::balanced(NOON);
    for _ in 0..60 {
        node.traffic("101", 1, [1, 100, 1, 10]).pass(86_400).drain(&mut file.ledger);
    }
    file.ledger.close_anyway("2026-11", node.wall).unwrap();
    file.ledger.close_anyway("2026-12", node.wall).unwrap();
    (file, node)
}

/// Every JSON document of the ledger's commands. Programs read these, so field names never change.
#[test]
fn json_documents_are_stable() {
    let (file, _) = node_with_faults();
    let query = ReportQuery {
        split: Split { class: true, direction: true, family: true },
        percentile: Some(95.0),
        ..ReportQuery::default()
    };
    let full = file.ledger.report(&query).unwrap();
    insta::assert_snapshot!("report", report(&full, Format::Json).unwrap());
    // Interfaces, faults and balance are one document.
    let by_interface = file.ledger.report_interfaces(&ReportQuery::default()).unwrap();
    insta::assert_snapshot!(
        "interfaces_faults_balance",
        interfaces(&by_interface, Part::Interfaces, Format::Json).unwrap()
    );
    let query = TopQuery {
        count: 2,
        from: None,
        to: None,
        calendar: None,
        classes: vec![],
        by_class: true,
        basis: Basis::L2,
    };
    insta::assert_snapshot!(
        "top_talkers",
        top(&file.ledger.top_talkers(&query).unwrap(), Format::Json).unwrap()
    );
    insta::assert_snapshot!(
        "gaps",
        gaps(&file.ledger.gaps(None, None).unwrap(), &ContainerNames::default(), Format::Json, &utc())
            .unwrap()
    );
    insta::assert_snapshot!(
        "gaps_empty",
        gaps(&[], &ContainerNames::default(), Format::Json, &utc()).unwrap()
    );
}

#[test]
fn json_documents_of_closed_months_are_stable() {
    let (mut file, node) = two_closed_months();
    let periods = file.ledger.closed_periods().unwrap();
    insta::assert_snapshot!("closed", closed(&periods, None, Format::Json, &utc()).unwrap());
    insta::assert_snapshot!("close", closed(&periods[..1], Some(0), Format::Json, &utc()).unwrap());
    let made = file.ledger.adjust(&adjustment(node.wall)).unwrap();
    insta::assert_snapshot!("adjust", adjusted(&made, Format::Json, &ClassNames::new()).unwrap());
    insta::assert_snapshot!("audit", audit(&file.ledger.audit().unwrap(), Format::Json).unwrap());
    let whole = file.ledger.report(&ReportQuery::default()).unwrap();
    insta::assert_snapshot!("report_with_corrections", report(&whole, Format::Json).unwrap());
}

#[test]
fn the_json_document_of_an_import_is_stable() {
    let (mut file, node) = node_with_faults();
    let path = file.dir.path().join("pva");
    let begin = NOON - 3600;
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(&format!(
            "CREATE TABLE log_def (id, eid, lclass, instance, counter); CREATE TABLE log_data (id, startTime,
             avg);
             INSERT INTO log_def VALUES (7, '101', 'counters_vz_net', '', 'counter_net_outgoing_bytes');
             INSERT INTO log_data VALUES (7, {begin}, 1000), (7, {begin} + 60, 2000), (7, 'never', 1);"
        ))
        .unwrap();
    let import =
        PvaImport { node: "node1".to_owned(), class: 1, until: None, dry_run: false, now: node.wall };
    let result = file.ledger.import_pva(&path, &import, &mut |_| ()).unwrap();
    insta::assert_snapshot!("import_pva", imported(&result, Format::Json, &utc()).unwrap());
    let table = imported(&result, Format::Table, &utc()).unwrap();
    assert!(table.contains("skipped: 1 samples whose time is not between 2000 and 2100"), "{table}");
}

#[test]
fn drops_are_shown_with_their_reasons() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.count_drops().traffic("101", 1, [10, 1000, 20, 2000]).traffic("102", 2, [7, 700, 0, 0]);
    node.dropped("101", 1, DropGroup::Shaper, [1, 100, 2, 200]);
    node.dropped("101", 1, DropGroup::NoRoute, [0, 0, 3, 300]).pass(60).drain(&mut file.ledger);
    node.pass(60).stop_drops().drain(&mut file.ledger);
    let split = Split { class: true, ..Split::default() };
    let query = ReportQuery { split, ..ReportQuery::default() };
    let figures = file.ledger.report_drops(&query).unwrap();
    let names = ClassNames::from([(1, "UA-IX".to_owned())]);
    let of = |format| drops(&figures, format, &names).unwrap();
    insta::assert_snapshot!("drops_table", of(Format::Table));
    insta::assert_snapshot!("drops_csv", of(Format::Csv));
    insta::assert_snapshot!("drops_json", of(Format::Json));
    let other = ReportQuery { containers: vec!["102".to_owned()], ..ReportQuery::default() };
    let table = drops(&file.ledger.report_drops(&other).unwrap(), Format::Table, &names).unwrap();
    assert!(table.starts_with("no drops are recorded in this span\n\nfrom "), "{table}");
    let without = ledger().ledger.report_drops(&query).unwrap();
    assert!(drops(&without, Format::Table, &names).unwrap().contains("drops were never recorded here"));
}
