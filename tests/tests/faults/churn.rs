//! Interfaces created and removed by the hundred under load, and a program that replaces another build's
//! under a daemon.

use std::thread;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use traffic_tests::check::{agrees_with_kernel, eventually, is_well, problems, rounds};
use traffic_tests::evidence::compare;
use traffic_tests::traffic::{Load, tcp_exchange};
use traffic_tests::{Amounts, Counters, Daemon};

use crate::node::{as_if_loaded_by_another_build, at, booked, node, pair};

#[test]
fn interfaces_come_and_go_by_the_hundred() -> Result<()> {
    const AT_ONCE: u32 = 50;
    let lab = node("churn")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let load = Load::start(a.namespace(), b.namespace(), at(b.v4()), 500)?;
    // 100 in everyday tests, 1,000 in thorough ones.
    for round in 0..rounds(2, 20) {
        let lines = |line: &dyn Fn(u32) -> String| {
            (0..AT_ONCE).map(|n| line(1000 + round * AT_ONCE + n) + "\n").collect::<String>()
        };
        lab.host().ip_batch(&lines(&|id| format!("link add veth{id}.0 up type veth peer name peer{id}")))?;
        if round % 2 == 0 {
            eventually("all are attached", || Ok(problems(&lab)?.is_empty()))?;
        }
        lab.host().ip_batch(&lines(&|id| format!("link delete veth{id}.0")))?;
    }
    eventually("nothing is pinned for them", || {
        Ok(std::fs::read_dir(lab.bpffs().join("links"))?.count() == 4)
    })?;
    let sent = load.stop()?;
    let counters = Counters::at_rest(&lab)?;
    let all = Amounts::outgoing(sent.packets, sent.bytes);
    let what = format!("{} datagrams while interfaces came and went", sent.packets);
    compare(&what, "the sender", all, counters.class("101", 2, "ipv4"))?;
    agrees_with_kernel(&lab, &counters, a.interface())?;
    agrees_with_kernel(&lab, &counters, b.interface())?;
    eventually("the ledger has it", || Ok(booked(&lab, "101")? == all))?;
    is_well(&lab)?;
    daemon.stop()
}

#[test]
fn a_daemon_of_another_build_takes_over_under_traffic() -> Result<()> {
    let lab = node("takeover")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    let load = Load::start(a.namespace(), b.namespace(), at(b.v6()), 600)?;
    let count = thread::scope(|scope| {
        let flow = scope.spawn(|| tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), 40 << 20, 1 << 20));
        for round in 0..4 {
            load.passes(300)?;
            as_if_loaded_by_another_build(&lab)?;
            // As when a package is upgraded, and as when that crashes.
            if round % 2 == 0 {
                daemon.signal(Signal::TERM)?;
                daemon.wait()?;
            } else {
                daemon.kill()?;
            }
            load.passes(300)?;
            daemon = Daemon::start(&lab)?;
            daemon.logs("replaced the program")?;
        }
        flow.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let sent = load.stop()?;
    let counters = Counters::at_rest(&lab)?;
    let tcp = Amounts::both(
        (count.server.segments, count.server.l3_bytes),
        (count.client.segments, count.client.l3_bytes),
    );
    compare(
        "TCP while the program was replaced 4 times",
        "the sockets",
        tcp,
        counters.class("101", 2, "ipv4"),
    )?;
    let all = Amounts::outgoing(sent.packets, sent.bytes);
    compare("datagrams meanwhile", "the sender", all, counters.class("101", 2, "ipv6"))?;
    agrees_with_kernel(&lab, &counters, a.interface())?;
    assert_eq!(counters.interface("veth101.0").out_unseen_skbs, 0, "no hook was empty for a moment");
    let total = counters.container("101");
    eventually("the ledger has it", || Ok(booked(&lab, "101")? == total))?;
    ensure!(std::fs::read_dir(lab.bpffs().join("programs"))?.count() == 2);
    is_well(&lab)?;
    daemon.stop()
}
