//! Foreign programs on the hooks before and after ours, and a qdisc that others own or remove.

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
        // What the container sent is its traffic, even if the host then drops it.
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
fn segments_cut_by_a_device_are_not_missed_traffic() -> Result<()> {
    let lab = node("pieces")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    // Buffers to 102 pass the program whole. The device cuts them afterwards, and only then the kernel counts
    // them.
    run_ok(lab.host().command("ethtool").args(["-K", b.interface(), "tso", "off", "gso", "off"]))?;
    let transfer = || {
        let before = Counters::at_rest(&lab)?.interface(b.interface()).in_skbs;
        let kernel = InterfaceStatistics::read(lab.host(), b.interface())?.tx_packets;
        tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), 20_000_000, 1000)?;
        let ours = Counters::at_rest(&lab)?.interface(b.interface()).in_skbs - before;
        let kernel = InterfaceStatistics::read(lab.host(), b.interface())?.tx_packets - kernel;
        ensure!(kernel > 2 * ours, "nothing was cut: trafctl counted {ours} buffers, the kernel {kernel}");
        anyhow::Ok(())
    };
    let unseen = || anyhow::Ok(Counters::at_rest(&lab)?.interface(b.interface()).in_unseen_skbs);
    let mut missed = unseen()?;
    transfer()?;
    lab.run_ok(&["detach"])?;
    lab.run_ok(&["attach"])?;
    assert_eq!(unseen()?, missed, "everything was counted");

    // Traffic while the program is detached is still missed traffic, regardless of earlier cuts.
    transfer()?;
    lab.run_ok(&["detach"])?;
    missed += udp_send(a.namespace(), b.namespace(), at(b.v4()), 17, 300)?.packets;
    lab.run_ok(&["attach"])?;
    assert_eq!(unseen()?, missed);

    // The same with a daemon, which compares at each listing, and a removed pin.
    let daemon = Daemon::start(&lab)?;
    transfer()?;
    // The log of a second reload shows that the first, with its listing of all interfaces, is complete.
    for reloads in 1..=2 {
        daemon.signal(Signal::HUP)?;
        eventually("classes are loaded", || Ok(daemon.log().matches("are in force").count() == reloads))?;
    }
    let link = run_ok(lab.host().command("ip").args(["-o", "link", "show", b.interface()]))?;
    let (index, _) = link.split_once(':').context("no index")?;
    for direction in ["in", "out"] {
        std::fs::remove_file(lab.bpffs().join(format!("links/{index}-{direction}")))?;
    }
    let before = Counters::at_rest(&lab)?.interface(b.interface());
    let sent = udp_send(a.namespace(), b.namespace(), at(b.v4()), 23, 300)?.packets;
    daemon.signal(Signal::HUP)?;
    eventually("the program is attached again", || Ok(is_well(&lab).is_ok()))?;
    let now = Counters::at_rest(&lab)?.interface(b.interface());
    // The kernel releases a link without a pin some time later, and the program counts until then.
    assert_eq!(now.in_skbs - before.in_skbs + now.in_unseen_skbs - before.in_unseen_skbs, sent);
    assert!(before.in_unseen_skbs == missed && now.in_unseen_skbs <= missed + sent);
    daemon.stop()
}

#[test]
fn a_foreign_program_before_ours_is_reported_and_moved_behind() -> Result<()> {
    let lab = node("before")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let first = udp_send(a.namespace(), b.namespace(), at(b.v4()), 30, 300)?;

    // A program that lets others run is reported because it could end the chain, but it takes no packets.
    let other = Foreign::attach(lab.host(), "veth101.0", Hook::Ingress, Place::First, Verdict::Next)?;
    let reported = problems(&lab)?;
    ensure!(
        reported.len() == 1 && reported[0].contains("foreign runs before trafctl (out)"),
        "{reported:#?}"
    );
    let seen = udp_send(a.namespace(), b.namespace(), at(b.v4()), 20, 300)?;
    drop(other);
    is_well(&lab)?;

    let mut missed = 0;
    for verdict in [Verdict::Ok, Verdict::Redirect] {
        let _other = Foreign::attach(lab.host(), "veth101.0", Hook::Ingress, Place::First, verdict)?;
        let starved = udp_send(a.namespace(), b.namespace(), at(b.v4()), 50, 300)?;
        missed += starved.packets;
        let reported = problems(&lab)?;
        ensure!(
            reported.iter().any(|problem| problem.contains("foreign runs before trafctl (out)")),
            "{reported:#?}"
        );
        ensure!(reported.iter().any(|problem| problem.contains("reached the program")), "{reported:#?}");
        let counters = Counters::at_rest(&lab)?;
        assert_eq!(counters.class("101", 2, "ipv4").out_packets, first.packets + seen.packets, "{verdict:?}");

        // A daemon corrects the order and records the size of the missed traffic.
        let mut daemon = Daemon::start(&lab)?;
        daemon.logs("putting trafctl first")?;
        eventually("status reports no problem", || Ok(problems(&lab)?.is_empty()))?;
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
    // The ledger has the gap as the kernel's statistics show it.
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
fn a_removed_qdisc_is_restored_and_the_gap_has_its_exact_size() -> Result<()> {
    let lab = node_with("qdisc", "attach = \"clsact\"")?;
    let (a, b) = pair(&lab)?;
    // A foreign qdisc with a foreign filter.
    let tc = |line: &str| {
        let mut command: Command = lab.host().command("tc");
        run_ok(command.args(line.split_whitespace()))
    };
    tc("qdisc add dev veth101.0 clsact")?;
    tc("filter add dev veth101.0 ingress pref 5 protocol ip u32 match ip dst 10.1.0.0/16 flowid 1:1")?;
    let mut daemon = Daemon::start_with(&lab, Resync::Every(Duration::from_millis(200)))?;
    let first = udp_send(a.namespace(), b.namespace(), at(b.v4()), 80, 300)?;
    eventually("the ledger has it", || Ok(booked(&lab, "101")?.out_packets == first.packets))?;
    // The daemon must not repair it before the size of the gap is known.
    daemon.signal(Signal::STOP)?;
    tc("qdisc del dev veth101.0 clsact")?;
    let missed = udp_send(a.namespace(), b.namespace(), at(b.v4()), 70, 300)?;
    ensure!(problems(&lab)?.iter().any(|problem| problem.starts_with("veth101.0: not attached")));
    // No event reports a removed qdisc, so only the resync can notice it.
    daemon.signal(Signal::CONT)?;
    eventually("status reports no problem", || Ok(problems(&lab)?.is_empty()))?;
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
