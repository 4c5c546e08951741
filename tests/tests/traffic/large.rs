//! Super-packets beyond plain TCP over IP: tunnels within a container, and buffers above 64 KiB.

use std::net::IpAddr;

use anyhow::Result;
use traffic_tests::Counters;
use traffic_tests::container::Container;
use traffic_tests::process::run_ok;
use traffic_tests::traffic::{Superdatagrams, TcpSide, tcp_exchange, tcp_transfer, udp_send_segmented};
use traffic_tests::witness::QdiscWitness;

use crate::node::{CLASSES, Expected, MEGABYTE, NONE, amounts, at, family, neighbours, node};

/// Bytes in front of the inner IP header of each segment: outer IP header, UDP, VXLAN and inner Ethernet
/// header.
fn overhead(outer: IpAddr) -> u64 {
    if outer.is_ipv4() { 20 + 8 + 8 + 14 } else { 40 + 8 + 8 + 14 }
}

/// Creates a tunnel between two containers. The inner addresses end with the number of the container.
fn tunnel(from: &Container, to: IpAddr, own: u8, peer: u8) -> Result<()> {
    let local = if to.is_ipv4() { from.v4() } else { from.v6() };
    // To the kernel, an outer header with and without a checksum are two kinds of segmentation.
    let checksum = if to.is_ipv4() { "noudpcsum" } else { "" };
    from.namespace().ip_batch(&format!(
        "link add tunnel address 02:00:00:00:77:{own:02x} type vxlan id 7 dstport 4789 local {local} remote {to} {checksum}
         address add 172.16.0.{own}/32 dev tunnel
         address add fd77::{own}/128 dev tunnel nodad
         link set tunnel mtu 1400 up
         route add 172.16.0.{peer}/32 dev tunnel
         route add fd77::{peer}/128 dev tunnel
         neighbour replace 172.16.0.{peer} lladdr 02:00:00:00:77:{peer:02x} dev tunnel nud permanent
         neighbour replace fd77::{peer} lladdr 02:00:00:00:77:{peer:02x} dev tunnel nud permanent\n"
    ))
}

/// The amounts of the inner segments with all outer headers.
fn encapsulated(side: &TcpSide, outer: IpAddr) -> (u64, u64) {
    (side.segments, side.l3_bytes + side.segments * overhead(outer))
}

#[test]
fn segments_within_a_tunnel_have_all_outer_headers() -> Result<()> {
    let lab = node("vxlan", CLASSES)?;
    let (a, b) = neighbours(&lab)?;
    let mut expected = Expected::default();
    let mut packets = 0;
    for (to, back) in [(b.v4(), a.v4()), (b.v6(), a.v6())] {
        tunnel(&a, to, 1, 2)?;
        tunnel(&b, back, 2, 1)?;
        for inner in [IpAddr::from([172, 16, 0, 2]), "fd77::2".parse()?] {
            let out_a = QdiscWitness::attach(a.namespace(), "eth0")?;
            let out_b = QdiscWitness::attach(b.namespace(), "eth0")?;
            let count = tcp_exchange(a.namespace(), b.namespace(), at(inner), 8 * MEGABYTE, MEGABYTE + 1)?;
            let there = encapsulated(&count.client, to);
            let back = encapsulated(&count.server, to);
            // Like trafctl, the queue sees the super-packets with the headers of the tunnel.
            let (out_a, out_b) = (out_a.read()?, out_b.read()?);
            assert_eq!((out_a.packets, out_a.l3_bytes(14)), there, "{count:?}");
            assert_eq!((out_b.packets, out_b.l3_bytes(14)), back, "{count:?}");
            packets += there.0;
            let plan = Superdatagrams { sends: 100, payload_bytes: 20 * 1100 + 9, segment_bytes: 1100 };
            let datagrams = udp_send_segmented(a.namespace(), b.namespace(), at(inner), plan)?;
            assert_eq!(datagrams.packets_received, datagrams.packets);
            let datagrams = (datagrams.packets, datagrams.l3_bytes + datagrams.packets * overhead(to));
            expected = expected
                .class("101", 2, family(to), amounts(&back, &there))
                .class("102", 1, family(to), amounts(&there, &back))
                .class("101", 2, family(to), amounts(&NONE, &datagrams))
                .class("102", 1, family(to), amounts(&datagrams, &NONE));
        }
        for container in [&a, &b] {
            container.namespace().ip("link delete tunnel")?;
        }
    }
    let counters = expected.compare(&lab)?;
    assert!(counters.interface("veth101.0").out_skbs < packets / 4);
    Ok(())
}

