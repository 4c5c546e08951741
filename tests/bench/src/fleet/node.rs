//! A node that counts and ships at once: what a bucket of all containers costs the shipper, and how long drains take
//! while a backlog ships.
//!
//! The server would be another machine. While drains are measured, it runs at a low priority, so that it takes the CPU
//! that the node leaves.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use traffic_tests::{Lab, process::Process};

use super::{
    ALONE, BUCKET, CLASSES, CPU, DRAINS, Scale, drain_case, fill,
    server::{Kind, Server},
    today,
};
use crate::{
    control::AllCounters, drains::Drained, process::cpu, progress::Progress, results::Results,
    statistics::Summary,
};

const FIRST_CONTAINER: u32 = 1001;
/// The longest wait for a drain.
const PATIENCE: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);

/// Runs both measurements with each kind of store.
pub fn run(scale: Scale, rounds: usize, results: &mut Results, progress: &Progress) -> Result<()> {
    for has_backlog in [false, true] {
        let (lab, days) =
            (Lab::new("fleet-node")?, if has_backlog { scale.backlog_beside_drains() } else { 0 });
        progress.note(&format!("fleet: creating {} interfaces, {days} days behind", scale.containers()));
        let drains = Drains::start(&lab, scale.containers(), days)?;
        for kind in Kind::ALL {
            let server = Server::start(kind, lab.host())?;
            if has_backlog {
                server.yield_cpu()?;
                beside_a_backlog(&lab, (&server, kind), (&drains, scale, rounds), (results, progress))?;
            } else {
                progress.note(&format!("fleet: buckets to {}", kind.name()));
                server.empty_store(&lab)?;
                one_bucket(&lab, (&server, kind), scale, results)?;
            }
        }
    }
    Ok(())
}

