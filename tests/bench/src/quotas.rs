//! Part 6: quotas between two drains. From the byte that reaches a threshold to the start of its action, and what the
//! looks for that cost, with 1,000 containers that are close to one.
//!
//! Counters are written as if packets had passed, so that the instant of the byte is known. The action is a shell,
//! which notes the time: its own start is part of the figure.

use std::{
    fs,
    path::Path,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::{Map, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use traffic_common::{BLOCK_COLUMNS, ClassBlock, DIRECTIONS, FAMILIES, Tally, blocks_of};
use traffic_tests::{
    Lab,
    check::eventually,
    process::{Process, run_ok},
};

use crate::{progress::Progress, results::Results};

/// The name of the figures.
pub const PART: &str = "quotas";
/// From the byte that reaches a threshold to the start of the action.
pub const LATENCY: &str = "crossing byte to the action's start, 1,000 containers";
/// The CPU of the daemon while nothing is counted, in percent of a core.
pub const DAEMON_CPU: &str = "the daemon's CPU, 1,000 containers";
/// The same of the process that runs actions.
pub const RUNNER_CPU: &str = "the CPU of `quota run`, 1,000 containers";
/// All are close to a threshold.
pub const CLOSE: &str = "close";
/// No container is close to a threshold.
pub const FAR: &str = "far";

const CONTAINERS: u32 = 1000;
const FIRST_CONTAINER: u32 = 1001;
/// Classes in use besides class 0.
const CLASSES: u32 = 15;
/// What each container has used at first.
const USED: u64 = 900_000_000;
/// The least number of crossings that are measured.
const LEAST_CROSSINGS: usize = 20;
/// How long the CPU is measured in each round: all that a minute has, a drain among it.
const WINDOW: Duration = Duration::from_mins(1);
/// How often that is done at most.
const MOST_WINDOWS: usize = 3;

/// Runs the measurement.
pub fn run(rounds: usize, results: &mut Results, progress: &Progress) -> Result<()> {
    progress.note("quotas: creating 1,000 interfaces");
    let lab = Lab::new("quotas")?;
    let classes: String = (0..=CLASSES).map(|class| format!("{class} 198.51.{class}.0/24\n")).collect();
    let classes = lab.write("classes", &classes)?;
    lab.configure(&format!(
        "class_file = {classes:?}\n[limits]\ncontainers = 1024\ninterfaces = 1100\nclasses = {}\n",
        CLASSES + 1
    ))?;
    let links: String = (FIRST_CONTAINER..FIRST_CONTAINER + CONTAINERS)
        .map(|id| format!("link add veth{id}.0 type veth peer name guest{id}\n"))
        .collect();
    lab.host().ip_batch(&links)?;
    lab.run_ok(&["attach"])?;
    let mut counters = Counters::open(&lab)?;
    for slot in 0..CONTAINERS {
        counters.set(slot, USED)?;
    }
    let started = lab.path("started");
    // 100 MB are left: less than what the fastest container counts in the shortest time between two looks.
    for (allowance, variant) in [("10TB", FAR), ("1GB", CLOSE)] {
        quotas(&lab, allowance, &started)?;
        let daemon = background(&lab, &["run"])?;
        let runner = background(&lab, &["quota", "run"])?;
        followed(&lab).with_context(|| fs::read_to_string(lab.path("run.log")).unwrap_or_default())?;
        let windows = rounds.min(MOST_WINDOWS);
        for round in 0..windows {
            progress.note(&format!("quotas, CPU with all {variant}: round {} of {windows}", round + 1));
            let before = (cpu(&daemon)?, cpu(&runner)?, Instant::now());
            sleep(WINDOW);
            let seconds = before.2.elapsed().as_secs_f64();
            let share = |now: f64, before: f64| (now - before) / seconds * 100.0;
            results.push(PART, DAEMON_CPU, variant, (share(cpu(&daemon)?, before.0), "%"));
            results.push(PART, RUNNER_CPU, variant, (share(cpu(&runner)?, before.1), "%"));
        }
        if variant == CLOSE {
            crossings(&mut counters, &started, rounds.max(LEAST_CROSSINGS), results, progress)?;
        }
        for process in [runner, daemon] {
            ensure!(process.terminate(Duration::from_secs(10))?.success(), "a process did not end well");
        }
    }
    Ok(())
}

/// Has one container after the other reach its allowance.
fn crossings(
    counters: &mut Counters,
    started: &Path,
    rounds: usize,
    results: &mut Results,
    progress: &Progress,
) -> Result<()> {
    for round in 0..rounds {
        progress.note(&format!("quotas, crossings: round {} of {rounds}", round + 1));
        // At all phases of looks and drains: the steps are a golden section of what repeats.
        sleep(Duration::from_millis(1500 + (round as u64 * 618) % 1000));
        let slot = u32::try_from(round * 37)? % CONTAINERS;
        counters.set(slot, USED + 100_000_000)?;
        let crossed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let mut at = 0;
        eventually("the action starts", || {
            let text = fs::read_to_string(started).unwrap_or_default();
            let line = text.lines().nth(round).unwrap_or_default();
            at = line.parse::<u128>().unwrap_or(0);
            Ok(at > 0 && text.ends_with('\n'))
        })?;
        let nanoseconds = at.checked_sub(crossed).context("the action started before the byte")?;
        results.push(PART, LATENCY, CLOSE, (nanoseconds as f64 / 1e9, "s"));
    }
    Ok(())
}

fn quotas(lab: &Lab, allowance: &str, started: &Path) -> Result<()> {
    let text = format!(
        "[[action]]\nname = 'note'\ncommand = ['/bin/sh', '-c', 'date +%s%N >>{}']\n\
         [[quota]]\nname = 'traffic'\ndefault = true\nallowance = '{allowance}'\nthresholds = ['100%']\n\
         actions = {{ '100%' = ['note'] }}\n",
        started.display()
    );
    Ok(fs::write(lab.config().with_file_name("quotas.toml"), text)?)
}

fn background(lab: &Lab, arguments: &[&str]) -> Result<Process> {
    let mut command = lab.trafctl(arguments)?;
    let log = fs::File::create(lab.path(&format!("{}.log", arguments.join("-"))))?;
    Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))
}

