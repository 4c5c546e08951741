//! The data that [`gather`](super::gather) returns, in the fields of the JSON document.

use std::path::PathBuf;

use serde::Serialize;
use traffic_model::{Balance, ByDirection, FaultCounter};

use super::{daemon::Daemon, ledger::LedgerStatus};
use crate::{class_source, platform::inside::Inside};

/// The state of everything on the node.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Name of the node.
    pub node: String,
    /// Version of the running command.
    pub trafctl_version: &'static str,
    /// Version of the layout of the maps.
    pub layout_version: u32,
    /// Identifier of this set of counters.
    pub epoch: String,
    /// When the set was created.
    pub epoch_created: String,
    /// How programs are attached on this host: `tcx` or `clsact`.
    pub attach_kind: &'static str,
    /// The daemon that keeps the counters attached and drains them.
    pub daemon: Daemon,
    /// What bills come from.
    pub ledger: LedgerStatus,
    /// The two programs.
    pub programs: Vec<Program>,
    /// The class table in force.
    pub class_table: ClassTable,
    /// The shadow class table; `null` if there is none.
    pub shadow: Option<ShadowStatus>,
    /// The skb mark for a shaper.
    #[serde(rename = "shaping_mark")]
    pub skb_mark: SkbMark,
    /// The counting of drops behind the hooks.
    pub drops: DropsStatus,
    /// How full the tables are.
    pub tables: Vec<TableUse>,
    /// Memory of each map.
    pub memory: Vec<MapMemory>,
    /// Interfaces that should be attached.
    pub attachments: Vec<Attachment>,
    /// Interfaces that are counted although nothing names their owner any more.
    pub counted_unnamed: Vec<CountedUnnamed>,
    /// Owners that are not known yet, or were not when their interface went.
    pub pending: Vec<Pending>,
    /// Devices in containers that have no end on this host.
    pub without_host_end: Vec<WithoutHostEnd>,
    /// The other interfaces of the host.
    pub not_watched: Vec<NotWatched>,
    /// Faults counted so far.
    pub faults: Vec<FaultRow>,
    /// Passed - classes - faults.
    pub unaccounted: Unaccounted,
    /// What is wrong; empty if nothing is.
    pub problems: Vec<String>,
    /// The kind of each problem, in the same order; see `[[alert]]` of `quotas.toml`.
    pub problem_kinds: Vec<&'static str>,
}

/// Whether drops behind the hooks are counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DropsStatus {
    /// `[drops] enabled`.
    pub configured: bool,
    /// Whether a program counts them.
    pub in_force: bool,
    /// Whether the daemon runs and is about to load the program.
    pub loading: bool,
    /// Since when; `null` if no program does.
    pub since: Option<String>,
    /// Why no program does, although it is configured, or what is wrong with the one that does.
    pub reason: Option<String>,
    /// What the kernel does not offer.
    pub lacks: Vec<&'static str>,
    /// Packets on the wire that were dropped and are in no container's counter.
    pub not_attributed_packets: u64,
}

/// An owner that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// The id under which its traffic is counted.
    pub pending: String,
    /// Its interface while that exists.
    pub interface: Option<String>,
    /// Since when, in seconds since the Unix epoch.
    pub since_unix_s: u64,
    /// Packets on the wire so far, both directions.
    pub packets: u64,
    /// Layer-3 bytes so far, both directions.
    pub bytes: u64,
    /// Why its container is unknown; `null` after its interface went.
    pub reason: Option<String>,
}

/// A program in the kernel.
#[derive(Debug, Serialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its id in the kernel.
    pub id: u32,
    /// Version of the trafctl that loaded it.
    pub version: String,
    /// SHA-256 of its object file.
    pub hash: String,
    /// How often it ran, if the kernel keeps statistics.
    pub run_count: Option<u64>,
    /// Nanoseconds it ran, if the kernel keeps statistics.
    pub run_time_ns: Option<u64>,
}

/// A class table that counts beside the one in force, or is wanted to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShadowStatus {
    /// Its class file; `null` for standard input, and when that is not known any more.
    pub file: Option<PathBuf>,
    /// Whether that is known.
    #[serde(skip)]
    pub is_known: bool,
    /// Whether it counts.
    pub in_force: bool,
    /// Since when; `null` if it does not count.
    pub since: Option<String>,
    /// Why it has begun anew, if it has.
    pub begun_anew: Option<String>,
    /// Why it does not count.
    pub reason: Option<String>,
}

/// The class table in force.
#[derive(Debug, Serialize)]
pub struct ClassTable {
    /// SHA-256 of the compiled table.
    pub hash: String,
    /// When it was loaded.
    pub loaded: String,
    /// Number of prefixes.
    pub prefixes: u64,
    /// The rule under which the table was compiled; the configured one if that is not known.
    pub order: String,
    /// How the configured class file differs from the table; `null` if it does not.
    pub difference: Option<TableDifference>,
}

