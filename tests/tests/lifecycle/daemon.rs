//! `trafctl run`: following interfaces, crashes and restarts.

use std::thread;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use traffic_tests::container::introduce;
use traffic_tests::counters::InterfaceRow;
use traffic_tests::traffic::{tcp_exchange, udp_send};
use traffic_tests::witness::InterfaceStatistics;
use traffic_tests::{Amounts, Counters, Lab};
pub use traffic_tests::{Daemon, Resync};

use crate::load::Load;
use crate::node::{
    agrees_with_kernel, at, eventually, exchanged, exchanged_by_server, hooks, is_well, links, node, pair,
    pins,
};

const MEGABYTE: u64 = 1 << 20;

#[test]
fn new_interfaces_are_attached() -> Result<()> {
    let lab = node("come")?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let (a, b) = pair(&lab)?;
    for interface in [a.interface(), b.interface()] {
        eventually(interface, || Ok(hooks(&lab, interface)?.len() == 2))?;
    }
    let count = tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), MEGABYTE, MEGABYTE)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), exchanged(&count));
    assert_eq!(counters.class("102", 2, "ipv4"), exchanged_by_server(&count));
    agrees_with_kernel(&lab, &counters, a.interface())?;
    // An interface may pass packets between two commands of `ip`, before it is attached. It must record what
    // it missed.
    is_well(&lab)?;
    daemon.stop()
}

#[test]
fn a_container_stops_and_starts_under_load() -> Result<()> {
    let lab = node("restart")?;
    let (mut a, b) = pair(&lab)?;
    let c = lab.bridged(103, 0, [10, 1, 0, 3].into(), "fd00:1::3".parse()?)?;
    introduce(&[&a, &b, &c])?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    // From 102 to 101, which stops and starts, and to 103, which keeps running.
    let load = Load::start(b.namespace(), a.namespace(), at(a.v4()), 200)?;
    let other = Load::start(b.namespace(), c.namespace(), at(c.v6()), 900)?;

    let mut last = Counters::read(&lab)?;
    for round in 0..4 {
        load.passes(2000)?;
        let while_attached = Counters::read(&lab)?;
        never_back(&last, &while_attached)?;
        a.stop()?;
        eventually("the pins of the old interface are gone", || Ok(pins(&lab)?.len() == 4))?;
        // Its counts stay, and nothing is counted for a container that does not run.
        let stopped = of_interface(&lab, "veth101.0")?;
        load.passes(500)?;
        ensure!(of_interface(&lab, "veth101.0")? == stopped, "round {round}");
        never_back(&while_attached, &Counters::read(&lab)?)?;

        a.start()?;
        a.knows(&b)?;
        eventually("veth101.0", || Ok(hooks(&lab, "veth101.0")?.len() == 2))?;
        load.passes(2000)?;
        last = Counters::read(&lab)?;
        // The daemon completes the record of missed traffic shortly after it attaches the hooks.
        eventually("the traffic of the new interface is counted or recorded as missed", || {
            let before = InterfaceStatistics::read(lab.host(), "veth101.0")?;
            let row = of_interface(&lab, "veth101.0")?;
            let after = InterfaceStatistics::read(lab.host(), "veth101.0")?;
            let ours = row.in_skbs + row.in_unseen_skbs - stopped.in_skbs - stopped.in_unseen_skbs;
            Ok((before.tx_packets..=after.tx_packets).contains(&ours))
        })?;
        ensure!(of_interface(&lab, "veth101.0")?.in_skbs > stopped.in_skbs, "round {round}");
    }
    let before_last = of_interface(&lab, "veth101.0")?;
    let (sent, sent_to_other) = (load.stop()?, other.stop()?);

    let counters = Counters::at_rest(&lab)?;
    never_back(&last, &counters)?;
    // The sender and the other receiver were attached all the time. Their answers report a closed port.
    let out = counters.class("102", 2, "ipv4");
    assert_eq!((out.out_packets, out.out_bytes), (sent.packets, sent.bytes));
    let all = Amounts::outgoing(sent_to_other.packets, sent_to_other.bytes);
    assert_eq!(counters.class("102", 2, "ipv6"), all);
    let all = Amounts::incoming(sent_to_other.packets, sent_to_other.bytes);
    assert_eq!(counters.class("103", 2, "ipv6"), all);
    let row = counters.interface("veth101.0");
    ensure!(row.in_skbs >= before_last.in_skbs && row.in_skbs < sent.packets, "{row:?} of {sent:?}");
    // All datagrams have one size. Only the class is compared: the container may have asked for the address
    // of 102, and that answer is not IP.
    let received = counters.class("101", 2, "ipv4");
    assert_eq!(received.in_bytes, received.in_packets * sent.bytes / sent.packets);
    is_well(&lab)?;
    daemon.logs("veth101.0: gone; its counters stay")?;
    daemon.stop()
}

