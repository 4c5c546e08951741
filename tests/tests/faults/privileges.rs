//! Every command with exactly the capabilities of the service, and without them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use traffic_tests::check::{agrees_with_kernel, eventually, is_well, output, stderr};
use traffic_tests::lab::trafctl_program;
use traffic_tests::traffic::udp_send;
use traffic_tests::{Amounts, Counters, Daemon, Lab, Resync};

use crate::node::{at, node, pair};

/// The capabilities of `trafctl.service`, as setpriv names them.
const SERVICE: &str = "bpf,net_admin,perfmon";

/// `trafctl` as root with only these capabilities. It cannot regain others.
fn with_capabilities(lab: &Lab, capabilities: &str, arguments: &[&str]) -> Result<Command> {
    // Enters the network first, which needs a capability of its own.
    let mut command = lab.host().command("setpriv");
    let set = capabilities.split(',').filter(|name| !name.is_empty()).map(|name| format!(",+{name}"));
    command.arg(format!("--bounding-set=-all{}", set.collect::<String>()));
    command.args(["--inh-caps=-all", "--no-new-privs"]);
    command.arg(trafctl_program()?);
    command.arg("--bpffs").arg(lab.bpffs());
    command.arg("--state-dir").arg(lab.state_dir());
    command.arg("--config").arg(lab.config());
    command.args(arguments);
    Ok(command)
}

