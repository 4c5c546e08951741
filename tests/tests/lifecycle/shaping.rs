//! The skb mark, tested with a real tree of HTB classes at the uplink. The class of each mark must have
//! the exact packets and bytes that were sent.

use std::fs;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use traffic_tests::container::{HOST_V4, introduce};
use traffic_tests::traffic::{tcp_exchange, udp_send};
use traffic_tests::witness::{HtbWitness, QdiscCount};
use traffic_tests::{Amounts, Container, Counters, Lab};

use crate::daemon::Daemon;
use crate::load::Load;
use crate::node::{agrees_with_kernel, at, eventually, is_well, node, problems};

/// An address of the peer in another class.
const FOREIGN: [u8; 4] = [198, 51, 100, 7];
const ETHERNET_HEADER: u64 = 14;

/// The sender's count as a queue on Ethernet counts it.
fn on_ethernet((packets, l3_bytes): (u64, u64)) -> QdiscCount {
    QdiscCount { packets, bytes: l3_bytes + packets * ETHERNET_HEADER, drops: 0 }
}

/// A node with an uplink, and beyond it a peer in class 1, with addresses in class 3.
fn with_world(name: &str, keys: &str) -> Result<(Lab, Container)> {
    let lab = node(name)?;
    lab.write("classes", "1 0.0.0.0/0\n1 ::/0\n3 198.51.100.0/24\n40 203.0.113.0/24\n")?;
    configure(&lab, keys, true)?;
    let mut world = lab.bridged_as("eth0", [10, 9, 0, 9].into(), "fd00:9::9".parse()?)?;
    world.add_address(FOREIGN.into())?;
    world.add_address([203, 0, 113, 7].into())?;
    Ok((lab, world))
}

fn configure(lab: &Lab, keys: &str, enabled: bool) -> Result<()> {
    let classes = lab.path("classes");
    lab.configure(&format!(
        "class_file = {classes:?}\n{keys}\n[shaping]\nenabled = {enabled}\n[node]\nuplinks = ['eth0']\n"
    ))
}

#[test]
fn every_packet_is_in_the_shapers_class_of_its_mark() -> Result<()> {
    let (lab, world) = with_world("htb", "")?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b, &world])?;
    let venet = lab.venet()?;
    let routed = venet.container("301", [10, 3, 0, 1].into(), "fd00:3::1".parse()?)?;
    world.knows_at(&[routed.v4(), routed.v6()], lab.bridge()?.mac())?;
    lab.run_ok(&["address", "add", "301", &routed.v4().to_string()])?;
    lab.run_ok(&["attach"])?;
    let marks = [101 * 32 + 1, 101 * 32 + 3, 102 * 32 + 1, 301 * 32 + 3];
    let shaper = HtbWitness::attach(lab.host(), "eth0", &marks)?;

    let foreign = IpAddr::from(FOREIGN);
    let too_high = IpAddr::from([203, 0, 113, 7]);
    let udp = |from: &Container, to: IpAddr, packets, size| {
        let sent = udp_send(from.namespace(), world.namespace(), at(to), packets, size)?;
        anyhow::Ok((sent.packets, sent.l3_bytes))
    };
    let a_v4 = udp(&a, world.v4(), 21, 100)?;
    let a_v6 = udp(&a, world.v6(), 22, 200)?;
    // Super-packets, which the shaper counts as the packets that they become.
    let stream = tcp_exchange(a.namespace(), world.namespace(), at(foreign), 3 << 20, 1 << 20)?;
    let b_v4 = udp(&b, world.v4(), 23, 300)?;
    let b_unmarked = udp(&b, too_high, 24, 400)?;
    let sent = udp_send(routed.namespace(), world.namespace(), at(foreign), 25, 500)?;
    let of_node = udp_send(lab.host(), world.namespace(), at(world.v4()), 26, 600)?;
    // Packets to a container do not pass the uplink's egress.
    udp_send(world.namespace(), a.namespace(), at(a.v4()), 27, 700)?;
    udp_send(world.namespace(), lab.host(), at(HOST_V4.into()), 28, 800)?;

    let counters = Counters::at_rest(&lab)?;
    let (marked, rest) = shaper.read()?;
    let plus = |a: (u64, u64), b: (u64, u64)| (a.0 + b.0, a.1 + b.1);
    let expected = [
        plus(a_v4, a_v6),
        (stream.client.segments, stream.client.l3_bytes),
        b_v4,
        (sent.packets, sent.l3_bytes),
    ];
    assert_eq!(marked, expected.map(on_ethernet), "{:?}", shaper.filter());
    assert_eq!(rest, on_ethernet(plus(b_unmarked, (of_node.packets, of_node.l3_bytes))));
    // trafctl counts the marked packets.
    let out = |id, class| {
        // Most of these send over IPv4 only.
        let both = counters.class(id, class, "ipv4").plus(counters.class_or_zero(id, class, "ipv6"));
        (both.out_packets, both.out_bytes)
    };
    assert_eq!([out("101", 1), out("101", 3), out("102", 1), out("301", 3)], expected);
    assert_eq!(out("102", 40), b_unmarked);
    is_well(&lab)
}

