//! What the node routes: through the bridge's own interface, on interfaces of their own, on `venet0`, and to a
//! machine.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use traffic_tests::container::Mac;
use traffic_tests::traffic::{RawSocket, udp_send};
use traffic_tests::{Container, Lab};

use crate::node::{
    Amount, PAYLOAD, all_attributed, at, bridged, by_reason, chain, dump, figure, host, load_program, nft,
    node, received, sent, settles,
};

/// The addresses of the containers: where the bridge hides who sent a packet, they decide.
const ADDRESSES: &str = "[[container]]\nid = '101'\naddresses = ['10.1.0.1', 'fd00:1::1']\n\
    [[container]]\nid = '102'\naddresses = ['10.2.0.1', 'fd00:2::1']\n";
const NONE: Amount = Amount { packets: 0, bytes: 0 };
const FRAMES: u64 = 300;

/// A node that forwards, with containers that send everything to it.
fn gateway(name: &str) -> Result<(Lab, [Container; 2])> {
    let lab = node(name, ADDRESSES)?;
    let containers = bridged(&lab)?;
    lab.host().sysctl("ipv4/ip_forward", "1")?;
    lab.host().sysctl("ipv6/conf/all/forwarding", "1")?;
    let [a, b] = &containers;
    let mac = lab.bridge()?.mac();
    a.knows_at(&[b.v4(), b.v6()], mac)?;
    b.knows_at(&[a.v4(), a.v6()], mac)?;
    Ok((lab, containers))
}

/// Sends frames from a container to an address behind the node, and returns what they are on the wire.
fn frames(lab: &Lab, from: &Container, to: IpAddr, (ttl, payload): (u8, usize)) -> Result<Amount> {
    let builder = PacketBuilder::ethernet2(from.mac().0, lab.bridge()?.mac().0);
    let builder = match (from.v4(), from.v6(), to) {
        (IpAddr::V4(source), _, IpAddr::V4(to)) => builder.ipv4(source.octets(), to.octets(), ttl),
        (_, IpAddr::V6(source), IpAddr::V6(to)) => builder.ipv6(source.octets(), to.octets(), ttl),
        _ => anyhow::bail!("a container without an address"),
    };
    let mut frame = Vec::new();
    builder.udp(4000, 4001).write(&mut frame, &vec![0x5a; payload])?;
    let socket = RawSocket::open(from.namespace(), "eth0")?;
    for _ in 0..FRAMES {
        socket.send(&frame)?;
    }
    Ok(Amount { packets: FRAMES, bytes: FRAMES * (frame.len() as u64 - 14) })
}

/// All frames are dropped for one reason, and only the sender had counted them.
fn refused(lab: &Lab, from: &Container, to: IpAddr, (ttl, payload): (u8, usize), reason: &str) -> Result<()> {
    let class = match to {
        IpAddr::V4(to) => to.octets()[1] % 4,
        IpAddr::V6(to) => to.segments()[1].to_be_bytes()[1] % 4,
    };
    let (out, before) = (("101", class, to, "out"), dump(lab)?);
    let (had, had_reason) = (figure(&before, out, "counted"), by_reason(&before, "out", reason));
    let sent = frames(lab, from, to, (ttl, payload))?;
    let plus = |one: Amount| Amount { packets: one.packets + sent.packets, bytes: one.bytes + sent.bytes };
    settles(lab, out, plus(had), figure(&before, out, "delivered"))?;
    let after = dump(lab)?;
    ensure!(by_reason(&after, "out", reason) == plus(had_reason), "not {reason}: {after:#}");
    all_attributed(&after)
}

const FAR: Ipv6Addr = Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 9);

#[test]
fn what_has_no_route_is_dropped() -> Result<()> {
    let (lab, [a, _]) = gateway("drops-no-route")?;
    let plain = (64, PAYLOAD);
    for to in [IpAddr::from([10, 3, 0, 9]), FAR.into()] {
        refused(&lab, &a, to, plain, "no_route")?;
    }
    host(&lab, "ip route add blackhole 10.3.0.0/16")?;
    host(&lab, "ip -6 route add blackhole fd00:3::/32")?;
    for to in [IpAddr::from([10, 3, 0, 9]), FAR.into()] {
        refused(&lab, &a, to, plain, "no_route")?;
    }
    Ok(())
}

#[test]
fn what_has_travelled_too_far_is_dropped() -> Result<()> {
    let (lab, [a, b]) = gateway("drops-ttl")?;
    // The reason of IPv6 is the same; what has too many hops is a header error.
    for to in [b.v4(), b.v6()] {
        refused(&lab, &a, to, (1, PAYLOAD), "no_route")?;
    }
    Ok(())
}

