//! Part 3: the operations for which an operator waits. 1,000 interfaces, 1,000 containers with 16 classes,
//! 800,000 prefixes, and nftables with as many counters and the same map. The drains are in [`drains`].

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use aya::{
    maps::{Map, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use traffic_common::{BLOCK_COLUMNS, ClassBlock, DIRECTIONS, FAMILIES, Family, Tally, blocks_of};
use traffic_tests::{Lab, Namespace, process::run_with_input};

use crate::{
    drains,
    process::{Taken, timed, timed_ending},
    progress::Progress,
    results::Results,
    table::{CLASSES, Nesting, Table},
};

/// The name of the elapsed times.
pub const PART: &str = "control";
/// The name of the CPU times.
const CPU: &str = "control, CPU";
/// The load of a class table.
pub const LOAD: &str = "load 800,000 prefixes";
/// The reading of all counters.
pub const DUMP: &str = "dump 1,000 containers";
/// A dump as a table; the others are JSON.
pub const AS_TABLE: &str = "trafctl, as a table";
const STATUS: &str = "status of 1,000 interfaces";
const ATTACH: &str = "attach 1,000 interfaces";

pub const CONTAINERS: u32 = 1000;
const FIRST_CONTAINER: u32 = 1001;
const PREFIXES: usize = 800_000;
/// Columns of a container: class 0 and the others.
pub const COLUMNS: u32 = CLASSES as u32 + 1;

/// Runs the measurement.
pub fn run(rounds: usize, results: &mut Results, progress: &Progress) -> Result<()> {
    progress.note("control: creating 1,000 interfaces and 800,000 prefixes");
    let table = Table::new(Family::Ipv4, PREFIXES, Nesting::Avoided, 7);
    let lab = Lab::new("control")?;
    let initial: String = (0..=CLASSES).map(|class| format!("{class} 198.51.{class}.0/24\n")).collect();
    let initial = lab.write("classes-initial", &initial)?;
    lab.configure(&format!(
        "class_file = {initial:?}\n[limits]\ncontainers = 1024\ninterfaces = 1100\nclasses = {COLUMNS}\n\
         [drain]\ninterval = \"2s\"\n"
    ))?;
    let big = lab.write("classes-big", &table.class_file())?;
    let big = big.to_str().context("the path is not UTF-8")?.to_owned();
    let links: String = (FIRST_CONTAINER..FIRST_CONTAINER + CONTAINERS)
        .map(|id| format!("link add veth{id}.0 type veth peer name guest{id}\n"))
        .collect();
    lab.host().ip_batch(&links)?;
    // The first attach creates the maps, which must not be part of the measurement.
    lab.run_ok(&["attach"])?;
    lab.run_ok(&["detach"])?;
    let mut counters = AllCounters::open(&lab, CONTAINERS, COLUMNS)?;
    counters.raise()?;
    let nft = Nft::new(&lab, &table)?;

    for round in 0..rounds {
        progress.note(&format!("control: round {} of {rounds}", round + 1));
        push(results, ATTACH, "trafctl", timed(&mut lab.trafctl(&["attach"])?)?);
        // With a table in force that is not the class file's, it finds a problem.
        push(results, STATUS, "trafctl", timed_ending(&mut lab.trafctl(&["status"])?, &[0, 1])?);
        push(results, DUMP, "trafctl", timed(&mut lab.trafctl(&["dump", "--all", "--format", "json"])?)?);
        push(results, DUMP, AS_TABLE, timed(&mut lab.trafctl(&["dump", "--all"])?)?);
        push(results, DUMP, "nft list counters", nft.list_counters()?);
        push(results, LOAD, "trafctl", timed(&mut lab.trafctl(&["classes", "load", "--yes", &big])?)?);
        push(results, LOAD, "nft -f", nft.load_map()?);
        lab.run_ok(&["detach"])?;
    }
    lab.run_ok(&["attach"])?;
    drains::run(&lab, &mut counters, rounds, (results, progress))
}

fn push(results: &mut Results, case: &str, variant: &'static str, taken: Taken) {
    results.push(PART, case, variant, (taken.wall, "s"));
    results.push(CPU, case, variant, (taken.cpu, "s"));
}

/// The counters of all containers, written as if packets had passed.
pub struct AllCounters {
    counters: PerCpuArray<MapData, ClassBlock>,
    cpus: usize,
    blocks: u32,
    raised: u64,
}

impl AllCounters {
    /// Those of the first containers, of so many columns each.
    pub fn open(lab: &Lab, containers: u32, columns: u32) -> Result<Self> {
        let data = MapData::from_pin(lab.bpffs().join("maps/CLASS_COUNTERS"))?;
        let counters = Map::from_map_data(data)?.try_into()?;
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        Ok(Self { counters, cpus, blocks: containers * blocks_of(columns), raised: 0 })
    }

    /// Makes every counter grow by a different amount.
    pub fn raise(&mut self) -> Result<()> {
        self.raised += 1;
        for index in 0..self.blocks {
            let mut value =
                ClassBlock { tallies: [[[Tally::default(); BLOCK_COLUMNS as usize]; DIRECTIONS]; FAMILIES] };
            for (number, tally) in (1..).zip(value.tallies.as_flattened_mut().as_flattened_mut()) {
                let packets = self.raised * (u64::from(index) * 64 + number);
                *tally = Tally { packets, bytes: packets * 100 };
            }
            let values = vec![value; self.cpus];
            self.counters.set(index, PerCpuValues::try_from(values)?, 0)?;
        }
        Ok(())
    }
}

/// nftables with the same map, and a counter for each container, class, family and direction.
struct Nft {
    map: Namespace,
    counters: Namespace,
    file: String,
}

impl Nft {
    fn new(lab: &Lab, table: &Table) -> Result<Self> {
        let file = lab.write("map.nft", &format!("table netdev bench {{\n{}}}\n", class_map(table)))?;
        let counters = Namespace::new("counters")?;
        let mut text = "table netdev bench {\n".to_owned();
        for container in FIRST_CONTAINER..FIRST_CONTAINER + CONTAINERS {
            for class in 0..=CLASSES {
                for way in ["in4", "out4", "in6", "out6"] {
                    // A write to a string cannot fail.
                    let _ = writeln!(
                        text,
                        "counter c{container}_{class}_{way} {{ packets {container} bytes 7 }}"
                    );
                }
            }
        }
        run_with_input(counters.command("nft").args(["-f", "-"]), &(text + "}\n"))?;
        let file = file.to_str().context("the path is not UTF-8")?.to_owned();
        Ok(Self { map: Namespace::new("map")?, counters, file })
    }

    fn list_counters(&self) -> Result<Taken> {
        timed(self.counters.command("nft").args(["-j", "list", "counters"]))
    }

    fn load_map(&self) -> Result<Taken> {
        let taken = timed(self.map.command("nft").args(["-f", &self.file]))?;
        timed(self.map.command("nft").args(["delete", "table", "netdev", "bench"]))?;
        Ok(taken)
    }
}

/// A class table as an nftables map from prefix to mark.
pub fn class_map(table: &Table) -> String {
    let mut text = "map classes {\ntype ipv4_addr : mark; flags interval;\nelements = {\n".to_owned();
    for line in &table.lines {
        let _ = writeln!(text, "{} : {},", table.prefix(line), line.class);
    }
    text + "}\n}\n"
}