/// How the configured class file differs from the table in force.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct TableDifference {
    /// The configured class file; `null` if there is none and all traffic should be class 1.
    pub configured: Option<PathBuf>,
    /// Why the configured file is unusable; `null` if it is usable.
    pub refused: Option<String>,
    /// The file that the table was loaded from with `trafctl classes load FILE`; `null` if that is not known.
    pub loaded_from: Option<PathBuf>,
    /// The difference as a sentence.
    pub message: String,
    /// Whether nothing is billed until the file is loaded.
    #[serde(skip)]
    pub is_unbilled: bool,
}

impl From<class_source::TableDifference> for TableDifference {
    fn from(difference: class_source::TableDifference) -> Self {
        let message = difference.to_string();
        let class_source::TableDifference { configured, refused, loaded_from, other_order: _, is_unbilled } =
            difference;
        Self { configured, refused, loaded_from, message, is_unbilled }
    }
}

/// The skb mark for a shaper, `id * 32 + class`, and what cannot have one.
#[derive(Debug, Serialize)]
pub struct SkbMark {
    /// Whether the configuration turns it on.
    pub configured: bool,
    /// Whether the program in force writes it; `null` if the program is of another build.
    pub in_force: Option<bool>,
    /// Containers whose packets stay unmarked. Empty if the mark is neither configured nor in force.
    pub unmarked_containers: Vec<Unmarked>,
    /// Classes in use whose packets stay unmarked: 32 and above. Empty likewise.
    pub unmarked_classes: Vec<u8>,
}

/// A container without a mark.
#[derive(Debug, Serialize)]
pub struct Unmarked {
    /// Its id.
    pub container: String,
    /// Why it has none.
    pub reason: String,
}

/// How full a table is.
#[derive(Debug, Serialize)]
pub struct TableUse {
    /// Name of the table.
    pub table: &'static str,
    /// Places taken. A reserved place counts neither here nor in the capacity.
    pub used: u64,
    /// How many of the `used` belong to an owner that is gone; they are reassigned when places run short.
    pub gone: u64,
    /// How many of the `gone` belong to a retired owner.
    pub retired: u64,
    /// All places.
    pub capacity: u64,
}

impl TableUse {
    /// Whether a new owner finds a place.
    pub const fn has_room(&self) -> bool {
        self.used - self.gone < self.capacity
    }
}

/// Memory of one map, as the kernel reports it.
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
    /// Its container; `null` if containers share it.
    pub container: Option<String>,
    /// What people call the container, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The hook for traffic to the container.
    #[serde(rename = "in")]
    pub incoming: Hook,
    /// The hook for traffic from the container.
    #[serde(rename = "out")]
    pub outgoing: Hook,
}

/// An interface that keeps counting although nothing names its owner any more.
#[derive(Debug, Serialize)]
pub struct CountedUnnamed {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// The container that it counts for; `null` if containers share it.
    pub container: Option<String>,
    /// The name under which it was attached.
    pub counted_as: String,
    /// Why nothing names its owner.
    pub reason: String,
}

/// An interface that is not counted.
#[derive(Debug, Serialize)]
pub struct NotWatched {
    /// Its name.
    pub interface: String,
    /// Why it is not counted.
    pub reason: String,
}

/// A device in a container that has no end on this host, so that nothing counts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WithoutHostEnd {
    /// Its container and its name there, as in `mail/eth0`.
    pub interface: String,
    /// The container; `null` where that is unknown.
    pub container: Option<String>,
    /// Its kind as the kernel names it; empty for a network card.
    pub kind: String,
    /// The interface of this host that it is on; `null` for a network card.
    pub parent: Option<String>,
    /// Why it is not counted.
    pub reason: String,
}

impl From<&Inside> for WithoutHostEnd {
    fn from(device: &Inside) -> Self {
        Self {
            interface: device.label.clone(),
            container: device.owner.as_ref().ok().map(|owner| owner.id.to_string()),
            kind: device.kind.clone(),
            parent: device.parent.clone(),
            reason: device.why(),
        }
    }
}

/// One hook of an interface.
#[derive(Debug, Serialize)]
pub struct Hook {
    /// How our program is attached to it; `null` if it is not.
    pub kind: Option<&'static str>,
    /// Our programs on it; two of them count everything twice.
    pub ours: usize,
    /// Programs that run before ours.
    pub before_ours: Vec<String>,
    /// Programs of others whose names cannot be read.
    pub unnamed: usize,
}

/// A fault counter with its interface.
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

impl From<&FaultCounter> for FaultRow {
    fn from(counter: &FaultCounter) -> Self {
        Self {
            interface: counter.interface.clone(),
            fault: counter.fault.name(),
            in_packets: counter.tally.incoming.packets,
            out_packets: counter.tally.outgoing.packets,
        }
    }
}

/// Passed - classes - faults over the whole node: zero once traffic rests.
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

impl From<&ByDirection<Balance>> for Unaccounted {
    fn from(balance: &ByDirection<Balance>) -> Self {
        let (in_packets, in_bytes) = balance.incoming.unaccounted();
        let (out_packets, out_bytes) = balance.outgoing.unaccounted();
        Self { in_packets, in_bytes, out_packets, out_bytes }
    }
}
