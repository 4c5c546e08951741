//! Two accountings of one simulated node: ours, and another with known habits whose output is generated.

use std::fmt::Write as _;

use insta::assert_snapshot;
use proptest::prelude::*;

use crate::{compare::*, render};

/// Bytes and packets in, bytes and packets out.
type Four = [u64; 4];

fn id(text: &str) -> ContainerId {
    ContainerId::new(text).unwrap()
}

fn tallies([in_bytes, in_packets, out_bytes, out_packets]: Four) -> ByDirection<Tally> {
    ByDirection {
        incoming: Tally { bytes: in_bytes, packets: in_packets },
        outgoing: Tally { bytes: out_bytes, packets: out_packets },
    }
}

fn figures(rows: &[(&str, u8, Four)]) -> Figures {
    rows.iter().map(|(container, class, four)| ((id(container), *class), tallies(*four))).collect()
}

/// Rows as vznetstat prints them.
fn printed(rows: &[(&str, u8, Four)]) -> String {
    let mut text = "UUID                                 Net.Class     Input(bytes) Input(pkts)\n".to_owned();
    for (container, class, [in_bytes, in_packets, out_bytes, out_packets]) in rows {
        writeln!(
            text,
            "{container:<36} {class:<2} {in_bytes:>20}  {in_packets:>10} {out_bytes:>20}  {out_packets:>10}"
        )
        .unwrap();
    }
    text
}

fn read_rows(rows: &[(&str, u8, Four)]) -> Figures {
    read(&printed(rows), "theirs", |id| Ok(id.clone())).unwrap()
}

fn readings(time: i64, ours: Figures, theirs: Figures) -> Readings {
    let time = Timestamp::from_second(1_790_000_000 + time).unwrap();
    Readings { time, boot_id: "boot".to_owned(), epoch: 7, ours, theirs }
}

/// A comparison with first readings that differ from zero and from each other.
fn compare(ours: &[(&str, u8, Four)], theirs: &[(&str, u8, Four)]) -> Comparison {
    let before = |rows: &[(&str, u8, Four)], by: u64| -> Figures {
        let shift = |four: Four| [four[0] + by, four[1] + by * 2, four[2] + by * 3, four[3] + by * 4];
        let first: Vec<_> = rows.iter().map(|(id, class, _)| (*id, *class, shift([0; 4]))).collect();
        figures(&first)
    };
    let after = |first: &Figures, rows: &[(&str, u8, Four)]| -> Figures {
        let mut now = figures(rows);
        for (key, tallies) in &mut now {
            for direction in [Direction::In, Direction::Out] {
                let first = first[key].of(direction);
                let tally = tallies.of_mut(direction);
                tally.bytes += first.bytes;
                tally.packets += first.packets;
            }
        }
        now
    };
    let (ours_first, theirs_first) = (before(ours, 1_000_003), before(theirs, 77));
    let now = readings(3600, after(&ours_first, ours), after(&theirs_first, theirs));
    Comparison::new(&readings(0, ours_first, theirs_first), &now)
}

/// The reasons of a row, in and out.
fn reasons(comparison: &Comparison, container: &str, class: u8) -> (Option<Reason>, Option<Reason>) {
    let row = comparison.rows.iter().find(|row| row.container.as_str() == container && row.class == class);
    let sides = row.unwrap().sides;
    (sides.incoming.reason, sides.outgoing.reason)
}

#[test]
fn equal_figures_have_no_difference() {
    let rows = [("101", 1, [1000, 10, 2000, 20]), ("101", 2, [0; 4]), ("9", 1, [5, 1, 6, 2])];
    let comparison = compare(&rows, &rows);
    let shown: Vec<_> = comparison.rows.iter().map(|row| row.container.as_str()).collect();
    assert_eq!(shown, ["9", "101"], "rows without traffic are omitted, and numbers sort as numbers");
    assert!(comparison.rows.iter().all(|row| row.sides.incoming.reason.is_none()));
    assert_eq!(comparison.rows[1].sides.outgoing.ours, Tally { packets: 20, bytes: 2000 });
    assert!(!comparison.has_open());
}

