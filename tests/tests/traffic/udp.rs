//! UDP between bridged containers, as single datagrams and as buffers that are segmented later, and packets
//! that are not IP.

use std::net::UdpSocket;

use anyhow::Result;
use traffic_tests::Counters;
use traffic_tests::traffic::{Superdatagrams, udp_send, udp_send_segmented};
use traffic_tests::witness::{NftWitness, QdiscWitness};

use crate::node::{CLASSES, Expected, NONE, amounts, at, family, neighbours, node};

#[test]
fn single_datagrams_and_segmented_buffers_are_exact() -> Result<()> {
    let lab = node("udp", CLASSES)?;
    let (a, b) = neighbours(&lab)?;
    let mut expected = Expected::default();
    let mut buffers = 0;
    for to in [b.v4(), b.v6()] {
        let queue = QdiscWitness::attach(a.namespace(), "eth0")?;
        let mut sent = (0, 0);
        for size in [0, 1, 18, 1000, 1400] {
            let plain = udp_send(a.namespace(), b.namespace(), at(to), 100, size)?;
            assert_eq!(plain.packets_received, plain.packets);
            sent = (sent.0 + plain.packets, sent.1 + plain.l3_bytes);
            buffers += 100;
        }
        // A shorter last datagram, equal datagrams, one segment and a byte, and segments of one byte.
        for (payload_bytes, segment_bytes) in
            [(12 * 1200 + 400, 1200), (40 * 1400, 1400), (1001, 1000), (60, 1)]
        {
            let plan = Superdatagrams { sends: 30, payload_bytes, segment_bytes };
            let cut = udp_send_segmented(a.namespace(), b.namespace(), at(to), plan)?;
            assert_eq!(cut.packets_received, cut.packets);
            sent = (sent.0 + cut.packets, sent.1 + cut.l3_bytes);
            buffers += 30;
        }
        let queue = queue.read()?;
        assert_eq!((queue.packets, queue.l3_bytes(14)), sent);
        expected = expected.class("101", 2, family(to), amounts(&NONE, &sent)).class(
            "102",
            1,
            family(to),
            amounts(&sent, &NONE),
        );
    }
    let counters = expected.compare(&lab)?;
    assert_eq!(counters.interface("veth101.0").out_skbs, buffers);
    assert_eq!(counters.interface("veth102.0").in_skbs, buffers);
    Ok(())
}

#[test]
fn without_offloads_the_wire_has_the_same_datagrams() -> Result<()> {
    let lab = node("udp-plain", CLASSES)?;
    let (a, b) = neighbours(&lab)?;
    a.offload(false)?;
    b.offload(false)?;
    let inside = NftWitness::attach(b.namespace(), "eth0")?;
    let mut expected = Expected::default();
    for to in [b.v4(), b.v6()] {
        // Now segmented before the container's interface, and the same on the wire.
        let plan = Superdatagrams { sends: 20, payload_bytes: 9 * 1111 + 5, segment_bytes: 1111 };
        let sent = udp_send_segmented(a.namespace(), b.namespace(), at(to), plan)?;
        let inside = inside.read()?.ingress;
        let inside = if to.is_ipv4() { inside.v4 } else { inside.v6 };
        assert_eq!((inside.packets, inside.bytes), (sent.packets, sent.l3_bytes));
        expected = expected.class("101", 2, family(to), amounts(&NONE, &sent)).class(
            "102",
            1,
            family(to),
            amounts(&inside, &NONE),
        );
    }
    let counters = expected.compare(&lab)?;
    assert_eq!(counters.interface("veth102.0").in_skbs, 400);
    Ok(())
}

#[test]
fn long_datagrams_count_as_their_fragments() -> Result<()> {
    let lab = node("udp-fragments", CLASSES)?;
    let (a, b) = neighbours(&lab)?;
    let mut expected = Expected::default();
    for to in [b.v4(), b.v6()] {
        let queue = QdiscWitness::attach(a.namespace(), "eth0")?;
        let sent = udp_send(a.namespace(), b.namespace(), at(to), 50, 5000)?;
        assert_eq!(sent.packets_received, 50);
        // 5,008 bytes with the UDP header: fragments of 1,480 bytes over IPv4, of 1,448 and a header of 8
        // over IPv6.
        let fragments = 50 * 4;
        let bytes = 50 * 5008 + fragments * if to.is_ipv4() { 20 } else { 40 + 8 };
        let queue = queue.read()?;
        assert_eq!((queue.packets, queue.l3_bytes(14)), (fragments, bytes));
        expected = expected.class("101", 2, family(to), amounts(&NONE, &(fragments, bytes))).class(
            "102",
            1,
            family(to),
            amounts(&(fragments, bytes), &NONE),
        );
    }
    expected.compare(&lab)?;
    Ok(())
}

#[test]
fn arp_is_counted_as_not_ip() -> Result<()> {
    let lab = node("arp", CLASSES)?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 2, 0, 1].into(), "fd00:2::1".parse()?)?;
    lab.run_ok(&["attach"])?;
    // An unanswered request is sent once, so that nothing follows later.
    a.namespace().sysctl("ipv4/neigh/eth0/mcast_solicit", "1")?;
    let inside_a = NftWitness::attach(a.namespace(), "eth0")?;
    let inside_b = NftWitness::attach(b.namespace(), "eth0")?;
    // Each container must resolve the other, with ARP over IPv4 and neighbour discovery over IPv6.
    for (to, back) in [(b.v4(), a.v4()), (b.v6(), a.v6())] {
        let sent = udp_send(a.namespace(), b.namespace(), at(to), 20, 300)?;
        assert_eq!(sent.packets_received, 20);
        let sent = udp_send(b.namespace(), a.namespace(), at(back), 30, 400)?;
        assert_eq!(sent.packets_received, 30);
    }
    // Also an address that nobody has. The request goes to every port of the bridge.
    let socket = a.namespace().enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
    socket.send_to(&[1], "10.2.0.99:9")?;
    Counters::at_rest(&lab)?;

    let (in_a, in_b) = (inside_a.read()?, inside_b.read()?);
    // ARP has 28 bytes; a container adds no padding.
    assert_eq!((in_a.egress.other.packets, in_a.egress.other.bytes), (2, 2 * 28));
    assert_eq!((in_b.ingress, in_b.egress), (in_a.egress, in_a.ingress));
    // The solicitation goes to a group that is in no network: 40 + 24 bytes and an option of 8.
    let group = (1, 72);
    let rest = (in_a.egress.v6.packets - 1, in_a.egress.v6.bytes - 72);
    Expected::default()
        .class("101", 2, "ipv4", amounts(&in_a.ingress.v4, &in_a.egress.v4))
        .class("101", 2, "ipv6", amounts(&in_a.ingress.v6, &rest))
        .class("101", 0, "ipv6", amounts(&NONE, &group))
        .fault("veth101.0", "not_ip", amounts(&in_a.ingress.other, &in_a.egress.other))
        .class("102", 1, "ipv4", amounts(&in_b.ingress.v4, &in_b.egress.v4))
        .class("102", 1, "ipv6", amounts(&in_b.ingress.v6, &in_b.egress.v6))
        .fault("veth102.0", "not_ip", amounts(&in_b.ingress.other, &in_b.egress.other))
        .compare(&lab)?;
    Ok(())
}
