use traffic_ledger::{By, ReportQuery, Split, testing::*};
use unicode_width::UnicodeWidthStr as _;

use super::*;

const DAY: u64 = 86_400;

/// 40 days from 11 November: one container with twice the traffic of the other, and class 0.
fn two_months() -> File {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for _ in 0..40 {
        node.traffic("101", 1, [1000, 1_000_000, 10, 500_000]).traffic("102", 1, [1, 500_000, 1, 250_000]);
        node.traffic("102", 0, [1, 7_000_000, 0, 0]).pass(DAY).drain(&mut file.ledger);
    }
    file
}

fn months() -> ReportQuery {
    ReportQuery { by: By::Month, ..ReportQuery::default() }
}

fn shown(file: &File, query: &ReportQuery, look: Look) -> String {
    report(&file.ledger.report(query).unwrap(), None, look, &ClassNames::from([(1, "World".to_owned())]))
}

#[test]
fn months_have_sums_shares_and_an_estimate() {
    let text = shown(&two_months(), &months(), Look { width: Some(80), ..Look::default() });
    let header = text.lines().next().unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(header, ["PERIOD", "CONTAINER", "IN", "OUT", "TOTAL", "SHARE", "PACKETS"], "{text}");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    for (line, name) in [(1, "101"), (2, "102"), (3, "total"), (5, "101"), (6, "102"), (7, "total")] {
        assert!(lines[line].contains(&name), "{line} {name}: {text}");
    }
    assert_eq!((lines[1][0], lines[5][0]), ("2026-11", "2026-12"), "{text}");
    assert!(lines[1].contains(&"66.7") && lines[2].contains(&"33.3"), "{text}");
    assert!(lines[8][0] == "estimate" && lines[10][0] == "all", "{text}");
    assert!(text.contains("not in the totals: class 0 280 MB"), "{text}");
    // 40 days of 2.25 MB.
    assert!(text.contains("90.0 MB"), "{text}");
}

#[test]
fn exact_figures_are_those_of_the_report() {
    let file = two_months();
    let figures = file.ledger.report(&months()).unwrap();
    let text = shown(&file, &months(), Look { exact: true, ..Look::default() });
    for row in figures.rows.iter().filter(|row| row.billed) {
        let line = text.lines().find(|line| {
            line.contains(&format!(" {} ", row.figures.total.bytes)) && line.contains(&row.container)
        });
        assert!(line.is_some(), "{row:?}\n{text}");
    }
    for exact in [figures.total.total.bytes, figures.running.unwrap().estimate.figures.total.bytes] {
        assert!(text.contains(&format!(" {exact}")), "{exact}: {text}");
    }
    assert!(!text.contains(" MB"), "{text}");
}

#[test]
fn columns_are_left_out_until_the_lines_fit() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for id in ["0b5ae43a-8f0e-4e2d-9a67-3d0c7a6f1c11", "1c6bf54b-901f-4f3e-8b78-4e1d8b7a2d22"] {
        node.traffic(id, 1, [1000, 1_000_000_000, 10, 500_000_000]);
    }
    node.pass(DAY).drain(&mut file.ledger);
    let query = ReportQuery {
        percentile: Some(95.0),
        split: Split { class: true, family: true, ..Split::default() },
        ..months()
    };
    for width in [50, 60, 80, 100, 120, 160, 200] {
        let text = shown(&file, &query, Look { width: Some(width), ..Look::default() });
        for line in text.lines() {
            assert!(line.width() <= width, "{width}: {line:?}");
        }
        assert!(text.contains("TOTAL") && text.contains("1.50 GB"), "{width}: {text}");
        // Whose row it is can always be told.
        assert!(text.contains("0b5ae") && text.contains("1c6bf"), "{width}: {text}");
        assert_eq!(text.contains("no room for "), !text.contains("PACKETS\n"), "{width}: {text}");
    }
    let wide = shown(&file, &query, Look { width: Some(200), ..Look::default() });
    for heading in ["CLASS", "FAMILY", "IN 95TH", "SHARE", "PACKETS"] {
        assert!(wide.contains(heading), "{heading}: {wide}");
    }
}

#[test]
fn a_row_for_each_direction_has_no_empty_columns() {
    let query = ReportQuery { split: Split { direction: true, ..Split::default() }, ..months() };
    let text = shown(&two_months(), &query, Look::default());
    let header: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header[..4], ["PERIOD", "CONTAINER", "DIRECTION", "IN"], "{text}");
    let one = ReportQuery { containers: vec!["101".to_owned()], ..ReportQuery::default() };
    let text = shown(&two_months(), &one, Look::default());
    let header: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["CONTAINER", "IN", "OUT", "TOTAL", "PACKETS"], "{text}");
}

#[test]
fn corrections_are_beside_every_row() {
    let mut file = two_months();
    let now = time(NOON + 45 * DAY.cast_signed());
    file.ledger.close_anyway("2026-11", now).unwrap();
    file.ledger.adjust(&adjustment(now)).unwrap();
    let figures = file.ledger.report(&months()).unwrap();
    let text = shown(&file, &months(), Look { exact: true, ..Look::default() });
    assert!(text.contains("CORRECTED") && text.contains("TO BILL"), "{text}");
    let to_bill = figures.billing.to_bill.total.bytes;
    assert!(
        text.lines().any(|line| line.starts_with("all ") && line.contains(&to_bill.to_string())),
        "{text}"
    );
    assert!(text.contains("closed, with frozen figures: 2026-11"), "{text}");
}

#[test]
fn gaps_take_one_line() {
    let (file, _) = node_with_faults();
    let text = shown(&file, &ReportQuery::default(), Look::default());
    let lines = text.lines().filter(|line| line.contains("trafctl gaps")).count();
    assert_eq!(lines, 1, "{text}");
    assert!(text.contains("faults (--show faults) 300 B"), "{text}");
}

#[test]
fn names_cannot_steer_the_terminal() {
    let file = two_months();
    let query = ReportQuery { split: Split { class: true, ..Split::default() }, ..months() };
    let figures = file.ledger.report(&query).unwrap();
    let text =
        report(&figures, None, Look::default(), &ClassNames::from([(1, "\u{1b}[2J\u{4f60}".to_owned())]));
    assert!(!text.contains('\u{1b}') && text.contains("1 \u{fffd}[2J\u{4f60}"), "{text}");
}

#[test]
fn nothing_recorded_is_a_sentence() {
    let file = two_months();
    let none = ReportQuery { classes: vec![77], ..ReportQuery::default() };
    let text = shown(&file, &none, Look::default());
    assert!(text.starts_with("no traffic is recorded in this span\n"), "{text}");
}
