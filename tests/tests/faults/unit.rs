//! The shipped unit: as hardened as stated, and without refusing a call that the daemon makes.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use traffic_tests::check::{agrees_with_kernel, eventually, output, stderr};
use traffic_tests::lab::trafctl_program;
use traffic_tests::process::{children, run_ok};
use traffic_tests::systemd::{unit, unit_named};
use traffic_tests::traffic::udp_send;
use traffic_tests::{Amounts, Counters, Daemon, Lab, Resync};

use crate::node::{at, node, pair};

/// The exposure that README.md and SECURITY.md state, in tenths, by `systemd-analyze` of systemd 252. Lower
/// is better.
const EXPOSURE: &str = "20";

/// What `systemd-analyze` says of a unit, which must not be more exposed than this.
fn exposure(unit: &str, most: &str) -> Result<String> {
    let mut command = Command::new("systemd-analyze");
    command
        .args(["security", "--offline=yes", "--no-pager"])
        .arg(format!("--threshold={most}"))
        .arg(unit_named(unit));
    run_ok(&mut command).context("the unit is more exposed than stated")
}

#[test]
fn the_unit_is_as_hardened_as_stated() -> Result<()> {
    let text = exposure("trafctl.service", EXPOSURE)?;
    let stated = format!("exposure level for trafctl.service: {}.{}", &EXPOSURE[..1], &EXPOSURE[1..]);
    ensure!(text.contains(&stated), "the exposure has improved; state the new figure: {text}");
    for page in ["README.md", "SECURITY.md"] {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
        let text = std::fs::read_to_string(&page).with_context(|| page.display().to_string())?;
        let figure = format!("{}.{} by `systemd-analyze security`", &EXPOSURE[..1], &EXPOSURE[1..]);
        ensure!(text.contains(&figure), "{} does not contain \"{figure}\"", page.display());
    }
    Ok(())
}

/// That of the unit that ships.
const SHIP_EXPOSURE: &str = "17";

#[test]
fn the_unit_that_ships_is_as_hardened_as_stated() -> Result<()> {
    exposure("trafctl-ship.service", SHIP_EXPOSURE).map(drop)
}

/// That of the unit that runs actions: whatever programs they are.
const QUOTA_EXPOSURE: &str = "24";

#[test]
fn the_unit_that_runs_actions_is_as_hardened_as_stated() -> Result<()> {
    exposure("trafctl-quota.service", QUOTA_EXPOSURE).map(drop)
}

/// That of the unit that looks at the node.
const WATCH_EXPOSURE: &str = "19";

#[test]
fn the_unit_that_looks_at_the_node_is_as_hardened_as_stated() -> Result<()> {
    exposure("trafctl-watch.service", WATCH_EXPOSURE).map(drop)
}

/// That of the unit that makes a throwaway container each day.
const CALIBRATE_EXPOSURE: &str = "30";

#[test]
fn the_unit_that_makes_a_container_is_as_hardened_as_stated() -> Result<()> {
    exposure("trafctl-calibrate.service", CALIBRATE_EXPOSURE).map(drop)
}

#[test]
fn systemd_understands_the_whole_unit() -> Result<()> {
    for name in [
        "trafctl.service",
        "trafctl-ship.service",
        "trafctl-quota.service",
        "trafctl-watch.service",
        "trafctl-calibrate.service",
    ] {
        understands(name).context(name)?;
    }
    Ok(())
}

fn understands(name: &str) -> Result<()> {
    let text = std::fs::read_to_string(unit_named(name))?;
    // systemd checks that the program exists, so the unit names the program of this build.
    let text =
        text.replace("/usr/sbin/trafctl", trafctl_program()?.to_str().context("the path is not UTF-8")?);
    let directory = tempfile::tempdir()?;
    let file = directory.path().join(name);
    std::fs::write(&file, text)?;
    let output = output(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file))?;
    ensure!(output.status.success() && stderr(&output).is_empty(), "{}: {}", output.status, stderr(&output));
    Ok(())
}

/// The system calls that `SystemCallFilter=` of a unit allows.
fn allowed_calls(unit: &Path) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(unit)?;
    let mut allowed = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (words, deny) = line.strip_prefix('~').map_or((line, false), |rest| (rest, true));
        for word in words.split_whitespace() {
            for call in expand(word)? {
                if deny {
                    allowed.remove(&call);
                } else {
                    allowed.insert(call);
                }
            }
        }
    }
    ensure!(allowed.len() > 100, "the unit's filter was not parsed: {allowed:?}");
    Ok(allowed)
}

fn expand(word: &str) -> Result<Vec<String>> {
    if !word.starts_with('@') {
        return Ok(vec![word.to_owned()]);
    }
    let text = run_ok(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", word]))?;
    let mut calls = Vec::new();
    for line in text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        calls.extend(expand(line)?);
    }
    Ok(calls)
}

