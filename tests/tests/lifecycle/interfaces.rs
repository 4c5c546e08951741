//! Many interfaces at once, and interfaces that are renamed.

use std::collections::BTreeSet;
use std::thread;

use anyhow::{Result, ensure};
use traffic_tests::traffic::{UdpCount, tcp_exchange, udp_send};
use traffic_tests::{Amounts, Counters};

use crate::daemon::Daemon;
use crate::load::Load;
use crate::node::{
    agrees_with_kernel, at, eventually, exchanged, hooks, is_well, links, node, pair, pins, problems,
};

const MEGABYTE: u64 = 1 << 20;

fn sent(counts: &[UdpCount]) -> Amounts {
    let sum = |field: fn(&UdpCount) -> u64| counts.iter().map(field).sum();
    Amounts::outgoing(sum(|count| count.packets), sum(|count| count.l3_bytes))
}

#[test]
fn fifty_interfaces_come_and_go_while_traffic_flows() -> Result<()> {
    let lab = node("fifty")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let load = Load::start(a.namespace(), b.namespace(), at(b.v4()), 500)?;
    let count = thread::scope(|scope| {
        let flow = scope
            .spawn(|| tcp_exchange(a.namespace(), b.namespace(), at(b.v6()), 30 * MEGABYTE, 3 * MEGABYTE));
        let lines = |line: &dyn Fn(u32) -> String| (0..50).map(|n| line(1000 + n) + "\n").collect::<String>();
        lab.host().ip_batch(&lines(&|id| format!("link add veth{id}.0 up type veth peer name peer{id}")))?;
        // Ten of them are deleted before the daemon can have attached all.
        let gone: String = (1000..1010).map(|id| format!("link delete veth{id}.0\n")).collect();
        lab.host().ip_batch(&gone)?;
        eventually("the other forty are attached", || Ok(problems(&lab)?.is_empty()))?;
        eventually("nothing is pinned for the ten", || Ok(pins(&lab)?.len() == 4 + 80))?;
        for id in [1010, 1049] {
            assert_eq!(hooks(&lab, &format!("veth{id}.0"))?, ["trafctl_egress", "trafctl_ingress"]);
        }
        is_well(&lab)?;
        let gone: String = (1010..1050).map(|id| format!("link delete veth{id}.0\n")).collect();
        lab.host().ip_batch(&gone)?;
        eventually("nothing is pinned for them", || Ok(pins(&lab)?.len() == 4))?;
        flow.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let sent = load.stop()?;
    daemon.logs(": gone")?;

    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv6"), exchanged(&count));
    assert_eq!(counters.class("101", 2, "ipv4"), Amounts::outgoing(sent.packets, sent.bytes));
    agrees_with_kernel(&lab, &counters, a.interface())?;
    agrees_with_kernel(&lab, &counters, b.interface())?;
    assert_eq!(counters.faults, []);
    is_well(&lab)?;
    daemon.stop()
}

#[test]
fn two_interfaces_of_a_container_add_up() -> Result<()> {
    let lab = node("second")?;
    let (a, b) = pair(&lab)?;
    let again = lab.bridged(101, 1, [10, 1, 0, 9].into(), "fd00:1::9".parse()?)?;
    traffic_tests::container::introduce(&[&again, &b])?;
    lab.run_ok(&["attach"])?;
    let one = udp_send(a.namespace(), b.namespace(), at(b.v4()), 30, 100)?;
    let two = udp_send(again.namespace(), b.namespace(), at(b.v4()), 20, 200)?;

    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), sent(&[one, two]));
    assert_eq!(counters.interface("veth101.0").amounts, sent(&[one]));
    assert_eq!(counters.interface("veth101.1").amounts, sent(&[two]));
    is_well(&lab)
}