/// Runs a command that must succeed. Returns its stdout.
fn works(lab: &Lab, capabilities: &str, arguments: &[&str]) -> Result<String> {
    let output = output(&mut with_capabilities(lab, capabilities, arguments)?)?;
    ensure!(output.status.code() == Some(0), "{arguments:?}: {}: {}", output.status, stderr(&output));
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a command that must fail with one message. Returns its stderr.
fn fails(lab: &Lab, capabilities: &str, arguments: &[&str]) -> Result<String> {
    let output = output(&mut with_capabilities(lab, capabilities, arguments)?)?;
    let reported = stderr(&output);
    ensure!(output.status.code() == Some(1), "{arguments:?} without: {}: {reported}", output.status);
    ensure!(
        reported.matches("trafctl: ").count() == 1 && !reported.contains("panicked"),
        "{arguments:?}: {reported}"
    );
    Ok(reported)
}

#[test]
fn every_command_works_with_the_capabilities_of_the_service() -> Result<()> {
    let lab = node("caps")?;
    let (a, b) = pair(&lab)?;
    works(&lab, SERVICE, &["attach"])?;
    let first = udp_send(a.namespace(), b.namespace(), at(b.v4()), 40, 300)?;
    let daemon = {
        let mut daemon = Daemon::spawn(&mut with_capabilities(&lab, SERVICE, &["run"])?, Resync::Off)?;
        daemon.ready()?;
        daemon.settled()?;
        daemon
    };
    let effective = fs::read_to_string(format!("/proc/{}/status", daemon.id()))?;
    // CAP_NET_ADMIN is 12, CAP_PERFMON 38, CAP_BPF 39.
    ensure!(effective.contains("CapEff:\t000000c000001000"), "{effective}");

    // Another process loads, lists and explains a class table.
    let classes = lab.write("other", "5 0.0.0.0/0\n6 ::/0\n")?;
    works(&lab, SERVICE, &["classes", "load", "--yes", classes.to_str().context("the path is not UTF-8")?])?;
    let list = works(&lab, SERVICE, &["classes", "list"])?;
    ensure!(list.contains("0.0.0.0/0") && list.contains("::/0"), "{list}");
    works(&lab, SERVICE, &["classes", "explain", "10.1.0.2"])?;
    works(&lab, SERVICE, &["classes", "check", classes.to_str().context("the path is not UTF-8")?])?;
    let second = udp_send(a.namespace(), b.namespace(), at(b.v6()), 30, 200)?;
    works(&lab, SERVICE, &["address", "add", "301", "10.3.0.1"])?;
    works(&lab, SERVICE, &["address", "remove", "10.3.0.1"])?;

    // A new interface, which is then detached and attached again.
    let c = lab.bridged(103, 0, [10, 1, 0, 3].into(), "fd00:1::3".parse()?)?;
    eventually("the daemon attaches the new interface", || {
        let status = output(&mut with_capabilities(&lab, SERVICE, &["status", "--format", "json"])?)?;
        let status: Value = serde_json::from_slice(&status.stdout)?;
        Ok(status["problems"].as_array().is_some_and(Vec::is_empty))
    })?;
    works(&lab, SERVICE, &["detach", c.interface()])?;
    works(&lab, SERVICE, &["attach", c.interface()])?;

    let counters = Counters::at_rest(&lab)?;
    let all = Amounts::outgoing(first.packets, first.l3_bytes);
    assert_eq!(counters.class("101", 2, "ipv4"), all);
    let all = Amounts::outgoing(second.packets, second.l3_bytes);
    assert_eq!(counters.class("101", 6, "ipv6"), all);
    agrees_with_kernel(&lab, &counters, a.interface())?;

    // Status distinguishes our programs from others and knows the memory of the class tables, as it does for
    // root.
    let status: Value = serde_json::from_str(&works(&lab, SERVICE, &["status", "--format", "json"])?)?;
    assert_eq!(status["attachments"][0]["in"]["kind"], "tcx");
    let full = lab.run_json(&["status", "--format", "json"])?;
    assert_eq!(status["memory"], full["memory"]);
    assert_eq!(status["programs"], full["programs"]);
    let tables: Vec<_> = status["memory"].as_array().into_iter().flatten().collect();
    ensure!(
        tables.iter().filter(|map| map["map"].as_str().is_some_and(|name| name.contains("table"))).count()
            == 2
    );
    ensure!(
        tables.iter().any(|map| map["map"] == "class table" && map["bytes"].as_u64() >= Some(128 << 10)),
        "{tables:?}"
    );

    works(&lab, SERVICE, &["dump"])?;
    works(&lab, SERVICE, &["top", "--times", "1"])?;
    daemon.stop()?;
    for ledger in
        [&["report"][..], &["gaps"], &["audit"], &["top-talkers"], &["container", "retire", "103", "--yes"]]
    {
        works(&lab, SERVICE, ledger)?;
    }
    works(&lab, SERVICE, &["ledger", "backup", lab.path("copy").to_str().context("the path is not UTF-8")?])?;
    is_well(&lab)?;
    works(&lab, SERVICE, &["detach", "--purge", "--yes"])?;
    Ok(())
}

#[test]
fn another_installation_on_a_hook_is_reported_as_far_as_privileges_allow() -> Result<()> {
    let lab = node("caps-two")?;
    let (_a, _b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    // A second installation on the same hooks. It attaches later, so it runs first.
    let second = lab.bpffs().join("second");
    let second_dir = second.to_str().context("the path is not UTF-8")?;
    lab.run_ok(&["attach", "--bpffs", second_dir])?;
    let status = |capabilities: &str| -> Result<(Value, String)> {
        let output = output(&mut with_capabilities(&lab, capabilities, &["status", "--format", "json"])?)?;
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        Ok((serde_json::from_slice(&output.stdout)?, stderr(&output)))
    };
    let (full, _) = status("bpf,net_admin,perfmon,sys_admin")?;
    assert_eq!(full["attachments"][0]["in"]["ours"], 2, "{full:#}");
    ensure!(full["problems"].to_string().contains("2 trafctl programs are attached to one hook"), "{full:#}");
    let (less, reported) = status(SERVICE)?;
    assert_eq!(less["attachments"][0]["in"]["ours"], 1, "{less:#}");
    ensure!(less["problems"].to_string().contains("runs before trafctl"), "{less:#}");
    ensure!(reported.contains("cannot be read without CAP_SYS_ADMIN"), "{reported}");
    lab.run_ok(&["detach", "--purge", "--yes", "--bpffs", second_dir])?;
    is_well(&lab)
}

#[test]
fn a_missing_capability_is_named() -> Result<()> {
    let lab = node("caps-less")?;
    let (_a, _b) = pair(&lab)?;
    for (left, missing) in [
        ("net_admin,perfmon", "CAP_BPF"),
        ("bpf,perfmon", "CAP_NET_ADMIN"),
        ("bpf,net_admin", "CAP_PERFMON"),
        ("", "CAP_BPF"),
    ] {
        for command in ["attach", "run"] {
            let reported = fails(&lab, left, &[command])?;
            ensure!(reported.contains(missing), "{command} with {left:?}: {reported}");
        }
    }
    lab.run_ok(&["attach"])?;
    let before = Counters::at_rest(&lab)?;
    let classes = lab.path("classes");
    let classes = classes.to_str().context("the path is not UTF-8")?;
    for arguments in
        [&["attach"][..], &["run"], &["status"], &["classes", "load", "--yes", classes], &["detach"]]
    {
        let reported = fails(&lab, "", arguments)?;
        ensure!(
            reported.contains("CAP_BPF") || reported.contains("CAP_NET_ADMIN"),
            "{arguments:?}: {reported}"
        );
    }
    // To read needs no capability, only the permissions of the pins, which other users lack.
    works(&lab, "", &["dump"])?;
    works(&lab, "", &["classes", "list"])?;
    fs::set_permissions(lab.path(""), fs::Permissions::from_mode(0o755))?;
    for arguments in [&["dump"][..], &["status"], &["classes", "list"]] {
        let mut stranger = lab.host().command("setpriv");
        stranger.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(trafctl_program()?);
        stranger.arg("--bpffs").arg(lab.bpffs());
        stranger.arg("--state-dir").arg(lab.state_dir()).args(arguments);
        let output = output(&mut stranger)?;
        let reported = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?} as nobody: {reported}");
        ensure!(
            reported.contains("Permission denied") || reported.contains("cannot"),
            "{arguments:?}: {reported}"
        );
        ensure!(
            reported.matches("trafctl: ").count() == 1 && !reported.contains("panicked"),
            "{arguments:?}: {reported}"
        );
    }
    // No counter has changed.
    assert_eq!(Counters::at_rest(&lab)?, before);
    is_well(&lab)
}

#[test]
fn files_are_not_accessible_to_other_users() -> Result<()> {
    let lab = node("caps-modes")?;
    let (_a, _b) = pair(&lab)?;
    let socket = lab.path("api.sock");
    let listen = format!("[api]\nlisten = \"unix:{}\"\n", socket.display());
    lab.configure(&format!("{}{listen}", fs::read_to_string(lab.config())?))?;
    fs::remove_dir(lab.state_dir())?;
    // With an open umask: the program sets the modes itself.
    let mut shell = lab.trafctl(&["run"])?;
    let mut command = Command::new("sh");
    command.args(["-c", "umask 0; exec \"$@\"", "sh"]).arg(shell.get_program()).args(shell.get_args());
    shell = command;
    let mut daemon = Daemon::spawn(&mut shell, Resync::Off)?;
    daemon.ready()?;
    lab.run_ok(&["address", "add", "301", "10.3.0.1"])?;
    assert_eq!(mode(&socket)?, 0o660);
    for directory in [lab.state_dir(), lab.bpffs().join("maps"), lab.bpffs().join("links")] {
        let mode = mode(&directory)?;
        ensure!(mode & 0o027 == 0, "{}: {mode:o}", directory.display());
    }
    let mut files = 0;
    for entry in fs::read_dir(lab.state_dir())? {
        let path = entry?.path();
        let mode = mode(&path)?;
        ensure!(mode & 0o137 == 0, "{}: {mode:o}", path.display());
        files += 1;
    }
    ensure!(files >= 3, "expected the ledger, the lock and the addresses, found {files} files");
    for map in fs::read_dir(lab.bpffs().join("maps"))? {
        let path = map?.path();
        ensure!(mode(&path)? & 0o137 == 0 && fs::metadata(&path)?.uid() == 0, "{}", path.display());
    }
    daemon.stop()
}

fn mode(path: &Path) -> Result<u32> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot stat {}", path.display()))?;
    Ok(metadata.permissions().mode() & 0o7777)
}