#[test]
fn a_killed_daemon_loses_nothing_and_counts_nothing_twice() -> Result<()> {
    let lab = node("killed")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    let before = links(&lab)?;
    let load = Load::start(a.namespace(), b.namespace(), at(b.v6()), 1000)?;
    let count = thread::scope(|scope| {
        let flow = scope.spawn(|| tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), 30 * MEGABYTE, 0));
        for _ in 0..5 {
            load.passes(500)?;
            daemon.kill()?;
            load.passes(500)?;
            daemon = Daemon::start(&lab)?;
        }
        flow.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let sent = load.stop()?;
    assert_eq!(links(&lab)?, before, "a new daemon keeps the links");

    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), exchanged(&count));
    assert_eq!(counters.class("102", 2, "ipv4"), exchanged_by_server(&count));
    assert_eq!(counters.class("101", 2, "ipv6"), Amounts::outgoing(sent.packets, sent.bytes));
    assert_eq!(counters.class("102", 2, "ipv6"), Amounts::incoming(sent.packets, sent.bytes));
    for interface in [a.interface(), b.interface()] {
        agrees_with_kernel(&lab, &counters, interface)?;
        assert_eq!(counters.interface(interface).out_unseen_skbs, 0);
    }
    is_well(&lab)?;
    daemon.stop()
}

#[test]
fn counting_continues_after_the_daemon_ends() -> Result<()> {
    let lab = node("ends")?;
    let (a, b) = pair(&lab)?;
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Daemon::start(&lab)?;
        daemon.signal(signal)?;
        let status = daemon.wait()?;
        ensure!(status.code() == Some(0), "{signal:?}: {status}: {}", daemon.log());
        is_well(&lab)?;
    }
    let count = tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), MEGABYTE, MEGABYTE)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), exchanged(&count));
    agrees_with_kernel(&lab, &counters, a.interface())
}

#[test]
fn an_interface_deleted_without_a_daemon_is_released_later() -> Result<()> {
    let lab = node("unseen-end")?;
    let (mut a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let before = pins(&lab)?;
    let first = udp_send(a.namespace(), b.namespace(), at(b.v4()), 100, 300)?;
    a.stop()?;
    assert_eq!(pins(&lab)?, before, "no daemon runs to release it");
    a.start()?;
    introduce(&[&a, &b])?;
    lab.run_ok(&["attach", "veth101.0"])?;
    let after = pins(&lab)?;
    ensure!(after.len() == 4 && after != before, "{before:?} became {after:?}");
    let second = udp_send(a.namespace(), b.namespace(), at(b.v4()), 50, 400)?;

    let counters = Counters::at_rest(&lab)?;
    let all = Amounts::outgoing(first.packets + second.packets, first.l3_bytes + second.l3_bytes);
    assert_eq!(counters.class("101", 2, "ipv4"), all);
    is_well(&lab)
}

fn of_interface(lab: &Lab, interface: &str) -> Result<InterfaceRow> {
    Ok(Counters::read(lab)?.interface(interface))
}

/// Checks that no counter has decreased.
fn never_back(earlier: &Counters, later: &Counters) -> Result<()> {
    for row in &earlier.counters {
        let now = later.class(&row.container, row.class, &row.family);
        let since = now.since(row.amounts);
        let back = [since.in_bytes, since.in_packets, since.out_bytes, since.out_packets]
            .iter()
            .any(|&amount| amount > u64::MAX / 2);
        ensure!(!back, "{row:?} became {now:?}");
    }
    Ok(())
}
