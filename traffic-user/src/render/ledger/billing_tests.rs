//! What those who bill see: corrections beside the counted figures, and small gaps in one line.

use jiff::Timestamp;
use traffic_ledger::{
    AdjustmentRequest, Basis, By, Gap, GapReason, GapSize, ReportQuery, Split, TopQuery, testing::*,
};
use traffic_model::local_time::LocalTime;

use super::{Format, gaps::gap_notes, report, top};

/// November is closed, and 101 has one correction of it; class 0 has another.
fn corrected() -> File {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for _ in 0..60 {
        node.traffic("101", 1, [1, 100, 2, 10]).traffic("101", 0, [1, 7, 1, 7]);
        node.pass(86_400).drain(&mut file.ledger);
    }
    file.ledger.close_anyway("2026-11", node.wall).unwrap();
    let first = AdjustmentRequest { packets: [-1, 3], bytes: [-100, 70], ..adjustment(node.wall) };
    file.ledger.adjust(&first).unwrap();
    file.ledger.adjust(&AdjustmentRequest { class: 0, bytes: [5, 0], packets: [0; 2], ..first }).unwrap();
    file
}

fn fields(csv: &str, row: usize) -> Vec<(String, String)> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let header = reader.headers().unwrap().clone();
    let record = reader.records().nth(row).unwrap().unwrap();
    header.iter().map(str::to_owned).zip(record.iter().map(str::to_owned)).collect()
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> &'a str {
    &fields.iter().find(|(of, _)| of == name).unwrap().1
}

#[test]
fn every_format_shows_what_was_billed_corrected_and_is_to_bill() {
    let file = corrected();
    let months = ReportQuery { by: By::Month, ..ReportQuery::default() };
    let figures = file.ledger.report(&months).unwrap();
    let table = report(&figures, Format::Table).unwrap();
    let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header[header.len() - 4..], ["BILLED", "CORRECTED", "TO", "BILL"]);
    let november: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(november[november.len() - 4..], ["2200", "2200", "-30", "2170"], "{table}");
    assert!(table.contains("corrected: in -100 bytes in -1 packets; out +70 bytes in +3 packets"), "{table}");
    assert!(table.contains("; together 6570 bytes in 182 packets"), "{table}");
    assert!(table.contains("in no row because class 0 is not billed"), "{table}");
    let csv = report(&figures, Format::Csv).unwrap();
    let row = fields(&csv, 0);
    for (name, value) in [
        ("in_bytes", "2000"),
        ("billed_in_bytes", "2000"),
        ("billed_out_packets", "40"),
        ("corrected_in_packets", "-1"),
        ("corrected_bytes", "-30"),
        ("to_bill_in_bytes", "1900"),
        ("to_bill_out_bytes", "270"),
        ("to_bill_packets", "62"),
        ("to_bill_bytes", "2170"),
    ] {
        assert_eq!(field(&row, name), value, "{name}");
    }
    let class_zero = fields(&csv, 1);
    assert_eq!((field(&class_zero, "class"), field(&class_zero, "to_bill_bytes")), ("0", ""));
    let json: serde_json::Value = serde_json::from_str(&report(&figures, Format::Json).unwrap()).unwrap();
    let billing = &json["rows"][0]["billing"];
    assert_eq!(billing["billed"]["in"]["bytes"], 2000);
    assert_eq!(billing["corrected"]["out"]["packets"], 3);
    assert_eq!(billing["to_bill"]["total"]["bytes"], 2170);
    assert_eq!(json["billing"]["to_bill"]["total"]["bytes"], 6570);
    assert_eq!(
        (&json["adjustments"][0]["in_rows"], &json["adjustments"][1]["in_rows"]),
        (&true.into(), &false.into())
    );
}

#[test]
fn a_report_by_direction_shows_what_to_bill_of_each() {
    let file = corrected();
    let split = Split { direction: true, ..Split::default() };
    let figures = file.ledger.report(&ReportQuery { split, ..ReportQuery::default() }).unwrap();
    let table = report(&figures, Format::Table).unwrap();
    let last =
        |line: usize| table.lines().nth(line).unwrap().split_whitespace().next_back().map(str::to_owned);
    assert_eq!((last(1).as_deref(), last(2).as_deref()), (Some("5900"), Some("670")), "{table}");
    let csv = report(&figures, Format::Csv).unwrap();
    let (incoming, outgoing) = (fields(&csv, 0), fields(&csv, 1));
    assert_eq!((field(&incoming, "to_bill_bytes"), field(&incoming, "to_bill_out_bytes")), ("5900", ""));
    assert_eq!((field(&outgoing, "to_bill_bytes"), field(&outgoing, "corrected_bytes")), ("670", "70"));
}

#[test]
fn rankings_show_what_to_bill() {
    let query = TopQuery {
        count: 2,
        from: None,
        to: None,
        calendar: None,
        classes: vec![],
        by_class: false,
        basis: Basis::L3,
    };
    let ranking = corrected().ledger.top_talkers(&query).unwrap();
    let table = top(&ranking, Format::Table).unwrap();
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[row.len() - 3..], ["6600", "-30", "6570"], "{table}");
    let csv = top(&ranking, Format::Csv).unwrap();
    assert_eq!(field(&fields(&csv, 0), "to_bill_bytes"), "6570");
}

#[test]
fn without_corrections_a_table_has_no_columns_for_them() {
    let (file, _) = node_with_faults();
    let table = report(&file.ledger.report(&ReportQuery::default()).unwrap(), Format::Table).unwrap();
    assert!(!table.contains("BILL") && !table.contains("corrected"), "{table}");
}

#[test]
fn small_gaps_take_one_line() {
    let at = |unix_s| Timestamp::from_second(unix_s).unwrap();
    let gap = |reason, bytes: Option<u64>| Gap {
        size: bytes.map(|bytes| GapSize { in_skb_bytes: bytes, out_skb_bytes: 1, ..GapSize::default() }),
        ..Gap::of_node(reason, at(NOON), at(NOON + 60))
    };
    let mut all: Vec<Gap> = (0..59).map(|_| gap(GapReason::BeforeAttach, Some(199))).collect();
    // Nothing is lost here, whatever the size and the time.
    all.push(gap(GapReason::BeforeFirstCounters, Some(5_000_000)));
    all.push(gap(GapReason::DaemonDown, None));
    let notes = |gaps: &[Gap]| gap_notes(gaps, &LocalTime::named("UTC"));
    let line = "61 small gaps, 12 kB (each lost nothing, or less than 100 kB; `trafctl gaps` lists them)";
    assert_eq!(notes(&all), [line]);
    // A large one, and one of unknown size, are not small.
    all.push(gap(GapReason::BeforeAttach, Some(99_999)));
    all.push(gap(GapReason::Reboot, None));
    let shown = notes(&all);
    assert_eq!(shown.len(), 4, "{shown:#?}");
    assert!(shown[0].starts_with("2 gaps overlap this span") && shown[3] == line, "{shown:#?}");
    assert_eq!(
        notes(&[gap(GapReason::BeforeAttach, Some(99_998))])[0].split(" (").next(),
        Some("1 small gap, 100 kB")
    );
    assert_eq!(notes(&[]), [""; 0]);
}
