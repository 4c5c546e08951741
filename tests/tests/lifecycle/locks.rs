//! The locks that writers need: who can hold them, how long others wait, and how a wait ends.

use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use traffic_tests::process::Process;
use traffic_tests::traffic::udp_send;
use traffic_tests::{Amounts, Counters, Lab};

use crate::daemon::{Daemon, Resync};
use crate::node::{at, eventually, hooks, is_well, node, pair};

/// A process of another user that holds an flock on a file or directory, as any process that can open it may.
fn reader_locks(lab: &Lab, path: &Path) -> Result<Process> {
    let mut command = lab.host().command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", "flock", "--close"]);
    // Ends with its standard input, and so with its guard.
    command.arg(path).arg("cat").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut process = Process::spawn(&mut command)?;
    let probe = File::open(path)?;
    eventually("the reader holds the lock", || {
        ensure!(process.child().try_wait()?.is_none(), "the reader cannot lock {}", path.display());
        match probe.try_lock() {
            Ok(()) => probe.unlock().map(|()| false).context("unlock"),
            Err(_) => Ok(true),
        }
    })?;
    Ok(process)
}

/// What a former version left: directories and files that a group, or here everybody, can open.
fn as_if_readable(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode)).context("set a mode")
}

#[test]
fn a_reader_cannot_keep_a_writer_waiting() -> Result<()> {
    let lab = node("locks-reader")?;
    let (a, b) = pair(&lab)?;
    as_if_readable(&lab.path(""), 0o755)?;
    as_if_readable(&lab.bpffs().join(""), 0o755)?;
    as_if_readable(&lab.state_dir(), 0o755)?;
    let run_lock = lab.state_dir().join("run.lock");
    fs::write(&run_lock, "")?;
    as_if_readable(&run_lock, 0o644)?;
    // Both were opened before this version restricted them, and stay locked to the end.
    let _pins = reader_locks(&lab, lab.bpffs())?;
    let _state = reader_locks(&lab, &run_lock)?;

    let started = Instant::now();
    lab.run_ok(&["attach"])?;
    ensure!(started.elapsed() < Duration::from_secs(5), "attach took {:?}", started.elapsed());
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let sent = udp_send(a.namespace(), b.namespace(), at(b.v4()), 30, 100)?;
    let c = lab.bridged(103, 0, [10, 1, 0, 3].into(), "fd00:1::3".parse()?)?;
    eventually("the new interface is attached", || Ok(hooks(&lab, c.interface())?.len() == 2))?;
    assert_eq!(
        Counters::at_rest(&lab)?.class("101", 2, "ipv4"),
        Amounts::outgoing(sent.packets, sent.l3_bytes)
    );
    is_well(&lab)?;
    daemon.stop()?;

    // What a reader could lock it cannot open any more, and what this version locks it never could.
    let lock = lab.bpffs().join("lock");
    for path in [lab.bpffs(), &lock, &lock.join("turn"), &lock.join("change"), &run_lock]
        .into_iter()
        .chain([&*lab.state_dir().join("daemon.lock")])
    {
        let open = lab
            .host()
            .command("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["--", "flock", "--nonblock"])
            .arg(path)
            .arg("true")
            .stderr(Stdio::piped())
            .output()?;
        let text = String::from_utf8_lossy(&open.stderr);
        ensure!(text.contains("Permission denied"), "{}: {} {text}", path.display(), open.status);
    }
    Ok(())
}

#[test]
fn a_daemon_of_a_former_version_keeps_another_out() -> Result<()> {
    let lab = node("locks-former")?;
    let run_lock = lab.state_dir().join("run.lock");
    fs::write(&run_lock, "")?;
    let held = File::open(&run_lock)?;
    held.lock()?;
    let output = traffic_tests::check::trafctl(&lab, &["run"])?;
    let message = crate::node::refused(&output)?;
    ensure!(message.contains("another `trafctl run` keeps the ledger there"), "{message}");
    Ok(())
}

#[test]
fn sigterm_ends_the_daemon_in_time_while_another_holds_the_lock() -> Result<()> {
    let lab = node("locks-sigterm")?;
    let (a, _b) = pair(&lab)?;
    lab.configure(&format!("{}[drain]\ninterval = \"100ms\"\n", fs::read_to_string(lab.config())?))?;
    lab.run_ok(&["attach"])?;
    // The locks of this version and of former ones.
    for path in ["lock/turn", "lock/change", ""] {
        for delay in [0, 30, 150, 700] {
            let held = File::open(lab.bpffs().join(path))?;
            let mut daemon;
            if delay == 150 {
                daemon = Daemon::start_with(&lab, Resync::Every(Duration::from_millis(50)))?;
                held.lock()?;
                // Something to attach, beside the drain and the resync.
                lab.run_ok(&["dump"])?;
                lab.host().ip(&format!("link set {} down", a.interface()))?;
                lab.host().ip(&format!("link set {} up", a.interface()))?;
            } else {
                held.lock()?;
                daemon = Daemon::spawn(&mut lab.trafctl(&["run"])?, Resync::Off)?;
            }
            thread::sleep(Duration::from_millis(delay));
            let signalled = Instant::now();
            daemon.signal(Signal::TERM)?;
            daemon.wait()?;
            let took = signalled.elapsed();
            ensure!(took < Duration::from_secs(2), "{path:?} after {delay} ms: {took:?}");
        }
    }
    // It is free again: no thread that waited for it has kept it.
    lab.run_ok(&["attach"])?;
    is_well(&lab)
}

#[test]
fn commands_get_the_lock_once_it_is_free() -> Result<()> {
    let lab = node("locks-queue")?;
    let (a, _b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let held = File::open(lab.bpffs().join("lock/change"))?;
    held.lock()?;
    let mut waiting = (0..5)
        .map(|_| {
            let mut command = lab.trafctl(&["attach", a.interface()])?;
            Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))
        })
        .collect::<Result<Vec<_>>>()?;
    thread::sleep(Duration::from_millis(300));
    for process in &mut waiting {
        ensure!(process.child().try_wait()?.is_none(), "a command did not wait for the lock");
    }
    held.unlock()?;
    for process in &mut waiting {
        let status = process.wait(traffic_tests::check::PATIENCE)?;
        ensure!(status.success(), "{status}");
    }
    Ok(())
}

