//! Part 4: this version beside the previous one, on real and random tables and with real packets.
//!
//! 100 containers send. Each interface has one link, whose program is exchanged between slices, so that all
//! programs meet the same packets within a fraction of a second. Beside the CPU time of the sending thread
//! stands the run time of the program as the kernel reports it. Both are compared with the null program of the
//! same round. Where the previous version's program is not given, only this one is measured.

use std::{collections::BTreeMap, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use aya::{
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        tc::{SchedClassifierLink, TcAttachOptions},
    },
    sys::{Stats, enable_stats},
};
use traffic_common::{Family, bench::Address};
use traffic_tests::process::run_ok;

use crate::{
    geo,
    packets::{CONTAINERS, Node, Sender, interface},
    program::{Kernel, Loaded, Variant, ZIPF_PEERS, counted_by_all, fill_trie},
    progress::Progress,
    random::{Random, Zipf},
    results::Results,
    statistics::{differences, ratios},
    table::{Nesting, Reference, Table, words},
};

/// The name of the program's run time.
pub const RUN: &str = "real tables, run time";
/// The name of the sender's CPU time.
pub const CPU: &str = "real tables, CPU";
/// Differences below this many nanoseconds cannot be measured.
const LEAST_NS: f64 = 5.0;
/// Columns of a container.
const COLUMNS: u32 = 32;
/// Packets that fill the caches, and packets that count, in each slice.
const WARM: usize = 3_200;
const SLICE: usize = 9_600;

/// Classes of the random tables, which have a narrow index then. The other parts measure 15.
const RANDOM_CLASSES: u8 = 4;

/// How peers are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peers {
    /// One address.
    Single,
    /// From [`ZIPF_PEERS`] addresses of prefixes with equal probability, by Zipf's law.
    ZipfPrefixes,
    /// The same, of prefixes in proportion to their size.
    ZipfAddresses,
    /// Ever new addresses of prefixes with equal probability.
    Prefixes,
    /// The same, of prefixes in proportion to their size.
    Addresses,
}

impl Peers {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Single, Self::ZipfPrefixes, Self::ZipfAddresses, Self::Prefixes, Self::Addresses];

    /// The name in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::ZipfPrefixes => "zipf of prefixes",
            Self::ZipfAddresses => "zipf of addresses",
            Self::Prefixes => "prefixes",
            Self::Addresses => "addresses",
        }
    }
}

/// The program while a shadow class table counts.
pub const WITH_SHADOW: &str = "with a shadow";

/// The name of a case.
pub fn case(table: &str, peers: Peers) -> String {
    format!("{table}/{}", peers.name())
}

/// The tables, by name.
const TABLES: [(&str, Family, Source); 6] = [
    ("random:100k", Family::Ipv4, Source::Random(100_000)),
    ("random:800k", Family::Ipv4, Source::Random(800_000)),
    ("geo:2", Family::Ipv4, Source::Geo(2)),
    ("geo:4", Family::Ipv4, Source::Geo(4)),
    ("geo:16", Family::Ipv4, Source::Geo(16)),
    ("geo6:16", Family::Ipv6, Source::Geo(16)),
];

#[derive(Clone, Copy)]
enum Source {
    Random(usize),
    Geo(u8),
}

/// Program time of a variant above the null program, in each round.
pub fn above_null(results: &Results, case: &str, variant: &str) -> Option<Vec<f64>> {
    Some(differences(results.get(RUN, case, variant)?, results.get(RUN, case, "null")?))
}

/// The ratio of two variants above the null program, in each round.
pub fn ratio(results: &Results, case: &str, variant: &str, to: &str) -> Option<Vec<f64>> {
    Some(ratios(&above_null(results, case, variant)?, &above_null(results, case, to)?, LEAST_NS))
}

/// Runs the measurement.
pub fn run(rounds: usize, results: &mut Results, progress: &Progress) -> Result<()> {
    let previous = std::env::var_os("TRAFCTL_PREVIOUS").map(PathBuf::from);
    progress.note("real tables: making 100 containers");
    let node = Node::new("")?;
    for (name, family, source) in TABLES {
        progress.note(&format!("real tables, {name}: loading"));
        let table = match source {
            Source::Random(prefixes) => {
                Table::new(family, prefixes, Nesting::Allowed, prefixes as u64).in_classes(RANDOM_CLASSES)
            }
            Source::Geo(classes) => geo::table(family, classes)?,
        };
        let mut bench = Bench::new(&node, &table, previous.as_deref())?;
        for peers in Peers::ALL {
            for round in 0..rounds {
                let case = case(name, peers);
                progress.note(&format!("real tables, {case}: round {} of {rounds}", round + 1));
                bench.round(&case, peers, round, results)?;
            }
        }
    }
    Ok(())
}

/// Every other line of a class file in the next class, so that a shadow of it has about twice as many pairs as the file
/// has classes.
fn in_other_classes(file: &str) -> Result<String> {
    let mut text = String::with_capacity(file.len());
    for (number, line) in file.lines().enumerate() {
        let (class, prefix) = line.split_once(' ').context("a line of a class file")?;
        let class = class.parse::<u8>()? + u8::from(number % 2 == 0);
        text += &format!("{class} {prefix}\n");
    }
    Ok(text)
}

