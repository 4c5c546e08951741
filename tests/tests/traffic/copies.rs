//! Packets that pass a hook more than once, or that no wire carried.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use traffic_tests::process::run_ok;
use traffic_tests::traffic::{tcp_exchange, udp_send};
use traffic_tests::witness::InterfaceStatistics;
use traffic_tests::{Amounts, Counters, Lab};

use crate::node::{CLASSES, Expected, MEGABYTE, NONE, amounts, at, neighbours, node};

fn tc(lab: &Lab, arguments: &str) -> Result<String> {
    run_ok(lab.host().command("tc").args(arguments.split_whitespace()))
}

/// All traffic to the container takes the way through an ifb that limits it.
fn shape_by_ifb(lab: &Lab, interface: &str, parent: &str) -> Result<()> {
    tc(
        lab,
        &format!(
            "filter add dev {interface} {parent} protocol all u32 match u32 0 0 action mirred egress redirect dev ifb7"
        ),
    )
    .map(drop)
}

/// A node whose two containers share one ifb, redirected to in the given way.
fn shaped(name: &str, configuration: &str, clsact: bool) -> Result<()> {
    let lab = node(name, CLASSES)?;
    let classes = lab.path("classes");
    lab.configure(&format!("class_file = {classes:?}\n{configuration}"))?;
    let (a, b) = neighbours(&lab)?;
    lab.host().ip("link add ifb7 type ifb")?;
    lab.host().ip("link set ifb7 up")?;
    tc(&lab, "qdisc add dev ifb7 root handle 1: tbf rate 8gbit burst 1mb limit 64mb")?;
    for interface in [a.interface(), b.interface()] {
        if clsact {
            // The qdisc may be there already.
            tc(&lab, &format!("qdisc replace dev {interface} clsact"))?;
            shape_by_ifb(&lab, interface, "egress")?;
        } else {
            tc(&lab, &format!("qdisc add dev {interface} root handle 1: htb"))?;
            shape_by_ifb(&lab, interface, "parent 1:")?;
        }
    }
    let before = InterfaceStatistics::read(lab.host(), a.interface())?;
    let mut expected = Expected::default();
    // The second time, the program knows the ifb from its listing.
    for attached_again in [false, true] {
        if attached_again {
            lab.run_ok(&["attach"])?;
        }
        let datagrams = udp_send(b.namespace(), a.namespace(), at(a.v4()), 500, 300)?;
        let exchange = tcp_exchange(a.namespace(), b.namespace(), at(b.v6()), MEGABYTE, 2 * MEGABYTE + 7)?;
        expected = expected
            .class("101", 2, "ipv4", amounts(&datagrams, &NONE))
            .class("102", 1, "ipv4", amounts(&NONE, &datagrams))
            .class("101", 2, "ipv6", amounts(&exchange.server, &exchange.client))
            .class("102", 1, "ipv6", amounts(&exchange.client, &exchange.server));
    }
    let counters = expected.compare(&lab)?;
    let after = InterfaceStatistics::read(lab.host(), a.interface())?;
    let row = counters.interface(a.interface());
    // The device transmitted every buffer once. Where the shaper cuts buffers, it transmitted more of them.
    ensure!(after.tx_packets - before.tx_packets >= row.in_skbs, "{row:?} {after:?}");
    ensure!(row.in_copied_skbs >= 1000, "no second pass was seen, so this proves nothing: {row:?}");
    Ok(())
}

#[test]
fn a_packet_that_an_ifb_sends_again_counts_once() -> Result<()> {
    shaped("ifb-htb", "", false)
}

#[test]
fn a_packet_that_a_filter_redirects_to_an_ifb_counts_once() -> Result<()> {
    shaped("ifb-filter", "", true)
}

#[test]
fn a_packet_that_an_ifb_sends_again_counts_once_with_clsact() -> Result<()> {
    shaped("ifb-clsact", "attach = 'clsact'\n", true)
}

#[test]
fn what_an_ifb_passes_back_from_ingress_counts_once() -> Result<()> {
    let lab = node("ifb-ingress", CLASSES)?;
    let (a, b) = neighbours(&lab)?;
    lab.host().ip("link add ifb7 type ifb")?;
    lab.host().ip("link set ifb7 up")?;
    tc(&lab, "qdisc add dev veth101.0 handle ffff: ingress")?;
    shape_by_ifb(&lab, "veth101.0", "parent ffff:")?;
    let datagrams = udp_send(a.namespace(), b.namespace(), at(b.v4()), 400, 100)?;
    Expected::default()
        .class("101", 2, "ipv4", amounts(&NONE, &datagrams))
        .class("102", 1, "ipv4", amounts(&datagrams, &NONE))
        .compare(&lab)
        .map(drop)
}

