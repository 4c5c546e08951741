//! Part 1: variants of the program, run by `BPF_PROG_TEST_RUN` with several numbers of prefixes and
//! distributions of peers.
//!
//! After each run, the counters must equal those of a simple reference for the drawn addresses.

mod kernel;

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use traffic_common::{
    Family,
    bench::{Address, LinearLine, PEERS},
};
use traffic_tests::Lab;

pub use self::kernel::{Kernel, Loaded, Variant, counted_by_all, thread_time_ns};
use crate::{
    progress::Progress,
    random::{Random, Zipf},
    results::Results,
    table::{Nesting, Table, mask, words},
};

/// The name of this part.
pub const PART: &str = "program";
/// The number of peers of the Zipf distribution.
pub const ZIPF_PEERS: usize = 10_000;
/// Lines scanned in one sample of the linear scan, over all its packets.
const LINEAR_LINES_A_SAMPLE: usize = 20_000_000;

/// The distribution of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// One peer.
    Hot,
    /// From [`ZIPF_PEERS`] by Zipf's law.
    Zipf,
    /// From all prefixes with equal probability.
    Uniform,
}

impl Draw {
    /// All distributions.
    pub const ALL: [Self; 3] = [Self::Hot, Self::Zipf, Self::Uniform];

    /// The name in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Zipf => "zipf",
            Self::Uniform => "uniform",
        }
    }
}

/// The extent of the measurement.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds.
    pub rounds: usize,
    /// Numbers of prefixes.
    pub sizes: Vec<usize>,
    /// Packets in each sample.
    pub repeat: u32,
    /// Different addresses in the list; a power of two.
    pub addresses: usize,
}

/// The variants, in the order of the results.
const VARIANTS: [(&str, Variant, bool); 7] = [
    ("null", Variant::Null, false),
    ("generator", Variant::Null, true),
    ("floor", Variant::Floor, true),
    ("trafctl", Variant::Shipped, true),
    ("trie", Variant::Trie, true),
    ("floor by hash", Variant::Hash, true),
    ("linear", Variant::Linear, true),
];

/// The name of a case.
pub fn case(family: Family, prefixes: usize, draw: Draw) -> String {
    format!("{}/{prefixes}/{}", family.name(), draw.name())
}

/// Runs the measurement.
pub fn run(plan: &Plan, results: &mut Results, progress: &Progress) -> Result<()> {
    ensure!(
        plan.addresses.is_power_of_two() && plan.addresses <= PEERS as usize,
        "the number of addresses must be a power of two and at most {PEERS}"
    );
    let lab = Lab::new("bench")?;
    let empty = lab.write("classes", "1 0.0.0.0/0\n1 ::/0\n")?;
    lab.configure(&format!(
        "class_file = {empty:?}\nclass_order = \"longest-prefix\"\n[limits]\nclasses = 16\n"
    ))?;
    let container = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    lab.run_ok(&["attach"])?;
    let index = lab.host().ip(&format!("-o link show {}", container.interface()))?;
    let ifindex: u32 = index.split(':').next().context("no index")?.trim().parse()?;
    let bpffs = lab.bpffs().to_owned();
    for &size in &plan.sizes {
        progress.note(&format!("program run, {size} prefixes: loading"));
        let tables = Family::ALL.map(|family| Table::new(family, size, Nesting::Allowed, size as u64));
        let path = lab.path("classes");
        fs::write(&path, tables.iter().map(Table::class_file).collect::<String>())?;
        lab.run_ok(&["classes", "load", "--yes", path.to_str().context("the path is not UTF-8")?])?;
        for table in &tables {
            // The interface index belongs to the lab's host, so the thread must be there.
            lab.host().enter(|| {
                stay_on_this_cpu()?;
                Kernel::forget(&bpffs)?;
                let mut bench = Bench::new(Kernel::open(&bpffs, ifindex)?, table)?;
                Draw::ALL.into_iter().try_for_each(|draw| bench.measure(plan, draw, results, progress))
            })?;
        }
    }
    Ok(())
}

/// Binds this thread to one CPU and returns its number. A move would take time and spread the counters.
pub fn stay_on_this_cpu() -> Result<usize> {
    let allowed = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|&cpu| allowed.is_set(cpu)).context("no CPU to run on")?;
    let mut only = CpuSet::new();
    only.set(last);
    sched_setaffinity(None, &only).context("cannot stay on one CPU")?;
    Ok(last)
}

/// Writes a table into the trie of the variant without an index.
pub fn fill_trie(kernel: &Kernel, table: &Table) -> Result<()> {
    let columns = kernel.classes()?;
    let row = |line: &crate::table::Line| {
        let column = columns.get(&line.class).copied().context("a class without a column")?;
        anyhow::Ok((line.len, line.network, column))
    };
    let rows: Vec<_> = table.lines.iter().map(row).collect::<Result<_>>()?;
    kernel.fill_trie(table.family, rows.into_iter())
}

struct Bench<'t> {
    kernel: Kernel,
    table: &'t Table,
    variants: Vec<(&'static str, Variant, Loaded)>,
    columns: BTreeMap<u8, u32>,
}

