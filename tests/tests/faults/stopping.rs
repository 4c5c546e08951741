//! SIGTERM ends the daemon within two seconds, whatever it is doing.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use traffic_tests::check::{eventually, problems, rounds};
use traffic_tests::process::run_ok;
use traffic_tests::{Daemon, Lab, Resync};

use crate::node::{node, pair};

/// What a service manager, an operator and the project's own promise wait for.
const LIMIT: Duration = Duration::from_secs(2);

/// Something that the daemon has to wait for. It is killed at the end of a round.
struct Obstacle(Child);

impl Obstacle {
    fn start(lab: &Lab, script: &str) -> Result<Self> {
        let mut command = lab.host().command("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // A group of its own, which ends with it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(Self(command.spawn()?))
    }
}

impl Drop for Obstacle {
    fn drop(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// How late this machine wakes a thread that sleeps: the daemon cannot be more punctual.
struct Lateness {
    worst: Arc<Mutex<Duration>>,
    ends: Arc<AtomicBool>,
}

impl Lateness {
    fn measure() -> Self {
        let measure = Self { worst: Arc::default(), ends: Arc::default() };
        let (worst, ends) = (Arc::clone(&measure.worst), Arc::clone(&measure.ends));
        thread::spawn(move || {
            let pause = Duration::from_millis(10);
            while !ends.load(Ordering::Relaxed) {
                let begun = Instant::now();
                thread::sleep(pause);
                let late = begun.elapsed().saturating_sub(pause);
                if let Ok(mut worst) = worst.lock() {
                    *worst = late.max(*worst);
                }
            }
        });
        measure
    }

    fn worst(&self) -> Duration {
        self.worst.lock().map(|worst| *worst).unwrap_or_default()
    }
}

impl Drop for Lateness {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_signal_to_stop_ends_the_daemon_in_time_whatever_it_does() -> Result<()> {
    let lab = node("stopping")?;
    let _pair = pair(&lab)?;
    let classes = lab.path("classes");
    let small = fs::read_to_string(&classes)?;
    let large: String = (0..60_000_u32)
        .map(|n| format!("{} {}.{}.{}.0/24\n", 1 + n % 9, 20 + (n >> 16), (n >> 8) & 255, n & 255))
        .collect();
    let socket = lab.path("api.sock");
    lab.configure(&format!(
        "class_file = {classes:?}\n[classes]\nhold_if_removed = \"100%\"\n[drain]\ninterval = \"250ms\"\n[api]\nlisten = \"unix:{}\"\n\
         [[interfaces.rule]]\npattern = \"^vnet[0-9]+$\"\nkind = \"mapped\"\n[identities]\n\
         command = [\"/bin/sh\", \"-c\", \"trap '' TERM; setsid sleep 60377 & sleep 60377\"]\n",
        socket.display()
    ))?;
    // The identity command is asked for it, and is silent.
    let _asked = lab.bridged_as("vnet7", [10, 1, 0, 4].into(), "fd00:1::4".parse()?)?;
    Daemon::start(&lab)?.stop_after_errors()?;
    let ledger = lab.state_dir().join("ledger.sqlite");
    let change = lab.bpffs().join("lock/change");
    let obstacles = [
        // Another command holds the lock, and yet another one waits for it.
        format!("flock {} sleep 20", change.display()),
        // SQLite is busy.
        format!("(echo 'begin immediate;'; sleep 20) | sqlite3 {}", ledger.display()),
        "true".to_owned(),
    ];
    let late = Lateness::measure();
    let mut slowest = Duration::ZERO;
    for round in 0..rounds(30, 200) {
        // Also before it is ready: a start takes about as long as the longest of these.
        let moment = Duration::from_millis(u64::from(round) * 397 % 1500);
        lab.write("classes", &small)?;
        let mut daemon =
            Daemon::spawn(&mut lab.trafctl(&["run"])?, Resync::Every(Duration::from_millis(50)))?;
        thread::sleep(moment / 2);
        // Clients of the API who never finish their requests, if it is there already.
        let mut clients: Vec<_> = (0..5).filter_map(|_| UnixStream::connect(&socket).ok()).collect();
        clients.iter_mut().try_for_each(|client| client.write_all(b"GET /metrics HTTP/1.1\r\n"))?;
        let _obstacle = Obstacle::start(&lab, &obstacles[round as usize % obstacles.len()])?;
        // It reads and builds this table meanwhile.
        lab.write("classes", &large)?;
        thread::sleep(moment / 2);
        let begun = Instant::now();
        daemon.signal(Signal::TERM)?;
        let status = daemon.wait().with_context(|| daemon.log())?;
        let took = begun.elapsed();
        slowest = slowest.max(took);
        ensure!(
            took < LIMIT + late.worst(),
            "round {round}: {took:?}, {moment:?} after the start, {:?} late\n{}",
            late.worst(),
            daemon.log()
        );
        // Before it catches signals, one ends it as any process.
        let ended_by_itself = status.code() == Some(0);
        ensure!(ended_by_itself || moment < Duration::from_millis(400), "round {round}: {status}");
    }
    eprintln!("the slowest end took {slowest:?}");
    // Nothing that the identity command started is left.
    let processes = || run_ok(Command::new("ps").args(["-eo", "args"]));
    eventually("nothing is left of the identity command", || Ok(!processes()?.contains("sleep 60377")))?;
    lab.write("classes", &small)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    daemon.stop_after_errors()?;
    drop(late);
    lab.configure(&format!("class_file = {classes:?}\n"))?;
    lab.run_ok(&["classes", "load", "--yes"])?;
    // Its container is unknown, because the command never answers: a problem after half a minute.
    let problems = problems(&lab)?;
    ensure!(problems.iter().all(|problem| problem.starts_with("vnet7: ")), "{problems:?}");
    Ok(())
}
