//! Handles on the pinned maps: opened by path, typed by `traffic_common::layout`.

use std::{
    fs, io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aya::{
    Pod,
    maps::{Array, ArrayOfMaps, HashMap, LpmTrie, Map, MapData, MapError, MapFd, PerCpuArray},
};
use traffic_common::{
    ClassCounters, ContainerRecord, Control, FaultCounters, INDEX_V4_BLOCK_BYTES, INDEX_V6_BLOCK_ENTRIES,
    InterfaceCounters, InterfaceEntry, InterfaceRecord, Meta, RangeNode,
};

use crate::kernel::{bpffs::Bpffs, sys};

/// Names of all maps that are pinned, as the program defines them.
pub const PINNED: [&str; 20] = [
    "INTERFACE_BY_INDEX",
    "INTERFACE_BY_HIGH_INDEX",
    "ADDRESSES_V4",
    "ADDRESSES_V6",
    "NODE_ADDRESSES",
    "CLASSES_V4",
    "CLASSES_V6",
    "CLASS_INDEX_V4",
    "CLASS_INDEX_V6",
    "CLASS_RANGES_V6",
    "CONTROL",
    "CLASS_COUNTERS",
    "INTERFACE_COUNTERS",
    "FAULT_COUNTERS",
    "CLASS_BASES",
    "INTERFACE_BASES",
    "FAULT_BASES",
    "CONTAINERS",
    "INTERFACES",
    "META",
];

/// A map that holds nothing that could be lost: where it is missing, as under pins of an earlier version, the next program
/// that is loaded makes it.
pub const SHAPING_MARKS: &str = "SHAPING_MARKS";

/// A compiled class table of IPv4 prefixes.
pub type ClassTrieV4 = LpmTrie<MapData, [u8; 4], u32>;
/// A compiled class table of IPv6 prefixes.
pub type ClassTrieV6 = LpmTrie<MapData, [u8; 16], u32>;

/// What stands before an IPv4 class table: the column of each prefix of 24 bits.
pub type ClassIndexV4 = Array<MapData, [u8; INDEX_V4_BLOCK_BYTES]>;
/// What stands before an IPv6 class table: what each prefix of 25 bits is, or a search tree.
pub type ClassIndexV6 = Array<MapData, [u32; INDEX_V6_BLOCK_ENTRIES]>;
/// The nodes of those search trees.
pub type ClassRangesV6 = Array<MapData, RangeNode>;

/// All pinned maps.
#[derive(Debug)]
pub struct Maps {
    /// What this set is.
    pub meta: Elements<Meta>,
    /// The active table and the row width.
    pub control: Elements<Control>,
    /// ifindex -> entry.
    pub interface_by_index: Elements<InterfaceEntry>,
    /// ifindex -> entry, for high indexes.
    pub interface_by_high_index: HashMap<MapData, u32, InterfaceEntry>,
    /// Local IPv4 prefix -> container slot.
    pub addresses_v4: LpmTrie<MapData, [u8; 4], u32>,
    /// Local IPv6 prefix -> container slot.
    pub addresses_v6: LpmTrie<MapData, [u8; 16], u32>,
    /// The node's own addresses.
    pub node_addresses: HashMap<MapData, [u8; 16], u32>,
    /// The two IPv4 class tables.
    pub classes_v4: DoubleBuffer,
    /// The two IPv6 class tables.
    pub classes_v6: DoubleBuffer,
    /// The indexes before the IPv4 class tables.
    pub class_index_v4: DoubleBuffer,
    /// The indexes before the IPv6 class tables.
    pub class_index_v6: DoubleBuffer,
    /// The search trees of those.
    pub class_ranges_v6: DoubleBuffer,
    /// container slot * columns + column -> counters.
    pub class_counters: Elements<ClassCounters>,
    /// interface slot -> what passed.
    pub interface_counters: Elements<InterfaceCounters>,
    /// interface slot -> faults.
    pub fault_counters: Elements<FaultCounters>,
    /// What the counters of a slot held when its present owner got it.
    pub class_bases: Elements<ClassCounters>,
    /// The same for what passed interfaces.
    pub interface_bases: Elements<InterfaceCounters>,
    /// The same for faults.
    pub fault_bases: Elements<FaultCounters>,
    /// container slot -> owner.
    pub containers: Elements<ContainerRecord>,
    /// interface slot -> owner.
    pub interfaces: Elements<InterfaceRecord>,
    /// container slot -> what its shaping mark begins with; 0 for none.
    pub shaping_marks: Option<Elements<u64>>,
}

impl Maps {
    /// Opens all maps.
    ///
    /// # Errors
    /// When one is not pinned, may not be opened, or has another key or value size.
    pub fn open(bpffs: &Bpffs) -> anyhow::Result<Self> {
        Ok(Self {
            meta: Elements::open(bpffs, "META")?,
            control: Elements::open(bpffs, "CONTROL")?,
            interface_by_index: Elements::open(bpffs, "INTERFACE_BY_INDEX")?,
            interface_by_high_index: typed(bpffs, "INTERFACE_BY_HIGH_INDEX")?,
            addresses_v4: typed(bpffs, "ADDRESSES_V4")?,
            addresses_v6: typed(bpffs, "ADDRESSES_V6")?,
            node_addresses: typed(bpffs, "NODE_ADDRESSES")?,
            classes_v4: DoubleBuffer::open(bpffs, "CLASSES_V4")?,
            classes_v6: DoubleBuffer::open(bpffs, "CLASSES_V6")?,
            class_index_v4: DoubleBuffer::open(bpffs, "CLASS_INDEX_V4")?,
            class_index_v6: DoubleBuffer::open(bpffs, "CLASS_INDEX_V6")?,
            class_ranges_v6: DoubleBuffer::open(bpffs, "CLASS_RANGES_V6")?,
            class_counters: Elements::open(bpffs, "CLASS_COUNTERS")?,
            interface_counters: Elements::open(bpffs, "INTERFACE_COUNTERS")?,
            fault_counters: Elements::open(bpffs, "FAULT_COUNTERS")?,
            class_bases: Elements::open(bpffs, "CLASS_BASES")?,
            interface_bases: Elements::open(bpffs, "INTERFACE_BASES")?,
            fault_bases: Elements::open(bpffs, "FAULT_BASES")?,
            containers: Elements::open(bpffs, "CONTAINERS")?,
            interfaces: Elements::open(bpffs, "INTERFACES")?,
            shaping_marks: match fs::exists(bpffs.map(SHAPING_MARKS)) {
                Ok(true) => Some(Elements::open(bpffs, SHAPING_MARKS)?),
                _ => None,
            },
        })
    }

    /// Waits until no packet that is being looked at now is looked at any more: the kernel returns from an update of a
    /// map of maps only then.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn wait_for_packets(&mut self) -> anyhow::Result<()> {
        let active = self.control.get(0)?.active_table;
        if let Some(table) = self.classes_v4.table(active)? {
            self.classes_v4.put(active, &table)?;
        }
        Ok(())
    }

    /// Everything that a class table consists of, each before what leads to it.
    pub fn class_tables_mut(&mut self) -> [&mut DoubleBuffer; 5] {
        [
            &mut self.class_index_v4,
            &mut self.classes_v4,
            &mut self.class_ranges_v6,
            &mut self.class_index_v6,
            &mut self.classes_v6,
        ]
    }
}

