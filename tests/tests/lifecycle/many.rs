//! Many interfaces at once: how long a start hook waits beside them, and the kernel's switch that makes
//! attaching fast.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use traffic_tests::Lab;
use traffic_tests::check::PATIENCE;
use traffic_tests::process::Process;

use crate::daemon::{Daemon, Resync};
use crate::node::{eventually, is_well, node, pins, stderr};

/// The kernel's switch.
const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// Adds the interfaces of this many containers, from id 1000 on, without containers behind them.
fn add_interfaces(lab: &Lab, count: u32) -> Result<()> {
    let line = |id: u32| format!("link add veth{id}.0 type veth peer name peer{id}\n");
    lab.host().ip_batch(&(1000..1000 + count).map(line).collect::<String>())
}

/// What is in force while a process has set the switch.
fn note(lab: &Lab) -> PathBuf {
    lab.bpffs().join("lock/expedited")
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Attaches and detaches an interface of its own, as start and stop hooks do, until the process has ended.
/// Returns how often, and the longest time that a command took.
fn hooks_beside(lab: &Lab, process: &mut Process) -> Result<(u32, Duration)> {
    lab.host().ip("link add veth999.0 type veth peer name peer999")?;
    let (mut count, mut longest) = (0, Duration::ZERO);
    while process.child().try_wait()?.is_none() {
        for command in ["attach", "detach"] {
            let begin = Instant::now();
            let output = traffic_tests::check::trafctl(lab, &[command, "veth999.0"])?;
            longest = longest.max(begin.elapsed());
            // Detaching everywhere can come first.
            ensure!(output.status.success() || command == "detach", "{}", stderr(&output));
        }
        count += 1;
    }
    lab.host().ip("link delete veth999.0")?;
    Ok((count, longest))
}

#[test]
fn a_start_hook_waits_for_a_batch_and_not_for_all_interfaces() -> Result<()> {
    const COUNT: u32 = 120;
    let lab = node("many-hooks")?;
    lab.run_ok(&["attach"])?;
    // Each hook of an interface takes a grace period.
    lab.configure(&format!("{}[attach]\nexpedite = false\n", fs::read_to_string(lab.config())?))?;
    add_interfaces(&lab, COUNT)?;
    for arguments in [&["attach"][..], &["detach"]] {
        let begin = Instant::now();
        let mut command = lab.trafctl(arguments)?;
        let mut process = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
        let (hooks, longest) = hooks_beside(&lab, &mut process)?;
        let took = begin.elapsed();
        ensure!(process.wait(PATIENCE)?.success(), "{arguments:?} failed");
        println!("{arguments:?}: {took:?}; {hooks} hooks beside it, the longest {longest:?}");
        // Another test may have the machine's switch set meanwhile. Then there is nothing to wait for.
        let is_expedited = took < Duration::from_secs(1);
        ensure!(
            (is_expedited || hooks >= 2 && longest < took / 2) && longest < Duration::from_secs(2),
            "{arguments:?} took {took:?}, and the longest of {hooks} hooks beside it {longest:?}"
        );
        let left = if arguments == ["attach"] { 2 * COUNT as usize } else { 0 };
        assert_eq!(pins(&lab)?.len(), left, "after {arguments:?}");
    }
    // The same for the daemon's first listing, and for the events of many new interfaces.
    let mut daemon = Daemon::spawn(&mut lab.trafctl(&["run"])?, Resync::Off)?;
    daemon.ready()?;
    daemon.settled()?;
    let line = |id: u32| format!("link add veth{id}.0 type veth peer name peer{id}\n");
    lab.host().ip_batch(&(2000..2000 + COUNT).map(line).collect::<String>())?;
    let begin = Instant::now();
    lab.run_ok(&["attach", "veth1000.0"])?;
    let waited = begin.elapsed();
    ensure!(waited < Duration::from_secs(2), "a hook waited {waited:?} beside {COUNT} new interfaces");
    eventually("all are attached", || Ok(pins(&lab)?.len() == 4 * COUNT as usize))?;
    is_well(&lab)?;
    daemon.stop()
}

#[test]
fn hundreds_of_interfaces_do_not_take_a_grace_period_each() -> Result<()> {
    const COUNT: u32 = 400;
    let _restore = Restore;
    let lab = node("many-fast")?;
    lab.run_ok(&["attach"])?;
    add_interfaces(&lab, COUNT)?;
    let begin = Instant::now();
    let mut daemon = Daemon::start(&lab)?;
    let took = begin.elapsed();
    println!("the first start with {COUNT} interfaces: {took:?}");
    // Without the switch, a hook takes 10 to 30 ms: 8 to 24 s.
    ensure!(took < Duration::from_secs(6), "the first start with {COUNT} interfaces took {took:?}");
    assert_eq!(pins(&lab)?.len(), 2 * COUNT as usize);
    ensure!(!is_there(&note(&lab)));
    daemon.settled()?;
    is_well(&lab)?;
    daemon.stop()
}

/// Puts the switch back when a test ends.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // Writing 0 cannot fail where writing something else has just succeeded.
        let _ = fs::write(SWITCH, "0");
    }
}

