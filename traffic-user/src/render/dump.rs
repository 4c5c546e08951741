//! A [`Snapshot`] as `trafctl dump` and the API print it.

use std::collections::HashMap;

use serde::Serialize;
use traffic_common::Tally;
use traffic_model::{ByDirection, ContainerId, Snapshot, Wanted, units::format_bytes};

use crate::render::{
    Amounts, ClassNames,
    class_names::{self, NAME_COLUMN},
    finish, plain_table, seconds,
};
use traffic_model::counted;

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

/// One document, indented. With the names of classes, if there are any.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn json(snapshot: &Snapshot, names: &ClassNames) -> anyhow::Result<String> {
    class_names::document(&Document::from(snapshot), names)
}

/// One document on one line, for a sequence of documents.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn json_line(snapshot: &Snapshot, names: &ClassNames) -> anyhow::Result<String> {
    class_names::line(&Document::from(snapshot), names)
}

/// The class counters as CSV with a header.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn csv(snapshot: &Snapshot, names: &ClassNames) -> anyhow::Result<String> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_record(FIELDS.iter().chain(&[NAME_COLUMN]))?;
    for counter in Document::from(snapshot).counters {
        writer.serialize((&counter, class_names::name(Some(counter.class), names)))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// The fields of [`Counter`]: the header of a sheet, with or without rows.
const FIELDS: [&str; 8] =
    ["container", "class", "family", "in_bytes", "in_packets", "out_bytes", "out_packets", "generation"];

/// What passed each interface, as in the document.
pub(super) fn interfaces(snapshot: &Snapshot) -> Vec<Interface<'_>> {
    snapshot.interfaces.iter().map(Interface::from).collect()
}

/// The JSON document.
#[derive(Debug, Serialize)]
struct Document<'a> {
    node: &'a str,
    time: String,
    basis: &'static str,
    class_table: Table,
    counters: Vec<Counter<'a>>,
    faults: Vec<Fault<'a>>,
    interfaces: Vec<Interface<'a>>,
    former_owners: FormerOwners,
}

/// Totals of former owners, whose slots went to others. Here too, passed = classes + faults.
#[derive(Debug, Serialize)]
struct FormerOwners {
    passed: Amounts,
    classes: Amounts,
    faults: Amounts,
}

impl FormerOwners {
    fn of(snapshot: &Snapshot) -> Self {
        let ByDirection { incoming, outgoing } = &snapshot.former;
        let amounts = |incoming: Tally, outgoing: Tally| Amounts::from(&ByDirection { incoming, outgoing });
        Self {
            passed: amounts(incoming.passed, outgoing.passed),
            classes: amounts(incoming.classes, outgoing.classes),
            faults: amounts(incoming.faults, outgoing.faults),
        }
    }
}

#[derive(Debug, Serialize)]
struct Table {
    hash: String,
    loaded: String,
    prefixes: u64,
}

#[derive(Debug, Serialize)]
struct Counter<'a> {
    container: &'a str,
    class: u8,
    family: &'static str,
    in_bytes: u64,
    in_packets: u64,
    out_bytes: u64,
    out_packets: u64,
    /// Distinguishes the owners of an id that was retired and reused.
    generation: u32,
}

#[derive(Debug, Serialize)]
struct Fault<'a> {
    interface: &'a str,
    fault: &'static str,
    in_bytes: u64,
    in_packets: u64,
    out_bytes: u64,
    out_packets: u64,
}

/// What passed an interface.
#[derive(Debug, Serialize)]
pub(super) struct Interface<'a> {
    interface: &'a str,
    container: Option<&'a str>,
    ifindex: Option<u32>,
    attached: String,
    in_bytes: u64,
    in_packets: u64,
    in_skbs: u64,
    in_skb_bytes: u64,
    in_estimated_bytes: u64,
    in_estimated_packets: u64,
    in_small_segment_bytes: u64,
    in_small_segment_packets: u64,
    in_copied_skbs: u64,
    in_copied_skb_bytes: u64,
    in_unseen_skbs: u64,
    in_unseen_skb_bytes: u64,
    out_bytes: u64,
    out_packets: u64,
    out_skbs: u64,
    out_skb_bytes: u64,
    out_estimated_bytes: u64,
    out_estimated_packets: u64,
    out_small_segment_bytes: u64,
    out_small_segment_packets: u64,
    out_copied_skbs: u64,
    out_copied_skb_bytes: u64,
    out_unseen_skbs: u64,
    out_unseen_skb_bytes: u64,
}

