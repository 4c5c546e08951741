use traffic_ledger::{By, Gap, GapReason, ReportQuery, Split, testing::*};

use super::{bars::bars, *};
use crate::render::look::Look;

const DAY: u64 = 86_400;

/// Two containers in two billed classes and class 0, on three days: 10 to 12 November.
fn three_days() -> File {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for day in 1..=3 {
        node.traffic("101", 1, [1, 1000 * day, 2, 500 * day]).traffic("101", 2, [1, 100, 0, 0]);
        node.traffic("102", 1, [1, 300, 1, 4000]).traffic("102", 0, [1, 90_000, 1, 90_000]);
        node.pass(DAY).drain(&mut file.ledger);
    }
    file
}

fn chart(file: &File, by: By, by_class: bool) -> Chart {
    let split = Split { class: by_class, ..Split::default() };
    let report = file.ledger.report(&ReportQuery { by, split, ..ReportQuery::default() }).unwrap();
    Chart::of(&report, Some("n1"), &ClassNames::from([(2, "UA-IX".to_owned())]))
}

#[test]
fn bars_are_the_figures_of_the_report() {
    let file = three_days();
    for (by, by_class) in [(By::Day, false), (By::Day, true), (By::Total, false), (By::Total, true)] {
        let split = Split { class: by_class, ..Split::default() };
        let report = file.ledger.report(&ReportQuery { by, split, ..ReportQuery::default() }).unwrap();
        let chart = chart(&file, by, by_class);
        assert_eq!(chart.bytes(), report.total.total.bytes, "{by:?} {by_class}");
        for bar in &chart.bars {
            let rows = report.rows.iter().filter(|row| row.billed);
            let of = |row: &&ReportRow| match by {
                By::Total => row.container == bar.label,
                _ => row.period == bar.label,
            };
            let sum: u64 = rows.filter(of).map(|row| row.figures.total.bytes).sum();
            assert_eq!(bar.bytes(), sum, "{}", bar.label);
        }
        if !by_class {
            let [incoming, outgoing] = [report.total.incoming, report.total.outgoing];
            let parts: Vec<u64> = chart.parts.iter().map(|part| part.bytes).collect();
            assert_eq!(parts, [incoming.unwrap().bytes, outgoing.unwrap().bytes]);
        }
    }
}

#[test]
fn every_step_has_a_bar_and_containers_are_ranked() {
    let file = three_days();
    let days = chart(&file, By::Day, false);
    let labels: Vec<&str> = days.bars.iter().map(|bar| bar.label.as_str()).collect();
    assert!(labels.starts_with(&["2026-11-11", "2026-11-12", "2026-11-13"]), "{labels:?}");
    assert_eq!(days.title, "2 containers on n1, by day");
    let containers = chart(&file, By::Total, true);
    let labels: Vec<&str> = containers.bars.iter().map(|bar| bar.label.as_str()).collect();
    assert_eq!(labels, ["102", "101"]);
    let names: Vec<&str> = containers.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["class 1", "2 UA-IX"]);
}

#[test]
fn many_containers_share_the_last_bar() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for id in 1..=25 {
        node.traffic(&format!("ct{id}"), 1, [1, 1000 * id, 0, 0]);
    }
    node.pass(60).drain(&mut file.ledger);
    let chart = chart(&file, By::Total, false);
    assert_eq!(chart.bars.len(), 20);
    let last = chart.bars.last().unwrap();
    assert_eq!((last.label.as_str(), last.bytes()), ("6 more", 21_000));
    assert_eq!(chart.bytes(), (1..=25).map(|id| id * 1000).sum::<u64>());
}

#[test]
fn bars_fit_every_width_and_keep_their_proportions() {
    let file = three_days();
    let chart = chart(&file, By::Day, false);
    for width in [30, 50, 80, 120, 200] {
        let text = bars(&chart, Look { width: Some(width), ..Look::default() });
        let rows: Vec<&str> = text.lines().skip(3).take(chart.bars.len()).collect();
        for row in &rows {
            assert!(unicode_width::UnicodeWidthStr::width(*row) <= width, "{width}: {row:?}");
        }
        let drawn = |row: &str| row.chars().filter(|c| "\u{2588}\u{2592}".contains(*c)).count();
        let longest = rows.iter().map(|row| drawn(row)).max().unwrap_or(0);
        assert!(longest >= 10.max(width.saturating_sub(30)), "{width}: {text}");
        assert!(text.contains("total ") && !text.contains('\u{1b}'), "{text}");
    }
    let coloured = bars(&chart, Look { width: Some(80), colours: true, exact: true });
    assert!(coloured.contains("\u{1b}[36m\u{2588}") && coloured.contains("\u{1b}[35m\u{2592}"), "{coloured}");
    assert!(coloured.contains(&chart.bytes().to_string()), "{coloured}");
}

