//! Quotas on a real node: a container crosses its limit, and its action runs once, whatever is killed or restored.

mod full_disk;
mod looks;
mod reboot;
mod throttle;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use traffic_tests::{
    Container, Daemon, Lab,
    check::{eventually, problems, stderr},
    process::{Process, run_ok},
    systemd::{Systemd, unit_named},
    traffic::udp_send,
    wall_clock,
};

const PATIENCE: Duration = Duration::from_secs(20);
const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n";

fn node(name: &str) -> Result<(Lab, Container, Container)> {
    Lab::with_two(name, CLASSES, "node = 'n7'\n[drain]\ninterval = '100ms'\n")
}

/// Writes a program.
fn script(lab: &Lab, name: &str, text: &str) -> Result<String> {
    let path = lab.write(name, &format!("#!/bin/sh\n{text}"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

/// Writes the quotas: so many bytes to container 101 in a day, and an action at 100 %. The day ends hours from now.
fn quotas(lab: &Lab, bytes: u64, action: &str) -> Result<()> {
    let hour = wall_clock::seconds_since_1970()? / 3600 % 24;
    // These zones have the sign of POSIX: it is noon there.
    quotas_of(lab, (bytes, "in"), &format!("Etc/GMT{:+}", hour - 12), action)
}

/// The same for a direction and a time zone.
fn quotas_of(lab: &Lab, (bytes, direction): (u64, &str), zone: &str, action: &str) -> Result<()> {
    let text = format!(
        "[[action]]\nname = 'act'\n{action}\n[[quota]]\nname = 'traffic'\ncontainer = '101'\n\
         allowance = '{bytes}B'\ndirection = '{direction}'\nperiod = 'day'\ntime_zone = '{zone}'\nthresholds = ['50%', '100%']\n\
         actions = {{ '100%' = ['act'] }}\n"
    );
    // At once: the daemon must not see half of it.
    lab.write("quotas.toml", &text)?;
    let checked = lab.trafctl(&["quota", "check"])?.output()?;
    ensure!(checked.status.code() != Some(2), "{}", String::from_utf8_lossy(&checked.stdout));
    Ok(())
}

/// Sends from b to a: so many datagrams with 972 bytes of payload, so of 1,000 bytes.
fn send(a: &Container, b: &Container, datagrams: u64) -> Result<()> {
    udp_send(b.namespace(), a.namespace(), SocketAddr::new(a.v4(), 0), datagrams, 972).map(drop)
}

/// What was crossed: percent, event, and the states of the actions.
fn crossings(lab: &Lab) -> Result<Vec<(u64, String, Vec<String>)>> {
    let document = lab.run_json(&["quota", "crossings", "--format", "json"])?;
    let rows = document["crossings"].as_array().context("crossings")?.iter().map(|row| {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let states = row["actions"].as_array().into_iter().flatten().map(|action| text(&action["state"]));
        (row["threshold_percent"].as_u64().unwrap_or(0), text(&row["event"]), states.collect())
    });
    Ok(rows.collect())
}

/// The lines of a file; none if it does not exist.
fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn runner(lab: &Lab) -> Result<Process> {
    run_actions(lab, lab.trafctl(&["quota", "run"])?)
}

/// The same by a clock that the file sets.
fn runner_by(lab: &Lab, clock: &Path) -> Result<Process> {
    run_actions(lab, wall_clock::of_file(lab.trafctl(&["quota", "run"])?, clock))
}

fn run_actions(lab: &Lab, mut command: Command) -> Result<Process> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(lab.path("runner"))?);
    Process::spawn(&mut command)
}

fn shaper(lab: &Lab) -> Result<String> {
    run_ok(lab.host().command("tc").args(["qdisc", "show", "dev", "veth101.0", "root"]))
}

/// Sets the clock of that file: to so many seconds after noon of 10 November 2026, from now on.
fn set_clock(clock: &Path, seconds: i64) -> Result<()> {
    wall_clock::set(clock, 1_794_312_000 + seconds)
}

#[test]
fn an_action_runs_until_it_succeeds_and_not_again_after_a_restore() -> Result<()> {
    let (lab, a, b) = node("quota-kill")?;
    let (log, go) = (lab.path("ran"), lab.path("go"));
    let program = script(
        &lab,
        "act",
        &format!(
            "echo $TRAFCTL_ID >>{log}\nwhile ! [ -e {go} ]; do sleep 0.1; done\n",
            log = log.display(),
            go = go.display()
        ),
    )?;
    quotas(&lab, 50_000, &format!("command = ['{program}']"))?;
    let daemon = Daemon::start(&lab)?;
    // A container that the ledger has before the copy.
    send(&a, &b, 1)?;
    let tracks = || {
        let count = "select count(*) from quota_track";
        run_ok(Command::new("sqlite3").arg(lab.state_dir().join("ledger.sqlite")).arg(count))
    };
    eventually("the quota is followed", || Ok(tracks()?.trim() == "1"))?;
    let copy = lab.path("copy.sqlite");
    lab.run_ok(&["ledger", "backup", &copy.display().to_string()])?;
    // Killed in the middle of the action, as is the process that runs it.
    let first = runner(&lab)?;
    send(&a, &b, 60)?;
    eventually("the action has begun", || Ok(lines(&log).len() == 1)).with_context(|| daemon.log())?;
    first.signal(Signal::KILL)?;
    let mut first = first;
    first.wait(PATIENCE)?;
    let document = lab.run_json(&["quota", "crossings", "--format", "json"])?;
    ensure!(document["crossings"][1]["actions"][0]["state"] == "running", "{document}");
    fs::write(&go, "")?;
    lab.run_ok(&["quota", "run", "--once"])?;
    let ran = lines(&log);
    ensure!(ran.len() == 2 && ran[0] == ran[1] && ran[0].ends_with("/100/reached/1/act"), "{ran:?}");
    lab.run_ok(&["quota", "run", "--once"])?;
    ensure!(lines(&log).len() == 2, "it is done");
    // The ledger from before the crossing finds it again, under the same id.
    daemon.stop()?;
    let ledger = lab.state_dir().join("ledger.sqlite");
    fs::remove_file(&ledger)?;
    fs::copy(&copy, &ledger)?;
    let daemon = Daemon::start(&lab)?;
    send(&a, &b, 1)?;
    eventually("the crossing is found again", || Ok(crossings(&lab)?.len() == 2))
        .with_context(|| daemon.log())?;
    lab.run_ok(&["quota", "run", "--once"])?;
    ensure!(lines(&log) == ran, "{:?}", lines(&log));
    daemon.stop()?;
    Ok(())
}

#[test]
fn a_failed_action_and_a_broken_file_are_problems_and_stop_no_drain() -> Result<()> {
    let (lab, a, b) = node("quota-fail")?;
    quotas(&lab, 50_000, "command = ['/bin/sh', '-c', 'echo no such shaper >&2; exit 7']")?;
    let daemon = Daemon::start(&lab)?;
    send(&a, &b, 60)?;
    eventually("the crossing", || Ok(crossings(&lab)?.len() == 2)).with_context(|| daemon.log())?;
    let once = lab.trafctl(&["quota", "run", "--once"])?.output()?;
    ensure!(once.status.code() == Some(1) && stderr(&once).contains("no such shaper"), "{}", stderr(&once));
    let failed = lab.trafctl(&["quota", "crossings", "--failed"])?.output()?;
    let text = String::from_utf8_lossy(&failed.stdout).into_owned();
    ensure!(failed.status.code() == Some(1) && text.contains("no such shaper"), "{text}");
    let shown = lab.run_json(&["quota", "show", "--format", "json"])?;
    ensure!(shown["failed_actions"] == 1, "{shown}");
    let all = problems(&lab)?;
    ensure!(all.iter().any(|one| one.contains("1 action of quotas failed")), "{all:?}");
    // The same for monitoring, and whether there will be bills: everything that they need is there.
    eventually("the daemon reports its last drain", || {
        let nagios = lab.trafctl(&["status", "--nagios"])?.output()?;
        Ok(String::from_utf8_lossy(&nagios.stdout).contains(" last_drain="))
    })?;
    let nagios = lab.trafctl(&["status", "--nagios"])?.output()?;
    let text = String::from_utf8_lossy(&nagios.stdout).into_owned();
    ensure!(nagios.status.code() == Some(1) && text.starts_with("TRAFCTL WARNING - "), "{text}");
    ensure!(
        text.contains("\n1 action of quotas failed and is tried again, the last one act for 101"),
        "{text}"
    );
    for figure in
        ["last_drain=", "ledger_size=", "ledger_free=", "gaps=0 ", "months_to_close=0", "problems=1 "]
    {
        ensure!(text.contains(figure), "{figure}: {text}");
    }
    let output = lab.trafctl(&["status", "--format", "json"])?.output()?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let (of_daemon, ledger) = (&status["daemon"], &status["ledger"]);
    ensure!(of_daemon["state"] == "running" && of_daemon["last_drain"].is_string(), "{status}");
    ensure!(ledger["bytes"].as_u64() > Some(0) && ledger["free_bytes"].as_u64() > Some(0), "{status}");
    ensure!(ledger["running_month"].is_string() && ledger["gaps"]["losing_traffic"] == 0, "{status}");
    ensure!(
        status["class_table"]["difference"].is_null() && status["problem_kinds"][0] == "quotas",
        "{status}"
    );
    lab.write("quotas.toml", "[[quota]]\nnmae = 'x'\n")?;
    eventually("the mistake is a problem", || {
        Ok(problems(&lab)?.iter().any(|one| one.starts_with("quotas: ") && one.contains("quotas.toml:1:1")))
    })?;
    // The quota from before stays in force, and drains go on.
    let sum = || {
        let sum =
            "select coalesce(sum(in_packets), 0) from traffic_5min t join container c on c.id = t.container
                   where c.label = '101'";
        let text = run_ok(Command::new("sqlite3").arg(lab.state_dir().join("ledger.sqlite")).arg(sum))?;
        anyhow::Ok(text.trim().parse::<u64>()?)
    };
    let before = sum()?;
    send(&a, &b, 30)?;
    eventually("the drain", || Ok(sum()? >= before + 30))?;
    ensure!(crossings(&lab)?.len() == 2, "nothing is undone");
    daemon.stop_after_errors()?;
    Ok(())
}

#[test]
fn the_shipped_unit_runs_actions_with_one_capability() -> Result<()> {
    let (lab, a, b) = node("quota-unit")?;
    // Virtuozzo's class file, which the unit finds in its own root.
    lab.configure("node = 'n7'\n[drain]\ninterval = '100ms'\n")?;
    let systemd = Systemd::boot(&lab, CLASSES)?;
    systemd.active()?;
    let text = "[[action]]\nname = 'act'\n\
        command = ['/bin/sh', '-c', 'grep CapBnd /proc/self/status >/var/lib/trafctl/caps; \
        exec tc qdisc replace dev veth101.0 root tbf rate 1mbit burst 10kb latency 20ms']\n\
        [[quota]]\nname = 'traffic'\ncontainer = '101'\nallowance = '50kB'\ndirection = 'in'\n\
        actions = { '100%' = ['act'] }\n";
    fs::write(systemd.root().join("etc/trafctl/quotas.toml"), text)?;
    let units = systemd.root().join("etc/systemd/system");
    fs::copy(unit_named("trafctl-quota.service"), units.join("trafctl-quota.service"))?;
    fs::create_dir(units.join("trafctl-quota.service.d"))?;
    fs::write(
        units.join("trafctl-quota.service.d/lab.conf"),
        "[Service]\nExecStart=\nExecStart=/trafctl quota run\nEnvironment=TRAFCTL_BPFFS=/sys/fs/bpf\n\
         StandardOutput=append:/log\nStandardError=append:/log\n",
    )?;
    systemd.systemctl(&["daemon-reload"])?;
    systemd.systemctl(&["start", "trafctl-quota.service"])?;
    send(&a, &b, 60)?;
    eventually("the shaper is there", || Ok(shaper(&lab)?.contains("rate 1Mbit")))
        .with_context(|| systemd.log())?;
    let caps = fs::read_to_string(lab.state_dir().join("caps"))?;
    ensure!(caps.trim().ends_with("\t0000000000001000"), "{caps}: CAP_NET_ADMIN is bit 12");
    systemd.systemctl(&["stop", "trafctl-quota.service"])?;
    let result = systemd.systemctl(&["show", "--value", "--property=Result", "trafctl-quota.service"])?;
    ensure!(result.trim() == "success", "{result}: {}", systemd.log());
    Ok(())
}