/// Bytes of each pinned map by the kernel's account, and of the class tables in them.
///
/// # Errors
/// When a map can't be opened.
pub fn memory(bpffs: &Bpffs) -> anyhow::Result<Vec<(&'static str, u64)>> {
    let mut all = Vec::new();
    for name in PINNED.into_iter().chain([SHAPING_MARKS]) {
        if name == SHAPING_MARKS && !bpffs.map(name).exists() {
            continue;
        }
        let data = MapData::from_pin(bpffs.map(name)).with_context(|| format!("cannot open map {name}"))?;
        all.push((name, locked_bytes(data.fd())));
    }
    let maps = Maps::open(bpffs)?;
    let active = maps.control.get(0)?.active_table;
    all.extend([
        ("class table IPv4", maps.classes_v4.memory(active)?),
        ("class table IPv6", maps.classes_v6.memory(active)?),
        ("class index IPv4", maps.class_index_v4.memory(active)?),
        ("class index IPv6", maps.class_index_v6.memory(active)? + maps.class_ranges_v6.memory(active)?),
    ]);
    Ok(all)
}

/// Two places for a table of a kind, of which the active one is asked.
///
/// What is in a place is pinned as well: the kernel tells only the id of a map within a map, and opening one by its id
/// takes CAP_SYS_ADMIN.
#[derive(Debug)]
pub struct DoubleBuffer {
    name: &'static str,
    places: ArrayOfMaps<MapData>,
    /// A second handle on the same map, for what the first does not offer.
    data: MapData,
    /// Where the table of each place is pinned.
    pins: [PathBuf; 2],
}

impl DoubleBuffer {
    fn open(bpffs: &Bpffs, name: &'static str) -> anyhow::Result<Self> {
        let path = bpffs.map(name);
        let data = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let pins = [0, 1].map(|place| bpffs.map(&format!("{name}_{place}")));
        Ok(Self { name, places: typed(bpffs, name)?, data, pins })
    }

    fn pin_of(&self, place: u32) -> anyhow::Result<&Path> {
        let pin =
            self.pins.get(place as usize).with_context(|| format!("{} has no place {place}", self.name))?;
        Ok(pin)
    }

    /// Pins the table that is about to be put into a place, instead of what a load that was cut short has left there.
    ///
    /// # Errors
    /// When it can't be pinned.
    pub fn pin(&self, place: u32, table: &MapData) -> anyhow::Result<()> {
        let pin = self.pin_of(place)?;
        unpin(pin)?;
        table.pin(pin).with_context(|| format!("cannot pin {}", pin.display()))
    }

