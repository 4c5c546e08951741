//! The variants in the kernel: loads them on the pinned maps, feeds them addresses, runs them, and reads
//! their counters.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues, lpm_trie::Key},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
    util::nr_cpus,
};
use rustix::time::{ClockId, clock_gettime};
use traffic_common::{
    BLOCK_COLUMNS, ClassBlock, ClassCounters, Control, Direction, Family, InterfaceEntry, Meta, TableWord,
    bench::{Address, LinearLine, PEERS, State},
    blocks_of,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/trafctl-ebpf"));

/// Maps that only the benchmark's program has. They are pinned next to the others while it runs, so that all
/// variants share them.
const OWN_MAPS: [&str; 8] = [
    "BENCH_PEERS",
    "BENCH_STATE",
    "BENCH_INTERFACES",
    "BENCH_COUNTERS",
    "BENCH_LINEAR",
    "BENCH_TRIE_V4",
    "BENCH_TRIE_V6",
    "BENCH_ONE",
];

/// Size of the packets in bytes, with the Ethernet header.
const FRAME_BYTES: usize = 64;
/// Offset of the interface index in `struct __sk_buff`.
const CONTEXT_IFINDEX: usize = 40;

/// A variant of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Returns at once.
    Null,
    /// As shipped.
    Shipped,
    /// With a constant instead of the class lookup.
    Floor,
    /// With the trie for every packet.
    Trie,
    /// With a constant instead of the class lookup, and hashes instead of the arrays of containers and
    /// counters.
    Hash,
    /// Scans the whole table; the last matching line wins.
    Linear,
    /// Only the class lookup and one counter.
    Line,
}

impl Variant {
    /// The name of the program in the object.
    const fn program(self) -> &'static str {
        match self {
            Self::Null => "bench_null",
            Self::Shipped => "bench_shipped",
            Self::Floor => "bench_floor",
            Self::Trie => "bench_trie",
            Self::Hash => "bench_hash",
            Self::Linear => "bench_linear",
            Self::Line => "bench_line",
        }
    }
}

/// A loaded variant of one family.
pub struct Loaded {
    object: Ebpf,
    variant: Variant,
    family: Family,
}

impl Loaded {
    /// The program, to attach it.
    pub fn program(&mut self) -> Result<&mut SchedClassifier> {
        Ok(self
            .object
            .program_mut(self.variant.program())
            .context("the object lacks its program")?
            .try_into()?)
    }
}

/// The maps, and the interface of the packets.
pub struct Kernel {
    bpffs: PathBuf,
    ifindex: u32,
    columns: u32,
    slot: u32,
    peers: Array<MapData, Address>,
    state: Array<MapData, State>,
    linear: Array<MapData, LinearLine>,
    class_counters: PerCpuArray<MapData, ClassBlock>,
    hash_counters: PerCpuHashMap<MapData, u32, ClassCounters>,
}

impl Kernel {
    /// Opens the maps of a node with this interface attached, and creates those of the benchmark.
    pub fn open(bpffs: &Path, ifindex: u32) -> Result<Self> {
        // The first loaded variant creates the maps.
        drop(load_object(bpffs, Variant::Null, 0)?);
        let columns = Array::<_, Control>::try_from(pinned(bpffs, "CLASS_CONTROL")?)?.get(&0, 0)?.columns;
        let entry =
            Array::<_, InterfaceEntry>::try_from(pinned(bpffs, "INTERFACE_BY_INDEX")?)?.get(&ifindex, 0)?;
        ensure!(entry.flags != 0, "the interface with index {ifindex} is not attached");
        let mut kernel = Self {
            bpffs: bpffs.to_owned(),
            ifindex,
            columns,
            slot: entry.container_slot,
            peers: pinned(bpffs, "BENCH_PEERS")?.try_into()?,
            state: pinned(bpffs, "BENCH_STATE")?.try_into()?,
            linear: pinned(bpffs, "BENCH_LINEAR")?.try_into()?,
            class_counters: pinned(bpffs, "CLASS_COUNTERS")?.try_into()?,
            hash_counters: pinned(bpffs, "BENCH_COUNTERS")?.try_into()?,
        };
        let mut interfaces: HashMap<_, u32, InterfaceEntry> =
            pinned(bpffs, "BENCH_INTERFACES")?.try_into()?;
        // More than one, because a hash with a single element would look better than it is.
        for number in 1..=1000 {
            interfaces.insert(number, entry, 0)?;
        }
        interfaces.insert(ifindex, entry, 0)?;
        let zero = vec![ClassCounters::default(); nr_cpus().map_err(|(_, error)| error)?];
        for number in 0..1000 {
            let zero = PerCpuValues::try_from(zero.clone())?;
            kernel.hash_counters.insert(kernel.slot * columns + number, zero, 0)?;
        }
        Ok(kernel)
    }