#[test]
fn the_unit_allows_every_call_of_the_daemon() -> Result<()> {
    let lab = node("calls")?;
    let (a, b) = pair(&lab)?;
    let socket = lab.state_dir().join("api.sock");
    let listen = format!("[api]\nlisten = \"unix:{}\"\n", socket.display());
    lab.configure(&format!("{}{listen}", std::fs::read_to_string(lab.config())?))?;
    let trace = lab.state_dir().join("trace");
    let mut command = traced(&lab, &trace, "+bpf,+net_admin,+perfmon", &["run"])?;
    let mut daemon = Daemon::spawn(&mut command, Resync::Off)?;
    daemon.ready()?;
    daemon.settled()?;

    let sent = udp_send(a.namespace(), b.namespace(), at(b.v4()), 50, 400)?;
    let all = Amounts::outgoing(sent.packets, sent.l3_bytes);
    assert_eq!(Counters::at_rest(&lab)?.class("101", 2, "ipv4"), all);
    // Everything the daemon does: new and deleted interfaces, drains, a reload, an API request.
    let mut c = lab.bridged(103, 0, [10, 1, 0, 3].into(), "fd00:1::3".parse()?)?;
    daemon.logs("veth103.0: attached")?;
    c.stop()?;
    daemon.logs("veth103.0: gone")?;
    let answer = run_ok(
        Command::new("curl")
            .args(["--silent", "--fail", "--unix-socket"])
            .arg(&socket)
            .arg("http://x/metrics"),
    )?;
    ensure!(answer.contains("trafctl_network_transmit_bytes_total"), "{answer}");
    eventually("the ledger has the counters", || {
        let report = lab.run_json(&["report", "--format", "json"])?;
        Ok(report.to_string().contains(&sent.l3_bytes.to_string()))
    })?;
    agrees_with_kernel(&lab, &Counters::at_rest(&lab)?, a.interface())?;
    let child = *children(daemon.id()).first().context("the traced daemon")?;
    run_ok(Command::new("kill").args(["-HUP", &child.to_string()]))?;
    daemon.logs("are in force")?;
    run_ok(Command::new("kill").args(["-TERM", &child.to_string()]))?;
    daemon.logs("counting continues")?;
    let status = daemon.wait()?;
    ensure!(status.success(), "{status}: {}", daemon.log());
    ensure!(!daemon.log().contains("ERROR"), "{}", daemon.log());

    allows_all(&unit(), &trace)
}

/// Runs a command under `strace`, with these capabilities at most: the kernel's answers and the next calls depend on them.
fn traced(lab: &Lab, trace: &Path, capabilities: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = lab.host().command("setpriv");
    command.args([&format!("--bounding-set=-all,{capabilities}"), "--inh-caps=-all", "--no-new-privs"]);
    command.args(["strace", "--follow-forks", "--quiet=all", "--trace=all", "--output"]).arg(trace);
    command.arg(trafctl_program()?).arg("--bpffs").arg(lab.bpffs());
    command.arg("--state-dir").arg(lab.state_dir()).arg("--config").arg(lab.config()).args(arguments);
    Ok(command)
}

/// Checks that the filter of a unit refuses no call of a trace.
fn allows_all(unit: &Path, trace: &Path) -> Result<()> {
    let allowed = allowed_calls(unit)?;
    let text = std::fs::read_to_string(trace)?;
    let called: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('))
        .map(|(name, _)| name)
        .filter(|name| {
            name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
        })
        .collect();
    ensure!(called.contains("bpf") && called.contains("sendto"), "the trace was not parsed: {called:?}");
    let refused: Vec<_> = called.iter().filter(|name| !allowed.contains(**name)).collect();
    ensure!(refused.is_empty(), "the unit's filter refuses {refused:?}");
    Ok(())
}

#[test]
fn the_unit_that_makes_a_container_allows_every_call_of_it() -> Result<()> {
    let lab = node("calls_calibrate")?;
    let daemon = Daemon::start(&lab)?;
    let trace = lab.state_dir().join("trace");
    let capabilities = "+bpf,+net_admin,+perfmon,+sys_admin,+net_raw";
    let said = run_ok(&mut traced(&lab, &trace, capabilities, &["calibrate"])?)?;
    ensure!(said.contains("exact: every packet"), "{said}");
    daemon.stop()?;
    let text = std::fs::read_to_string(&trace)?;
    ensure!(text.contains("unshare(CLONE_NEWNET)"), "the trace has not all threads");
    allows_all(&unit_named("trafctl-calibrate.service"), &trace)
}