#[test]
fn a_running_month_has_an_estimate_and_a_lossy_step_a_mark() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [1, 1_000_000, 1, 1_000_000]).pass(DAY).drain(&mut file.ledger);
    // Nothing is known of the days in between.
    node.interface("veth101.0", Some("101"), 30, 10_000);
    node.traffic("101", 1, [1, 1_000_000, 1, 1_000_000]).pass(9 * DAY).drain(&mut file.ledger);
    let chart = chart(&file, By::Month, false);
    let month = chart.bars.last().unwrap();
    assert!(month.estimate.is_some_and(|estimate| estimate > month.bytes()), "{month:?}");
    let text = bars(&chart, Look { width: Some(80), ..Look::default() });
    assert!(text.contains("\u{b7}\u{b7}") && text.contains("\u{b7} estimate"), "{text}");
    assert_eq!(month.loses_traffic, text.contains(" !\n"));
}

#[test]
fn a_gap_marks_the_steps_that_it_is_known_to_touch() {
    let file = three_days();
    let marked = |start: Option<&str>, end: &str| -> Vec<String> {
        let mut report = file.ledger.report(&ReportQuery { by: By::Day, ..ReportQuery::default() }).unwrap();
        report.gaps = vec![Gap {
            node: None,
            start: start.map(|start| start.parse().unwrap()),
            end: end.parse().unwrap(),
            reason: GapReason::BeforeAttach,
            interface: None,
            container: None,
            size: None,
            detail: None,
        }];
        let bars = Chart::of(&report, None, &ClassNames::new()).bars;
        bars.into_iter().filter(|bar| bar.loses_traffic).map(|bar| bar.label).collect()
    };
    assert_eq!(marked(None, "2026-11-12T11:00:00Z"), ["2026-11-12"]);
    // A step ends before its border.
    assert_eq!(marked(None, "2026-11-12T00:00:00Z"), ["2026-11-11"]);
    assert_eq!(marked(None, "2026-12-24T00:00:00Z"), [""; 0]);
    assert_eq!(marked(Some("2026-11-11T23:59:00Z"), "2026-11-12T11:00:00Z"), ["2026-11-11", "2026-11-12"]);
    assert_eq!(marked(Some("2026-11-12T00:00:00Z"), "2026-11-13T00:00:00Z"), ["2026-11-12"]);
}

#[test]
fn pictures_are_files_that_others_read() {
    let file = three_days();
    for by in [By::Day, By::Total] {
        for theme in [Theme::Light, Theme::Dark] {
            let chart = chart(&file, by, true);
            let text = svg(&chart, theme).unwrap();
            let read = roxmltree::Document::parse(&text).unwrap();
            let words: Vec<&str> = read.descendants().filter_map(|node| node.text()).collect();
            let total = format!("total {}", traffic_model::units::volume(chart.bytes()));
            assert!(words.contains(&total.as_str()) && words.contains(&chart.title.as_str()), "{words:?}");
            let file = png(&chart, theme).unwrap();
            assert!(file.starts_with(b"\x89PNG\r\n\x1a\n") && file.ends_with(b"IEND\xaeB`\x82"));
            let number = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
            let root = read.root_element();
            let length = |name| root.attribute(name).unwrap().parse::<u32>().unwrap() * 2;
            assert_eq!((number(16), number(20)), (length("width"), length("height")));
        }
    }
    assert_ne!(
        svg(&chart(&file, By::Day, true), Theme::Light).unwrap(),
        svg(&chart(&file, By::Day, true), Theme::Dark).unwrap()
    );
}

#[test]
fn nothing_is_a_picture_too_and_too_much_is_none() {
    let chart = Chart {
        title: "no traffic, by day".to_owned(),
        subtitle: String::new(),
        parts: Vec::new(),
        bars: Vec::new(),
        is_over_time: true,
    };
    assert!(svg(&chart, Theme::Light).unwrap().contains("no traffic is recorded"));
    assert!(png(&chart, Theme::Dark).is_ok());
    assert!(bars(&chart, Look::default()).contains("no traffic is recorded"));
    let bar = Bar { label: "2026-11-10".to_owned(), parts: Vec::new(), estimate: None, loses_traffic: false };
    let many = Chart { bars: vec![bar; 801], ..chart };
    let refused = svg(&many, Theme::Light).unwrap_err().to_string();
    assert!(
        refused.contains("cannot draw 801 bars in a picture, at most 800; give longer steps"),
        "{refused}"
    );
}

#[test]
fn a_part_that_is_there_is_seen() {
    assert_eq!(portion(0, 10, 40), 0);
    assert_eq!(portion(1, u64::MAX, 40), 1);
    assert_eq!(portion(u64::MAX, u64::MAX, 40), 40);
    assert_eq!(portion(5, 0, 40), 40);
    assert_eq!(portion(1, 2, 40), 20);
    assert_eq!(portion(1, 2, 0), 0);
}
