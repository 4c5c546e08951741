//! Other programs on the hooks, before ours and after, and a qdisc that others own or take away.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use traffic_tests::check::{agrees_with_kernel, eventually, is_well, problems};
use traffic_tests::evidence::compare;
use traffic_tests::foreign::{Foreign, Hook, Place, Verdict};
use traffic_tests::process::run_ok;
use traffic_tests::traffic::{tcp_exchange, udp_send};
use traffic_tests::witness::InterfaceStatistics;
use traffic_tests::{Amounts, Counters, Daemon, Resync};

use crate::node::{at, booked, node, node_with, pair};

#[test]
fn programs_after_ours_change_nothing() -> Result<()> {
    let lab = node("after")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let mut sent = Amounts::default();
    for (verdict, arrive) in
        [(Verdict::Ok, true), (Verdict::Next, true), (Verdict::Drop, false), (Verdict::Redirect, false)]
    {
        let _others = [Hook::Ingress, Hook::Egress]
            .map(|hook| Foreign::attach(lab.host(), a.interface(), hook, Place::Last, verdict));
        for other in &_others {
            ensure!(other.is_ok(), "{other:?}");
        }
        is_well(&lab)?;
        let count = udp_send(a.namespace(), b.namespace(), at(b.v4()), 40, 300)?;
        // What the container sent is its traffic, also where the host then drops it.
        ensure!((count.packets_received == count.packets) == arrive, "{verdict:?}: {count:?}");
        sent = sent.plus(Amounts::outgoing(count.packets, count.l3_bytes));
    }
    let counters = Counters::at_rest(&lab)?;
    let what = "datagrams, with foreign programs after ours";
    compare(what, "the sender", sent, counters.class("101", 2, "ipv4"))?;
    agrees_with_kernel(&lab, &counters, a.interface())?;
    is_well(&lab)
}

#[test]
fn pieces_that_a_device_cuts_are_never_called_missed() -> Result<()> {
    let lab = node("pieces")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    // What goes to 102 reaches the program whole, is cut behind it, and counted by the kernel then.
    run_ok(lab.host().command("ethtool").args(["-K", b.interface(), "tso", "off", "gso", "off"]))?;
    let transfer = || {
        let before = Counters::at_rest(&lab)?.interface(b.interface()).in_skbs;
        let kernel = InterfaceStatistics::read(lab.host(), b.interface())?.tx_packets;
        tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), 20_000_000, 1000)?;
        let ours = Counters::at_rest(&lab)?.interface(b.interface()).in_skbs - before;
        let kernel = InterfaceStatistics::read(lab.host(), b.interface())?.tx_packets - kernel;
        ensure!(kernel > 2 * ours, "nothing was cut: {ours} buffers, {kernel} by the kernel");
        anyhow::Ok(())
    };
    let unseen = || anyhow::Ok(Counters::at_rest(&lab)?.interface(b.interface()).in_unseen_skbs);
    let mut missed = unseen()?;
    transfer()?;
    lab.run_ok(&["detach"])?;
    lab.run_ok(&["attach"])?;
    assert_eq!(unseen()?, missed, "all of it was counted");

    // What passes while it is off still is missed, however much was cut before.
    transfer()?;
    lab.run_ok(&["detach"])?;
    missed += udp_send(a.namespace(), b.namespace(), at(b.v4()), 17, 300)?.packets;
    lab.run_ok(&["attach"])?;
    assert_eq!(unseen()?, missed);

    // Nor does it matter who takes it off, where a daemon compares now and then.
    let daemon = Daemon::start(&lab)?;
    transfer()?;
    // A second reload says that the first, with its listing of all interfaces, is done.
    for reloads in 1..=2 {
        daemon.signal(Signal::HUP)?;
        eventually("classes are loaded", || Ok(daemon.log().matches("are in force").count() == reloads))?;
    }
    let link = run_ok(lab.host().command("ip").args(["-o", "link", "show", b.interface()]))?;
    let (index, _) = link.split_once(':').context("an index")?;
    for direction in ["in", "out"] {
        std::fs::remove_file(lab.bpffs().join(format!("links/{index}-{direction}")))?;
    }
    let before = Counters::at_rest(&lab)?.interface(b.interface());
    let sent = udp_send(a.namespace(), b.namespace(), at(b.v4()), 23, 300)?.packets;
    daemon.signal(Signal::HUP)?;
    eventually("it hangs there again", || Ok(is_well(&lab).is_ok()))?;
    let now = Counters::at_rest(&lab)?.interface(b.interface());
    // The kernel takes its time to give up a link without a pin, and the program counts until then.
    assert_eq!(now.in_skbs - before.in_skbs + now.in_unseen_skbs - before.in_unseen_skbs, sent);
    assert!(before.in_unseen_skbs == missed && now.in_unseen_skbs <= missed + sent);
    daemon.stop()
}

