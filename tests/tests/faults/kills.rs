//! Commands killed at any moment: the next command removes or completes what was left, and no packet is lost.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use traffic_tests::check::{
    PATIENCE, agrees_with_kernel, eventually, is_well, problems, rounds, stderr, trafctl,
};
use traffic_tests::evidence::compare;
use traffic_tests::process::Process;
use traffic_tests::traffic::Load;
use traffic_tests::{Amounts, Counters, Daemon, Lab};

use crate::node::{at, booked, node, pair};

/// The duration of a command that is not killed.
pub fn length_of(lab: &Lab, arguments: &[&str]) -> Result<Duration> {
    let begin = Instant::now();
    lab.run_ok(arguments)?;
    Ok(begin.elapsed())
}

/// Starts a command and kills it after a delay. Returns whether it was still running.
pub fn kill_after(lab: &Lab, arguments: &[&str], delay: Duration) -> Result<bool> {
    let mut command = lab.trafctl(arguments)?;
    let mut process =
        Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    // The delay is the subject of the test; this sleep does not wait for a condition.
    std::thread::sleep(delay);
    process.signal(Signal::KILL)?;
    Ok(process.wait(PATIENCE)?.code().is_none())
}

/// Moments spread over the duration of a command and slightly beyond.
pub fn instants(length: Duration, count: u32) -> impl Iterator<Item = Duration> {
    (0..count).map(move |step| length * (step * 11 % count) / count * 6 / 5)
}

#[test]
fn a_killed_attach_is_completed_by_the_next() -> Result<()> {
    let lab = node("kill-attach")?;
    let (a, b) = pair(&lab)?;
    let length = length_of(&lab, &["attach"])?;
    let load = Load::start(a.namespace(), b.namespace(), at(b.v6()), 300)?;
    let mut cut_short = 0;
    for delay in instants(length, rounds(9, 24)) {
        lab.run_ok(&["detach", "--purge", "--yes"])?;
        cut_short += u32::from(kill_after(&lab, &["attach"], delay)?);
        // The next attach succeeds, whatever was left.
        let next = trafctl(&lab, &["attach"])?;
        ensure!(next.status.success(), "after {delay:?}: {}", stderr(&next));
        is_well(&lab).with_context(|| format!("after {delay:?}"))?;
        let counters = Counters::read(&lab)?;
        ensure!(counters.interface("veth101.0").out_unseen_skbs > 0, "the missed traffic is recorded");
    }
    ensure!(cut_short >= 2, "only {cut_short} were killed before their end");
    let sent = load.stop()?;
    let counters = Counters::at_rest(&lab)?;
    let row = counters.interface("veth101.0");
    let counted = Amounts::outgoing(row.out_skbs + row.out_unseen_skbs, 0);
    let what = "buffers counted or known as missed, attaches killed meanwhile";
    compare(what, "the sender", Amounts::outgoing(sent.packets, 0), counted)?;
    for interface in [a.interface(), b.interface()] {
        agrees_with_kernel(&lab, &counters, interface)?;
    }
    is_well(&lab)
}

