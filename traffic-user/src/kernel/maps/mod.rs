//! Handles on the pinned maps: opened by path, with the types of `traffic_common::layout`.
//!
//! | file | owns |
//! |---|---|
//! | this one | the names of all maps, and the set of handles |
//! | `class_blocks` | the counters of containers and classes |
//! | `class_lines` | the two places of a class table, of which one is active |
//! | `elements` | array maps that are read in ranges |

mod class_blocks;
mod class_lines;
mod elements;

pub use class_blocks::ClassBlocks;
pub(in crate::kernel) use class_blocks::by_column;
pub use class_lines::{ClassArray, ClassLines, ClassRows, ROWS_ELEMENT_BYTES};
pub use elements::Elements;

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
};

use anyhow::Context as _;
use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError, MapFd};
use traffic_common::{
    ClassCounters, ContainerRecord, Control, FaultCounters, InterfaceCounters, InterfaceEntry,
    InterfaceRecord, Meta, TableWord,
};

use crate::kernel::bpffs::Bpffs;

/// Names of all maps that are pinned, as the program defines them.
pub const PINNED: [&str; 19] = [
    "INTERFACE_BY_INDEX",
    "INTERFACE_BY_HIGH_INDEX",
    "ADDRESSES_V4",
    "ADDRESSES_V6",
    "NODE_ADDRESSES",
    "CLASS_LINES",
    "CLASS_CONTROL",
    "CLASS_COUNTERS",
    "INTERFACE_COUNTERS",
    "FAULT_COUNTERS",
    "CLASS_BASES",
    "INTERFACE_BASES",
    "FAULT_BASES",
    "CLASS_CARRIED",
    "INTERFACE_CARRIED",
    "FAULT_CARRIED",
    "CONTAINERS",
    "INTERFACES",
    "META",
];

/// Where the prefixes of the class table in each of the two places are pinned.
pub const CLASS_ROWS: [&str; 2] = ["CLASS_ROWS_0", "CLASS_ROWS_1"];

/// A map whose contents can be recreated. Where it is missing, as under the pins of an earlier version,
/// loading the next program creates it.
pub const SHAPING_MARKS: &str = "SHAPING_MARKS";
/// The same: how the shadow class table is read, its lines and its counters. Empty while there is no shadow.
pub const SHADOW: [&str; 3] = ["SHADOW_CONTROL", "SHADOW_LINES", "SHADOW_COUNTERS"];
/// All maps that may be missing.
pub const OPTIONAL: [&str; 4] = [SHAPING_MARKS, SHADOW[0], SHADOW[1], SHADOW[2]];

/// All pinned maps.
#[derive(Debug)]
pub struct Maps {
    /// The directory below which the maps are pinned.
    pub pinned_in: PathBuf,
    /// What this set of maps is: version, epoch, sizes, columns.
    pub meta: Elements<Meta>,
    /// Which class table is active, and the number of columns.
    pub control: Elements<Control>,
    /// ifindex -> entry.
    pub interface_by_index: Elements<InterfaceEntry>,
    /// ifindex -> entry, for indexes beyond the array.
    pub interface_by_high_index: HashMap<MapData, u32, InterfaceEntry>,
    /// Local IPv4 prefix -> container slot.
    pub addresses_v4: LpmTrie<MapData, [u8; 4], u32>,
    /// Local IPv6 prefix -> container slot.
    pub addresses_v6: LpmTrie<MapData, [u8; 16], u32>,
    /// The node's own addresses.
    pub node_addresses: HashMap<MapData, [u8; 16], u32>,
    /// The two class tables.
    pub class_lines: ClassLines,
    /// container slot and column -> counters.
    pub class_counters: ClassBlocks,
    /// interface slot -> totals.
    pub interface_counters: Elements<InterfaceCounters>,
    /// interface slot -> faults.
    pub fault_counters: Elements<FaultCounters>,
    /// container slot * columns + column -> what the counters held when the present owner got the slot.
    pub class_bases: Elements<ClassCounters>,
    /// interface slot -> the same for totals.
    pub interface_bases: Elements<InterfaceCounters>,
    /// interface slot -> the same for faults.
    pub fault_bases: Elements<FaultCounters>,
    /// container slot * columns + column -> what was counted in the set of maps before this one.
    pub class_carried: Elements<ClassCounters>,
    /// interface slot -> the same for totals.
    pub interface_carried: Elements<InterfaceCounters>,
    /// interface slot -> the same for faults.
    pub fault_carried: Elements<FaultCounters>,
    /// container slot -> owner.
    pub containers: Elements<ContainerRecord>,
    /// interface slot -> owner.
    pub interfaces: Elements<InterfaceRecord>,
    /// container slot -> what its skb marks begin with; 0 for none.
    pub skb_marks: Option<Elements<u64>>,
}