#[test]
fn a_program_before_ours_is_told_of_and_put_second() -> Result<()> {
    let lab = node("before")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let first = udp_send(a.namespace(), b.namespace(), at(b.v4()), 30, 300)?;

    // One that lets others run is named, since it could do otherwise, but takes nothing.
    let other = Foreign::attach(lab.host(), "veth101.0", Hook::Ingress, Place::First, Verdict::Next)?;
    let told = problems(&lab)?;
    ensure!(told.len() == 1 && told[0].contains("foreign runs before trafctl (out)"), "{told:#?}");
    let seen = udp_send(a.namespace(), b.namespace(), at(b.v4()), 20, 300)?;
    drop(other);
    is_well(&lab)?;

    let mut missed = 0;
    for verdict in [Verdict::Ok, Verdict::Redirect] {
        let _other = Foreign::attach(lab.host(), "veth101.0", Hook::Ingress, Place::First, verdict)?;
        let starved = udp_send(a.namespace(), b.namespace(), at(b.v4()), 50, 300)?;
        missed += starved.packets;
        let told = problems(&lab)?;
        ensure!(
            told.iter().any(|problem| problem.contains("foreign runs before trafctl (out)")),
            "{told:#?}"
        );
        ensure!(told.iter().any(|problem| problem.contains("reached the program")), "{told:#?}");
        let counters = Counters::at_rest(&lab)?;
        assert_eq!(counters.class("101", 2, "ipv4").out_packets, first.packets + seen.packets, "{verdict:?}");

        // A daemon puts it right, with the size of what was missed.
        let mut daemon = Daemon::start(&lab)?;
        daemon.logs("trafctl goes first again")?;
        eventually("nothing is wrong", || Ok(problems(&lab)?.is_empty()))?;
        let counters = Counters::at_rest(&lab)?;
        assert_eq!(counters.interface("veth101.0").out_unseen_skbs, missed);
        agrees_with_kernel(&lab, &counters, a.interface())?;
        daemon.stop()?;
    }
    let last = udp_send(a.namespace(), b.namespace(), at(b.v4()), 60, 300)?;
    let counters = Counters::at_rest(&lab)?;
    let packets = first.packets + seen.packets + last.packets;
    let what = format!("datagrams, less {missed} that a foreign program kept, which are a gap");
    let all = Amounts::outgoing(packets, packets * 328);
    compare(&what, "the sender", all, counters.class("101", 2, "ipv4"))?;
    // The gap is in the ledger, as the kernel's statistics have it.
    let gaps = lab.run_json(&["gaps", "--format", "json"])?;
    let sizes: u64 = gaps["gaps"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|gap| gap["size"]["out_skbs"].as_u64())
        .sum();
    assert_eq!(sizes, missed, "{gaps:#}");
    is_well(&lab)
}

#[test]
fn a_qdisc_taken_away_comes_back_and_the_loss_has_its_size() -> Result<()> {
    let lab = node_with("qdisc", "attach = \"clsact\"")?;
    let (a, b) = pair(&lab)?;
    // Somebody else's qdisc, with a filter of theirs.
    let tc = |line: &str| {
        let mut command: Command = lab.host().command("tc");
        run_ok(command.args(line.split_whitespace()))
    };
    tc("qdisc add dev veth101.0 clsact")?;
    tc("filter add dev veth101.0 ingress pref 5 protocol ip u32 match ip dst 10.1.0.0/16 flowid 1:1")?;
    let mut daemon = Daemon::start_with(&lab, Resync::Every(Duration::from_millis(200)))?;
    let first = udp_send(a.namespace(), b.namespace(), at(b.v4()), 80, 300)?;
    eventually("it is booked", || Ok(booked(&lab, "101")?.out_packets == first.packets))?;
    // The daemon must not repair it before the gap has its known size.
    daemon.signal(Signal::STOP)?;
    tc("qdisc del dev veth101.0 clsact")?;
    let missed = udp_send(a.namespace(), b.namespace(), at(b.v4()), 70, 300)?;
    ensure!(problems(&lab)?.iter().any(|problem| problem.starts_with("veth101.0: not attached")));
    // No event announces the loss of a qdisc, so only the resync can notice it.
    daemon.signal(Signal::CONT)?;
    eventually("nothing is wrong", || Ok(problems(&lab)?.is_empty()))?;
    let last = udp_send(a.namespace(), b.namespace(), at(b.v4()), 60, 300)?;
    let counters = Counters::at_rest(&lab)?;
    let packets = first.packets + last.packets;
    let what = format!("datagrams, less {} without a qdisc, which are a gap", missed.packets);
    let all = Amounts::outgoing(packets, packets * 328);
    compare(&what, "the sender", all, counters.class("101", 2, "ipv4"))?;
    assert_eq!(counters.interface("veth101.0").out_unseen_skbs, missed.packets);
    agrees_with_kernel(&lab, &counters, a.interface())?;
    let kernel = InterfaceStatistics::read(lab.host(), "veth101.0")?;
    assert_eq!(kernel.rx_packets, packets + missed.packets);
    daemon.logs("veth101.0: attached (clsact)")?;
    daemon.stop()
}