/// A program that is measured.
struct Measured {
    name: &'static str,
    program: Program,
    counts: Counts,
}

/// Where a program counts.
enum Counts {
    /// Nowhere, or not by class.
    No,
    /// In one counter for everything.
    One,
    /// In the counters pinned here.
    In(PathBuf),
}

enum Program {
    Pinned(Box<SchedClassifier>),
    Variant(Loaded),
}

impl Measured {
    fn program(&mut self) -> Result<&mut SchedClassifier> {
        match &mut self.program {
            Program::Pinned(program) => Ok(program),
            Program::Variant(loaded) => loaded.program(),
        }
    }

    /// Run time in nanoseconds, and number of runs.
    fn statistics(&mut self) -> Result<(f64, f64)> {
        let info = self.program()?.info()?;
        Ok((info.run_time().as_nanos() as f64, info.run_count() as f64))
    }
}

struct Bench<'t> {
    table: &'t Table,
    sender: Sender,
    measured: Vec<Measured>,
    kernel: Kernel,
    reference: Reference,
    columns: BTreeMap<u8, u32>,
    /// One on each interface; `None` after an exchange has failed.
    links: Vec<Option<SchedClassifierLink>>,
    random: Random,
    /// For each prefix the share of all addresses up to it.
    sizes: Vec<f64>,
}

impl<'t> Bench<'t> {
    fn new(node: &Node, table: &'t Table, previous: Option<&std::path::Path>) -> Result<Self> {
        let lab = &node.lab;
        let classes = lab.write("classes", &table.class_file())?;
        lab.configure(&format!(
            "class_file = {classes:?}\nclass_order = \"longest-prefix\"\n[limits]\ncontainers = 128\nclasses = {COLUMNS}\n"
        ))?;
        // A new table may have other columns, so each begins with new counters.
        lab.run_ok(&["attach", "--purge", "--yes"])?;
        let index = lab.host().ip(&format!("-o link show {}", interface(0)))?;
        let ifindex = index.split(':').next().context("no index")?.trim().parse()?;
        let kernel = Kernel::open(lab.bpffs(), ifindex)?;
        fill_trie(&kernel, table)?;
        let load =
            |variant| Ok::<_, anyhow::Error>(Program::Variant(kernel.load(variant, table.family, false)?));
        let own = || Counts::In(lab.bpffs().to_owned());
        let mut measured = vec![
            Measured { name: "null", program: load(Variant::Null)?, counts: Counts::No },
            Measured { name: "limit", program: load(Variant::Line)?, counts: Counts::One },
            Measured { name: "floor", program: load(Variant::Floor)?, counts: Counts::No },
            Measured { name: "trie", program: load(Variant::Trie)?, counts: own() },
        ];
        let pinned = |bpffs: &std::path::Path| {
            SchedClassifier::from_pin(bpffs.join("programs/trafctl_ingress")).context("no pinned program")
        };
        let program = Program::Pinned(Box::new(pinned(lab.bpffs())?));
        measured.push(Measured { name: "trafctl", program, counts: own() });
        let shadow = lab.write("shadow", &in_other_classes(&table.class_file())?)?;
        lab.run_ok(&["classes".as_ref(), "shadow".as_ref(), shadow.as_os_str()])?;
        let program = Program::Pinned(Box::new(pinned(lab.bpffs())?));
        measured.push(Measured { name: WITH_SHADOW, program, counts: own() });
        lab.run_ok(&["detach"])?;
        if let Some(previous) = previous {
            let bpffs = lab.bpffs().join("previous");
            let run = |arguments: &[&str]| {
                let mut command: Command = lab.host().command(previous);
                command.arg("--bpffs").arg(&bpffs).arg("--state-dir").arg(lab.path("previous"));
                run_ok(command.arg("--config").arg(lab.config()).args(arguments))
            };
            // That version does not know `--yes`.
            run(&["attach", "--purge"])?;
            let program = Program::Pinned(Box::new(pinned(&bpffs)?));
            measured.push(Measured { name: "previous", program, counts: Counts::In(bpffs.clone()) });
            run(&["detach"])?;
        }
        let sender = Sender::of_family(node, table.family)?;
        let program = measured[0].program()?;
        let links = lab.host().enter(|| {
            (0..usize::from(CONTAINERS))
                .map(|number| {
                    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
                    let id = program.attach_with_options(&interface(number), TcAttachType::Ingress, order)?;
                    Ok(Some(program.take_link(id)?))
                })
                .collect::<Result<Vec<_>>>()
        })?;
        let mut sum = 0.0;
        let mut sizes: Vec<f64> = Vec::with_capacity(table.lines.len());
        for line in &table.lines {
            sum += 0.5_f64.powi(i32::try_from(line.len)?);
            sizes.push(sum);
        }
        sizes.iter_mut().for_each(|size| *size /= sum);
        let (columns, reference) = (kernel.classes()?, table.reference());
        Ok(Self {
            table,
            sender,
            measured,
            kernel,
            reference,
            columns,
            links,
            random: Random::new(0x5eed),
            sizes,
        })
    }