/// Switches the mark off, on and off again on a node that keeps counting.
fn switched_by_attach(name: &str, keys: &str) -> Result<()> {
    let (lab, world) = with_world(name, keys)?;
    configure(&lab, keys, false)?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    introduce(&[&a, &world])?;
    lab.run_ok(&["attach"])?;
    let epoch = || anyhow::Ok(lab.run_json(&["status", "--format", "json"])?["epoch"].to_string());
    let made = epoch()?;
    let shaper = HtbWitness::attach(lab.host(), "eth0", &[101 * 32 + 1])?;
    let send = |packets| udp_send(a.namespace(), world.namespace(), at(world.v4()), packets, 100);

    let off = send(21)?;
    configure(&lab, keys, true)?;
    let problems = problems(&lab)?;
    ensure!(
        problems.len() == 1 && problems[0].starts_with("the configuration turns the skb mark on"),
        "{problems:?}"
    );
    lab.run_ok(&["attach"])?;
    is_well(&lab)?;
    let on = send(23)?;
    // As with pins of a version without the mark.
    fs::remove_file(lab.bpffs().join("maps/SHAPING_MARKS"))?;
    lab.run_ok(&["attach"])?;
    is_well(&lab)?;
    let made_anew = send(25)?;
    configure(&lab, keys, false)?;
    lab.run_ok(&["attach"])?;
    let off_again = send(27)?;

    let (marked, rest) = shaper.read()?;
    let sum = |a: &traffic_tests::traffic::UdpCount, b: &traffic_tests::traffic::UdpCount| {
        on_ethernet((a.packets + b.packets, a.l3_bytes + b.l3_bytes))
    };
    assert_eq!((marked[0], rest), (sum(&on, &made_anew), sum(&off, &off_again)));
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(epoch()?, made, "the counters continue");
    let all = [off, on, made_anew, off_again];
    let amounts = all.iter().map(|sent| Amounts::outgoing(sent.packets, sent.l3_bytes));
    assert_eq!(counters.class("101", 1, "ipv4"), amounts.fold(Amounts::default(), Amounts::plus));
    let text = lab.run_ok(&["status"])?;
    ensure!(text.contains("\nskb mark off\n"), "{text}");
    is_well(&lab)
}

#[test]
fn an_attach_switches_the_mark_without_losing_a_count() -> Result<()> {
    switched_by_attach("htb-attach", "")
}

#[test]
fn an_attach_switches_the_mark_on_clsact() -> Result<()> {
    switched_by_attach("htb-clsact", "attach = 'clsact'")
}

#[test]
fn sighup_switches_the_mark_during_a_flow() -> Result<()> {
    let (lab, world) = with_world("htb-hangup", "")?;
    configure(&lab, "", false)?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    introduce(&[&a, &world])?;
    let daemon = Daemon::start(&lab)?;
    let shaper = HtbWitness::attach(lab.host(), "eth0", &[101 * 32 + 1])?;
    let load = Load::start(a.namespace(), world.namespace(), at(world.v4()), 300)?;
    for enabled in [true, false, true, false] {
        configure(&lab, "", enabled)?;
        daemon.signal(Signal::HUP)?;
        eventually("the other program is in force", || {
            let output = lab.trafctl(&["status", "--format", "json"])?.output()?;
            let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
            Ok(status["shaping_mark"]["in_force"] == enabled)
        })?;
        let of = |(marked, rest): (Vec<QdiscCount>, QdiscCount)| if enabled { marked[0] } else { rest };
        let before = of(shaper.read()?);
        eventually("packets in the other class", || Ok(of(shaper.read()?).packets > before.packets + 50))?;
    }
    let sent = load.stop()?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 1, "ipv4"), Amounts::outgoing(sent.packets, sent.bytes));
    // Every packet was in one of the two classes.
    let (marked, rest) = shaper.read()?;
    assert_eq!(marked[0].packets + rest.packets, sent.packets);
    agrees_with_kernel(&lab, &counters, a.interface())?;
    is_well(&lab)?;
    daemon.stop()
}

#[test]
fn the_former_key_works_with_a_hint_of_the_daemon_only() -> Result<()> {
    let lab = node("htb-mark")?;
    let classes = lab.path("classes");
    lab.configure(&format!("class_file = {classes:?}\n[mark]\nenabled = true\n"))?;
    let mut daemon = Daemon::start(&lab)?;
    let hint = "[mark] in the configuration is the former name of [shaping]";
    daemon.logs(hint)?;
    daemon.settled()?;
    let output = lab.trafctl(&["status", "--format", "json"])?.output()?;
    ensure!(!String::from_utf8(output.stderr)?.contains(hint), "other commands do not repeat it");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(status["shaping_mark"]["in_force"] == true, "{status}");
    assert_eq!(daemon.log().matches(hint).count(), 1, "{}", daemon.log());

    lab.configure(&format!("class_file = {classes:?}\n[mark]\nenabled = true\n[shaping]\nenabled = true\n"))?;
    let output = lab.trafctl(&["status"])?.output()?;
    let shown = String::from_utf8(output.stdout)?;
    ensure!(shown.contains("trafctl.toml:2:1: [mark] is the former name of [shaping]"), "{shown}");
    daemon.stop()
}
