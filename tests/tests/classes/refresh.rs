//! docs/classes.md: the script that refreshes the classes and its units, under a real systemd.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{
    Lab,
    check::{eventually, output, stderr},
    process::{run_ok, run_with_input},
    systemd::Systemd,
};

const PAGE: &str = include_str!("../../../docs/classes.md");

/// Writes the sample to the file after `-o`, or fails as for a server that does not answer.
const CURL: &str = "#!/bin/sh\nset -eu\ncp /var/lib/sample \"$3\"\n";
const SCRIPT: &str = "/usr/local/sbin/refresh-classes";
const FILE: &str = "/etc/trafctl/networks_classes";
const SERVICE: &str = "refresh-classes.service";
const TIMER: &str = "refresh-classes.timer";

/// Lets the timer of the page elapse now.
const NOW: &str = "[Timer]\nOnCalendar=\nOnActiveSec=10ms\nAccuracySec=1ms\nRandomizedDelaySec=0\n";

/// The text that the page puts into a file.
fn document(name: &str) -> Result<&'static str> {
    let start = format!("cat > {name} <<'END'\n");
    let (_, rest) = PAGE.split_once(&start).with_context(|| format!("the page has no {name}"))?;
    let (text, _) = rest.split_once("END\n").context("the end")?;
    Ok(text)
}

/// A unit of the page.
fn unit(name: &str) -> Result<&'static str> {
    let start = format!("```ini\n# /etc/systemd/system/{name}\n");
    let (_, rest) = PAGE.split_once(&start).with_context(|| format!("the page has no {name}"))?;
    let (text, _) = rest.split_once("```").context("the end")?;
    Ok(text)
}

fn write(systemd: &Systemd, path: &str, text: &str) -> Result<()> {
    let mode = if text.starts_with("#!") { "755" } else { "644" };
    let script = "mkdir -p \"${0%/*}\" && cat > \"$0\" && chmod \"$1\" \"$0\"";
    run_with_input(systemd.command("sh").args(["-c", script, path, mode]), text).map(drop)
}

/// This many networks of class 2, as an exchange would publish them.
fn list(networks: usize) -> String {
    (0..networks).map(|n| format!("203.0.{}.0/24\n", n * 2)).collect()
}

fn class_of(systemd: &Systemd, address: &str) -> Result<String> {
    run_ok(systemd.command("/trafctl").args(["--bpffs", "/sys/fs/bpf", "classes", "explain", address]))
}

#[test]
fn the_units_of_the_page_refresh_the_classes() -> Result<()> {
    let lab = Lab::new("refresh")?;
    lab.configure(&format!("class_file = {:?}\n", PathBuf::from(FILE)))?;
    let systemd = Systemd::boot(&lab, "")?;
    systemd.active()?;
    // Only in the namespace of this systemd.
    run_ok(systemd.command("mount").args(["-t", "tmpfs", "tmpfs", "/usr/local/sbin"]))?;
    run_ok(systemd.command("ln").args(["-s", "/trafctl", "/usr/local/sbin/trafctl"]))?;
    write(&systemd, "/usr/local/sbin/curl", CURL)?;
    write(&systemd, SCRIPT, document("refresh-classes")?)?;
    write(&systemd, "/etc/trafctl/base", document("base")?)?;
    for name in [SERVICE, TIMER] {
        write(&systemd, &format!("/etc/systemd/system/{name}"), unit(name)?)?;
    }
    // The pins of the lab's service are not in the default place.
    let pins = "[Service]\nEnvironment=TRAFCTL_BPFFS=/sys/fs/bpf\n";
    write(&systemd, &format!("/etc/systemd/system/{SERVICE}.d/lab.conf"), pins)?;
    let units = [SERVICE, TIMER].map(|name| format!("/etc/systemd/system/{name}"));
    let verified = output(systemd.command("systemd-analyze").args(["verify", "--man=no"]).args(&units))?;
    ensure!(verified.status.success() && stderr(&verified).is_empty(), "{}", stderr(&verified));
    systemd.systemctl(&["daemon-reload"])?;
    systemd.systemctl(&["enable", "--now", TIMER])?;
    let next = || systemd.systemctl(&["show", "--value", "--property=NextElapseUSecRealtime", TIMER]);
    let planned = next()?;
    ensure!(planned.contains(" 03:"), "the timer waits for the night: {planned}");

    // The first run, by the timer. The daemon has waited for the file.
    write(&systemd, "/var/lib/sample", &list(20))?;
    write(&systemd, &format!("/etc/systemd/system/{TIMER}.d/now.conf"), NOW)?;
    systemd.systemctl(&["daemon-reload"])?;
    systemd.systemctl(&["restart", TIMER])?;
    let state = |property: &str| {
        let shown = systemd.systemctl(&["show", "--value", "--property", property, SERVICE])?;
        anyhow::Ok(shown.trim().to_owned())
    };
    systemd.logs("23 prefixes in 3 classes are in force", 1)?;
    eventually("the script has ended", || Ok(state("ActiveState")? == "inactive"))?;
    assert_eq!((state("Result")?, state("ExecMainStatus")?), ("success".to_owned(), "0".to_owned()));
    ensure!(class_of(&systemd, "203.0.38.7")?.starts_with("203.0.38.7 is class 2 \"Domestic\""));
    ensure!(class_of(&systemd, "8.8.8.8")?.starts_with("8.8.8.8 is class 1 \"World\""));

    // What must not be put in force: an error page, a file cut inside a line, a list that lost most of its
    // networks, and nothing at all.
    let good = run_ok(systemd.command("cat").arg(FILE))?;
    for sample in ["<!DOCTYPE html>\n<html></html>\n", "203.0.0.0/2", "203.0.0.0/24\n", ""] {
        write(&systemd, "/var/lib/sample", sample)?;
        // So many starts within ten seconds would be a failure by themselves.
        systemd.systemctl(&["reset-failed", SERVICE])?;
        let failed = output(systemd.command("systemctl").args(["start", SERVICE]))?;
        ensure!(!failed.status.success(), "{sample:?}");
        assert_eq!(state("Result")?, "exit-code", "{sample:?}");
        assert_eq!(run_ok(systemd.command("cat").arg(FILE))?, good, "{sample:?}");
    }
    ensure!(class_of(&systemd, "203.0.38.7")?.contains("is class 2"));
    // The next good list takes effect.
    write(&systemd, "/var/lib/sample", &list(21))?;
    systemd.systemctl(&["reset-failed", SERVICE])?;
    let result = || state("Result").unwrap_or_default();
    systemd.systemctl(&["start", SERVICE]).with_context(result)?;
    systemd.logs("24 prefixes in 3 classes are in force", 1)
}
