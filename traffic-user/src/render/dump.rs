//! A [`Snapshot`] as `trafctl dump` and the API print it: here as tables, in `document` for programs.

mod document;

use std::collections::HashMap;

use traffic_common::Tally;
use traffic_model::{ByDirection, ContainerId, Snapshot, Wanted, counted, units::format_bytes};

use crate::render::{ClassNames, class_names, finish, plain_table, seconds};

pub(super) use document::{Interface, interfaces};
pub use document::{csv, json, json_line};

/// Which part of a snapshot to print.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Which class counters.
    pub wanted: Wanted,
    /// Whether to include counters that are zero.
    pub zeros: bool,
}

impl Filter {
    /// Removes what is not wanted. Faults and interfaces have neither class nor family; if containers are
    /// named, only their interfaces remain.
    pub fn apply(&self, mut snapshot: Snapshot) -> Snapshot {
        snapshot.counters.retain(|counter| {
            self.wanted.takes(counter)
                && (self.zeros || !counter.tally.incoming.is_zero() || !counter.tally.outgoing.is_zero())
        });
        if !self.wanted.containers.is_empty() {
            let wanted = |id: &ContainerId| self.wanted.takes_container(id);
            snapshot.interfaces.retain(|interface| interface.container.as_ref().is_some_and(wanted));
            let names: Vec<_> = snapshot.interfaces.iter().map(|interface| &interface.interface).collect();
            snapshot.faults.retain(|fault| names.contains(&&fault.interface));
        }
        snapshot
    }
}

/// How a table looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Bytes in KiB, MiB and so on.
    pub human: bool,
    /// State that the class counters are those since the last reset.
    pub since_mark: bool,
}

/// The tables for people.
pub fn table(snapshot: &Snapshot, look: Look, names: &ClassNames) -> String {
    let amounts = |tally: &ByDirection<Tally>| {
        [tally.incoming, tally.outgoing]
            .map(|one| [format_bytes(one.bytes, look.human), one.packets.to_string()])
            .concat()
    };
    let hash = snapshot.class_table.hash_hex();
    let mut text = format!(
        "node {}  {}  layer-3 bytes as on the wire\nclass table {} of {}, {}\n\n",
        snapshot.node,
        seconds(snapshot.time),
        &hash[..12],
        seconds(snapshot.class_table.loaded),
        counted(snapshot.class_table.prefixes, "prefix")
    );

    if look.since_mark {
        text += "classes since their last `vztactl` reset, everything else since counting began\n\n";
    }
    text += &class_counters(snapshot, names, look.human);

    if !snapshot.faults.is_empty() {
        let mut faults = plain_table(
            &["INTERFACE", "FAULT", "IN BYTES", "IN PACKETS", "OUT BYTES", "OUT PACKETS"],
            &(2..6),
        );
        for fault in &snapshot.faults {
            let mut row = vec![fault.interface.clone(), fault.fault.name().to_owned()];
            row.extend(amounts(&fault.tally));
            faults.add_row(row);
        }
        text += &finish(&faults);
    }

    text += &reported_apart(snapshot, amounts);

    let mut interfaces = plain_table(
        &["INTERFACE", "CONTAINER", "IN BYTES", "IN PACKETS", "OUT BYTES", "OUT PACKETS"],
        &(2..6),
    );
    for interface in &snapshot.interfaces {
        let owner =
            interface.container.as_ref().map_or_else(|| "(shared)".to_owned(), ContainerId::to_string);
        let mut row = vec![interface.interface.clone(), owner];
        row.extend(amounts(&ByDirection {
            incoming: interface.passed.incoming.wire,
            outgoing: interface.passed.outgoing.wire,
        }));
        interfaces.add_row(row);
    }
    text += finish(&interfaces).trim_end();
    text.push('\n');
    text
}

/// The class counters. An id that went to another customer has rows of both, told apart by their generation.
fn class_counters(snapshot: &Snapshot, names: &ClassNames, human: bool) -> String {
    let mut generations: HashMap<&ContainerId, u32> = HashMap::new();
    let has_two = snapshot.counters.iter().any(|counter| {
        *generations.entry(&counter.container).or_insert(counter.generation) != counter.generation
    });
    let mut header =
        vec!["CONTAINER", "CLASS", "FAMILY", "IN BYTES", "IN PACKETS", "OUT BYTES", "OUT PACKETS"];
    if has_two {
        header.insert(1, "GENERATION");
    }
    let mut classes = plain_table(&header, &(header.len() - 4..header.len()));
    for counter in &snapshot.counters {
        classes.add_cell(&counter.container);
        if has_two {
            classes.add_cell(counter.generation);
        }
        classes.add_cell(class_names::cell(counter.class, names));
        classes.add_cell(counter.family.name());
        for tally in [counter.tally.incoming, counter.tally.outgoing] {
            classes.add_cell(format_bytes(tally.bytes, human));
            classes.add_cell(tally.packets);
        }
        classes.end_row();
    }
    finish(&classes)
}

