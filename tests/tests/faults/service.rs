//! The shipped unit, started by a real systemd: it counts, works in its sandbox, and restarts.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use traffic_tests::check::{agrees_with_kernel, booked, eventually, output};
use traffic_tests::container::introduce;
use traffic_tests::process::run_ok;
use traffic_tests::systemd::{SERVICE, Systemd};
use traffic_tests::traffic::udp_send;
use traffic_tests::{Amounts, Container, Counters, Lab};

use crate::node::{CLASSES, at, pair};

/// The identity command runs in the sandbox of the service.
const CONFIGURATION: &str = r#"
[classes]
hold_if_removed = "100%"
[drain]
interval = "100ms"
[api]
listen = "unix:/run/trafctl/api.sock"
[[interfaces.rule]]
pattern = "^vnet[0-9]+$"
kind = "mapped"
[identities]
command = ["/bin/sh", "-c", "echo vnet7 104 | cat"]
"#;

/// Sends from one to the other. Returns the amounts that the sender's counters must have.
fn sent(from: &Container, to: &Container, datagrams: u64, size: usize) -> Result<Amounts> {
    let sent = udp_send(from.namespace(), to.namespace(), at(to.v4()), datagrams, size)?;
    Ok(Amounts::outgoing(sent.packets, sent.l3_bytes))
}

/// Checks that the service can write only pins and state, has three capabilities, and is under a system call
/// filter.
fn is_confined(systemd: &Systemd) -> Result<()> {
    for file in [
        "/probe",
        "/etc/probe",
        "/usr/probe",
        "/var/lib/probe",
        "/run/probe",
        "/home/probe",
        "/sys/kernel/probe",
        "/sys/fs/cgroup/probe",
        "/proc/irq/default_smp_affinity",
    ] {
        // Opened for writing, but nothing is written, because these files are the machine's.
        let open = output(systemd.in_service("sh")?.args(["-c", ": >>\"$0\"", file]))?;
        let text = String::from_utf8_lossy(&open.stderr);
        ensure!(!open.status.success() && text.contains("Read-only file system"), "{file}: {text}");
    }
    for place in ["/sys/fs/bpf", "/var/lib/trafctl", "/run/trafctl"] {
        let probe = format!("{place}/probe");
        run_ok(systemd.in_service("mkdir")?.arg(&probe))?;
        run_ok(systemd.in_service("rmdir")?.arg(&probe))?;
    }
    // Opened for writing, as above.
    run_ok(systemd.in_service("sh")?.args(["-c", ": >>/sys/kernel/rcu_expedited"]))?;
    let process = format!("/proc/{}/status", systemd.property("MainPID")?);
    let status = run_ok(systemd.command("cat").arg(process))?;
    let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    // CAP_NET_ADMIN is 12, CAP_PERFMON 38, CAP_BPF 39.
    let capabilities = format!("{:016x}", 1_u64 << 12 | 1 << 38 | 1 << 39);
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        ensure!(value(set) == Some(&capabilities), "{set} {status}");
    }
    ensure!(value("Seccomp:") == Some("2") && value("NoNewPrivs:") == Some("1"), "{status}");
    Ok(())
}