#[test]
fn a_renamed_interface_counts_for_its_new_container() -> Result<()> {
    let lab = node("rename")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let before_links = links(&lab)?;
    let before = udp_send(a.namespace(), b.namespace(), at(b.v4()), 40, 300)?;
    // Renamed while it is up, which the kernel allows since 6.2. The container's end is not affected.
    lab.host().ip("link set veth101.0 name veth103.0")?;
    eventually("the new name is registered", || {
        Ok(Counters::read(&lab)?.interfaces.iter().any(|row| row.interface == "veth103.0"))
    })?;
    eventually("status reports no problem", || Ok(problems(&lab)?.is_empty()))?;
    let after = udp_send(a.namespace(), b.namespace(), at(b.v4()), 25, 500)?;
    assert_eq!(links(&lab)?, before_links, "the hooks are the same");

    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), sent(&[before]));
    assert_eq!(counters.class("103", 2, "ipv4"), sent(&[after]));
    assert_eq!(counters.interface("veth103.0").out_unseen_skbs, 0, "no packet was missed");
    is_well(&lab)?;

    // Renamed back: each container continues from its own count.
    lab.host().ip("link set veth103.0 name veth101.0")?;
    let gone = |lab| -> Result<bool> { Ok(problems(lab)?.is_empty()) };
    eventually("the old name counts again", || {
        let probe = udp_send(a.namespace(), b.namespace(), at(b.v6()), 1, 10)?;
        ensure!(probe.packets_received == 1, "{probe:?}");
        Ok(Counters::read(&lab)?.class_or_zero("101", 2, "ipv6").out_packets > 0)
    })?;
    eventually("status reports no problem", || gone(&lab))?;
    let again = udp_send(a.namespace(), b.namespace(), at(b.v4()), 5, 700)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), sent(&[before, again]));
    assert_eq!(counters.class("103", 2, "ipv4"), sent(&[after]));
    is_well(&lab)?;
    daemon.stop()
}

#[test]
fn a_rename_under_load_loses_nothing() -> Result<()> {
    let lab = node("rename-load")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let load = Load::start(a.namespace(), b.namespace(), at(b.v4()), 100)?;
    let names = ["veth101.0", "veth103.0"];
    for round in 0..6 {
        let (old, new) = (names[round % 2], names[(round + 1) % 2]);
        load.passes(1000)?;
        lab.host().ip(&format!("link set {old} name {new}"))?;
        // Until the daemon has handled the rename, the new name is not registered.
        let counted = || anyhow::Ok(Counters::read(&lab)?.interface_or_zero(new).out_skbs);
        let before = counted()?;
        eventually("the new name counts", || Ok(counted()? > before))?;
        eventually("status reports no problem", || Ok(problems(&lab)?.is_empty()))?;
    }
    let all = load.stop()?;
    let counters = Counters::at_rest(&lab)?;
    let [one, three] = ["101", "103"].map(|id| counters.class(id, 2, "ipv4"));
    ensure!(one.out_packets > 1000 && three.out_packets > 1000, "{one:?} {three:?}");
    assert_eq!(one.plus(three), Amounts::outgoing(all.packets, all.bytes));
    is_well(&lab)?;
    daemon.stop()
}

#[test]
fn missed_traffic_of_a_detached_interface_follows_a_rename() -> Result<()> {
    let lab = node("rename-gap")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let before = udp_send(a.namespace(), b.namespace(), at(b.v4()), 40, 300)?;
    lab.run_ok(&["detach", "veth101.0"])?;
    let missed = udp_send(a.namespace(), b.namespace(), at(b.v4()), 11, 300)?;
    lab.host().ip("link set veth101.0 name veth103.0")?;
    lab.run_ok(&["attach"])?;
    let after = udp_send(a.namespace(), b.namespace(), at(b.v4()), 25, 300)?;

    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), sent(&[before]));
    assert_eq!(counters.class("103", 2, "ipv4"), sent(&[after]));
    let [old, new] = ["veth101.0", "veth103.0"].map(|name| counters.interface(name).out_unseen_skbs);
    assert_eq!((old, new), (0, missed.packets), "the old name missed nothing");
    is_well(&lab)
}

#[test]
fn an_interface_renamed_to_an_unknown_name_keeps_counting() -> Result<()> {
    let lab = node("unknown-name")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let before = udp_send(a.namespace(), b.namespace(), at(b.v4()), 40, 300)?;
    lab.host().ip("link set veth101.0 name uplink")?;
    daemon.logs("no rule matches")?;
    let after = udp_send(a.namespace(), b.namespace(), at(b.v4()), 25, 500)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), sent(&[before, after]));
    assert_eq!(pins(&lab)?.len(), 4);

    // A new daemon does not change that, and neither does its listing of all interfaces.
    daemon.kill()?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let last = udp_send(a.namespace(), b.namespace(), at(b.v4()), 7, 90)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), sent(&[before, after, last]));
    let ids: BTreeSet<_> = counters.counters.iter().map(|row| row.container.as_str()).collect();
    assert_eq!(ids, BTreeSet::from(["101", "102"]));
    is_well(&lab)?;
    daemon.stop()
}