#[test]
fn a_packet_redirected_from_another_interface_is_counted() -> Result<()> {
    let lab = node("redirected", CLASSES)?;
    let (a, b) = neighbours(&lab)?;
    // Past the bridge: from the interface of the one straight to that of the other.
    tc(&lab, "qdisc add dev veth101.0 handle ffff: ingress")?;
    tc(
        &lab,
        "filter add dev veth101.0 parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev veth102.0",
    )?;
    let datagrams = udp_send(a.namespace(), b.namespace(), at(b.v4()), 300, 200)?;
    let counters = Expected::default()
        .class("101", 2, "ipv4", amounts(&NONE, &datagrams))
        .class("102", 1, "ipv4", amounts(&datagrams, &NONE))
        .compare(&lab)?;
    assert_eq!(counters.interface("veth102.0").in_copied_skbs, 0);
    Ok(())
}

#[test]
fn the_hosts_own_broadcasts_are_not_the_containers() -> Result<()> {
    let lab = node("loopback", CLASSES)?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    // A routed container: the host has an address on the interface itself.
    lab.host().ip("link set veth101.0 nomaster")?;
    lab.host().ip("address add 10.77.0.1/24 brd + dev veth101.0")?;
    lab.host().ip("route add 224.0.0.0/4 dev veth101.0")?;
    lab.run_ok(&["attach"])?;
    let before = Counters::at_rest(&lab)?;
    let statistics = InterfaceStatistics::read(lab.host(), "veth101.0")?;
    lab.host().enter(|| {
        let socket = std::net::UdpSocket::bind("10.77.0.1:0")?;
        socket.set_broadcast(true)?;
        for target in ["10.77.0.255:9", "255.255.255.255:9", "224.0.0.251:9"] {
            for _ in 0..20 {
                socket.send_to(&[7; 100], target)?;
            }
        }
        Ok(())
    })?;
    let after = Counters::at_rest(&lab)?;
    let (was, is) = (before.interface("veth101.0"), after.interface("veth101.0"));
    let kernel = InterfaceStatistics::read(lab.host(), "veth101.0")?;
    assert_eq!(is.out_skbs - was.out_skbs, kernel.rx_packets - statistics.rx_packets);
    assert_eq!(is.in_skbs - was.in_skbs, kernel.tx_packets - statistics.tx_packets);
    let sent = is.amounts.since(was.amounts);
    ensure!(sent.in_packets >= 60 && sent.in_bytes >= 60 * 128, "{sent:?}");
    assert_eq!(Amounts { in_packets: 0, in_bytes: 0, ..sent }, Amounts::default());
    ensure!(is.out_copied_skbs - was.out_copied_skbs >= 20, "no copy was looped back: {is:?}");
    drop(a);
    Ok(())
}

/// Whether the program has noted that IPsec came in on an interface.
fn carried_ipsec(lab: &Lab, interface: &str) -> Result<bool> {
    let text = lab.host().ip(&format!("-o link show {interface}"))?;
    let ifindex: u32 = text.split(':').next().context("no index")?.trim().parse()?;
    let map = Map::from_map_data(MapData::from_pin(lab.bpffs().join("maps/INTERFACE_BY_INDEX"))?)?;
    let entry = Array::<&MapData, [u32; 4]>::try_from(&map)?.get(&ifindex, 0)?;
    Ok(entry[3] >> 31 == 1)
}

/// The host decrypts nothing here, so everything counts. What is decrypted needs a kernel with ESP.
#[test]
fn an_interface_that_carried_ipsec_counts_all_the_same() -> Result<()> {
    let lab = node("ipsec-seen", CLASSES)?;
    let (a, b) = neighbours(&lab)?;
    ensure!(!carried_ipsec(&lab, a.interface())?);
    // IPsec in UDP, by its port, in one family and one direction.
    let first = udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v6(), 4500), 7, 200)?;
    ensure!(carried_ipsec(&lab, a.interface())? && !carried_ipsec(&lab, b.interface())?);
    lab.run_ok(&["attach"])?;
    ensure!(carried_ipsec(&lab, a.interface())?, "an attach that changes nothing keeps it");
    let datagrams = udp_send(a.namespace(), b.namespace(), at(b.v4()), 31, 300)?;
    let exchange = tcp_exchange(a.namespace(), b.namespace(), at(b.v6()), MEGABYTE, 2 * MEGABYTE + 7)?;
    let out = amounts(&exchange.server, &exchange.client).plus(amounts(&NONE, &first));
    let back = amounts(&exchange.client, &exchange.server).plus(amounts(&first, &NONE));
    let counters = Expected::default()
        .class("101", 2, "ipv4", amounts(&NONE, &datagrams))
        .class("102", 1, "ipv4", amounts(&datagrams, &NONE))
        .class("101", 2, "ipv6", out)
        .class("102", 1, "ipv6", back)
        .compare(&lab)?;
    assert_eq!(counters.interface(a.interface()).out_copied_skbs, 0);
    Ok(())
}