    fn round(&mut self, case: &str, peers: Peers, round: usize, results: &mut Results) -> Result<()> {
        let addresses = self.draw(peers, WARM + SLICE);
        let expected = self.expected(&addresses)?;
        let addresses: Vec<Address> = addresses.into_iter().map(words).collect();
        let count = self.measured.len();
        for number in 0..count {
            // Each round begins with another program, so that none always follows the same one.
            let number = (number + round) % count;
            let name = self.measured[number].name;
            self.kernel.set_shadow(name == WITH_SHADOW)?;
            let before = self.counted(number)?;
            let (run, cpu) = self.slice(number, &addresses).with_context(|| format!("{case}, {name}"))?;
            let after = self.counted(number)?;
            let counted: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
            match self.measured[number].counts {
                Counts::No => {}
                Counts::One => {
                    // Each packet adds its length and its column.
                    let packets: u64 = expected.iter().sum();
                    let columns: u64 = (0..).zip(&expected).map(|(column, count)| column * count).sum();
                    let lengths = counted[1].checked_sub(columns).context("too few columns")?;
                    ensure!(
                        counted[0] == packets && lengths.is_multiple_of(packets),
                        "{case}: {name} counted {counted:?} for {packets} packets, whose columns sum to {columns}"
                    );
                }
                Counts::In(_) => {
                    ensure!(
                        counted == expected,
                        "{case}: {name} counted {counted:?} instead of {expected:?}"
                    );
                }
            }
            results.push(RUN, case, name, (run, "ns/packet"));
            results.push(CPU, case, name, (cpu, "ns/packet"));
        }
        Ok(())
    }

    /// What a program has counted so far.
    fn counted(&self, number: usize) -> Result<Vec<u64>> {
        match &self.measured[number].counts {
            Counts::No => Ok(Vec::new()),
            Counts::One => self.kernel.counted_in_one().map(|(packets, bytes)| vec![packets, bytes]),
            Counts::In(bpffs) => counted_by_all(bpffs, self.table.family, COLUMNS),
        }
    }

    /// The number of these addresses by column.
    fn expected(&self, addresses: &[u128]) -> Result<Vec<u64>> {
        let mut by_column = vec![0; COLUMNS as usize];
        for &address in addresses {
            let class = self.reference.class(address);
            by_column[*self.columns.get(&class).context("a class without a column")? as usize] += 1;
        }
        Ok(by_column)
    }

    /// Attaches a program everywhere and sends. Returns its run time and the sender's CPU time for a packet.
    fn slice(&mut self, number: usize, addresses: &[Address]) -> Result<(f64, f64)> {
        let measured = &mut self.measured[number];
        let program = measured.program()?;
        // An exchange takes no grace period, unlike attaching.
        for link in &mut self.links {
            let Some(attached) = link.take() else { continue };
            let id = program.attach_to_link(attached)?;
            *link = Some(program.take_link(id)?);
        }
        let containers = usize::from(CONTAINERS);
        self.sender.send(&addresses[..WARM], containers)?;
        // The kernel keeps the time only while this is open.
        let statistics = enable_stats(Stats::RunTime).context("cannot enable the statistics of programs")?;
        let before = measured.statistics()?;
        let with = self.sender.send(&addresses[WARM..], containers)?;
        let after = measured.statistics()?;
        drop(statistics);
        let runs = after.1 - before.1;
        ensure!((runs - SLICE as f64).abs() < 1.0, "the program ran {runs} times for {SLICE} packets");
        Ok(((after.0 - before.0) / runs, with.cost()))
    }

    fn draw(&mut self, peers: Peers, count: usize) -> Vec<u128> {
        let by_size = matches!(peers, Peers::ZipfAddresses | Peers::Addresses);
        match peers {
            Peers::Single => vec![self.address(false); count],
            Peers::Prefixes | Peers::Addresses => (0..count).map(|_| self.address(by_size)).collect(),
            Peers::ZipfPrefixes | Peers::ZipfAddresses => {
                let known: Vec<u128> = (0..ZIPF_PEERS).map(|_| self.address(by_size)).collect();
                let zipf = Zipf::new(ZIPF_PEERS);
                (0..count).map(|_| known[zipf.draw(&mut self.random)]).collect()
            }
        }
    }

    /// An address that the node routes.
    fn address(&mut self, by_size: bool) -> u128 {
        loop {
            let address = if by_size {
                let fraction = self.random.fraction();
                let line = self.sizes.partition_point(|&upto| upto <= fraction);
                self.table.address_in(line.min(self.sizes.len() - 1), &mut self.random)
            } else {
                self.table.address(&mut self.random)
            };
            let is_routed = match self.table.family {
                Family::Ipv4 => !matches!(address >> 120, 0 | 10 | 127 | 224..),
                Family::Ipv6 => address >> 125 == 1,
            };
            if is_routed {
                return address;
            }
        }
    }
}
