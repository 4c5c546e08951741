//! A long run: mixed traffic on every kind of interface while classes are reloaded, interfaces come and go,
//! and the daemon is killed. At the end every packet and byte must be in the ledger exactly once, and the
//! daemon's memory must not have grown.
//!
//! - [`senders`]: the flows, each with a count of its own.
//! - [`memory`]: the daemon's memory over time.
//! - this file: the run and the comparison.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::check::{agrees_with_kernel, booked, eventually, is_well};
use crate::container::introduce;
use crate::witness::{NftCounter, StrayResets};
use crate::{Amounts, Counters, Daemon, Lab, Resync};

pub mod memory;
pub mod senders;

use memory::Memory;
use senders::{MACHINE, Senders, Tally};

/// The pause between two disturbances.
const DISTURB: Duration = Duration::from_secs(2);

/// The result of a run.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Length of the traffic in seconds.
    pub seconds: u64,
    /// For each container the figures of the senders, the counters and the ledger.
    pub rows: Vec<Row>,
    /// Class tables loaded.
    pub reloads: u32,
    /// Interfaces created and removed.
    pub churned: u32,
    /// Kills of the daemon.
    pub kills: u32,
    /// Gaps in the ledger, by reason.
    pub gaps: BTreeMap<String, u32>,
    /// The daemon's memory.
    pub memory: Memory,
}

/// One container, or one fault.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The id of the container, or the name of the fault.
    pub what: String,
    /// The senders' own count.
    pub sent: Amounts,
    /// The live counters.
    pub counted: Amounts,
    /// The ledger.
    pub booked: Amounts,
}

impl Row {
    /// Whether all three agree.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.sent == self.counted && self.sent == self.booked
    }
}

impl Summary {
    /// Everything that is wrong, as one sentence each.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self
            .rows
            .iter()
            .filter(|row| !row.is_exact())
            .map(|row| format!("{}: the figures differ: {row:?}", row.what))
            .collect();
        faults.extend(
            self.rows
                .iter()
                .filter(|row| row.sent == Amounts::default())
                .map(|row| format!("{}: nothing was sent", row.what)),
        );
        // Interfaces of the churn may have passed packets before they were attached. They belong to no
        // container here.
        for reason in ["counter_lost", "counters_renewed", "reboot", "class_table_mixed"] {
            if self.gaps.contains_key(reason) {
                faults.push(format!("the ledger has a gap for {reason}"));
            }
        }
        faults.extend(self.memory.fault());
        faults
    }
}

/// The progress of a run.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Seconds so far.
    pub seconds: u64,
    /// Packets sent so far.
    pub packets: u64,
    /// Kills of the daemon so far.
    pub kills: u32,
    /// The daemon's memory in KiB.
    pub memory_kib: u64,
}