#[test]
fn the_service_counts_and_comes_back_under_systemd() -> Result<()> {
    let lab = Lab::new("systemd")?;
    lab.configure(CONFIGURATION)?;
    let (a, b) = pair(&lab)?;
    let d = lab.bridged_as("vnet7", [10, 1, 0, 4].into(), "fd00:1::4".parse()?)?;
    introduce(&[&b, &d])?;
    let systemd = Systemd::boot(&lab, CLASSES)?;
    systemd.active()?;
    is_confined(&systemd)?;

    let mut second = sent(&a, &b, 50, 400)?;
    assert_eq!(Counters::at_rest(&lab)?.class("101", 2, "ipv4"), second);
    let fourth = sent(&d, &b, 25, 333)?;
    assert_eq!(Counters::at_rest(&lab)?.class("104", 2, "ipv4"), fourth);
    let answer = run_ok(systemd.command("curl").args([
        "--silent",
        "--fail",
        "--unix-socket",
        "/run/trafctl/api.sock",
        "http://x/metrics",
    ]))?;
    ensure!(answer.contains("trafctl_network_transmit_bytes_total"), "{answer}");

    // A container that starts while the service runs.
    let c = lab.bridged(103, 0, [10, 1, 0, 3].into(), "fd00:1::3".parse()?)?;
    introduce(&[&a, &b, &c])?;
    systemd.logs("veth103.0: attached", 1)?;
    let third = sent(&c, &b, 20, 111)?;

    // Killed, with traffic meanwhile. systemd restarts it.
    let killed = systemd.property("MainPID")?;
    run_ok(systemd.command("kill").args(["-KILL", &killed]))?;
    second = second.plus(sent(&a, &b, 30, 500)?);
    systemd.logs("following interfaces", 2)?;
    systemd.active()?;
    ensure!(systemd.property("MainPID")? != killed && systemd.property("NRestarts")? == "1");

    // Other classes from here on.
    systemd.classes("1 0.0.0.0/0\n1 ::/0\n3 10.1.0.0/16\n")?;
    systemd.systemctl(&["reload", SERVICE])?;
    eventually("the new classes are in force", || Ok(systemd.log().contains("are in force")))?;
    let other = sent(&a, &b, 40, 600)?;

    systemd.systemctl(&["restart", SERVICE])?;
    let after_restart = sent(&a, &b, 10, 700)?;
    systemd.systemctl(&["stop", SERVICE])?;
    let while_stopped = sent(&a, &b, 15, 800)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), second);
    assert_eq!(counters.class("101", 3, "ipv4"), other.plus(after_restart).plus(while_stopped));
    assert_eq!(counters.class("103", 2, "ipv4"), third);
    for container in [&a, &b, &c] {
        agrees_with_kernel(&lab, &counters, container.interface())?;
    }

    systemd.systemctl(&["start", SERVICE])?;
    systemd.active()?;
    for container in ["101", "103"] {
        eventually("the ledger has the counts", || {
            Ok(booked(&lab, container)? == counters.container(container))
        })?;
    }
    let status =
        run_ok(systemd.command("/trafctl").args(["--bpffs", "/sys/fs/bpf", "status", "--format", "json"]))?;
    let status: Value = serde_json::from_str(&status)?;
    let problems = status["problems"].as_array().context("problems")?;
    ensure!(problems.is_empty(), "{problems:?}");
    ensure!(!systemd.log().contains("ERROR"), "{}", systemd.log());
    Ok(())
}

#[test]
fn a_daemon_that_does_nothing_any_more_is_replaced_by_systemd() -> Result<()> {
    let lab = Lab::new("watchdog")?;
    let (a, b) = pair(&lab)?;
    let systemd = Systemd::boot(&lab, CLASSES)?;
    systemd.active()?;
    let shipped = systemd.property("WatchdogUSec")?;
    ensure!(shipped == "30s", "the unit has no watchdog: {shipped}");
    // The shipped time is long for a test.
    let drop_in = lab.path("systemd/etc/systemd/system/trafctl.service.d/watchdog.conf");
    fs::write(drop_in, "[Service]\nWatchdogSec=3\n")?;
    systemd.systemctl(&["daemon-reload"])?;
    systemd.systemctl(&["restart", SERVICE])?;
    systemd.active()?;
    let (first, restarts) = (systemd.property("MainPID")?, systemd.property("NRestarts")?);
    let mut count = sent(&a, &b, 21, 400)?;
    // A daemon that works is left alone for longer than that.
    thread::sleep(Duration::from_secs(5));
    ensure!(systemd.property("MainPID")? == first, "a daemon that works was replaced");
    run_ok(systemd.command("kill").args(["-STOP", &first]))?;
    count = count.plus(sent(&a, &b, 34, 500)?);
    eventually("another daemon runs", || {
        let now = systemd.property("MainPID")?;
        Ok(now != first && now != "0" && systemd.property("ActiveState")? == "active")
    })?;
    ensure!(systemd.property("NRestarts")? != restarts, "it was not the watchdog");
    count = count.plus(sent(&a, &b, 13, 600)?);
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), count);
    agrees_with_kernel(&lab, &counters, a.interface())
}