/// What is counted and also reported apart, and what is reported but not counted.
fn reported_apart(snapshot: &Snapshot, amounts: impl Fn(&ByDirection<Tally>) -> Vec<String>) -> String {
    let mut notes = plain_table(
        &["INTERFACE", "REPORTED APART", "IN BYTES", "IN PACKETS", "OUT BYTES", "OUT PACKETS"],
        &(2..6),
    );
    let mut is_empty = true;
    for interface in &snapshot.interfaces {
        let ByDirection { incoming, outgoing } = interface.passed;
        for (name, incoming, outgoing) in [
            ("small segments", incoming.small_segments, outgoing.small_segments),
            ("copies", incoming.copies, outgoing.copies),
        ] {
            if !incoming.is_zero() || !outgoing.is_zero() {
                let mut row = vec![interface.interface.clone(), name.to_owned()];
                row.extend(amounts(&ByDirection { incoming, outgoing }));
                notes.add_row(row);
                is_empty = false;
            }
        }
    }
    if is_empty { String::new() } else { finish(&notes) }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use traffic_common::{Family, Fault};
    use traffic_model::{FaultCounter, sample};

    use super::*;

    /// The sample with a fault, and with another value in every field of an interface.
    fn snapshot() -> Snapshot {
        let mut snapshot = sample::snapshot();
        let tally = |packets| Tally { packets, bytes: packets * 100 };
        let both = ByDirection { incoming: tally(5), outgoing: tally(7) };
        let fault = |interface: &str| FaultCounter {
            interface: interface.to_owned(),
            generation: 1,
            fault: Fault::NotIp,
            tally: both,
        };
        snapshot.faults = vec![fault("venet0"), fault("veth101.0")];
        for (at, interface) in (1..).zip(&mut snapshot.interfaces) {
            let passed = |start: u64| traffic_model::PassedCounter {
                wire: tally(start),
                skbs: start + 1,
                skb_bytes: start + 2,
                estimated: tally(start + 3),
                small_segments: tally(start + 6),
                copies: tally(start + 7),
                missed_skbs: start + 4,
                missed_skb_bytes: start + 5,
                bypassed: Tally::default(),
                excess: tally(start + 8),
            };
            interface.passed = ByDirection { incoming: passed(at * 10), outgoing: passed(at * 1000) };
        }
        snapshot
    }

    #[test]
    fn rows_of_two_customers_under_one_id_are_told_apart() {
        let mut snapshot = snapshot();
        let heading =
            |snapshot: &Snapshot| table(snapshot, Look::default(), &ClassNames::new()).contains("GENERATION");
        assert!(!heading(&snapshot));
        let first = snapshot.counters[0].clone();
        snapshot
            .counters
            .insert(1, traffic_model::ClassCounter { generation: first.generation + 6, ..first });
        assert!(heading(&snapshot));
        let text = table(&snapshot, Look::default(), &ClassNames::new());
        let rows: Vec<&str> = text.lines().skip(4).take(2).collect();
        assert_ne!(rows[0], rows[1], "{text}");
    }

    #[test]
    fn every_format_of_a_dump() {
        let (shown, names) =
            (Filter::default().apply(snapshot()), ClassNames::from([(1, "World".to_owned())]));
        assert_snapshot!("table", table(&shown, Look::default(), &names));
        assert_snapshot!("table_human", table(&shown, Look { human: true, since_mark: true }, &names));
        assert_snapshot!("json", json(&shown, &names).unwrap());
        assert_snapshot!("csv", csv(&shown, &names).unwrap());
        let line = json_line(&shown, &names).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        let [one, other]: [serde_json::Value; 2] =
            [&line, &json(&shown, &names).unwrap()].map(|text| serde_json::from_str(text).unwrap());
        assert_eq!(one, other);
    }

    #[test]
    fn a_filter_selects_counters_and_the_interfaces_of_its_containers() {
        let filter = Filter {
            wanted: Wanted {
                family: Some(Family::Ipv6),
                containers: vec![ContainerId::new("101").unwrap()],
                classes: vec![0, 1],
            },
            zeros: false,
        };
        let shown = filter.apply(snapshot());
        let rows: Vec<_> = shown.counters.iter().map(|row| (row.class, row.family)).collect();
        assert_eq!(rows, [(1, Family::Ipv6)], "class 0 is zero in this family");
        let rows = Filter { zeros: true, ..filter }.apply(snapshot()).counters.len();
        assert_eq!(rows, 2);
        let names: Vec<_> = shown.interfaces.iter().map(|row| row.interface.as_str()).collect();
        assert_eq!(names, ["veth101.0"]);
        assert_eq!(shown.faults.len(), 1);
    }
}