impl<'a> From<&'a Snapshot> for Document<'a> {
    fn from(snapshot: &'a Snapshot) -> Self {
        Self {
            node: &snapshot.node,
            time: snapshot.time.to_string(),
            basis: "l3-wire",
            class_table: Table {
                hash: snapshot.class_table.hash_hex(),
                loaded: snapshot.class_table.loaded.to_string(),
                prefixes: snapshot.class_table.prefixes,
            },
            counters: snapshot
                .counters
                .iter()
                .map(|counter| Counter {
                    container: counter.container.as_str(),
                    class: counter.class,
                    family: counter.family.name(),
                    in_bytes: counter.tally.incoming.bytes,
                    in_packets: counter.tally.incoming.packets,
                    out_bytes: counter.tally.outgoing.bytes,
                    out_packets: counter.tally.outgoing.packets,
                    generation: counter.generation,
                })
                .collect(),
            faults: snapshot
                .faults
                .iter()
                .map(|fault| Fault {
                    interface: &fault.interface,
                    fault: fault.fault.name(),
                    in_bytes: fault.tally.incoming.bytes,
                    in_packets: fault.tally.incoming.packets,
                    out_bytes: fault.tally.outgoing.bytes,
                    out_packets: fault.tally.outgoing.packets,
                })
                .collect(),
            interfaces: interfaces(snapshot),
            former_owners: FormerOwners::of(snapshot),
        }
    }
}

impl<'a> From<&'a traffic_model::InterfaceCounter> for Interface<'a> {
    fn from(counter: &'a traffic_model::InterfaceCounter) -> Self {
        let ByDirection { incoming, outgoing } = &counter.passed;
        Self {
            interface: &counter.interface,
            container: counter.container.as_ref().map(ContainerId::as_str),
            ifindex: counter.ifindex,
            attached: counter.attached.to_string(),
            in_bytes: incoming.wire.bytes,
            in_packets: incoming.wire.packets,
            in_skbs: incoming.skbs,
            in_skb_bytes: incoming.skb_bytes,
            in_estimated_bytes: incoming.estimated.bytes,
            in_estimated_packets: incoming.estimated.packets,
            in_small_segment_bytes: incoming.small_segments.bytes,
            in_small_segment_packets: incoming.small_segments.packets,
            in_copied_skbs: incoming.copies.packets,
            in_copied_skb_bytes: incoming.copies.bytes,
            in_unseen_skbs: incoming.missed_skbs,
            in_unseen_skb_bytes: incoming.missed_skb_bytes,
            out_bytes: outgoing.wire.bytes,
            out_packets: outgoing.wire.packets,
            out_skbs: outgoing.skbs,
            out_skb_bytes: outgoing.skb_bytes,
            out_estimated_bytes: outgoing.estimated.bytes,
            out_estimated_packets: outgoing.estimated.packets,
            out_small_segment_bytes: outgoing.small_segments.bytes,
            out_small_segment_packets: outgoing.small_segments.packets,
            out_copied_skbs: outgoing.copies.packets,
            out_copied_skb_bytes: outgoing.copies.bytes,
            out_unseen_skbs: outgoing.missed_skbs,
            out_unseen_skb_bytes: outgoing.missed_skb_bytes,
        }
    }
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

    #[test]
    fn a_sheet_without_rows_has_its_header() {
        let header = |snapshot: &Snapshot| {
            csv(snapshot, &ClassNames::new()).unwrap().lines().next().map(str::to_owned)
        };
        let snapshot = snapshot();
        let mut empty = snapshot.clone();
        empty.counters.clear();
        assert_eq!(header(&empty), header(&snapshot));
        // The header is of these fields, in their order.
        let fields = serde_json::to_string(&Document::from(&snapshot).counters[0]).unwrap();
        let at: Vec<_> = FIELDS.map(|field| fields.find(&format!("\"{field}\":"))).to_vec();
        assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{fields}");
    }
}
