//! `venet0`: one layer-3 interface for many containers, which are identified by address.

use std::net::{IpAddr, Ipv6Addr, UdpSocket};

use anyhow::Result;
use etherparse::PacketBuilder;
use traffic_tests::traffic::{Superdatagrams, tcp_exchange, udp_send_segmented};
use traffic_tests::witness::InterfaceStatistics;
use traffic_tests::{Lab, RoutedContainer, Venet, VnetHeader};

use crate::node::{Expected, MEGABYTE, NONE, amounts, at, family, node};

/// A class for each container, and one for the bridged container.
const CLASSES: &str = "1 10.1.0.0/16\n1 fd00:1::/32\n2 10.2.0.0/16\n2 fd00:2::/32\n3 10.3.0.0/16\n3 fd00:3::/32\n\
    4 10.4.0.0/16\n4 fd00:4::/32\n";

/// Containers 301, 302 and 303. The last owns a whole /64 and uses two addresses of it.
fn routed<'a>(lab: &Lab, venet: &Venet<'a>) -> Result<[RoutedContainer<'a>; 3]> {
    let a = venet.container("301", [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = venet.container("302", [10, 2, 0, 1].into(), "fd00:2::1".parse()?)?;
    let mut c = venet.container("303", [10, 3, 0, 1].into(), "fd00:3:0:7::1".parse()?)?;
    c.add_address("fd00:3:0:7:ffff:ffff:ffff:fffe".parse()?)?;
    for (container, address) in [
        ("301", "10.1.0.1"),
        ("301", "fd00:1::1"),
        ("302", "10.2.0.1"),
        ("302", "fd00:2::1"),
        ("303", "10.3.0.1"),
        ("303", "fd00:3:0:7::/64"),
    ] {
        lab.run_ok(&["address", "add", container, address])?;
    }
    lab.run_ok(&["attach"])?;
    Ok([a, b, c])
}

#[test]
fn routed_containers_are_identified_by_address() -> Result<()> {
    let lab = node("venet", CLASSES)?;
    let venet = lab.venet()?;
    let [a, b, c] = routed(&lab, &venet)?;
    let before = InterfaceStatistics::read(lab.host(), venet.interface())?;
    let last: IpAddr = "fd00:3:0:7:ffff:ffff:ffff:fffe".parse()?;
    let mut expected = Expected::default();
    let mut packets = 0;
    for (from, from_class, to, to_class, address, bytes) in [
        (&a, 1, &b, 2, b.v4(), 7 * MEGABYTE),
        (&a, 1, &b, 2, b.v6(), 5 * MEGABYTE + 1),
        (&b, 2, &c, 3, c.v6(), 3 * MEGABYTE + 2),
        (&b, 2, &c, 3, last, 2 * MEGABYTE + 3),
        (&c, 3, &a, 1, a.v4(), MEGABYTE + 4),
    ] {
        let count = tcp_exchange(from.namespace(), to.namespace(), at(address), bytes, MEGABYTE)?;
        packets += count.client.segments + count.server.segments;
        // A buffer passes venet0 twice: out of one container and in to the other.
        expected = expected
            .class(from.id(), to_class, family(address), amounts(&count.server, &count.client))
            .class(to.id(), from_class, family(address), amounts(&count.client, &count.server));
    }
    let counters = expected.compare(&lab)?;
    let now = InterfaceStatistics::read(lab.host(), venet.interface())?;
    let row = counters.interface("venet0");
    assert_eq!(row.in_skbs, now.tx_packets - before.tx_packets);
    assert_eq!(row.in_skb_bytes, now.tx_bytes - before.tx_bytes);
    assert_eq!(row.out_skbs, now.rx_packets - before.rx_packets);
    assert_eq!(row.out_skb_bytes, now.rx_bytes - before.rx_bytes);
    assert!(row.out_skbs < packets / 4, "{row:?}");
    assert_eq!((row.container, venet.lost()), (None, 0));
    Ok(())
}

#[test]
fn a_layer_3_interface_counts_like_an_ethernet_interface() -> Result<()> {
    let lab = node("venet-veth", CLASSES)?;
    let venet = lab.venet()?;
    let [a, ..] = routed(&lab, &venet)?;
    let bridged = lab.bridged(401, 0, [10, 4, 0, 1].into(), "fd00:4::1".parse()?)?;
    // The host is its default route.
    let router = lab.bridge()?.mac();
    bridged.knows_at(&[a.v4(), a.v6()], router)?;
    lab.run_ok(&["attach"])?;
    let mut expected = Expected::default();
    for (to, back) in [(bridged.v4(), a.v4()), (bridged.v6(), a.v6())] {
        let there = tcp_exchange(a.namespace(), bridged.namespace(), at(to), 6 * MEGABYTE, MEGABYTE + 3)?;
        let back = tcp_exchange(bridged.namespace(), a.namespace(), at(back), 2 * MEGABYTE, 5)?;
        let plan = Superdatagrams { sends: 50, payload_bytes: 10 * 1200 + 7, segment_bytes: 1200 };
        let datagrams = udp_send_segmented(a.namespace(), bridged.namespace(), at(to), plan)?;
        assert_eq!(datagrams.packets_received, datagrams.packets);
        // The same transfer through an interface with Ethernet headers and through one without.
        expected = expected
            .class("301", 4, family(to), amounts(&there.server, &there.client))
            .class("401", 1, family(to), amounts(&there.client, &there.server))
            .class("301", 4, family(to), amounts(&back.client, &back.server))
            .class("401", 1, family(to), amounts(&back.server, &back.client))
            .class("301", 4, family(to), amounts(&NONE, &datagrams))
            .class("401", 1, family(to), amounts(&datagrams, &NONE));
    }
    let counters = expected.compare(&lab)?;
    let (layer_3, ethernet) = (counters.interface("venet0"), counters.interface("veth401.0"));
    assert_eq!(layer_3.amounts.in_bytes, ethernet.amounts.out_bytes);
    assert_eq!(layer_3.amounts.out_bytes, ethernet.amounts.in_bytes);
    // Also the same buffers, with 14 more bytes each where there is a link header.
    assert_eq!(layer_3.out_skbs, ethernet.in_skbs);
    assert_eq!(layer_3.out_skb_bytes + 14 * layer_3.out_skbs, ethernet.in_skb_bytes);
    Ok(())
}

#[test]
fn an_address_without_an_owner_is_counted_as_a_fault() -> Result<()> {
    let lab = node("venet-strange", CLASSES)?;
    let venet = lab.venet()?;
    let [_a, b, _c] = routed(&lab, &venet)?;
    // A socket listens, so that no ICMP answer is sent.
    let _listener = b.namespace().enter(|| Ok(UdpSocket::bind("10.2.0.1:9")?))?;
    // Source addresses are not checked: 10.9.0.9 belongs to no container, and neither does the /64 next to
    // that of 303.
    let mut plain = Vec::new();
    PacketBuilder::ipv4([10, 9, 0, 9], [10, 2, 0, 1], 64).udp(1, 9).write(&mut plain, &[7; 100])?;
    venet.inject(&plain)?;
    let beside: Ipv6Addr = "fd00:3:0:8::1".parse()?;
    let nowhere: Ipv6Addr = "fd00:9::1".parse()?;
    let mut cut = Vec::new();
    PacketBuilder::ipv6(beside.octets(), nowhere.octets(), 64)
        .tcp(1, 9, 1, 1000)
        .write(&mut cut, &[7; 3001])?;
    venet.inject_with(VnetHeader::tcp_v6(40, 60, 1000), &cut)?;
    // In the other direction, the host has a route to venet0 for an address of no container.
    lab.host().ip("route add 10.8.0.0/24 dev venet0")?;
    let socket = lab.host().enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
    socket.send_to(&[7; 50], "10.8.0.1:9")?;
    // The packet to 302 is in class 0 of 302 when it leaves through venet0. The long one has no route.
    Expected::default()
        .fault("venet0", "no_container", amounts(&(1, 78), &(1 + 4, 128 + 3001 + 4 * 60)))
        .class("302", 0, "ipv4", amounts(&(1, 128), &NONE))
        .compare(&lab)?;
    assert_eq!(venet.lost(), 1);
    Ok(())
}