#[test]
fn buffers_beyond_64_kib_count_as_their_segments() -> Result<()> {
    let lab = node("big-tcp", CLASSES)?;
    let (a, b) = neighbours(&lab)?;
    // Both ends of both pairs and the bridge between them must allow it, or the kernel segments at the first
    // that does not.
    for container in [&a, &b] {
        container.namespace().gso_max_size("eth0", 200_000)?;
        lab.host().gso_max_size(container.interface(), 200_000)?;
    }
    lab.host().gso_max_size(lab.bridge()?.name(), 200_000)?;
    let mut expected = Expected::default();
    for to in [b.v6(), b.v4()] {
        let earlier = Counters::at_rest(&lab)?.interface(b.interface());
        let count = tcp_transfer(a.namespace(), b.namespace(), at(to), 40 * MEGABYTE)?;
        let now = Counters::at_rest(&lab)?.interface(b.interface());
        // Over IPv6 such a buffer has an 8-byte header that none of its packets has.
        let buffers = now.in_skbs - earlier.in_skbs;
        let mean = (now.in_skb_bytes - earlier.in_skb_bytes) / buffers;
        assert!(mean > 65_536, "the kernel made no large buffers: {mean} bytes in {buffers} for {count:?}");
        expected = expected.class("101", 2, family(to), amounts(&count.server, &count.client)).class(
            "102",
            1,
            family(to),
            amounts(&count.client, &count.server),
        );
    }
    expected.compare(&lab)?;
    Ok(())
}

#[test]
fn buffers_merged_on_receipt_count_as_the_merged_packets() -> Result<()> {
    let lab = node("gro", CLASSES)?;
    let (a, b) = neighbours(&lab)?;
    // Single packets leave the container in batches. The host's end of the pair merges them again, as a
    // network card would, and datagrams into one buffer or a list.
    let cut = ["-K", "eth0", "tso", "off", "gso", "off", "tx-udp-segmentation", "off"];
    for container in [&a, &b] {
        run_ok(container.namespace().command("ethtool").args(cut))?;
    }
    let mut expected = Expected::default();
    let (mut packets, mut datagrams) = (0, 0);
    for lists in ["off", "on"] {
        for container in [&a, &b] {
            let merge = ["gro", "on", "rx-udp-gro-forwarding", "on", "rx-gro-list", lists];
            run_ok(lab.host().command("ethtool").args(["-K", container.interface()]).args(merge))?;
        }
        for to in [b.v4(), b.v6()] {
            let count = tcp_exchange(a.namespace(), b.namespace(), at(to), 6 * MEGABYTE, MEGABYTE + 1)?;
            let plan = Superdatagrams { sends: 100, payload_bytes: 20 * 1100 + 9, segment_bytes: 1100 };
            let sent = udp_send_segmented(a.namespace(), b.namespace(), at(to), plan)?;
            assert_eq!(sent.packets_received, sent.packets);
            packets += count.client.segments;
            datagrams += sent.packets;
            expected = expected
                .class("101", 2, family(to), amounts(&count.server, &count.client))
                .class("102", 1, family(to), amounts(&count.client, &count.server))
                .class("101", 2, family(to), amounts(&NONE, &sent))
                .class("102", 1, family(to), amounts(&sent, &NONE));
        }
    }
    let counters = expected.compare(&lab)?;
    let row = counters.interface(a.interface());
    assert!(row.out_skbs < (packets + datagrams) / 2, "little was merged: {row:?}");
    Ok(())
}