    /// Loads a variant. With a generator, packets get addresses from the list.
    pub fn load(&self, variant: Variant, family: Family, generate: bool) -> Result<Loaded> {
        let destination = match family {
            _ if !generate => 0,
            Family::Ipv4 => 14 + 16,
            Family::Ipv6 => 14 + 24,
        };
        Ok(Loaded { object: load_object(&self.bpffs, variant, destination)?, variant, family })
    }

    /// Writes the list of addresses that the generator cycles through, repeated until the list is full.
    pub fn set_peers(&mut self, addresses: &[Address]) -> Result<()> {
        for (number, address) in (0..PEERS).zip(addresses.iter().cycle()) {
            self.peers.set(number, address, 0)?;
        }
        Ok(())
    }

    /// Writes the table of the linear scan.
    pub fn set_linear(&mut self, lines: &[LinearLine]) -> Result<()> {
        for (number, line) in (0..).zip(lines) {
            self.linear.set(number, line, 0)?;
        }
        let state = State { linear_lines: lines.len() as u64, ..self.state.get(&0, 0)? };
        self.state.set(0, state, 0)?;
        Ok(())
    }

    /// Writes the tries of the variant without an index: for each family prefix length, network in the upper
    /// bits, and column. Former prefixes stay, so that the tries must be new for each table.
    pub fn fill_trie(&self, family: Family, rows: impl Iterator<Item = (u32, u128, u32)>) -> Result<()> {
        match family {
            Family::Ipv4 => {
                let mut trie: LpmTrie<_, [u8; 4], u32> = pinned(&self.bpffs, "BENCH_TRIE_V4")?.try_into()?;
                for (len, network, column) in rows {
                    let [a, b, c, d, ..] = network.to_be_bytes();
                    trie.insert(&Key::new(len, [a, b, c, d]), column, 0)?;
                }
            }
            Family::Ipv6 => {
                let mut trie: LpmTrie<_, [u8; 16], u32> = pinned(&self.bpffs, "BENCH_TRIE_V6")?.try_into()?;
                for (len, network, column) in rows {
                    trie.insert(&Key::new(len, network.to_be_bytes()), column, 0)?;
                }
            }
        }
        Ok(())
    }

