//! Each figure has another value, so that a mix-up shows.

use traffic_classes::{ClassOrder, Entry};
use traffic_common::{Family, SHADOW_VERSION};

use super::*;

fn tally(base: u64) -> ByDirection<Tally> {
    let of = |base| Tally { packets: base, bytes: base * 100 };
    ByDirection { incoming: of(base), outgoing: of(base + 1) }
}

fn counter(container: &str, (from, to): (u8, u8), family: Family, base: u64) -> ShadowCounter {
    ShadowCounter { container: ContainerId::new(container).unwrap(), from, to, family, tally: tally(base) }
}

fn reading() -> Report {
    let mut classes = [[0; 2]; 256];
    classes[1] = [1, 3];
    let record = ShadowRecord {
        version: SHADOW_VERSION,
        pairs: 2,
        container_slots: 8,
        reserved: 0,
        epoch: 7,
        since_unix_s: 1_800_000_000,
        table_hash: [1; 32],
        shadow_hash: [2; 32],
        file_hash: [3; 32],
        classes,
    };
    let kept = serde_json::json!({
        "version": 1,
        "file": "/root/new",
        "order": ClassOrder::Virtuozzo,
        "file_hash": "03",
        "begun_anew": "[limits] was raised",
        "failed": null,
    });
    let added = (1..=7)
        .map(|line| Entry { line, class: 3, prefix: format!("10.{line}.0.0/16").parse().unwrap() })
        .collect();
    let changes = [
        ((1, 3), ChangedLines { added, removed: Vec::new() }),
        ((3, 1), ChangedLines { added: Vec::new(), removed: vec![("192.0.2.0/24".parse().unwrap(), 3)] }),
    ];
    Report {
        node: "node1".to_owned(),
        time: "2027-01-15T08:00:09Z".parse().unwrap(),
        record,
        kept: Some(serde_json::from_value(kept).unwrap()),
        file_changed: Some(true),
        counters: vec![
            counter("101", (1, 1), Family::Ipv4, 10),
            counter("101", (1, 3), Family::Ipv4, 20),
            counter("101", (1, 3), Family::Ipv6, 30),
            counter("102", (3, 1), Family::Ipv4, 40),
            counter("102", (3, 3), Family::Ipv4, 50),
        ],
        changes: changes.into(),
    }
}

#[test]
fn classes_are_sums_of_pairs() {
    let reading = reading();
    let sums: Vec<_> = classes(&reading.counters)
        .into_iter()
        .map(|(id, class, sums)| {
            (id.to_string(), class, sums.in_force.incoming.packets, sums.shadow.outgoing.packets)
        })
        .collect();
    let expected = [("101", 1, 60, 11), ("101", 3, 0, 52), ("102", 1, 0, 41), ("102", 3, 90, 51)];
    let expected: Vec<_> =
        expected.into_iter().map(|(id, class, now, then)| (id.to_owned(), class, now, then)).collect();
    assert_eq!(sums, expected);
}

#[test]
fn the_report_says_what_would_be_and_why() {
    let names = ClassNames::from([(3, "UA-IX".to_owned())]);
    insta::assert_snapshot!("shadow_table", report(&reading(), Format::Table, &names).unwrap());
    insta::assert_snapshot!("shadow_json", report(&reading(), Format::Json, &names).unwrap());
    insta::assert_snapshot!("shadow_csv", report(&reading(), Format::Csv, &names).unwrap());
    let reading = reading();
    insta::assert_snapshot!("shadow_lost", lost("/root/new", Some((&reading.record, &reading.counters))));
}

#[test]
fn nothing_counted_is_said() {
    let reading = Report { counters: Vec::new(), ..reading() };
    assert!(
        report(&reading, Format::Table, &ClassNames::new()).unwrap().ends_with("\nnothing was counted yet\n")
    );
}
