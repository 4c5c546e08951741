//! A [`Snapshot`] as JSON and CSV.

use serde::Serialize;
use traffic_common::Tally;
use traffic_model::{ByDirection, ContainerId, Snapshot};

use crate::render::{
    Amounts, ClassNames,
    class_names::{self, NAME_COLUMN},
};

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
pub(in crate::render) fn interfaces(snapshot: &Snapshot) -> Vec<Interface<'_>> {
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
pub(in crate::render) struct Interface<'a> {
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
    use traffic_model::sample;

    use super::*;

    #[test]
    fn a_sheet_without_rows_has_its_header() {
        let header = |snapshot: &Snapshot| {
            csv(snapshot, &ClassNames::new()).unwrap().lines().next().map(str::to_owned)
        };
        let snapshot = sample::snapshot();
        let mut empty = snapshot.clone();
        empty.counters.clear();
        assert_eq!(header(&empty), header(&snapshot));
        // The header is of these fields, in their order.
        let fields = serde_json::to_string(&Document::from(&snapshot).counters[0]).unwrap();
        let at: Vec<_> = FIELDS.map(|field| fields.find(&format!("\"{field}\":"))).to_vec();
        assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{fields}");
    }
}
