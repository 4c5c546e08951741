//! A full disk: what was crossed meanwhile is found when there is room again, and its actions run once, in their order.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{Daemon, Resync, check::eventually, small_disk::SmallDisk, wall_clock};

use super::{PATIENCE, crossings, lines, node, runner_by, send, set_clock};

#[test]
fn what_is_crossed_while_the_disk_is_full_is_done_once_there_is_room() -> Result<()> {
    let (lab, a, b) = node("quota-full")?;
    let disk = SmallDisk::mount(lab.state_dir())?;
    let (log, clock) = (lab.path("ran"), lab.path("clock"));
    let quotas = format!(
        "[[action]]\nname = 'act'\ncommand = ['/bin/sh', '-c', 'echo $TRAFCTL_ID >>{}']\n\
         [[quota]]\nname = 'traffic'\ncontainer = '101'\nallowance = '100kB'\ndirection = 'in'\nperiod = 'day'\n\
         thresholds = ['50%', '100%']\nactions = {{ '50%' = ['act'], '100%' = ['act'] }}\n",
        log.display()
    );
    lab.write("quotas.toml", &quotas)?;
    set_clock(&clock, 0)?;
    let mut daemon = Daemon::spawn(&mut wall_clock::of_file(lab.trafctl(&["run"])?, &clock), Resync::Off)?;
    daemon.ready()?;
    let actions = runner_by(&lab, &clock)?;
    let used = || {
        let shown = lab.run_json(&["quota", "show", "--format", "json"])?;
        anyhow::Ok(shown["standings"][0]["used_bytes"].as_u64().unwrap_or(0))
    };
    send(&a, &b, 1)?;
    eventually("the quota is followed", || Ok(used()? >= 1000)).with_context(|| daemon.log())?;
    let filler = disk.fill()?;
    // Some rows may still fit into what the files have.
    eventually("drains fail", || {
        send(&a, &b, 1)?;
        Ok(daemon.log().contains("the file system of the ledger is full"))
    })
    .with_context(|| daemon.log())?;
    send(&a, &b, 110)?;
    fs::remove_file(filler)?;
    let done = |percent: u64| (percent, "reached".to_owned(), vec!["done".to_owned()]);
    eventually("both have run", || Ok(crossings(&lab)? == [done(50), done(100)]))
        .with_context(|| format!("{:?} {}", crossings(&lab), daemon.log()))?;
    ensure!(used()? >= 112_000, "{}", used()?);
    ensure!(actions.terminate(PATIENCE)?.success());
    // Whoever runs actions next finds both noted.
    lab.run_ok(&["quota", "run", "--once"])?;
    let ran = lines(&log);
    let ends = |at: usize, end: &str| ran[at].ends_with(&format!("/{end}/reached/1/act"));
    ensure!(ran.len() == 2 && ends(0, "50") && ends(1, "100"), "{ran:?}");
    daemon.stop_after_errors()?;
    Ok(())
}