/// Waits until the ledger has a sum for each container.
fn followed(lab: &Lab) -> Result<()> {
    let ledger = lab.state_dir().join("ledger.sqlite");
    let count = format!("SELECT count(*) FROM quota_used WHERE in_bytes = {USED} AND next IS NOT NULL");
    let mut seen = String::new();
    eventually("all quotas are followed", || {
        let asked = run_ok(std::process::Command::new("sqlite3").arg("-readonly").arg(&ledger).arg(&count));
        seen = asked.unwrap_or_default();
        Ok(seen.trim() == CONTAINERS.to_string())
    })
    .with_context(|| format!("{seen} sums"))
}

/// CPU time of a process in seconds, with that of the kernel for it.
fn cpu(process: &Process) -> Result<f64> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{}/task", process.id()))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_whitespace().next().context("schedstat")?;
        nanoseconds += first.parse::<u64>()?;
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// The counters of containers, by slot.
struct Counters {
    map: PerCpuArray<MapData, ClassBlock>,
    cpus: usize,
}

impl Counters {
    fn open(lab: &Lab) -> Result<Self> {
        let data = MapData::from_pin(lab.bpffs().join("maps/CLASS_COUNTERS"))?;
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        Ok(Self { map: Map::from_map_data(data)?.try_into()?, cpus })
    }

    /// Has a container count so many bytes of class 1 to it, on the first CPU.
    fn set(&mut self, slot: u32, bytes: u64) -> Result<()> {
        let empty =
            ClassBlock { tallies: [[[Tally::default(); BLOCK_COLUMNS as usize]; DIRECTIONS]; FAMILIES] };
        let mut values = vec![empty; self.cpus];
        values[0].tallies[0][0][1] = Tally { packets: bytes / 1000, bytes };
        let index = slot * blocks_of(CLASSES + 1);
        Ok(self.map.set(index, PerCpuValues::try_from(values)?, 0)?)
    }
}