#[test]
fn another_writer_of_the_ledger_keeps_no_hook_waiting() -> Result<()> {
    let lab = node("locks-writer")?;
    pair(&lab)?;
    lab.configure(&format!("{}[drain]\ninterval = \"1h\"\n", fs::read_to_string(lab.config())?))?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let mut command = lab.host().command("sqlite3");
    command.arg(lab.state_dir().join("ledger.sqlite")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut writer = Process::spawn(&mut command)?;
    let input = writer.child().stdin.as_mut().context("the writer's input")?;
    writeln!(input, "BEGIN IMMEDIATE; SELECT 'held';")?;
    let output = writer.child().stdout.take().context("the writer's output")?;
    let mut held = String::new();
    BufReader::new(output).read_line(&mut held)?;
    assert_eq!(held, "held\n");
    // Each ends an interface, which is followed by a drain.
    for number in 0..3_u8 {
        let gone =
            lab.bridged(110, number.into(), [10, 1, 0, 110 + number].into(), "fd00:1::110".parse()?)?;
        eventually("the interface is attached", || Ok(hooks(&lab, gone.interface())?.len() == 2))?;
        lab.host().ip(&format!("link del {}", gone.interface()))?;
        let added = Instant::now();
        let new = lab.bridged(120, number.into(), [10, 1, 0, 120 + number].into(), "fd00:1::120".parse()?)?;
        let begun = Instant::now();
        lab.run_ok(&["attach", new.interface()])?;
        let took = begun.elapsed();
        ensure!(
            took < Duration::from_secs(1),
            "the hook waited {took:?} ({:?} since the end)",
            added.elapsed()
        );
    }
    eventually("the drain is a problem", || {
        Ok(traffic_tests::check::problems(&lab)?.iter().any(|problem| problem.contains("locked")))
    })?;
    drop(writer);
    // In an hour the next drain would be due.
    eventually("a drain follows soon", || Ok(is_well(&lab).is_ok()))?;
    daemon.stop_after_errors()
}

#[test]
fn a_daemon_with_another_state_directory_is_kept_from_the_counters() -> Result<()> {
    let lab = node("locks-same-pins")?;
    pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let other = lab.path("other-state");
    let other = other.to_str().context("a path")?;
    let mut command = lab.host().command(traffic_tests::lab::trafctl_program()?);
    command.arg("--bpffs").arg(lab.bpffs()).args(["--state-dir", other]).arg("--config").arg(lab.config());
    let output = traffic_tests::check::output(command.arg("run"))?;
    let message = crate::node::refused(&output)?;
    ensure!(message.contains("another `trafctl run` keeps them, with another state directory"), "{message}");
    // The first is not disturbed, and the counters are free after it.
    is_well(&lab)?;
    daemon.stop()?;
    Daemon::start(&lab)?.stop()
}