#[test]
fn every_known_habit_of_another_accounting_is_recognised() {
    // 101 sends to 102 on the node, and super-packets to the outside. Class 2 is part of class 1.
    let ours = [
        ("101", 0, [400_000, 4_000, 500_000, 5_000]),
        ("101", 1, [52_000, 1_000, 150_000_000, 100_000]),
        ("101", 2, [3_000_000, 2_000, 0, 0]),
        ("102", 1, [9_000_000, 6_000, 60_000, 1_100]),
        ("103", 1, [7_000, 70, 0, 0]),
        ("104", 1, [100_000, 1_000, 200_000, 2_000]),
        ("104", 2, [300_000, 3_000, 0, 0]),
        ("105", 1, [10_000, 100, 0, 0]),
        ("105", 3, [10_000, 100, 0, 0]),
        ("106", 1, [1_000_000, 10_000, 3_333, 10]),
        ("107", 1, [1_000_000, 10_000, 2_000_000, 10_000]),
    ];
    let theirs = [
        ("0", 1, [123, 4, 567, 8]),
        ("101", 0, [0; 4]),
        // In: class 2 is added. Out: 97,778 of 100,000 packets are further segments, with 52 bytes of headers
        // each.
        ("101", 1, [3_052_000, 3_000, 150_000_000 - 97_778 * 52, 2_222]),
        ("101", 2, [3_000_000, 2_000, 0, 0]),
        // 5,900 packets came from 101.
        ("102", 1, [150_000, 100, 60_000, 1_100]),
        // The two classes swapped.
        ("104", 1, [300_000, 3_000, 200_000, 2_000]),
        ("104", 2, [100_000, 1_000, 0, 0]),
        ("105", 1, [10_000, 100, 0, 0]),
        ("106", 1, [1_004_000, 10_040, 9_999, 11]),
        ("107", 1, [1_140_000, 10_000, 2_180_000, 10_000]),
        ("108", 1, [91, 2, 0, 0]),
    ];
    let comparison = compare(&ours, &theirs);
    let of = |container, class| reasons(&comparison, container, class);
    use Reason as R;
    assert_eq!(of("101", 0), (Some(R::ClassZeroNotCounted), Some(R::ClassZeroNotCounted)));
    assert_eq!(of("101", 1), (Some(R::NotExclusive), Some(R::GsoHeaders)));
    assert_eq!(of("101", 2), (None, None));
    assert_eq!(of("102", 1), (Some(R::Neighbours), None));
    assert_eq!(of("103", 1), (Some(R::ContainerNotShown), None));
    assert_eq!(of("104", 1), (Some(R::ClassTables), None));
    assert_eq!(of("104", 2), (Some(R::ClassTables), None));
    assert_eq!(of("105", 3), (Some(R::ClassNotShown), None));
    assert_eq!(of("106", 1), (Some(R::Moment), Some(R::Unexplained)));
    assert_eq!(of("107", 1), (Some(R::LinkHeaders), Some(R::LinkHeaders)));
    assert_eq!(of("0", 1), (Some(R::NodeNotCounted), Some(R::NodeNotCounted)));
    assert_eq!(of("108", 1), (Some(R::NotCountedHere), None));
    assert!(comparison.has_open());
    let names = [(2, "UA-IX".to_owned())].into();
    assert_snapshot!("table", render::compare::table(&comparison, &names));
    assert_snapshot!("json", render::compare::json(&comparison, &names).unwrap());
    assert_snapshot!("csv", render::compare::csv(&comparison).unwrap());
}

#[test]
fn the_first_call_prints_where_the_readings_are_stored() {
    let first = readings(0, figures(&[("101", 1, [1, 2, 3, 4])]), Figures::new());
    let path = std::path::Path::new("/var/lib/trafctl/compare.json");
    assert_snapshot!("stored_table", render::compare::stored_table(path));
    assert_snapshot!("stored_json", render::compare::stored_json(path, &first).unwrap());
    let header = render::compare::csv(&Comparison::new(&first, &first)).unwrap();
    assert_eq!(render::compare::stored_csv().unwrap(), header);
}

#[test]
fn counters_that_restarted_or_wrapped_are_recognised() {
    let first = readings(
        0,
        figures(&[("101", 1, [500, 5, 900, 9]), ("102", 1, [10, 1, 10, 1])]),
        read_rows(&[("101", 1, [9_000, 4_294_967_290, 700, 7]), ("102", 1, [10, 1, 10, 1])]),
    );
    let now = readings(
        60,
        figures(&[("101", 1, [1_500, 15, 900, 9]), ("102", 1, [10, 1, 4, 1])]),
        read_rows(&[("101", 1, [10_000, 4, 40, 1]), ("102", 1, [10, 1, 10, 1])]),
    );
    let comparison = Comparison::new(&first, &now);
    let row = comparison.rows.iter().find(|row| row.container.as_str() == "101").unwrap();
    // Their packet counter passed 2^32 and grew by ten.
    assert_eq!(row.sides.incoming.theirs, Some(Tally { packets: 10, bytes: 1_000 }));
    assert_eq!(row.sides.incoming.reason, None);
    assert_eq!(row.sides.outgoing.theirs, Some(Tally { packets: 1, bytes: 40 }));
    assert_eq!(row.sides.outgoing.reason, Some(Reason::TheirsBeganAnew));
    assert_eq!(reasons(&comparison, "102", 1), (None, Some(Reason::OursBeganAnew)));
}

#[test]
fn neighbors_explain_no_more_than_what_others_sent() {
    let ours = [("101", 1, [50_000, 50, 0, 0]), ("102", 1, [0, 0, 40_000, 40])];
    let theirs = [("101", 1, [0; 4]), ("102", 1, [0, 0, 40_000, 40])];
    assert_eq!(reasons(&compare(&ours, &theirs), "101", 1).0, Some(Reason::Unexplained));
    let ours = [("101", 1, [50_000, 50, 0, 0]), ("102", 1, [0, 0, 50_000, 50])];
    let theirs = [("101", 1, [0; 4]), ("102", 1, [0, 0, 50_000, 50])];
    assert_eq!(reasons(&compare(&ours, &theirs), "101", 1).0, Some(Reason::Neighbours));
}

