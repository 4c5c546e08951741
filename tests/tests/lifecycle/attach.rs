//! `trafctl attach`: repeated, concurrent with itself, and concurrent with `trafctl run`.

use anyhow::{Result, ensure};
use traffic_tests::traffic::{UdpCount, tcp_exchange, udp_send};
use traffic_tests::{Amounts, Counters};

use crate::daemon::{Daemon, Resync};
use crate::load::Load;
use crate::node::{
    agrees_with_kernel, at, exchanged, hooks, is_well, links, node, pair, problems, stderr, trafctl,
};

const MEGABYTE: u64 = 1 << 20;

#[test]
fn a_second_attach_changes_nothing_and_loses_nothing() -> Result<()> {
    let lab = node("twice")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let first = links(&lab)?;
    ensure!(first.len() == 4, "{first:?}");

    // Attaches repeatedly while a connection flows. A hook that is empty for a moment would lose packets.
    let count = std::thread::scope(|scope| {
        let flow = scope
            .spawn(|| tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), 40 * MEGABYTE, 4 * MEGABYTE));
        let mut again = 0;
        while !flow.is_finished() || again == 0 {
            lab.run_ok(&["attach"])?;
            lab.run_ok(&["attach", "veth101.0", "veth102.0"])?;
            again += 1;
        }
        flow.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;

    ensure!(links(&lab)? == first, "{:?} became {:?}", first, links(&lab)?);
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), exchanged(&count));
    for interface in [a.interface(), b.interface()] {
        agrees_with_kernel(&lab, &counters, interface)?;
        assert_eq!(counters.interface(interface).in_unseen_skbs, 0);
        assert_eq!(hooks(&lab, interface)?, ["trafctl_egress", "trafctl_ingress"]);
    }
    is_well(&lab)
}

#[test]
fn concurrent_attaches_attach_once() -> Result<()> {
    let lab = node("at-once")?;
    let (a, b) = pair(&lab)?;
    for round in 0..5 {
        let outputs = std::thread::scope(|scope| {
            let both = [(); 2].map(|()| scope.spawn(|| trafctl(&lab, &["attach"])));
            both.map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        for output in outputs {
            let output = output?;
            ensure!(output.status.success(), "round {round}: {}", stderr(&output));
        }
        for interface in [a.interface(), b.interface()] {
            assert_eq!(hooks(&lab, interface)?, ["trafctl_egress", "trafctl_ingress"], "round {round}");
        }
        is_well(&lab)?;
        // Every round begins with nothing loaded, so that both must create it.
        if round < 4 {
            lab.run_ok(&["detach", "--purge", "--yes"])?;
        }
    }
    let count = tcp_exchange(a.namespace(), b.namespace(), at(b.v6()), MEGABYTE, MEGABYTE)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv6"), exchanged(&count));
    agrees_with_kernel(&lab, &counters, a.interface())
}

#[test]
fn an_attach_can_run_while_the_daemon_starts() -> Result<()> {
    let lab = node("race")?;
    let (a, b) = pair(&lab)?;
    for round in 0..10 {
        let mut daemon = Daemon::spawn(&mut lab.trafctl(&["run"])?, Resync::Off)?;
        let attach = trafctl(&lab, &["attach"])?;
        ensure!(attach.status.success(), "round {round}: {}", stderr(&attach));
        daemon.ready()?;
        for interface in [a.interface(), b.interface()] {
            assert_eq!(hooks(&lab, interface)?, ["trafctl_egress", "trafctl_ingress"], "round {round}");
        }
        assert_eq!(links(&lab)?.len(), 4, "round {round}");
        is_well(&lab)?;
        daemon.stop()?;
        if round < 9 {
            lab.run_ok(&["detach", "--purge", "--yes"])?;
        }
    }
    let count = tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), MEGABYTE, MEGABYTE)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), exchanged(&count));
    agrees_with_kernel(&lab, &counters, b.interface())
}

#[test]
fn traffic_between_a_detach_and_an_attach_is_recorded_as_missed() -> Result<()> {
    let lab = node("between")?;
    let (a, b) = pair(&lab)?;
    // Also before the first attach.
    udp_send(a.namespace(), b.namespace(), at(b.v4()), 7, 100)?;
    lab.run_ok(&["attach"])?;
    let first = udp_send(a.namespace(), b.namespace(), at(b.v4()), 50, 300)?;
    lab.run_ok(&["detach", "veth101.0"])?;
    assert_eq!(hooks(&lab, "veth101.0")?, [""; 0]);
    assert_eq!(hooks(&lab, "veth102.0")?.len(), 2, "only the named interface is detached");
    ensure!(problems(&lab)?.iter().all(|problem| problem.starts_with("veth101.0: not attached")));
    let missed = udp_send(a.namespace(), b.namespace(), at(b.v4()), 20, 500)?;
    lab.run_ok(&["attach"])?;
    let last = udp_send(a.namespace(), b.namespace(), at(b.v4()), 30, 700)?;

    let counters = Counters::at_rest(&lab)?;
    let sent = |counts: &[UdpCount]| {
        let (packets, bytes) =
            counts.iter().fold((0, 0), |(p, b), count| (p + count.packets, b + count.l3_bytes));
        Amounts::outgoing(packets, bytes)
    };
    assert_eq!(counters.class("101", 2, "ipv4"), sent(&[first, last]));
    let row = counters.interface("veth101.0");
    assert_eq!((row.out_unseen_skbs, row.in_unseen_skbs), (7 + missed.packets, 0));
    // Each of these datagrams has a link header.
    assert_eq!(row.out_unseen_skb_bytes, 7 * (100 + 28 + 14) + missed.l3_bytes + 14 * missed.packets);
    // The other end missed only what came before its first attach.
    let other = counters.class("102", 2, "ipv4");
    assert_eq!((other.in_packets, other.in_bytes), {
        let all = sent(&[first, missed, last]);
        (all.out_packets, all.out_bytes)
    });
    assert_eq!(counters.interface("veth102.0").in_unseen_skbs, 7);
    for interface in [a.interface(), b.interface()] {
        agrees_with_kernel(&lab, &counters, interface)?;
    }
    is_well(&lab)
}

#[test]
fn an_attach_under_load_records_what_it_missed() -> Result<()> {
    let lab = node("load")?;
    let (a, b) = pair(&lab)?;
    let load = Load::start(a.namespace(), b.namespace(), at(b.v4()), 400)?;
    load.passes(2000)?;
    // Buffers are under way at each of these.
    for _ in 0..5 {
        lab.run_ok(&["attach"])?;
        load.passes(1000)?;
        is_well(&lab)?;
        lab.run_ok(&["detach"])?;
        load.passes(1000)?;
    }
    lab.run_ok(&["attach"])?;
    load.passes(1000)?;
    let sent = load.stop()?;

    let counters = Counters::at_rest(&lab)?;
    let row = counters.interface("veth101.0");
    assert_eq!(row.out_skbs + row.out_unseen_skbs, sent.packets);
    for interface in [a.interface(), b.interface()] {
        agrees_with_kernel(&lab, &counters, interface)?;
    }
    is_well(&lab)
}