#[test]
fn a_killed_class_load_leaves_a_complete_table() -> Result<()> {
    let lab = node("kill-classes")?;
    // A load that is killed at its very end leaves a table whose origin was not recorded yet. Then `status` compares
    // it with the lab's own small file, which would be held.
    let config = std::fs::read_to_string(lab.config())?;
    lab.configure(&format!("{config}[classes]\nhold_if_removed = \"100%\"\n"))?;
    let (a, b) = pair(&lab)?;
    let daemon = Daemon::start(&lab)?;
    // Two tables with different classes for every packet, large enough to take some time to load.
    let table = |class: u32| {
        let many: String = (0..20_000_u32)
            .map(|n| format!("7 {}.{}.{}.0/24\n", 11 + n / 65_536, n / 256 % 256, n % 256))
            .collect();
        format!("{class} 0.0.0.0/0\n{class} ::/0\n{many}")
    };
    let files = [lab.write("three", &table(3))?, lab.write("four", &table(4))?];
    let paths = [files[0].to_str().context("the path is not UTF-8")?, files[1].to_str().context("a path")?];
    let length = length_of(&lab, &["classes", "load", "--yes", paths[0]])?;
    let load = Load::start(a.namespace(), b.namespace(), at(b.v6()), 250)?;
    let mut cut_short = 0;
    for (round, delay) in instants(length, rounds(6, 30)).enumerate() {
        cut_short += u32::from(kill_after(&lab, &["classes", "load", "--yes", paths[round % 2]], delay)?);
        // One of the two is in force completely: no packet falls into the default class of an empty table,
        // and the list shows the table in force.
        let list = lab.run_ok(&["classes", "list"])?;
        ensure!(list.lines().count() == 20_003, "after {delay:?}: {} lines", list.lines().count());
        is_well(&lab).with_context(|| format!("after {delay:?}"))?;
    }
    ensure!(cut_short >= 2, "only {cut_short} were killed before their end");
    let sent = load.stop()?;
    let counters = Counters::at_rest(&lab)?;
    // Class 2 would be that of the first table, class 1 that of an empty one.
    let by_class = [1, 2, 3, 4].map(|class| counters.class_or_zero("101", class, "ipv6"));
    let counted = by_class.into_iter().fold(Amounts::default(), Amounts::plus);
    let what = "datagrams, class loads killed meanwhile";
    compare(what, "the sender", Amounts::outgoing(sent.packets, sent.bytes), counted)?;
    ensure!(by_class[0] == Amounts::default() && by_class[1] == Amounts::default(), "{by_class:?}");
    agrees_with_kernel(&lab, &counters, a.interface())?;
    lab.run_ok(&["classes", "load", "--yes", paths[1]])?;
    eventually("the ledger has it", || {
        Ok(booked(&lab, "101")? == Amounts::outgoing(sent.packets, sent.bytes))
    })?;
    daemon.stop()
}

#[test]
fn a_daemon_killed_while_it_replaces_the_program_is_completed_by_the_next() -> Result<()> {
    let lab = node("kill-run")?;
    let (a, b) = pair(&lab)?;
    let begin = Instant::now();
    Daemon::start(&lab)?.stop()?;
    let length = begin.elapsed();
    let load = Load::start(a.namespace(), b.namespace(), at(b.v6()), 450)?;
    let mut replaced = 0;
    for delay in instants(length, rounds(8, 24)) {
        // As if another build had loaded the program: each start replaces it under traffic.
        crate::node::as_if_loaded_by_another_build(&lab)?;
        kill_after(&lab, &["run"], delay)?;
        let next = trafctl(&lab, &["attach"])?;
        ensure!(next.status.success(), "after {delay:?}: {}", stderr(&next));
        replaced += u32::from(stderr(&next).contains("replaced the program"));
        // A daemon that was killed before it published anything was never there.
        let problems = problems(&lab)?;
        ensure!(
            problems.iter().all(|problem| problem.contains("ended at some time after")),
            "after {delay:?}: {problems:#?}"
        );
    }
    ensure!(replaced >= 1, "no replacement was left to the next command");
    let sent = load.stop()?;
    let daemon = Daemon::start(&lab)?;
    let counters = Counters::at_rest(&lab)?;
    let all = Amounts::outgoing(sent.packets, sent.bytes);
    let what = "datagrams, daemons killed at their start meanwhile";
    compare(what, "the sender", all, counters.class("101", 2, "ipv6"))?;
    for interface in [a.interface(), b.interface()] {
        agrees_with_kernel(&lab, &counters, interface)?;
        assert_eq!(counters.interface(interface).out_unseen_skbs, 0);
    }
    eventually("the ledger has it", || {
        Ok(booked(&lab, "101")? == Amounts::outgoing(sent.packets, sent.bytes))
    })?;
    daemon.stop()
}