    /// Puts a table into a place. When this returns, no program that may have seen the former one is running any more.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn put(&mut self, place: u32, table: &MapData) -> anyhow::Result<()> {
        self.places.set(place, table, 0).with_context(|| format!("cannot place a table in {}", self.name))
    }

    /// The table in a place.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn table(&self, place: u32) -> anyhow::Result<Option<MapData>> {
        let pin = self.pin_of(place)?;
        if fs::exists(pin)? {
            let table = MapData::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?;
            return Ok(Some(table));
        }
        match self.places.get(&place, 0) {
            Ok(table) => Ok(Some(table)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).with_context(|| {
                format!("cannot look into {} (it is not pinned, so that CAP_SYS_ADMIN is needed)", self.name)
            }),
        }
    }

    /// Bytes that the table in this place takes; none if there is none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn memory(&self, place: u32) -> anyhow::Result<u64> {
        Ok(self.table(place)?.map_or(0, |table| locked_bytes(table.fd())))
    }

    /// Empties a place, and frees the table's memory.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn clear(&mut self, place: u32) -> anyhow::Result<()> {
        sys::delete_element(self.data.fd().as_fd(), place)
            .with_context(|| format!("cannot empty a place in {}", self.name))?;
        unpin(self.pin_of(place)?)
    }
}

fn unpin(pin: &Path) -> anyhow::Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot unpin {}", pin.display()))
        }
        _ => Ok(()),
    }
}

/// `memlock` of a map's file descriptor; 0 where the kernel does not say.
fn locked_bytes(fd: &MapFd) -> u64 {
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

fn typed<M: TryFrom<Map, Error = MapError>>(bpffs: &Bpffs, name: &str) -> anyhow::Result<M> {
    M::try_from(open(bpffs, name)?)
        .with_context(|| format!("the pinned map {name} is not of the expected kind"))
}

/// An array map, per CPU or not, that is read in ranges.
#[derive(Debug)]
pub struct Elements<V> {
    name: &'static str,
    map: Map,
    len: u32,
    /// Values that one index holds: the number of possible CPUs, or 1.
    copies: usize,
    _value: PhantomData<V>,
}

impl<V: Pod> Elements<V> {
    fn open(bpffs: &Bpffs, name: &'static str) -> anyhow::Result<Self> {
        let map = open(bpffs, name)?;
        let (len, copies) = match &map {
            Map::Array(_) => (Array::<&MapData, V>::try_from(&map).map(|array| array.len()), 1),
            _ => {
                let cpus = aya::util::nr_cpus()
                    .map_err(|(_file, error)| error)
                    .context("cannot tell the number of CPUs")?;
                (PerCpuArray::<&MapData, V>::try_from(&map).map(|array| array.len()), cpus)
            }
        };
        let len = len.with_context(|| format!("the pinned map {name} is not of the expected kind"))?;
        Ok(Self { name, map, len, copies, _value: PhantomData })
    }

    /// Number of elements.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none, which no map of ours is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of values an index holds.
    pub fn copies(&self) -> usize {
        self.copies
    }

    /// The values of `count` elements from `first`: for a per-CPU map [`Self::copies`] in a row for each.
    ///
    /// # Errors
    /// When the kernel refuses, which for an array in range it has no cause to.
    pub fn range(&self, first: u32, count: u32) -> anyhow::Result<Vec<V>> {
        let data = match &self.map {
            Map::Array(data) | Map::PerCpuArray(data) => data,
            _ => anyhow::bail!("map {} is no array", self.name),
        };
        match sys::lookup_batch(data.fd().as_fd(), first, count, self.copies) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.one_by_one(first, count),
            other => other.with_context(|| format!("cannot read map {}", self.name)),
        }
    }

    fn one_by_one(&self, first: u32, count: u32) -> anyhow::Result<Vec<V>> {
        let mut values = Vec::with_capacity(count as usize * self.copies);
        for index in first..first + count {
            let read = if self.copies == 1 && matches!(self.map, Map::Array(_)) {
                Array::<&MapData, V>::try_from(&self.map)?.get(&index, 0).map(|value| values.push(value))
            } else {
                PerCpuArray::<&MapData, V>::try_from(&self.map)?
                    .get(&index, 0)
                    .map(|copies| values.extend(copies.iter().copied()))
            };
            read.with_context(|| format!("cannot read element {index} of map {}", self.name))?;
        }
        Ok(values)
    }

    /// One element of a map that is not per CPU.
    ///
    /// # Errors
    /// When the index is out of range or the kernel refuses.
    pub fn get(&self, index: u32) -> anyhow::Result<V> {
        Array::<&MapData, V>::try_from(&self.map)
            .and_then(|array| array.get(&index, 0))
            .with_context(|| format!("cannot read element {index} of map {}", self.name))
    }

    /// Writes one element of a map that is not per CPU.
    ///
    /// # Errors
    /// When the index is out of range or the kernel refuses.
    pub fn set(&mut self, index: u32, value: V) -> anyhow::Result<()> {
        Array::<&mut MapData, V>::try_from(&mut self.map)
            .and_then(|mut array| array.set(index, value, 0))
            .with_context(|| format!("cannot write element {index} of map {}", self.name))
    }
}