impl Maps {
    /// Opens all maps.
    ///
    /// # Errors
    /// When a map is not pinned, cannot be opened, or has another key or value size.
    pub fn open(bpffs: &Bpffs) -> anyhow::Result<Self> {
        Ok(Self {
            pinned_in: bpffs.root().to_owned(),
            meta: Elements::open(bpffs, "META")?,
            control: Elements::open(bpffs, "CLASS_CONTROL")?,
            interface_by_index: Elements::open(bpffs, "INTERFACE_BY_INDEX")?,
            interface_by_high_index: typed(bpffs, "INTERFACE_BY_HIGH_INDEX")?,
            addresses_v4: typed(bpffs, "ADDRESSES_V4")?,
            addresses_v6: typed(bpffs, "ADDRESSES_V6")?,
            node_addresses: typed(bpffs, "NODE_ADDRESSES")?,
            class_lines: ClassLines::open(bpffs, "CLASS_LINES")?,
            class_counters: ClassBlocks::open(bpffs, "CLASS_COUNTERS")?,
            interface_counters: Elements::open(bpffs, "INTERFACE_COUNTERS")?,
            fault_counters: Elements::open(bpffs, "FAULT_COUNTERS")?,
            class_bases: Elements::open(bpffs, "CLASS_BASES")?,
            interface_bases: Elements::open(bpffs, "INTERFACE_BASES")?,
            fault_bases: Elements::open(bpffs, "FAULT_BASES")?,
            class_carried: Elements::open(bpffs, "CLASS_CARRIED")?,
            interface_carried: Elements::open(bpffs, "INTERFACE_CARRIED")?,
            fault_carried: Elements::open(bpffs, "FAULT_CARRIED")?,
            containers: Elements::open(bpffs, "CONTAINERS")?,
            interfaces: Elements::open(bpffs, "INTERFACES")?,
            skb_marks: match fs::exists(bpffs.map(SHAPING_MARKS)) {
                Ok(true) => Some(Elements::open(bpffs, SHAPING_MARKS)?),
                _ => None,
            },
        })
    }

    /// Waits until every program run that is in progress now has ended.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn wait_for_packets(&mut self) -> anyhow::Result<()> {
        self.class_lines.wait_for_packets(1 - self.active_table()?.place())
    }

    /// The class table in force.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn active_table(&self) -> anyhow::Result<TableWord> {
        Ok(TableWord(self.control.get(0)?.active_table))
    }
}

/// Returns the bytes of each pinned map, as the kernel reports them, and of the class tables, as it allocates
/// them.
///
/// # Errors
/// When a map cannot be opened.
pub fn memory(bpffs: &Bpffs, maps: &Maps) -> anyhow::Result<Vec<(&'static str, u64)>> {
    let mut all = Vec::new();
    for name in PINNED.into_iter().chain(OPTIONAL) {
        if OPTIONAL.contains(&name) && !bpffs.map(name).exists() {
            continue;
        }
        let data = MapData::from_pin(bpffs.map(name)).with_context(|| format!("cannot open map {name}"))?;
        all.push((name, locked_bytes(data.fd())));
    }
    all.extend([
        ("class table", maps.class_lines.array_memory()?),
        ("prefixes of the class table", maps.class_lines.rows_memory()?),
    ]);
    Ok(all)
}

/// `memlock` of a map's file descriptor; 0 where the kernel does not report it.
pub(in crate::kernel) fn locked_bytes(fd: &MapFd) -> u64 {
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn open(bpffs: &Bpffs, name: &str) -> anyhow::Result<Map> {
    let path = bpffs.map(name);
    MapData::from_pin(&path)
        .and_then(Map::from_map_data)
        .with_context(|| format!("cannot open the pinned map {}", path.display()))
}

pub(super) fn typed<M: TryFrom<Map, Error = MapError>>(bpffs: &Bpffs, name: &str) -> anyhow::Result<M> {
    M::try_from(open(bpffs, name)?)
        .with_context(|| format!("the pinned map {name} does not have the expected type"))
}
