//! Queueing disciplines, on the way to the receiver and on an ifb.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use traffic_tests::check::eventually;
use traffic_tests::traffic::{Superdatagrams, tcp_transfer, udp_send, udp_send_segmented};
use traffic_tests::witness::{InitWitness, Side, WireWitness};
use traffic_tests::{Container, Lab};

use crate::node::{
    Amount, PAYLOAD, all_attributed, at, bridged, by_reason, dump, figure, host, node, received, sent,
    settles,
};

/// Sends datagrams from one container to the other, of which some are dropped behind both hooks.
fn lossy(lab: &Lab, [a, b]: &[Container; 2], to: IpAddr) -> Result<()> {
    let before = dump(lab)?;
    let count = udp_send(a.namespace(), b.namespace(), at(to), 900, PAYLOAD)?;
    let (sent, got) = (sent(&count), received(&count, to));
    ensure!(got.packets > 0 && got.packets < sent.packets, "no partial loss: {count:?}");
    let (out, into) = (("101", 2, to, "out"), ("102", 1, to, "in"));
    for line in [out, into] {
        let (counted, delivered) = (figure(&before, line, "counted"), figure(&before, line, "delivered"));
        let plus = |one: Amount, other: Amount| Amount {
            packets: one.packets + other.packets,
            bytes: one.bytes + other.bytes,
        };
        settles(lab, line, plus(counted, sent), plus(delivered, got))?;
    }
    let after = dump(lab)?;
    // Both see the one drop, and it has one reason.
    ensure!(figure(&after, out, "dropped") == figure(&after, into, "dropped"), "{after:#}");
    let shaped = by_reason(&after, "in", "shaper");
    let both = [a.v4(), a.v6()].map(|family| figure(&after, ("102", 1, family, "in"), "dropped").packets);
    ensure!(shaped.packets == both.iter().sum::<u64>(), "{after:#}");
    all_attributed(&after)
}

/// Runs a transfer in each family below a queueing discipline that is made by `commands`.
fn below(name: &str, commands: &[&str]) -> Result<()> {
    let lab = node(name, "")?;
    let containers = bridged(&lab)?;
    for command in commands {
        host(&lab, command)?;
    }
    for to in [containers[1].v4(), containers[1].v6()] {
        lossy(&lab, &containers, to)?;
    }
    Ok(())
}

#[test]
fn tbf_drops() -> Result<()> {
    below("drops-tbf", &["tc qdisc add dev veth102.0 root tbf rate 10mbit burst 5000 limit 12000"])
}

#[test]
fn htb_with_a_short_queue_drops() -> Result<()> {
    below(
        "drops-htb",
        &[
            "tc qdisc add dev veth102.0 root handle 1: htb default 1",
            "tc class add dev veth102.0 parent 1: classid 1:1 htb rate 10mbit burst 5000",
            "tc qdisc add dev veth102.0 parent 1:1 pfifo limit 12",
        ],
    )
}

#[test]
fn an_ifb_behind_the_ingress_hook_drops_what_only_the_sender_counted() -> Result<()> {
    let lab = node("drops-ifb-in", "")?;
    let [a, b] = bridged(&lab)?;
    for command in [
        "ip link add ifb7 type ifb",
        "ip link set ifb7 up",
        "tc qdisc add dev veth101.0 clsact",
        "tc filter add dev veth101.0 ingress protocol all u32 match u32 0 0 action mirred egress redirect dev ifb7",
        "tc qdisc add dev ifb7 root tbf rate 10mbit burst 5000 limit 12000",
    ] {
        host(&lab, command)?;
    }
    lab.run_ok(&["attach"])?;
    for to in [b.v4(), b.v6()] {
        let count = udp_send(a.namespace(), b.namespace(), at(to), 900, PAYLOAD)?;
        let (sent, got) = (sent(&count), received(&count, to));
        ensure!(got.packets > 0 && got.packets < sent.packets, "no partial loss: {count:?}");
        settles(&lab, ("101", 2, to, "out"), sent, got)?;
        settles(&lab, ("102", 1, to, "in"), got, got)?;
    }
    all_attributed(&dump(&lab)?)
}