/// Runs for a time, then compares.
///
/// # Errors
///
/// When an action or a reading fails. Figures that differ are not an error; see [`Summary::faults`].
pub fn run(length: Duration, mut progress: impl FnMut(Progress)) -> Result<Summary> {
    let lab = Lab::new("soak")?;
    // Two tables with a different class for every packet, and enough prefixes to take some time.
    let table = |shift: u32| {
        let many: String =
            (0..5000_u32).map(|n| format!("{} 172.{}.{}.0/24\n", 4 + shift, 16 + n / 256, n % 256)).collect();
        format!("{} 0.0.0.0/0\n{} ::/0\n{} 10.1.0.0/16\n{many}", 1 + shift, 1 + shift, 2 + shift)
    };
    let classes = lab.write("classes", &table(0))?;
    let files = [lab.write("even", &table(0))?, lab.write("odd", &table(1))?];
    lab.configure(&format!("class_file = {classes:?}\n[drain]\ninterval = \"1s\"\n"))?;

    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    let machine = lab.tap("vme201.0")?;
    machine.on_bridge(lab.bridge()?, MACHINE)?;
    let venet = lab.venet()?;
    let near = venet.container("301", [10, 3, 0, 1].into(), "fd00:3::1".parse()?)?;
    let far = venet.container("302", [10, 3, 0, 2].into(), "fd00:3::2".parse()?)?;
    for (id, address) in
        [("301", "10.3.0.1"), ("301", "fd00:3::1"), ("302", "10.3.0.2"), ("302", "fd00:3::2")]
    {
        lab.run_ok(&["address", "add", id, address])?;
    }
    let tally = Tally::default();
    let resets = [
        ("101", "102", StrayResets::watch(a.namespace())?),
        ("102", "101", StrayResets::watch(b.namespace())?),
        ("301", "302", StrayResets::watch(near.namespace())?),
        ("302", "301", StrayResets::watch(far.namespace())?),
    ];
    let senders = Senders { a: &a, b: &b, machine: &machine, near: &near, far: &far, tally: &tally };
    let mut disturber = Disturber {
        daemon: Daemon::start_with(&lab, Resync::AsShipped)?,
        lab: &lab,
        files: files.map(|file| file.display().to_string()),
        reloads: 0,
        churned: 0,
        kills: 0,
    };
    is_well(&lab)?;

    let begin = Instant::now();
    let mut memory = Memory::default();
    thread::scope(|scope| -> Result<()> {
        let running = senders.start(scope);
        let disturbed = disturb(&mut disturber, begin, length, |disturber| {
            let memory_kib = memory.read(disturber.daemon.id(), begin.elapsed())?;
            progress(Progress {
                seconds: begin.elapsed().as_secs(),
                packets: tally.packets(),
                kills: disturber.kills,
                memory_kib,
            });
            Ok(())
        });
        // The senders must end even after an error, because the scope waits for them.
        tally.stop();
        let sent = running
            .into_iter()
            .map(|sender| sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let sent: Result<Vec<()>> = sent.collect();
        disturbed?;
        sent.map(drop)
    })?;
    ensure!(venet.lost() == 0, "the venet0 of the lab lost {} packets", venet.lost());
    let seconds = begin.elapsed().as_secs();

    let Disturber { daemon, reloads, churned, kills, .. } = disturber;
    let counters = Counters::at_rest(&lab)?;
    for interface in [a.interface(), b.interface(), machine.interface(), venet.interface()] {
        agrees_with_kernel(&lab, &counters, interface)?;
    }
    eventually("status reports no problem", || Ok(is_well(&lab).is_ok()))?;
    daemon.stop().context("cannot stop the last daemon")?;
    for (from, to, resets) in &resets {
        let NftCounter { packets, bytes } = resets.read()?;
        tally.moved(from, to, (packets, bytes));
    }
    let rows = compare(&lab, &counters, &tally)?;
    let audit = lab.run_json(&["audit", "--format", "json"])?;
    ensure!(audit["problems"].as_array().is_some_and(Vec::is_empty), "{audit}");
    let mut gaps = BTreeMap::new();
    for gap in lab.run_json(&["gaps", "--format", "json"])?["gaps"].as_array().into_iter().flatten() {
        *gaps.entry(gap["reason"].as_str().unwrap_or("?").to_owned()).or_insert(0) += 1;
    }
    Ok(Summary { seconds, rows, reloads, churned, kills, gaps, memory })
}

fn compare(lab: &Lab, counters: &Counters, tally: &Tally) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (what, sent) in tally.totals() {
        let row = match what.strip_prefix("not_ip ") {
            None => Row {
                sent,
                counted: counters.container(what),
                booked: booked(lab, what)?,
                what: what.to_owned(),
            },
            Some(interface) => Row {
                sent,
                counted: counters.fault(interface, "not_ip"),
                booked: senders::booked_fault(lab, interface)?,
                what: what.to_owned(),
            },
        };
        rows.push(row);
    }
    Ok(rows)
}

/// The daemon and its disturbances.
struct Disturber<'a> {
    daemon: Daemon,
    lab: &'a Lab,
    files: [String; 2],
    reloads: u32,
    churned: u32,
    kills: u32,
}

impl Disturber<'_> {
    fn reload(&mut self) -> Result<()> {
        self.reloads += 1;
        let file = &self.files[self.reloads as usize % 2];
        self.lab.run_ok(&["classes", "load", file]).map(drop)
    }

    fn churn(&mut self) -> Result<()> {
        const AT_ONCE: u32 = 10;
        let first = 1000 + self.churned % 5000;
        let lines = |line: &dyn Fn(u32) -> String| (first..first + AT_ONCE).map(line).collect::<String>();
        self.lab
            .host()
            .ip_batch(&lines(&|id| format!("link add veth{id}.0 up type veth peer name peer{id}\n")))?;
        self.lab.host().ip_batch(&lines(&|id| format!("link delete veth{id}.0\n")))?;
        self.churned += AT_ONCE;
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        self.daemon.kill()?;
        self.kills += 1;
        self.daemon = Daemon::start_with(self.lab, Resync::AsShipped)?;
        Ok(())
    }
}

/// Disturbs in turns until the time is over. Kills happen only in the first half, so that one daemon lives
/// long enough to judge its memory.
fn disturb(
    disturber: &mut Disturber<'_>,
    begin: Instant,
    length: Duration,
    mut each: impl FnMut(&Disturber<'_>) -> Result<()>,
) -> Result<()> {
    let mut turn = 0_u32;
    while begin.elapsed() < length {
        match turn % 3 {
            0 => disturber.reload()?,
            1 => disturber.churn()?,
            _ if begin.elapsed() < length / 2 => disturber.kill()?,
            _ => disturber.reload()?,
        }
        turn += 1;
        each(disturber)?;
        // This sets the pace of a run whose length was requested. It does not wait for a condition.
        thread::sleep(DISTURB.min(length / 20));
    }
    Ok(())
}