#[test]
fn a_line_that_is_not_output_of_vznetstat_is_named() {
    let fails = |text: &str| format!("{:#}", read(text, "f", |id| Ok(id.clone())).unwrap_err());
    let row = "101  1  1 2 3 4\n";
    assert_eq!(fails(""), "f: no rows of vznetstat output");
    assert_eq!(
        fails(&format!("UUID Net.Class\n\n{row}oops\n")),
        "f:4: a row of vznetstat has six fields, this line has 1"
    );
    assert_eq!(fails("101 1 5M 2 3 4"), "f:1: 5M is rounded; run vznetstat without -r");
    assert_eq!(fails("101 1 5 -2 3 4"), "f:1: \"-2\" is not a number");
    assert!(fails("101 256 5 2 3 4").starts_with("f:1: \"256\" is not a class"));
    assert_eq!(fails(&format!("{row}{row}")), "f:2: container 101 and class 1 appear twice");
    // The header of older Virtuozzo, and an id in braces.
    let text = "CTID    Net.Class     Input(bytes)\n{6D1E1C39-63E6-4A2B-8EF4-1B7A1D2F3C4D} 01 1 2 3 4\n";
    let read = read(text, "f", |id| Ok(id.clone())).unwrap();
    assert_eq!(read, figures(&[("6d1e1c39-63e6-4a2b-8ef4-1b7a1d2f3c4d", 1, [1, 2, 3, 4])]));
}

#[test]
fn the_first_readings_are_stored() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("compare.json");
    assert_eq!(baseline::read(&path).unwrap(), None);
    let first =
        readings(5, figures(&[("101", 1, [1, 2, 3, 4])]), figures(&[("102", 15, [u64::MAX, 6, 7, 8])]));
    baseline::write(&path, &first).unwrap();
    assert_eq!(baseline::read(&path).unwrap(), Some(first));
    for text in [
        "",
        "{}",
        "{\"version\":2,\"time\":\"2026-01-01T00:00:00Z\",\"boot_id\":\"\",\"epoch\":\"1\",\"ours\":[],\"theirs\":[]}",
    ] {
        std::fs::write(&path, text).unwrap();
        let error = format!("{:#}", baseline::read(&path).unwrap_err());
        assert!(error.contains("start over with --restart"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A flow of full segments that is counted in buffers of several segments only lacks headers.
    #[test]
    fn super_packets_of_any_size_are_recognised(
        buffers in 1_u64..100_000,
        segments in 2_u64..45,
        payload in 500_u64..9000,
        headers in prop::sample::select(vec![40_u64, 52, 60, 72, 112]),
    ) {
        prop_assume!(payload * 120 > headers * 1000);
        let (packets, bytes) = (buffers * segments, buffers * segments * (payload + headers));
        let theirs = bytes - buffers * (segments - 1) * headers;
        let comparison = compare(
            &[("101", 1, [0, 0, bytes, packets])],
            &[("101", 1, [0, 0, theirs, buffers])],
        );
        prop_assert_eq!(reasons(&comparison, "101", 1), (None, Some(Reason::GsoHeaders)));
    }

    /// Any combination of other classes that is included in one class.
    #[test]
    fn overlapping_classes_are_recognised(
        mut classes in prop::collection::vec((1_u64..1 << 40, 1_u64..1 << 20), 2..6),
        chosen in 1_u32..32,
    ) {
        // A packet has at least 28 bytes.
        for (bytes, packets) in &mut classes {
            *bytes += *packets * 28;
        }
        let row = |(class, (bytes, packets)): (usize, &(u64, u64))| {
            ("101", u8::try_from(class).unwrap() + 1, [*bytes, *packets, 0, 0])
        };
        let ours: Vec<_> = classes.iter().enumerate().map(row).collect();
        let mut theirs = ours.clone();
        let mut added = false;
        for (at, (bytes, packets)) in classes.iter().enumerate().skip(1) {
            if chosen >> (at - 1) & 1 == 1 {
                theirs[0].2[0] += bytes;
                theirs[0].2[1] += packets;
                added = true;
            }
        }
        prop_assume!(added);
        let comparison = compare(&ours, &theirs);
        let reason = reasons(&comparison, "101", 1).0;
        // 14 or 18 bytes per packet may coincide with the traffic of another class.
        prop_assert!(matches!(reason, Some(Reason::NotExclusive | Reason::LinkHeaders)), "{:?}", reason);
        prop_assert!(!comparison.has_open());
    }

    #[test]
    fn no_input_makes_the_parser_panic(text in "([0-9a-fKMG{}. \t-]{0,20}\n?){0,12}") {
        let _ = read(&text, "f", |id| Ok(id.clone()));
    }
}