#[test]
fn an_ifb_behind_the_egress_hook_drops_what_both_counted() -> Result<()> {
    // The ifb takes the place of the interface that the packet came in on, so the sender is known by address.
    let addresses = "[[container]]\nid = '101'\naddresses = ['10.1.0.1', 'fd00:1::1']\n";
    for (configuration, is_known) in [(addresses, true), ("", false)] {
        let lab = node("drops-ifb-out", configuration)?;
        let [a, b] = bridged(&lab)?;
        for command in [
            "ip link add ifb7 type ifb",
            "ip link set ifb7 up",
            "tc qdisc add dev veth102.0 clsact",
            "tc filter add dev veth102.0 egress protocol all u32 match u32 0 0 action mirred egress redirect dev ifb7",
            "tc qdisc add dev ifb7 root tbf rate 10mbit burst 5000 limit 12000",
        ] {
            host(&lab, command)?;
        }
        lab.run_ok(&["attach"])?;
        for to in [b.v4(), b.v6()] {
            let count = udp_send(a.namespace(), b.namespace(), at(to), 900, PAYLOAD)?;
            let (sent, got) = (sent(&count), received(&count, to));
            ensure!(got.packets > 0 && got.packets < sent.packets, "no partial loss: {count:?}");
            settles(&lab, ("102", 1, to, "in"), sent, got)?;
            settles(&lab, ("101", 2, to, "out"), sent, if is_known { got } else { sent })?;
        }
        let after = dump(&lab)?;
        if is_known {
            all_attributed(&after)?;
        } else {
            let dropped = by_reason(&after, "in", "shaper").packets;
            let lost = &after["not_attributed"][0];
            ensure!(lost["fault"] == "no_sender" && lost["packets"] == dropped, "{after:#}");
        }
    }
    Ok(())
}

/// Super-packets that tbf drops whole, and those that it cuts and of which it drops segments, some or all.
#[test]
fn super_packets_count_as_their_segments_once() -> Result<()> {
    for limit in [12_000, 70_000] {
        let lab = node("drops-gso", "")?;
        let [a, b] = bridged(&lab)?;
        for one in [&a, &b] {
            one.offload(true)?;
        }
        host(&lab, &format!("tc qdisc add dev veth102.0 root tbf rate 50mbit burst 5000 limit {limit}"))?;
        for to in [b.v4(), b.v6()] {
            let buffers = Superdatagrams { sends: 60, payload_bytes: 40_000, segment_bytes: 1_111 };
            let count = udp_send_segmented(a.namespace(), b.namespace(), at(to), buffers)?;
            let (sent, got) = (sent(&count), received(&count, to));
            ensure!(got.packets > 0 && got.packets < sent.packets, "no partial loss: {count:?}");
            settles(&lab, ("101", 2, to, "out"), sent, got)?;
            settles(&lab, ("102", 1, to, "in"), sent, got)?;
        }
        all_attributed(&dump(&lab)?)?;
    }
    Ok(())
}

/// Attempts of a transfer of which each drop must be seen. Some kernels run no tracing program while process 1 runs:
/// what is dropped in an interrupt of that process is missing (docs/drops.md, "Limits").
const ATTEMPTS: u32 = 10;