fn value() -> Result<String> {
    Ok(fs::read_to_string(SWITCH)?.trim().to_owned())
}

/// Starts a command and waits until it has set the switch.
fn until_set(lab: &Lab, arguments: &[&str]) -> Result<Process> {
    let mut command = lab.trafctl(arguments)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = Process::spawn(&mut command)?;
    let deadline = Instant::now() + PATIENCE;
    while !is_there(&note(lab)) {
        ensure!(process.child().try_wait()?.is_none(), "{arguments:?} ended without setting the switch");
        ensure!(Instant::now() < deadline, "{arguments:?} did not set the switch");
    }
    Ok(process)
}

#[test]
fn the_switch_is_restored_whatever_happens() -> Result<()> {
    let lab = node("many-switch")?;
    lab.run_ok(&["attach"])?;
    add_interfaces(&lab, 300)?;

    // Killed: any next command restores it, with or without the lock.
    for next in [&["status"][..], &["dump"], &["classes", "list"], &["attach", "veth1000.0"]] {
        let mut process = until_set(&lab, &["attach"])?;
        process.signal(Signal::KILL)?;
        process.wait(PATIENCE)?;
        ensure!(is_there(&note(&lab)), "it was not killed in time");
        traffic_tests::check::trafctl(&lab, next)?;
        ensure!(!is_there(&note(&lab)), "{next:?} did not restore the switch");
        // Other nodes of this machine set it for moments.
        eventually("the switch is restored", || Ok(value()? == "0"))?;
        lab.run_ok(&["detach"])?;
    }
    // A daemon that is stopped in its first listing restores it itself.
    let mut process = until_set(&lab, &["run"])?;
    process.signal(Signal::TERM)?;
    ensure!(process.wait(PATIENCE)?.success());
    ensure!(!is_there(&note(&lab)), "it ended without restoring the switch");

    // A daemon that starts while another process is at it leaves it to that one.
    lab.run_ok(&["detach"])?;
    let mut process = until_set(&lab, &["attach"])?;
    lab.run_ok(&["dump"])?;
    ensure!(process.wait(PATIENCE)?.success());
    ensure!(!is_there(&note(&lab)));
    is_well(&lab)
}

#[test]
fn an_administrators_setting_of_the_switch_stays() -> Result<()> {
    let lab = node("many-admin")?;
    lab.run_ok(&["attach"])?;
    add_interfaces(&lab, 20)?;
    let _restore = Restore;
    // Not 1, so that no other node of this machine takes it for its own.
    fs::write(SWITCH, "2").context("set the switch")?;
    lab.run_ok(&["attach"])?;
    assert_eq!(value()?, "2");
    // Not even what a killed process has left makes it ours.
    fs::create_dir(note(&lab))?;
    lab.run_ok(&["detach"])?;
    assert_eq!(value()?, "2");
    ensure!(!is_there(&note(&lab)));
    Ok(())
}

#[test]
fn the_switch_is_not_needed_and_can_be_turned_off() -> Result<()> {
    const COUNT: u32 = 30;
    let lab = node("many-off")?;
    lab.run_ok(&["attach"])?;
    add_interfaces(&lab, COUNT)?;
    // As in a container or a sandbox, where /sys is read-only.
    let command = lab.trafctl(&["attach"])?;
    let mut confined = lab.host().command("unshare");
    confined.args(["--mount", "sh", "-c", "mount -t sysfs -o ro sysfs /sys && exec \"$@\"", "sh"]);
    confined.arg(command.get_program()).args(command.get_args());
    traffic_tests::process::run_ok(&mut confined)?;
    assert_eq!(pins(&lab)?.len(), 2 * COUNT as usize);
    ensure!(!is_there(&note(&lab)));
    is_well(&lab)?;
    lab.run_ok(&["detach"])?;

    lab.configure(&format!("{}[attach]\nexpedite = false\n", fs::read_to_string(lab.config())?))?;
    let mut command = lab.trafctl(&["attach"])?;
    let mut process = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
    while process.child().try_wait()?.is_none() {
        ensure!(!is_there(&note(&lab)), "the switch was set although the configuration forbids it");
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(pins(&lab)?.len(), 2 * COUNT as usize);
    is_well(&lab)
}