/// Measures drains while a backlog ships, and alone, in turn.
fn beside_a_backlog(
    lab: &Lab,
    (server, kind): (&Server<'_>, Kind),
    (drains, scale, rounds): (&Drains, Scale, usize),
    (results, progress): (&mut Results, &Progress),
) -> Result<()> {
    for round in 0..rounds {
        progress.note(&format!("fleet, drains beside {}: round {} of {rounds}", kind.name(), round + 1));
        server.empty_store(lab)?;
        let alone = drains.median(scale.drains())?;
        let mut shipper =
            Process::spawn(&mut quiet(lab.trafctl(&["ship", "--once", "--to", &server.url()])?))?;
        let beside = drains.median(scale.drains())?;
        let has_ended = shipper.child().try_wait()?.is_some();
        // A few containers have no backlog that takes as long as a drain.
        ensure!(
            scale == Scale::Tiny || !has_ended,
            "the backlog was shipped before the drains were measured"
        );
        drop(shipper);
        let case = drain_case(kind.name());
        results.push(DRAINS, &case, kind.name(), (beside, "ms"));
        results.push(DRAINS, &case, ALONE, (alone, "ms"));
    }
    Ok(())
}

/// Measures the CPU of a shipper that gets one bucket of all containers after the other.
fn one_bucket(
    lab: &Lab,
    (server, kind): (&Server<'_>, Kind),
    scale: Scale,
    results: &mut Results,
) -> Result<()> {
    let mut command = lab.trafctl(&["ship", "--to", &server.url()])?;
    command.env("TRAFCTL_LOG", "warn,trafctl=debug").stdin(Stdio::null()).stdout(Stdio::null());
    let mut shipper = Process::spawn(command.stderr(Stdio::piped()))?;
    let stderr = shipper.child().stderr.take().context("the shipper's messages")?;
    let rounds = lines(stderr, |line| Shipped::of(&line));
    let series = u64::from(scale.containers()) * u64::from(CLASSES) * 2;
    let (mut before, mut buckets, mut used) = (None, 0.0, 0.0);
    for _ in 0..scale.drains() * 2 {
        let shipped = received(&rounds, "a round of the shipper")?;
        let now = cpu(shipper.id())?;
        match before {
            // The start of the process is not of a bucket.
            None => before = Some(now),
            Some(_) => buckets += (shipped.rows / series) as f64,
        }
        used = now - before.unwrap_or(now);
    }
    ensure!(buckets > 0.0, "the shipper got no whole bucket");
    results.push(CPU, &bucket_case(scale), kind.name(), (used / buckets, "s"));
    ensure!(shipper.terminate(STOP)?.success(), "the shipper did not end well");
    Ok(())
}

fn bucket_case(scale: Scale) -> String {
    if scale == Scale::Tiny { "one bucket of a few containers".to_owned() } else { BUCKET.to_owned() }
}

fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A daemon that drains once a second, and the counters that grow in between.
struct Drains {
    // Its end ends the thread that reads its log.
    _daemon: Process,
    drained: Receiver<Drained>,
    rows: u64,
}

impl Drains {
    /// On a node with so many interfaces, whose ledger has some days before it.
    fn start(lab: &Lab, containers: u32, days: i64) -> Result<Self> {
        let classes: String = (0..CLASSES).map(|class| format!("{class} 198.51.{class}.0/24\n")).collect();
        let classes = lab.write("classes", &classes)?;
        lab.configure(&format!(
            "class_file = {classes:?}\nnode = 'node1'\n[limits]\ncontainers = 1024\ninterfaces = 1100\nclasses = \
             {CLASSES}\n[drain]\ninterval = '1s'\n[ship]\ninterval = '1s'\n"
        ))?;
        if days > 0 {
            fill(&lab.state_dir().join("ledger.sqlite"), (containers, days), 300, today()?)?;
        }
        let links: String = (FIRST_CONTAINER..FIRST_CONTAINER + containers)
            .map(|id| format!("link add veth{id}.0 type veth peer name guest{id}\n"))
            .collect();
        lab.host().ip_batch(&links)?;
        lab.run_ok(&["attach"])?;
        let mut counters = AllCounters::open(lab, containers, u32::from(CLASSES))?;
        counters.raise()?;
        let mut command = lab.trafctl(&["run"])?;
        command.env("TRAFCTL_LOG", "warn,trafctl=debug").stdin(Stdio::null()).stdout(Stdio::null());
        let mut daemon = Process::spawn(command.stderr(Stdio::piped()))?;
        let stderr = daemon.child().stderr.take().context("the daemon's messages")?;
        let drained = lines(stderr, move |line| {
            let drained = Drained::of(&line)?;
            // Without growth, the next drain has nothing to do, and shows it by its rows.
            let _ = counters.raise();
            Some(drained)
        });
        let drains = Self { _daemon: daemon, drained, rows: u64::from(containers) * u64::from(CLASSES) * 2 };
        // The first drain inserts the rows that later drains update.
        drains.median(2)?;
        Ok(drains)
    }

    /// The median of the next drains, in milliseconds.
    fn median(&self, count: usize) -> Result<f64> {
        // What was drained before is over.
        while self.drained.try_recv().is_ok() {}
        let mut all = Vec::new();
        while all.len() < count {
            let drained = received(&self.drained, "a drain")?;
            if drained.rows == self.rows {
                all.push(drained.milliseconds);
            }
        }
        Ok(Summary::of(&all).context("no drains")?.median)
    }
}

/// What a thread finds in the lines of a process, until it ends.
fn lines<T: Send + 'static>(
    of: impl std::io::Read + Send + 'static,
    mut found: impl FnMut(String) -> Option<T> + Send + 'static,
) -> Receiver<T> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(of).lines().map_while(Result::ok) {
            // The process must not wait for somebody who reads no more.
            let _ = found(line).map(|one| sender.send(one));
        }
    });
    receiver
}

fn received<T>(from: &Receiver<T>, what: &str) -> Result<T> {
    match from.recv_timeout(PATIENCE) {
        Ok(one) => Ok(one),
        Err(RecvTimeoutError::Timeout) => bail!("{what} did not come within {PATIENCE:?}"),
        Err(RecvTimeoutError::Disconnected) => bail!("the process ended before {what}"),
    }
}

/// The shipper's message about a round.
#[derive(Debug, PartialEq, Eq)]
struct Shipped {
    rows: u64,
}

impl Shipped {
    fn of(line: &str) -> Option<Self> {
        let (rows, _) = line.split_once(": shipped ")?.1.split_once(" rows in ")?;
        Some(Self { rows: rows.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shippers_message_about_a_round_is_parsed() {
        let line =
            "2026-01-01T00:00:00Z DEBUG trafctl::shipping: postgresql://h/db: shipped 9003 rows in 1 parts";
        assert_eq!(Shipped::of(line), Some(Shipped { rows: 9003 }));
        assert_eq!(Shipped::of("INFO x: shipped 5 rows, 7 parts are left"), None);
    }

    #[test]
    fn a_process_that_ends_is_told_from_one_that_is_slow() {
        let found = lines("a\nb\n".as_bytes(), |line| (line == "b").then_some(line));
        assert_eq!(received(&found, "b").unwrap(), "b");
        assert_eq!(received(&found, "c").unwrap_err().to_string(), "the process ended before c");
    }
}