#[test]
fn what_is_too_big_is_dropped() -> Result<()> {
    let (lab, [a, _]) = gateway("drops-too-big")?;
    host(&lab, "ip link add narrow type veth peer name far")?;
    host(&lab, "ip link set far up")?;
    host(&lab, "ip link set narrow mtu 1280 up")?;
    host(&lab, "ip route add 10.3.0.0/16 dev narrow")?;
    host(&lab, "ip -6 route add fd00:3::/32 dev narrow")?;
    for to in [IpAddr::from([10, 3, 0, 9]), FAR.into()] {
        refused(&lab, &a, to, (64, 1400), "too_big")?;
    }
    Ok(())
}

#[test]
fn what_waits_for_a_neighbour_that_never_answers_is_dropped() -> Result<()> {
    let (lab, [a, _]) = gateway("drops-neighbour")?;
    host(&lab, "ip route add 10.3.0.0/16 dev br0")?;
    host(&lab, "ip -6 route add fd00:3::/32 dev br0")?;
    for to in [IpAddr::from([10, 3, 0, 9]), FAR.into()] {
        refused(&lab, &a, to, (64, PAYLOAD), "neighbour")?;
    }
    Ok(())
}

#[test]
fn what_a_firewall_does_not_forward_is_dropped() -> Result<()> {
    for hook in ["forward", "postrouting", "prerouting"] {
        let (lab, [a, b]) = gateway("drops-forward")?;
        nft(&lab, &chain("inet", hook, "meta l4proto udp drop"))?;
        for to in [b.v4(), b.v6()] {
            refused(&lab, &a, to, (64, PAYLOAD), "firewall")?;
            settles(&lab, ("102", 1, to, "in"), NONE, NONE)?;
        }
    }
    Ok(())
}

#[test]
fn a_firewall_drops_what_is_for_the_node_itself() -> Result<()> {
    let (lab, [a, _]) = gateway("drops-input")?;
    nft(&lab, &chain("inet", "input", "meta l4proto udp drop"))?;
    let to = IpAddr::from([10, 255, 255, 254]);
    let sent = frames(&lab, &a, to, (64, PAYLOAD))?;
    settles(&lab, ("101", 0, to, "out"), sent, NONE)
}

/// From one container to the other by way of the node, and of the bridge's own interface.
#[test]
fn a_shaper_behind_the_bridges_own_interface_drops_what_both_counted() -> Result<()> {
    let (lab, [a, b]) = gateway("drops-br0")?;
    host(&lab, "tc qdisc add dev veth102.0 root tbf rate 10mbit burst 5000 limit 12000")?;
    for to in [b.v4(), b.v6()] {
        let count = udp_send(a.namespace(), b.namespace(), at(to), 900, PAYLOAD)?;
        let (sent, got) = (sent(&count), received(&count, to));
        ensure!(got.packets > 0 && got.packets < sent.packets, "no partial loss: {count:?}");
        settles(&lab, ("101", 2, to, "out"), sent, got)?;
        settles(&lab, ("102", 1, to, "in"), sent, got)?;
    }
    all_attributed(&dump(&lab)?)
}

/// Without the bridge: each interface is a subnet of its own, and no address is configured.
#[test]
fn routed_interfaces_need_no_addresses() -> Result<()> {
    let lab = node("drops-routed", "")?;
    let [a, b] = bridged(&lab)?;
    lab.host().sysctl("ipv4/ip_forward", "1")?;
    lab.host().sysctl("ipv6/conf/all/forwarding", "1")?;
    let [to_a, to_b] = [&a, &b].map(|one| own_interface(&lab, one));
    let (to_a, to_b) = (to_a?, to_b?);
    a.knows_at(&[b.v4(), b.v6()], to_a)?;
    b.knows_at(&[a.v4(), a.v6()], to_b)?;
    host(&lab, "tc qdisc add dev veth102.0 root tbf rate 10mbit burst 5000 limit 12000")?;
    let mut before = Vec::new();
    for to in [b.v4(), b.v6()] {
        let count = udp_send(a.namespace(), b.namespace(), at(to), 900, PAYLOAD)?;
        let (sent, got) = (sent(&count), received(&count, to));
        ensure!(got.packets > 0 && got.packets < sent.packets, "no partial loss: {count:?}");
        settles(&lab, ("101", 2, to, "out"), sent, got)?;
        settles(&lab, ("102", 1, to, "in"), sent, got)?;
        before.push((sent, got));
    }
    nft(&lab, &chain("inet", "forward", "meta l4proto udp drop"))?;
    for (to, (had, got)) in [b.v4(), b.v6()].into_iter().zip(before) {
        let count = udp_send(a.namespace(), b.namespace(), at(to), 100, PAYLOAD)?;
        let counted = Amount { packets: had.packets + count.packets, bytes: had.bytes + count.l3_bytes };
        settles(&lab, ("101", 2, to, "out"), counted, got)?;
        settles(&lab, ("102", 1, to, "in"), had, got)?;
    }
    all_attributed(&dump(&lab)?)
}

