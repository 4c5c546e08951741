//! A [`Snapshot`] as `trafctl dump` shows it.

use serde::Serialize;
use traffic_common::Tally;
use traffic_model::{ByDirection, ContainerId, Snapshot, Wanted, units::format_bytes};

use crate::render::{Amounts, finish, plain_table, seconds};

/// What of a snapshot is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Class counters.
    pub wanted: Wanted,
    /// Counters that are zero too.
    pub zeros: bool,
}

impl Filter {
    /// Drops what is not wanted. Faults and interfaces know no class and no family; with a container named, only its
    /// interfaces stay.
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
    /// Say that the class counters are those since their marks.
    pub since_mark: bool,
}

/// The tables people read.
pub fn table(snapshot: &Snapshot, look: Look) -> String {
    let amounts = |tally: &ByDirection<Tally>| {
        [tally.incoming, tally.outgoing]
            .map(|one| [format_bytes(one.bytes, look.human), one.packets.to_string()])
            .concat()
    };
    let hash = snapshot.class_table.hash_hex();
    let mut text = format!(
        "node {}  {}  layer-3 bytes as on the wire\nclass table {} of {}, {} prefixes\n\n",
        snapshot.node,
        seconds(snapshot.time),
        &hash[..12],
        seconds(snapshot.class_table.loaded),
        snapshot.class_table.prefixes
    );

    if look.since_mark {
        text += "classes since their marks, where `vztactl` has set one; all else since it is counted\n\n";
    }
    let mut classes = plain_table(
        &["CONTAINER", "CLASS", "FAMILY", "IN BYTES", "IN PACKETS", "OUT BYTES", "OUT PACKETS"],
        &(3..7),
    );
    for counter in &snapshot.counters {
        let mut row =
            vec![counter.container.to_string(), counter.class.to_string(), counter.family.name().to_owned()];
        row.extend(amounts(&counter.tally));
        classes.add_row(row);
    }
    text += &finish(&classes);

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

/// One document, indented.
///
/// # Errors
/// When serialisation fails, which it has no cause to.
pub fn json(snapshot: &Snapshot) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(&Document::from(snapshot))? + "\n")
}

/// One document on one line, for a stream of them.
///
/// # Errors
/// When serialisation fails, which it has no cause to.
pub fn json_line(snapshot: &Snapshot) -> anyhow::Result<String> {
    Ok(serde_json::to_string(&Document::from(snapshot))? + "\n")
}

/// The class counters as CSV with a header.
///
/// # Errors
/// When serialisation fails, which it has no cause to.
pub fn csv(snapshot: &Snapshot) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for counter in Document::from(snapshot).counters {
        writer.serialize(counter)?;
    }
    if snapshot.counters.is_empty() {
        let header = [
            "container",
            "class",
            "family",
            "in_bytes",
            "in_packets",
            "out_bytes",
            "out_packets",
            "generation",
        ];
        writer.write_record(header)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// The JSON document; its names never change within a version.
#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    node: &'a str,
    time: String,
    basis: &'static str,
    class_table: Table,
    counters: Vec<Counter<'a>>,
    faults: Vec<Fault<'a>>,
    interfaces: Vec<Interface<'a>>,
    former_owners: FormerOwners,
}

/// What was counted for those whose slots went to others: passed is classes and faults here too.
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
    /// Tells the lives of an id that was retired and given away again.
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

#[derive(Debug, Serialize)]
struct Interface<'a> {
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
    in_unseen_skbs: u64,
    in_unseen_skb_bytes: u64,
    out_bytes: u64,
    out_packets: u64,
    out_skbs: u64,
    out_skb_bytes: u64,
    out_estimated_bytes: u64,
    out_estimated_packets: u64,
    out_unseen_skbs: u64,
    out_unseen_skb_bytes: u64,
}

impl<'a> From<&'a Snapshot> for Document<'a> {
    fn from(snapshot: &'a Snapshot) -> Self {
        Self {
            version: 1,
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
            interfaces: snapshot.interfaces.iter().map(Interface::from).collect(),
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
            in_unseen_skbs: incoming.missed_skbs,
            in_unseen_skb_bytes: incoming.missed_skb_bytes,
            out_bytes: outgoing.wire.bytes,
            out_packets: outgoing.wire.packets,
            out_skbs: outgoing.skbs,
            out_skb_bytes: outgoing.skb_bytes,
            out_estimated_bytes: outgoing.estimated.bytes,
            out_estimated_packets: outgoing.estimated.packets,
            out_unseen_skbs: outgoing.missed_skbs,
            out_unseen_skb_bytes: outgoing.missed_skb_bytes,
        }
    }
}
