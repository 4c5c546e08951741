//! What `trafctl status` shows.

use serde::Serialize;
use traffic_model::{Balance, ByDirection, FaultCounter, units::format_bytes};

use crate::render::rows;

/// The state of everything, as JSON shows it.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Name of the node.
    pub node: String,
    /// Version of the command that looked.
    pub trafctl_version: &'static str,
    /// Version of the maps' layout.
    pub layout_version: u32,
    /// Name of this set of counters.
    pub epoch: String,
    /// When the set was made.
    pub epoch_created: String,
    /// How programs are attached on this host: `tcx` or `clsact`.
    pub attach_kind: &'static str,
    /// The two programs.
    pub programs: Vec<Program>,
    /// The class table in force.
    pub class_table: Table,
    /// The mark for a shaper.
    pub shaping_mark: ShapingMark,
    /// How full the tables are.
    pub tables: Vec<Use>,
    /// Memory of each map.
    pub memory: Vec<MapMemory>,
    /// Interfaces that should be attached.
    pub attachments: Vec<Attachment>,
    /// The other interfaces of the host.
    pub not_watched: Vec<NotWatched>,
    /// Faults counted so far.
    pub faults: Vec<FaultRow>,
    /// Passed less classes less faults.
    pub unaccounted: Unaccounted,
    /// What is wrong; empty when nothing is.
    pub problems: Vec<String>,
}

/// A program in the kernel.
#[derive(Debug, Serialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// The kernel's id of it.
    pub id: u32,
    /// Version of the trafctl that loaded it.
    pub version: String,
    /// SHA-256 of the object it came from.
    pub hash: String,
    /// Times it ran, when the kernel keeps that.
    pub run_count: Option<u64>,
    /// Nanoseconds it ran, likewise.
    pub run_time_ns: Option<u64>,
}

/// The class table in force.
#[derive(Debug, Serialize)]
pub struct Table {
    /// SHA-256 of the compiled table.
    pub hash: String,
    /// When it was loaded.
    pub loaded: String,
    /// Its prefixes.
    pub prefixes: u64,
    /// The rule by which the configuration has it compiled.
    pub order: String,
}

/// The mark for a shaper, `id * 32 + class`, and what it has no room for.
#[derive(Debug, Serialize)]
pub struct ShapingMark {
    /// Whether the configuration asks for it.
    pub configured: bool,
    /// Whether the program in force writes it; unknown of a program that is not of this trafctl's build.
    pub in_force: Option<bool>,
    /// Containers whose packets are left unmarked, with the reason. Empty where it is neither configured nor in force.
    pub unmarked_containers: Vec<Unmarked>,
    /// Classes in use whose packets are left unmarked: 32 and above. Likewise.
    pub unmarked_classes: Vec<u8>,
}

/// A container without a mark.
#[derive(Debug, Serialize)]
pub struct Unmarked {
    /// Its id.
    pub container: String,
    /// Why.
    pub reason: String,
}

/// How full a table is.
#[derive(Debug, Serialize)]
pub struct Use {
    /// Which table.
    pub table: &'static str,
    /// Places taken.
    pub used: u64,
    /// Of those: their owner is gone, so that they go to others when places run short.
    pub gone: u64,
    /// Of those that are gone: their owner was retired.
    pub retired: u64,
    /// Places in all.
    pub capacity: u64,
}

/// Memory of one map, by the kernel's account.
#[derive(Debug, Serialize)]
pub struct MapMemory {
    /// Name of the map.
    pub map: &'static str,
    /// Bytes.
    pub bytes: u64,
}

/// An interface that should be attached.
#[derive(Debug, Serialize)]
pub struct Attachment {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// Its container; none where many share it.
    pub container: Option<String>,
    /// The hook for what goes in to the container.
    #[serde(rename = "in")]
    pub incoming: Hook,
    /// The hook for what comes out of it.
    #[serde(rename = "out")]
    pub outgoing: Hook,
}

/// An interface that is not counted on.
#[derive(Debug, Serialize)]
pub struct NotWatched {
    /// Its name.
    pub interface: String,
    /// Why.
    pub reason: String,
}

/// One hook of an interface.
#[derive(Debug, Serialize)]
pub struct Hook {
    /// How our program hangs on it, if it does.
    pub kind: Option<&'static str>,
    /// Programs of ours on it; more than one count twice.
    pub ours: usize,
    /// Programs that run before ours.
    pub before_ours: Vec<String>,
    /// Programs of others whose names may not be read.
    pub unnamed: usize,
}

/// A fault with its interface.
#[derive(Debug, Serialize)]
pub struct FaultRow {
    /// The interface.
    pub interface: String,
    /// The fault.
    pub fault: &'static str,
    /// Packets to the container.
    pub in_packets: u64,
    /// Packets from the container.
    pub out_packets: u64,
}