    /// Removes the benchmark's own maps, so that the next table begins with empty ones.
    pub fn forget(bpffs: &Path) -> Result<()> {
        for name in OWN_MAPS {
            let path = bpffs.join("maps").join(name);
            if path.exists() {
                fs::remove_file(&path).with_context(|| format!("cannot unpin {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// The number of addresses drawn so far.
    pub fn drawn(&self) -> Result<u64> {
        Ok(self.state.get(&0, 0)?.drawn)
    }

    /// The class of each column.
    pub fn classes(&self) -> Result<BTreeMap<u8, u32>> {
        let meta = Array::<_, Meta>::try_from(pinned(&self.bpffs, "META")?)?.get(&0, 0)?;
        Ok((0..meta.columns_used).map(|column| (meta.column_class[column as usize], column)).collect())
    }

    /// Packets out of the container by column, summed over all CPUs, in the program's own counters and in the
    /// hashes.
    pub fn counted(&self, family: Family) -> Result<[Vec<u64>; 2]> {
        let packets = |values: PerCpuValues<ClassCounters>| -> u64 {
            values.iter().map(|c| c.tallies[family as usize][Direction::Out as usize].packets).sum()
        };
        let first = self.slot * blocks_of(self.columns);
        let own = (0..self.columns).map(|column| {
            let block = self.class_counters.get(&(first + column / BLOCK_COLUMNS), 0)?;
            Ok(packets_in(&block, family, column))
        });
        let hash = (0..self.columns)
            .map(|column| Ok(packets(self.hash_counters.get(&(self.slot * self.columns + column), 0)?)));
        Ok([own.collect::<Result<_>>()?, hash.collect::<Result<_>>()?])
    }

    /// Lets the program count under the shadow class table that was begun, or not: all its maps stay.
    pub fn set_shadow(&self, is_on: bool) -> Result<()> {
        let mut map = Array::<_, Control>::try_from(pinned(&self.bpffs, "CLASS_CONTROL")?)?;
        let control = map.get(&0, 0)?;
        let word = TableWord(control.active_table).with_shadow(is_on);
        Ok(map.set(0, Control { active_table: word.0, ..control }, 0)?)
    }

    /// Packets and bytes in the counter of [`Variant::Line`].
    pub fn counted_in_one(&self) -> Result<(u64, u64)> {
        let one: PerCpuArray<_, [u64; 2]> = pinned(&self.bpffs, "BENCH_ONE")?.try_into()?;
        let values = one.get(&0, 0)?;
        Ok(values.iter().fold((0, 0), |sum, [packets, bytes]| (sum.0 + packets, sum.1 + bytes)))
    }

    /// Runs a variant repeatedly. Returns the CPU time of one run in nanoseconds.
    pub fn run(&self, variant: &mut Loaded, repeat: u32) -> Result<f64> {
        let frame = frame(variant.family);
        let mut context = [0_u8; 192];
        context[CONTEXT_IFINDEX..CONTEXT_IFINDEX + 4].copy_from_slice(&self.ifindex.to_ne_bytes());
        let mut options = TestRunOptions::new();
        options.data_in = Some(&frame);
        options.ctx_in = Some(&context);
        options.repeat = repeat;
        let program = variant.program()?;
        // The CPU time of this thread, so that other processes do not count. The kernel's own duration is
        // rounded to a nanosecond, a quarter of what is measured here.
        let before = thread_time_ns();
        let result = program.test_run(options)?;
        let taken = thread_time_ns() - before;
        ensure!(result.return_value == u32::MAX, "the verdict was {}", result.return_value);
        Ok(taken as f64 / f64::from(repeat))
    }
}

/// CPU time of this thread.
pub fn thread_time_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or(0)
}

/// Packets out of all containers by column, summed over all CPUs, in the maps of any version.
pub fn counted_by_all(bpffs: &Path, family: Family, columns: u32) -> Result<Vec<u64>> {
    let mut by_column = vec![0; columns as usize];
    // The previous version has an element for each container and class.
    if let Ok(counters) = PerCpuArray::<_, ClassCounters>::try_from(pinned(bpffs, "CLASS_COUNTERS")?) {
        for index in 0..counters.len() {
            let values = counters.get(&index, 0)?;
            let packets = values.iter().map(|c| c.tallies[family as usize][Direction::Out as usize].packets);
            by_column[(index % columns) as usize] += packets.sum::<u64>();
        }
        return Ok(by_column);
    }
    let blocks: PerCpuArray<_, ClassBlock> = pinned(bpffs, "CLASS_COUNTERS")?.try_into()?;
    for index in 0..blocks.len() {
        let block = blocks.get(&index, 0)?;
        let first = index % blocks_of(columns) * BLOCK_COLUMNS;
        for column in first..columns.min(first + BLOCK_COLUMNS) {
            by_column[column as usize] += packets_in(&block, family, column);
        }
    }
    Ok(by_column)
}

/// Packets out of a container in a column, summed over all CPUs.
fn packets_in(block: &PerCpuValues<ClassBlock>, family: Family, column: u32) -> u64 {
    let within = (column % BLOCK_COLUMNS) as usize;
    block.iter().map(|copy| copy.tallies[family as usize][Direction::Out as usize][within].packets).sum()
}

fn pinned(bpffs: &Path, name: &str) -> Result<Map> {
    let path = bpffs.join("maps").join(name);
    let data = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Map::from_map_data(data)?)
}

/// Loads the object with every pinned map that the program uses.
fn load_object(bpffs: &Path, variant: Variant, destination: u32) -> Result<Ebpf> {
    let maps = bpffs.join("maps");
    let mut paths: BTreeMap<String, PathBuf> =
        OWN_MAPS.iter().map(|&name| (name.to_owned(), maps.join(name))).collect();
    for entry in fs::read_dir(&maps).with_context(|| format!("cannot list {}", maps.display()))? {
        let entry = entry?;
        paths.insert(entry.file_name().to_string_lossy().into_owned(), entry.path());
    }
    let log_level = 0_u8;
    let mut loader = EbpfLoader::new();
    loader.override_global("BENCH_DESTINATION", &destination, true).override_global(
        "AYA_LOG_LEVEL",
        &log_level,
        true,
    );
    for (name, path) in &paths {
        loader.map_pin_path(name, path);
    }
    let mut object = loader.load(OBJECT).context("the kernel refused the benchmark's maps")?;
    let name = variant.program();
    let program: &mut SchedClassifier =
        object.program_mut(name).with_context(|| format!("the object lacks program {name}"))?.try_into()?;
    program.load().with_context(|| format!("the kernel refused program {name}"))?;
    Ok(object)
}

/// A small UDP packet from a container; the generator writes its destination.
fn frame(family: Family) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    match family {
        Family::Ipv4 => {
            frame
                .extend([0x08, 0x00, 0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 0, 1, 198, 51, 100, 1]);
        }
        Family::Ipv6 => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 10, 17, 64]);
            frame.extend([0xfd; 16]);
            frame.extend([0x20; 16]);
        }
    }
    frame.resize(FRAME_BYTES, 0);
    frame
}
