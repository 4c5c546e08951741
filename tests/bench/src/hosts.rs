//! Part 7: a host with 1,000 containers of a platform whose interfaces have random names. What a look at all of them
//! costs, into their namespaces included, and how long it takes until the container of a new interface is known.
//!
//! A container is a network namespace with a name, a process in it, and a cgroup as LXC makes it.

use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use traffic_common::InterfaceRecord;
use traffic_tests::{
    Daemon, Lab, Resync,
    process::{Process, run_with_input},
};

use crate::{
    process::{Taken, cpu, timed_ending},
    progress::Progress,
    results::Results,
};

/// The name of the elapsed times.
pub const PART: &str = "hosts";
/// The name of the CPU times.
pub const CPU: &str = "hosts, CPU";
/// The look at all containers.
pub const SURVEY: &str = "`host`: all of 1,000 containers";
const STATUS: &str = "`status` of 1,000 containers";
/// A container that starts beside the others.
pub const IDENTITY: &str = "from the interface to its container, beside 1,000";
/// The service while nothing changes.
pub const DAEMON: &str = "the daemon for 30 s, 1,000 containers";

const CONTAINERS: usize = 1000;
/// How long the daemon's CPU is measured: three resyncs.
const WINDOW: Duration = Duration::from_secs(30);
/// No container may take longer to become known.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs the measurement.
pub fn run(rounds: usize, results: &mut Results, progress: &Progress) -> Result<()> {
    progress.note("hosts: creating 1,000 containers");
    let lab = Lab::new("hosts")?;
    let classes = lab.write("classes", "1 0.0.0.0/0\n1 ::/0\n")?;
    lab.configure(&format!("class_file = {classes:?}\n[limits]\ncontainers = 2048\ninterfaces = 2048\n"))?;
    let all = Containers::start(&lab, CONTAINERS)?;
    lab.run_ok(&["attach"])?;
    for round in 0..rounds {
        progress.note(&format!("hosts: round {} of {rounds}", round + 1));
        push(results, SURVEY, timed_ending(&mut lab.trafctl(&["host", "--format", "json"])?, &[0, 1])?);
        push(results, STATUS, timed_ending(&mut lab.trafctl(&["status"])?, &[0, 1])?);
    }
    let mut daemon = Daemon::start_with(&lab, Resync::AsShipped)?;
    daemon.settled()?;
    let records = MapData::from_pin(lab.bpffs().join("maps/INTERFACES"))?;
    let records: Array<MapData, InterfaceRecord> = Map::Array(records).try_into()?;
    for round in 0..rounds {
        progress.note(&format!("hosts, a new one: round {} of {rounds}", round + 1));
        let number = CONTAINERS + round;
        let container = Containers::without_interfaces(&lab, number..number + 1)?;
        let begun = Instant::now();
        container.connect(&lab)?;
        let id = container.id(number);
        while !records.iter().any(|record| record.is_ok_and(|record| is_of(&record, &id))) {
            ensure!(begun.elapsed() < LIMIT, "{id} is not known after {LIMIT:?}: {}", daemon.log());
            sleep(Duration::from_millis(1));
        }
        results.push(PART, IDENTITY, "trafctl", (begun.elapsed().as_secs_f64(), "s"));
    }
    progress.note("hosts: the daemon's CPU");
    let before = cpu(daemon.id())?;
    sleep(WINDOW);
    results.push(CPU, DAEMON, "trafctl", (cpu(daemon.id())? - before, "s"));
    drop(all);
    daemon.stop_after_errors()
}

fn push(results: &mut Results, case: &str, taken: Taken) {
    results.push(PART, case, "trafctl", (taken.wall, "s"));
    results.push(CPU, case, "trafctl", (taken.cpu, "s"));
}

/// Whether a record is of a container. Its name ends with a zero byte.
fn is_of(record: &InterfaceRecord, id: &str) -> bool {
    record.ifindex != 0 && record.container.split(|&byte| byte == 0).next() == Some(id.as_bytes())
}

/// Containers with numbers of a range. They end with this value.
struct Containers {
    prefix: String,
    cgroups: PathBuf,
    numbers: std::ops::Range<usize>,
    processes: Vec<Process>,
}

impl Containers {
    fn start(lab: &Lab, count: usize) -> Result<Self> {
        let all = Self::without_interfaces(lab, 0..count)?;
        all.connect(lab)?;
        Ok(all)
    }

    /// Makes the namespaces, the processes in them and their cgroups.
    fn without_interfaces(lab: &Lab, numbers: std::ops::Range<usize>) -> Result<Self> {
        let places =
            ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"].map(PathBuf::from);
        let cgroups = places.into_iter().find(|place| place.join("cgroup.procs").exists());
        let cgroups = cgroups.context("no cgroups are mounted below /sys/fs/cgroup")?;
        let prefix = format!("{}-b", lab.host().name());
        let mut all = Self { prefix, cgroups, numbers, processes: Vec::new() };
        all.for_each_name("netns add ")?;
        for number in all.numbers.clone() {
            let cgroup = all.cgroup(number);
            fs::create_dir_all(&cgroup).with_context(|| format!("cannot create {}", cgroup.display()))?;
            let mut command = std::process::Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{}", all.name(number))).args(["sleep", "3600"]);
            let process = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
            fs::write(cgroup.join("cgroup.procs"), process.id().to_string())?;
            all.processes.push(process);
        }
        Ok(all)
    }

    /// Gives each an interface whose name says nothing.
    fn connect(&self, lab: &Lab) -> Result<()> {
        let line = |number| {
            format!("link add vethx{number:x} type veth peer name eth0 netns {}\n", self.name(number))
        };
        lab.host().ip_batch(&self.numbers.clone().map(line).collect::<String>())
    }

    fn name(&self, number: usize) -> String {
        format!("{}{number}", self.prefix)
    }

    /// The id of the container.
    fn id(&self, number: usize) -> String {
        format!("bench-{}-{number}", std::process::id())
    }

    fn cgroup(&self, number: usize) -> PathBuf {
        self.cgroups.join(format!("lxc.payload.{}", self.id(number)))
    }

    fn for_each_name(&self, what: &str) -> Result<()> {
        let lines: String =
            self.numbers.clone().map(|number| format!("{what}{}\n", self.name(number))).collect();
        run_with_input(std::process::Command::new("ip").args(["-batch", "-"]), &lines).map(drop)
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        self.processes.clear();
        // A drop cannot report an error. What is left of the cgroups is empty.
        let _ = self.for_each_name("netns delete ");
        for number in self.numbers.clone() {
            let _ = fs::remove_dir(self.cgroup(number));
        }
    }
}