/// Each drop of TCP's super-packets and retransmissions is seen, and none is that arrived.
#[test]
fn a_tcp_connection_below_a_shaper_has_its_retransmissions_counted_and_its_losses_dropped() -> Result<()> {
    let lab = node("drops-tcp", "")?;
    let [a, b] = bridged(&lab)?;
    for one in [&a, &b] {
        one.offload(true)?;
    }
    host(&lab, "tc qdisc add dev veth102.0 root tbf rate 40mbit burst 20000 limit 60000")?;
    // What reaches the receiver after its socket has ended is in no figure of the connection.
    let witness = WireWitness::start(&b.namespace().path(), "eth0", Side::Container)?;
    for to in [b.v4(), b.v6()] {
        for attempt in 1.. {
            let init = InitWitness::start("drops-tcp")?;
            let missing = transfer(&lab, [&a, &b], (to, &witness))?;
            if missing == Amount::default() {
                break;
            }
            ensure!(init.packets()? > 0 && attempt < ATTEMPTS, "attempt {attempt}: {missing:?} is missing");
        }
    }
    all_attributed(&dump(&lab)?)
}

/// Transfers some megabytes. Returns how much was neither delivered nor dropped.
fn transfer(lab: &Lab, [a, b]: [&Container; 2], (to, witness): (IpAddr, &WireWitness)) -> Result<Amount> {
    let (out, into) = (("101", 2, to, "out"), ("102", 1, to, "in"));
    let from = if to.is_ipv4() { a.v4() } else { a.v6() };
    let read = || -> Result<[Amount; 3]> {
        let dump = dump(lab)?;
        ensure!(figure(&dump, out, "dropped") == figure(&dump, into, "dropped"), "{dump:#}");
        let got = witness.read()?.of(|peer| peer == from);
        let got = Amount { packets: got.in_packets, bytes: got.in_bytes };
        Ok([figure(&dump, out, "counted"), figure(&dump, out, "dropped"), got])
    };
    let before = read()?;
    let count = tcp_transfer(a.namespace(), b.namespace(), at(to), 6_000_000)?;
    let mut last = read()?;
    // The queue still holds some of it.
    eventually("the connection is at rest", || {
        let is_empty = host(lab, "tc -s qdisc show dev veth102.0")?.contains("backlog 0b 0p");
        let now = read()?;
        Ok(std::mem::replace(&mut last, now) == now && is_empty)
    })?;
    let [counted, dropped, got] = std::array::from_fn(|at| last[at].less(before[at]));
    ensure!(dropped.packets > 0 && count.client.retransmissions > 0, "{count:?} {last:?}");
    // More only by resets, which are in no connection's figures.
    ensure!(counted.packets >= count.client.segments, "{count:?} {last:?}");
    ensure!(
        counted.packets >= dropped.packets + got.packets && counted.bytes >= dropped.bytes + got.bytes,
        "more was dropped and delivered than counted: {before:?} {last:?}"
    );
    Ok(counted.less(dropped).less(got))
}

#[test]
fn a_backlog_that_ends_with_its_queue_is_dropped() -> Result<()> {
    let lab = node("drops-purge", "")?;
    let [a, b] = bridged(&lab)?;
    let to = b.v4();
    // So slow that nearly everything stays in the queue.
    host(&lab, "tc qdisc add dev veth102.0 root tbf rate 8kbit burst 2000 limit 1000000")?;
    let count = udp_send(a.namespace(), b.namespace(), at(to), 300, PAYLOAD)?;
    let before = dump(&lab)?;
    ensure!(figure(&before, ("102", 1, to, "in"), "dropped").packets == 0, "{before:#}");
    host(&lab, "tc qdisc del dev veth102.0 root")?;
    let after = dump(&lab)?;
    for line in [("101", 2, to, "out"), ("102", 1, to, "in")] {
        let (counted, dropped) = (figure(&after, line, "counted"), figure(&after, line, "dropped"));
        ensure!(counted == sent(&count), "{after:#}");
        // What left the queue since the receiver stopped listening was delivered.
        let most = counted.less(received(&count, to)).packets;
        ensure!(dropped.packets <= most && dropped.packets + 3 >= most, "{count:?} {after:#}");
        ensure!(dropped.bytes == dropped.packets * (PAYLOAD as u64 + 28), "{after:#}");
    }
    Ok(())
}
