//! Alerts on a real node: each problem is told once when it appears and once when it is over, also without
//! the daemon, without a ledger, and from the shipped units.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{
    Container, Daemon, Lab,
    check::{eventually, problems, stderr},
    container::introduce,
    systemd::{Systemd, unit_named},
};

const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n";

fn node(name: &str) -> Result<(Lab, Container)> {
    let lab = Lab::new(name)?;
    let classes = lab.write("networks_classes", CLASSES)?;
    lab.configure(&format!("class_file = {classes:?}\nnode = 'n7'\n[drain]\ninterval = '100ms'\n"))?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    introduce(&[&a])?;
    Ok((lab, a))
}

/// An alert for all problems that notes each of its events in a file.
fn alerts(log: &Path) -> String {
    format!(
        "[[action]]\nname = 'note'\ncommand = ['/bin/sh', '-c', 'echo $TRAFCTL_EVENT $TRAFCTL_PROBLEM >>{0}']\n\
         lift = ['/bin/sh', '-c', 'echo $TRAFCTL_EVENT $TRAFCTL_PROBLEM >>{0}']\n\
         [[alert]]\nactions = ['note']\nafter = '0s'\n",
        log.display()
    )
}

/// Looks once, and runs what that calls for. Returns what was told since the last call.
fn told(lab: &Lab, log: &Path) -> Result<Vec<String>> {
    lab.run_ok(&["quota", "watch", "--once"])?;
    // Without a ledger, it says so, and tells all the same.
    let ran = lab.trafctl(&["quota", "run", "--once"])?.output()?;
    let text = fs::read_to_string(log).unwrap_or_default();
    fs::write(log, "")?;
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    ensure!(ran.status.success() || stderr(&ran).contains("ledger"), "{}", stderr(&ran));
    Ok(lines)
}

#[test]
fn each_problem_is_told_once_also_without_the_daemon_and_the_ledger() -> Result<()> {
    let (lab, _a) = node("alerts")?;
    let log = lab.path("told");
    let quotas = lab.config().with_file_name("quotas.toml");
    fs::write(&quotas, alerts(&log))?;
    let mut daemon = Daemon::start(&lab)?;
    eventually("nothing is wrong", || Ok(problems(&lab)?.is_empty())).with_context(|| daemon.log())?;
    ensure!(told(&lab, &log)?.is_empty(), "nothing is wrong");
    daemon.kill()?;
    ensure!(told(&lab, &log)? == ["reached daemon"]);
    ensure!(told(&lab, &log)?.is_empty(), "it was told");
    // One is there already.
    lab.run_ok(&["detach", "veth101.0"])?;
    ensure!(told(&lab, &log)? == ["reached interfaces"]);
    let listed = lab.trafctl(&["quota", "alerts"])?.output()?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    ensure!(listed.status.code() == Some(1) && text.contains("veth101.0: not attached"), "{text}");
    // A ledger that cannot be read keeps nobody from being told so.
    let ledger = lab.state_dir().join("ledger.sqlite");
    let aside = lab.path("aside");
    fs::rename(&ledger, &aside)?;
    for beside in ["ledger.sqlite-wal", "ledger.sqlite-shm"] {
        let _missing = fs::remove_file(lab.state_dir().join(beside));
    }
    fs::write(&ledger, "no ledger at all, and longer than a header of SQLite would be ".repeat(20))?;
    ensure!(told(&lab, &log)? == ["reached drains"]);
    fs::rename(&aside, &ledger)?;
    // Everything is well again.
    let daemon = Daemon::start(&lab)?;
    eventually("nothing is wrong", || Ok(problems(&lab)?.is_empty())).with_context(|| daemon.log())?;
    let mut over = told(&lab, &log)?;
    over.retain(|line| !line.ends_with(" gaps"));
    over.sort_unstable();
    ensure!(over == ["ended daemon", "ended drains", "ended interfaces"], "{over:?}");
    let document = lab.run_json(&["quota", "alerts", "--format", "json"])?;
    let rows = document["alerts"].as_array().context("alerts")?;
    ensure!(
        rows.iter().all(|row| row["over"].is_string() && row["actions"][0]["state"] == "done"),
        "{document}"
    );
    daemon.stop()?;
    // An action that fails is a problem as well, and not one that its own alert repeats.
    fs::write(&quotas, alerts(&log).replace("echo ", "exit 7; echo "))?;
    lab.run_ok(&["detach", "veth101.0"])?;
    let before = rows.len();
    for _ in 0..3 {
        lab.run_ok(&["quota", "watch", "--once"])?;
        let _failed = lab.trafctl(&["quota", "run", "--once"])?.output()?;
    }
    let all = problems(&lab)?;
    ensure!(
        all.iter().any(|one| one.contains("of quotas failed") && one.contains("for the node")),
        "{all:?}"
    );
    let listed = lab.trafctl(&["quota", "alerts", "--format", "json"])?.output()?;
    let document: serde_json::Value = serde_json::from_slice(&listed.stdout)?;
    let kinds = document["alerts"].as_array().context("alerts")?[before..].iter();
    let mut kinds: Vec<&str> = kinds.filter_map(|row| row["problem"].as_str()).collect();
    kinds.sort_unstable();
    ensure!(kinds == ["interfaces", "quotas"], "{document}");
    Ok(())
}

#[test]
fn the_shipped_units_look_and_tell() -> Result<()> {
    let (lab, _a) = node("alerts-unit")?;
    lab.configure("node = 'n7'\n[drain]\ninterval = '100ms'\n")?;
    let systemd = Systemd::boot(&lab, CLASSES)?;
    systemd.active()?;
    let log = lab.state_dir().join("told");
    fs::write(systemd.root().join("etc/trafctl/quotas.toml"), alerts(Path::new("/var/lib/trafctl/told")))?;
    let units = systemd.root().join("etc/systemd/system");
    for (name, doing) in [("trafctl-quota", "run"), ("trafctl-watch", "watch")] {
        let unit = format!("{name}.service");
        fs::copy(unit_named(&unit), units.join(&unit))?;
        fs::create_dir(units.join(format!("{unit}.d")))?;
        fs::write(
            units.join(format!("{unit}.d/lab.conf")),
            format!(
                "[Service]\nExecStart=\nExecStart=/trafctl quota {doing}\nEnvironment=TRAFCTL_BPFFS=/sys/fs/bpf\n\
                 StandardOutput=append:/log\nStandardError=append:/log\n"
            ),
        )?;
    }
    systemd.systemctl(&["daemon-reload"])?;
    // So that nobody attaches it again before the first look.
    systemd.systemctl(&["stop", "trafctl.service"])?;
    lab.run_ok(&["detach", "veth101.0"])?;
    systemd.systemctl(&["start", "trafctl-watch.service", "trafctl-quota.service"])?;
    eventually("it is told", || {
        Ok(fs::read_to_string(&log).unwrap_or_default().lines().any(|line| line == "reached interfaces"))
    })
    .with_context(|| systemd.log())?;
    let told = fs::read_to_string(&log)?;
    ensure!(!told.contains("daemon"), "{told}: the unit may read the state of the node: {}", systemd.log());
    for name in ["trafctl-watch.service", "trafctl-quota.service"] {
        systemd.systemctl(&["stop", name])?;
        let result = systemd.systemctl(&["show", "--value", "--property=Result", name])?;
        ensure!(result.trim() == "success", "{name}: {result}: {}", systemd.log());
    }
    Ok(())
}