/// The drawn addresses, with the column of each.
struct Peers {
    addresses: Vec<u128>,
    columns: Vec<u32>,
}

impl<'t> Bench<'t> {
    fn new(mut kernel: Kernel, table: &'t Table) -> Result<Self> {
        let columns = kernel.classes()?;
        let line = |line: &crate::table::Line| {
            anyhow::Ok(LinearLine {
                network: words(line.network),
                mask: words(mask(line.len)),
                column: *columns.get(&line.class).context("a class without a column")?,
                padding: 0,
            })
        };
        kernel.set_linear(&table.lines.iter().map(line).collect::<Result<Vec<_>>>()?)?;
        fill_trie(&kernel, table)?;
        let variants = VARIANTS
            .into_iter()
            .map(|(name, variant, generate)| {
                Ok((name, variant, kernel.load(variant, table.family, generate)?))
            })
            .collect::<Result<_>>()?;
        Ok(Self { kernel, table, variants, columns })
    }

    fn measure(&mut self, plan: &Plan, draw: Draw, results: &mut Results, progress: &Progress) -> Result<()> {
        let case = case(self.table.family, self.table.lines.len(), draw);
        progress.note(&format!("program run, {case}: drawing peers"));
        let peers = self.peers(draw, plan.addresses)?;
        let addresses: Vec<Address> = peers.addresses.iter().map(|&address| words(address)).collect();
        self.kernel.set_peers(&addresses)?;
        for round in 0..plan.rounds {
            progress.note(&format!("program run, {case}: round {} of {}", round + 1, plan.rounds));
            for number in 0..self.variants.len() {
                // Each round begins with another variant, so that none always follows the same one.
                let number = (number + round) % self.variants.len();
                let (name, nanoseconds) = self.sample(number, plan, &peers)?;
                results.push(PART, &case, name, (nanoseconds, "ns/packet"));
            }
        }
        Ok(())
    }

    /// Runs a variant and checks its counts.
    fn sample(&mut self, number: usize, plan: &Plan, peers: &Peers) -> Result<(&'static str, f64)> {
        let (name, variant) = (self.variants[number].0, self.variants[number].1);
        let loaded = &mut self.variants[number].2;
        let lines = self.table.lines.len();
        let repeat = match variant {
            Variant::Linear => u32::try_from(LINEAR_LINES_A_SAMPLE / lines)?.clamp(8, plan.repeat),
            _ => plan.repeat,
        };
        // The caches hold the data of the previous variant.
        self.kernel.run(loaded, repeat / 8)?;
        let drawn = usize::try_from(self.kernel.drawn()?)?;
        let before = self.kernel.counted(self.table.family)?;
        let nanoseconds = self.kernel.run(loaded, repeat)?;
        let after = self.kernel.counted(self.table.family)?;
        let counted: [Vec<u64>; 2] = std::array::from_fn(|place| {
            after[place].iter().zip(&before[place]).map(|(after, before)| after - before).collect()
        });
        let mut expected = [vec![0; counted[0].len()], vec![0; counted[1].len()]];
        match variant {
            Variant::Null | Variant::Line => {}
            Variant::Floor => expected[0][0] = repeat.into(),
            Variant::Hash => expected[1][0] = repeat.into(),
            Variant::Shipped | Variant::Trie | Variant::Linear => {
                for packet in drawn..drawn + repeat as usize {
                    let place = packet % peers.addresses.len();
                    let column = match variant {
                        Variant::Linear => self.last_match(peers.addresses[place])?,
                        _ => peers.columns[place],
                    };
                    expected[0][column as usize] += 1;
                }
            }
        }
        ensure!(counted == expected, "{name} counted {counted:?} by column instead of {expected:?}");
        Ok((name, nanoseconds))
    }

    fn last_match(&self, address: u128) -> Result<u32> {
        let matching = self.table.lines.iter().rev().find(|line| address & mask(line.len) == line.network);
        let class = matching.map_or(0, |line| line.class);
        self.columns.get(&class).copied().context("a class without a column")
    }

    fn peers(&self, draw: Draw, count: usize) -> Result<Peers> {
        let mut random = Random::new(0x5eed);
        let addresses: Vec<u128> = match draw {
            Draw::Hot => vec![self.table.address(&mut random)],
            Draw::Uniform => (0..count).map(|_| self.table.address(&mut random)).collect(),
            Draw::Zipf => {
                let peers: Vec<_> = (0..ZIPF_PEERS).map(|_| self.table.address(&mut random)).collect();
                let zipf = Zipf::new(ZIPF_PEERS);
                (0..count).map(|_| peers[zipf.draw(&mut random)]).collect()
            }
        };
        let reference = self.table.reference();
        let mut known = BTreeMap::new();
        let columns = addresses
            .iter()
            .map(|&address| {
                let class = *known.entry(address).or_insert_with(|| reference.class(address));
                self.columns.get(&class).copied().context("a class without a column")
            })
            .collect::<Result<_>>()?;
        Ok(Peers { addresses, columns })
    }
}