/// Takes a container off the bridge. Returns the hardware address of its host-side interface.
fn own_interface(lab: &Lab, container: &Container) -> Result<Mac> {
    let interface = container.interface();
    host(lab, &format!("ip link set {interface} nomaster"))?;
    for address in [container.v4(), container.v6()] {
        host(lab, &format!("ip route replace {address} dev {interface}"))?;
        let mac = container.mac();
        host(lab, &format!("ip neighbour replace {address} lladdr {mac} dev {interface} nud permanent"))?;
    }
    let shown: serde_json::Value =
        serde_json::from_str(&host(lab, &format!("ip -j link show {interface}"))?)?;
    let text = shown[0]["address"].as_str().context("no address")?;
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    Ok(Mac(bytes.try_into().ok().context("no hardware address")?))
}

/// One interface for all containers: both ends of a packet are on it, and the addresses decide.
#[test]
fn venet0_drops_belong_to_the_addresses() -> Result<()> {
    let lab = node("drops-venet", "")?;
    let venet = lab.venet()?;
    let a = venet.container("301", [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = venet.container("302", [10, 2, 0, 1].into(), "fd00:2::1".parse()?)?;
    for (container, address) in
        [("301", "10.1.0.1"), ("301", "fd00:1::1"), ("302", "10.2.0.1"), ("302", "fd00:2::1")]
    {
        lab.run_ok(&["address", "add", container, address])?;
    }
    lab.run_ok(&["attach"])?;
    load_program(&lab)?;
    host(&lab, "tc qdisc replace dev venet0 root tbf rate 10mbit burst 5000 limit 12000")?;
    let mut before = Vec::new();
    for to in [b.v4(), b.v6()] {
        let count = udp_send(a.namespace(), b.namespace(), at(to), 900, PAYLOAD)?;
        let (sent, got) = (sent(&count), received(&count, to));
        ensure!(got.packets > 0 && got.packets < sent.packets, "no partial loss: {count:?}");
        settles(&lab, ("301", 2, to, "out"), sent, got)?;
        settles(&lab, ("302", 1, to, "in"), sent, got)?;
        before.push((sent, got));
    }
    nft(&lab, &chain("inet", "forward", "meta l4proto udp drop"))?;
    for (to, (had, got)) in [b.v4(), b.v6()].into_iter().zip(before) {
        let count = udp_send(a.namespace(), b.namespace(), at(to), 100, PAYLOAD)?;
        let counted = Amount { packets: had.packets + count.packets, bytes: had.bytes + count.l3_bytes };
        settles(&lab, ("301", 2, to, "out"), counted, got)?;
        settles(&lab, ("302", 1, to, "in"), had, got)?;
    }
    all_attributed(&dump(&lab)?)
}

/// A machine that does not read what its interface holds for it.
#[test]
fn a_machines_full_queue_drops_what_both_counted() -> Result<()> {
    let lab = node("drops-tap", "")?;
    let [a, _b] = bridged(&lab)?;
    let tap = lab.tap("vme201.0")?;
    let machine = Mac([0x02, 0, 0, 0, 2, 1]);
    tap.on_bridge(lab.bridge()?, machine)?;
    host(&lab, "ip link set vme201.0 txqueuelen 100")?;
    lab.run_ok(&["attach"])?;
    let to = IpAddr::from([10, 3, 0, 9]);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(a.mac().0, machine.0)
        .ipv4([10, 1, 0, 1], [10, 3, 0, 9], 64)
        .udp(4000, 4001)
        .write(&mut frame, &[0x5a; PAYLOAD])?;
    let socket = RawSocket::open(a.namespace(), "eth0")?;
    let sent = 2_000;
    for _ in 0..sent {
        socket.send(&frame)?;
    }
    let mut got = 0;
    while let Some((_, received)) = tap.receive(Duration::from_millis(300))? {
        got += u64::from(received == frame);
    }
    ensure!(got > 0 && got < sent, "{got} of {sent}");
    let amount = |packets| Amount { packets, bytes: packets * (frame.len() as u64 - 14) };
    settles(&lab, ("101", 3, to, "out"), amount(sent), amount(got))?;
    settles(&lab, ("201", 1, to, "in"), amount(sent), amount(got))?;
    let after = dump(&lab)?;
    ensure!(by_reason(&after, "in", "queue_full") == amount(sent - got), "{after:#}");
    all_attributed(&after)
}
