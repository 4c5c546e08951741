//! A power loss with an action in the middle and another one waiting: each is run after it, and what is used goes on.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use traffic_tests::{Daemon, Resync, check::eventually, wall_clock};

use super::{PATIENCE, crossings, lines, node, runner, script, send, set_clock};

#[test]
fn what_was_ordered_before_a_reboot_is_done_after_it() -> Result<()> {
    let (lab, mut a, mut b) = node("quota-reboot")?;
    let (log, go, clock) = (lab.path("ran"), lab.path("go"), lab.path("clock"));
    let text = format!(
        "echo $TRAFCTL_ID >>{log}\nwhile ! [ -e {go} ]; do sleep 0.1; done\n",
        log = log.display(),
        go = go.display()
    );
    let program = script(&lab, "act", &text)?;
    let quotas = format!(
        "[[action]]\nname = 'act'\ncommand = ['{program}']\n[[quota]]\nname = 'traffic'\ncontainer = '101'\n\
         allowance = '100kB'\ndirection = 'in'\nperiod = 'day'\nthresholds = ['50%', '100%', '150%']\n\
         actions = {{ '50%' = ['act'], '100%' = ['act'], '150%' = ['act'] }}\n"
    );
    lab.write("quotas.toml", &quotas)?;
    set_clock(&clock, 0)?;
    let mut daemon = Daemon::spawn(&mut wall_clock::of_file(lab.trafctl(&["run"])?, &clock), Resync::Off)?;
    daemon.ready()?;
    let mut first = runner(&lab)?;
    send(&a, &b, 60)?;
    eventually("the first action has begun", || Ok(lines(&log).len() == 1)).with_context(|| daemon.log())?;
    send(&a, &b, 45)?;
    let states = || {
        let all = crossings(&lab)?.into_iter();
        anyhow::Ok(all.map(|(percent, event, states)| (percent, event, states.join(","))).collect::<Vec<_>>())
    };
    let reached = |percent: u64, state: &str| (percent, "reached".to_owned(), state.to_owned());
    let before = [reached(50, "running"), reached(100, "waiting")];
    eventually("the second one waits", || Ok(states()? == before))
        .with_context(|| format!("{:?} {}", states(), daemon.log()))?;
    // Power is lost: of the kernel nothing is left, of the disk what was written.
    daemon.kill()?;
    first.signal(Signal::KILL)?;
    first.wait(PATIENCE)?;
    lab.lose_power([&mut a, &mut b])?;

    let mut daemon =
        Daemon::spawn(&mut wall_clock::of_file(lab.in_another_boot(&["run"])?, &clock), Resync::Off)?;
    daemon.ready()?;
    fs::write(&go, "")?;
    lab.run_ok(&["quota", "run", "--once"])?;
    ensure!(states()? == [reached(50, "done"), reached(100, "done")], "{:?}", states()?);
    let ran = lines(&log);
    let ends = |line: &str, end: &str| line.ends_with(&format!("/{end}/reached/1/act"));
    ensure!(ran.len() == 3 && ran[0] == ran[1] && ends(&ran[0], "50") && ends(&ran[2], "100"), "{ran:?}");
    // What is used goes on where it was, although the counters of the kernel begin again.
    send(&a, &b, 40)?;
    eventually("nothing else is crossed at 145 %", || {
        let shown = lab.run_json(&["quota", "show", "--format", "json"])?;
        Ok(shown["standings"][0]["used_bytes"].as_u64() >= Some(145_000))
    })
    .with_context(|| daemon.log())?;
    ensure!(states()?.len() == 2, "{:?}", states()?);
    send(&a, &b, 10)?;
    eventually("150 % is reached", || Ok(states()?.len() == 3)).with_context(|| daemon.log())?;
    lab.run_ok(&["quota", "run", "--once"])?;
    ensure!(states()?[2] == reached(150, "done"), "{:?}", states()?);
    ensure!(lines(&log).len() == 4 && ends(&lines(&log)[3], "150"), "{:?}", lines(&log));
    daemon.stop()?;
    Ok(())
}