/// Passed less classes less faults, over the whole node.
#[derive(Debug, Serialize)]
pub struct Unaccounted {
    /// Packets to containers.
    pub in_packets: i128,
    /// Bytes to containers.
    pub in_bytes: i128,
    /// Packets from containers.
    pub out_packets: i128,
    /// Bytes from containers.
    pub out_bytes: i128,
}

/// A fault counter as a row.
pub fn fault_row(counter: &FaultCounter) -> FaultRow {
    FaultRow {
        interface: counter.interface.clone(),
        fault: counter.fault.name(),
        in_packets: counter.tally.incoming.packets,
        out_packets: counter.tally.outgoing.packets,
    }
}

/// What the balance is short of.
pub fn unaccounted(balance: &ByDirection<Balance>) -> Unaccounted {
    let (in_packets, in_bytes) = balance.incoming.unaccounted();
    let (out_packets, out_bytes) = balance.outgoing.unaccounted();
    Unaccounted { in_packets, in_bytes, out_packets, out_bytes }
}

/// Most interfaces that the text names as not watched, and most containers that it names as unmarked.
const NAMED: usize = 10;

/// The first of them, and how many more there are.
fn some_of(names: &[&str]) -> String {
    let shown = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn shaping_mark(mark: &ShapingMark) -> String {
    let mut text = match mark.in_force {
        Some(true) => "shaping mark on: id * 32 + class".to_owned(),
        Some(false) => "shaping mark off".to_owned(),
        None => "shaping mark unknown: the program is not of this trafctl".to_owned(),
    };
    if !mark.unmarked_containers.is_empty() {
        let names: Vec<_> = mark.unmarked_containers.iter().map(|row| row.container.as_str()).collect();
        text += &format!("; not on containers {}", some_of(&names));
    }
    if !mark.unmarked_classes.is_empty() {
        let classes: Vec<_> = mark.unmarked_classes.iter().map(ToString::to_string).collect();
        text += &format!("; not on classes {}", classes.join(", "));
    }
    text + "\n"
}

/// The text people read.
pub fn table(status: &Status) -> String {
    let mut text = format!(
        "node {}, trafctl {}, counters {} of {}\n",
        status.node, status.trafctl_version, status.epoch, status.epoch_created
    );
    for program in &status.programs {
        let runs = match (program.run_count, program.run_time_ns) {
            (Some(count), Some(time)) => format!(", ran {count} times, {} ns each", time / count.max(1)),
            _ => String::new(),
        };
        text += &format!("program {} (id {}, version {}{runs})\n", program.name, program.id, program.version);
    }
    let table = &status.class_table;
    text += &format!(
        "class table {} of {}, {} prefixes, order {}\n",
        &table.hash[..12],
        table.loaded,
        table.prefixes,
        table.order
    );
    text += &shaping_mark(&status.shaping_mark);
    let used: Vec<_> = status
        .tables
        .iter()
        .map(|table| match table.gone {
            0 => format!("{} {}/{}", table.table, table.used, table.capacity),
            gone => format!("{} {}/{} ({gone} gone)", table.table, table.used, table.capacity),
        })
        .collect();
    let memory: u64 = status.memory.iter().map(|map| map.bytes).sum();
    text += &format!("in use: {}; memory {}\n\n", used.join(", "), format_bytes(memory, true));
    text += &rows(
        &["INTERFACE", "CONTAINER", "IN", "OUT"],
        status.attachments.iter().map(|attachment| {
            let kind = |hook: &Hook| hook.kind.unwrap_or("-").to_owned();
            vec![
                attachment.interface.clone(),
                attachment.container.clone().unwrap_or_else(|| "(shared)".to_owned()),
                kind(&attachment.incoming),
                kind(&attachment.outgoing),
            ]
        }),
    );
    if !status.not_watched.is_empty() {
        let names: Vec<_> = status.not_watched.iter().map(|other| other.interface.as_str()).collect();
        text += &format!("\nnot watched: {}; --format json has the reasons\n", some_of(&names));
    }
    if !status.faults.is_empty() {
        text.push('\n');
        text += &rows(
            &["INTERFACE", "FAULT", "IN PACKETS", "OUT PACKETS"],
            status.faults.iter().map(|fault| {
                vec![
                    fault.interface.clone(),
                    fault.fault.to_owned(),
                    fault.in_packets.to_string(),
                    fault.out_packets.to_string(),
                ]
            }),
        );
    }
    let short = &status.unaccounted;
    text += &format!(
        "\npassed - classes - faults: in {} packets, {} bytes; out {} packets, {} bytes\n",
        short.in_packets, short.in_bytes, short.out_packets, short.out_bytes
    );
    match status.problems.as_slice() {
        [] => text += "no problems\n",
        problems => {
            for problem in problems {
                text += &format!("PROBLEM {problem}\n");
            }
        }
    }
    text
}
