//! The traffic of the node itself, counted under id 0 where it passes an uplink, next to that of containers.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Result, ensure};
use traffic_tests::container::{HOST_V4, HOST_V6, introduce};
use traffic_tests::traffic::{tcp_exchange, udp_send};
use traffic_tests::witness::NftWitness;
use traffic_tests::{Amounts, Container, Counters, Lab};

use crate::daemon::Daemon;
use crate::node::{at, eventually, exchanged, hooks, is_well, node};

/// A node whose uplink `eth0` is a port of the bridge with its addresses. Beyond it is a peer in class 1.
fn with_uplink(name: &str) -> Result<(Lab, Container)> {
    let lab = node(name)?;
    lab.configure(&format!("class_file = {:?}\n[node]\nuplinks = ['eth0']\n", lab.path("classes")))?;
    let world = lab.bridged_as("eth0", [10, 9, 0, 9].into(), "fd00:9::9".parse()?)?;
    Ok((lab, world))
}

#[test]
fn the_nodes_own_traffic_is_separate_from_what_it_forwards() -> Result<()> {
    let (lab, world) = with_uplink("uplink")?;
    let bridged = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    introduce(&[&bridged, &world])?;
    let venet = lab.venet()?;
    let routed = venet.container("301", [10, 3, 0, 1].into(), "fd00:3::1".parse()?)?;
    // The peer reaches the routed container through the host.
    world.knows_at(&[routed.v4(), routed.v6()], lab.bridge()?.mac())?;
    lab.run_ok(&["address", "add", "301", &routed.v4().to_string()])?;
    lab.run_ok(&["attach"])?;
    let witness = NftWitness::attach(lab.host(), "eth0")?;

    let (host_v4, host_v6) = (IpAddr::from(HOST_V4), IpAddr::from(HOST_V6));
    let out_v4 = udp_send(lab.host(), world.namespace(), at(world.v4()), 11, 100)?;
    let in_v4 = udp_send(world.namespace(), lab.host(), at(host_v4), 23, 200)?;
    let out_v6 = udp_send(lab.host(), world.namespace(), at(world.v6()), 31, 300)?;
    let in_v6 = udp_send(world.namespace(), lab.host(), at(host_v6), 43, 400)?;
    let stream = tcp_exchange(lab.host(), world.namespace(), at(world.v4()), 3 << 20, 1 << 20)?;
    // Forwarded by the bridge, and by routing.
    let from_bridged = udp_send(bridged.namespace(), world.namespace(), at(world.v4()), 57, 500)?;
    let to_bridged = udp_send(world.namespace(), bridged.namespace(), at(bridged.v6()), 61, 600)?;
    let from_routed = udp_send(routed.namespace(), world.namespace(), at(world.v4()), 73, 700)?;
    let to_routed = udp_send(world.namespace(), routed.namespace(), at(routed.v4()), 79, 800)?;

    let counters = Counters::at_rest(&lab)?;
    let udp = |from: &traffic_tests::traffic::UdpCount| (from.packets, from.l3_bytes);
    let node_v4 = Amounts::both(udp(&in_v4), udp(&out_v4)).plus(exchanged(&stream));
    assert_eq!(counters.class("0", 1, "ipv4"), node_v4);
    assert_eq!(counters.class("0", 1, "ipv6"), Amounts::both(udp(&in_v6), udp(&out_v6)));
    assert_eq!(
        counters.class("101", 1, "ipv4"),
        Amounts::outgoing(from_bridged.packets, from_bridged.l3_bytes)
    );
    assert_eq!(counters.class("101", 1, "ipv6"), Amounts::incoming(to_bridged.packets, to_bridged.l3_bytes));
    assert_eq!(counters.class("301", 1, "ipv4"), Amounts::both(udp(&to_routed), udp(&from_routed)));
    // Nothing else is counted for a container, and forwarded traffic has its own counter on the uplink.
    let containers: Vec<_> = counters.counters.iter().map(|row| row.container.as_str()).collect();
    assert_eq!(containers, ["0", "0", "101", "101", "301"], "{:?}", counters.counters);
    let forwarded = Amounts::both(udp(&to_bridged), udp(&from_bridged))
        .plus(Amounts::both(udp(&to_routed), udp(&from_routed)));
    assert_eq!(counters.fault("eth0", "not_the_nodes"), forwarded);
    // The program saw every buffer that nftables saw on the uplink, and the directions are those of the node.
    let seen = witness.read()?;
    let row = counters.interface("eth0");
    let all =
        |side: traffic_tests::witness::NftDirection| side.v4.packets + side.v6.packets + side.other.packets;
    assert_eq!((row.in_skbs, row.out_skbs), (all(seen.ingress), all(seen.egress)));
    assert_eq!((row.in_unseen_skbs, row.out_unseen_skbs), (0, 0));
    is_well(&lab)
}

