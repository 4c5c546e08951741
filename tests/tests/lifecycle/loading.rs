//! Loading a large class table keeps nobody waiting: the lock is held only for the switch.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{Counters, Lab};

use crate::daemon::Daemon;
use crate::node::{eventually, hooks, is_well, node};

/// Loading this many takes seconds.
const PREFIXES: u32 = 300_000;

/// Networks of 20.0.0.0/8 and above, in nine classes. Another seed gives another table.
fn large(seed: u32) -> String {
    let row = |n: u32| {
        let network = (20 << 24) + (n << 8);
        let [a, b, c, _] = network.to_be_bytes();
        format!("{} {a}.{b}.{c}.0/{}\n", 1 + (n + seed) % 9, if n.is_multiple_of(3) { 25 } else { 24 })
    };
    (0..PREFIXES).map(row).collect()
}

/// What happened while a table was loaded.
#[derive(Debug, Default)]
struct Meanwhile {
    load: Duration,
    slowest_answer: Duration,
    slowest_attach: Duration,
    attached: usize,
}

/// Loads a table, and attaches interfaces and asks the API until it is in force.
fn load(lab: &Lab, first: u32, start: impl FnOnce() -> Result<()> + Send) -> Result<Meanwhile> {
    let hash = || -> Result<String> { Ok(Counters::read(lab)?.class_table.hash) };
    let before = hash()?;
    let begun = Instant::now();
    let mut seen = Meanwhile::default();
    thread::scope(|scope| {
        let loader = scope.spawn(start);
        let asks = scope.spawn(|| -> Result<Duration> {
            let mut slowest = Duration::ZERO;
            while hash()? == before {
                let asked = Instant::now();
                metrics(&lab.path("api.sock"))?;
                slowest = slowest.max(asked.elapsed());
                thread::sleep(Duration::from_millis(20));
                ensure!(begun.elapsed() < Duration::from_mins(3), "the table is not in force");
            }
            Ok(slowest)
        });
        while hash()? == before {
            let name = format!("veth{}.0", first + u32::try_from(seen.attached)?);
            lab.host().ip(&format!("link add {name} type veth peer name p{}", &name[4..]))?;
            let appeared = Instant::now();
            while hooks(lab, &name)?.len() != 2 {
                thread::sleep(Duration::from_millis(5));
                ensure!(appeared.elapsed() < Duration::from_mins(1), "{name} is not attached");
            }
            seen.slowest_attach = seen.slowest_attach.max(appeared.elapsed());
            seen.attached += 1;
            thread::sleep(Duration::from_millis(50));
            ensure!(!asks.is_finished() || hash()? != before, "the API failed");
        }
        seen.load = begun.elapsed();
        seen.slowest_answer = asks.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        loader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    Ok(seen)
}

fn metrics(socket: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(())
}

#[test]
fn loading_a_large_table_delays_neither_attaching_nor_the_api() -> Result<()> {
    let lab = node("loading")?;
    let classes = lab.path("classes");
    lab.configure(&format!(
        "class_file = {classes:?}\n[classes]\nhold_if_removed = \"100%\"\n[api]\nlisten = \"unix:{}\"\n",
        lab.path("api.sock").display()
    ))?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let other = lab.write("other", &large(1))?;
    let mut first = 1000;
    for by_command in [false, true] {
        // Other processes of this machine hold the kernel's own locks for seconds at times, so that one of
        // several loads must be undisturbed.
        for attempt in 0..4 {
            let seen = load(&lab, first, || {
                if by_command {
                    let file = lab.write("other", &large(10 + attempt))?;
                    return lab.run_ok(&["classes", "load", file.to_str().context("a path")?]).map(drop);
                }
                fs::write(&other, large(2 + attempt))?;
                Ok(fs::rename(&other, &classes)?)
            })?;
            first += 1000;
            eprintln!("by command {by_command}: {seen:?}");
            if seen.attached >= 3
                && seen.slowest_attach * 3 < seen.load
                && seen.slowest_answer * 4 < seen.load
            {
                break;
            }
            ensure!(attempt < 3, "by command {by_command}: {seen:?}");
        }
    }
    eventually("the file is in force", || {
        lab.run_ok(&["classes", "load"])?;
        Ok(true)
    })?;
    is_well(&lab)?;
    daemon.stop()
}