#[test]
fn added_and_removed_addresses_and_uplinks_take_effect() -> Result<()> {
    let (lab, world) = with_uplink("uplink-addresses")?;
    let address: IpAddr = [10, 9, 0, 77].into();
    world.knows_at(&[address], lab.bridge()?.mac())?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let socket = world.namespace().enter(|| Ok(UdpSocket::bind("10.9.0.9:0")?))?;
    let mut sent = 0;
    let mut send = |bytes: usize| -> Result<()> {
        socket.send_to(&vec![0; bytes], (address, 9))?;
        sent += 1;
        Ok(())
    };
    send(100)?;
    eventually("a stranger's address", || {
        Ok(Counters::read(&lab)?.fault_or_zero("eth0", "not_the_nodes").in_packets == 1)
    })?;
    lab.host().ip("address add 10.9.0.77/32 dev br0")?;
    // Nothing is counted for the node before the daemon knows the address.
    let to_node = || Ok::<_, anyhow::Error>(Counters::read(&lab)?.class_or_zero("0", 1, "ipv4").in_packets);
    eventually("packets to the new address count for the node", || {
        send(101)?;
        Ok(to_node()? > 0)
    })?;
    lab.host().ip("address del 10.9.0.77/32 dev br0")?;
    eventually("packets to the removed address no longer count for the node", || {
        let before = to_node()?;
        send(102)?;
        Counters::at_rest(&lab)?;
        Ok(to_node()? == before)
    })?;
    let counters = Counters::at_rest(&lab)?;
    let not_ours = counters.fault("eth0", "not_the_nodes").in_packets;
    assert_eq!(counters.class("0", 1, "ipv4").in_packets + not_ours, sent);
    is_well(&lab)?;
    daemon.stop()?;

    // In the lab it is a veth whose peer is elsewhere, as that of a container is.
    let ignored = "[[interfaces.rule]]\npattern = \"eth0\"\nkind = \"ignore\"";
    lab.configure(&format!("class_file = {:?}\n{ignored}\n", lab.path("classes")))?;
    lab.run_ok(&["attach"])?;
    ensure!(hooks(&lab, "eth0")?.is_empty(), "it is no longer configured");
    assert_eq!(Counters::at_rest(&lab)?.class("0", 1, "ipv4"), counters.class("0", 1, "ipv4"));
    is_well(&lab)
}

#[test]
fn an_uplink_is_found_by_its_alternative_name_and_a_wrong_name_is_a_problem() -> Result<()> {
    let (lab, world) = with_uplink("uplinkname")?;
    lab.host().ip("link property add dev eth0 altname the-provider")?;
    let configured = |names: &str| {
        lab.configure(&format!("class_file = {:?}\n[node]\nuplinks = [{names}]\n", lab.path("classes")))
    };
    configured("'the-provider'")?;
    lab.run_ok(&["attach"])?;
    let sent = udp_send(lab.host(), world.namespace(), at(world.v4()), 13, 100)?;
    let expected = Amounts::outgoing(sent.packets, sent.l3_bytes);
    assert_eq!(Counters::at_rest(&lab)?.class("0", 1, "ipv4"), expected);
    is_well(&lab)?;

    configured("'the-provider', 'eno1'")?;
    let output = lab.trafctl(&["status"])?.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.code() == Some(1) && text.contains("uplink eno1: no interface has this name"),
        "{text}"
    );
    Ok(())
}
