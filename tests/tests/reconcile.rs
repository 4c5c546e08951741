//! `trafctl reconcile`: every packet that containers send or receive is at one end, and the difference is 0. The
//! senders say how many packets there were, and the receivers that all of them arrived.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::{IpAddr, SocketAddr},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use traffic_tests::{
    Container, Daemon, Lab,
    check::eventually,
    container::{HOST_V4, HOST_V6, introduce},
    process::{run_ok, run_with_input},
    traffic::{UdpCount, send_raw, tcp_exchange, udp_send},
    witness::InitWitness,
};

const fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}

/// A node whose uplink is `eth0`, and the world behind it. The daemon has loaded the drop program.
fn node(name: &str, is_port: bool) -> Result<(Lab, Container)> {
    let lab = Lab::new(name)?;
    let classes = lab.write("classes", "1 10.9.0.0/16\n1 fd00:9::/32\n")?;
    lab.configure(&format!("class_file = {classes:?}\n[node]\nuplinks = ['eth0']\n"))?;
    let world = lab.bridged_as("eth0", [10, 9, 0, 9].into(), "fd00:9::9".parse()?)?;
    if !is_port {
        for switch in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            run_ok(lab.host().command("sysctl").args(["-qw", switch]))?;
        }
        lab.host().ip("link set eth0 nomaster")?;
        lab.host().ip("link set eth0 address 02:00:00:00:00:77")?;
        lab.host().ip("route replace 10.9.0.9/32 dev eth0 src 10.255.255.254")?;
        lab.host().ip("-6 route replace fd00:9::9/128 dev eth0")?;
        lab.host().ip(&format!("neigh replace 10.9.0.9 lladdr {} dev eth0 nud permanent", world.mac()))?;
        lab.host().ip(&format!("neigh replace fd00:9::9 lladdr {} dev eth0 nud permanent", world.mac()))?;
    }
    Ok((lab, world))
}

/// Has everything counted, drops too.
fn attach(lab: &Lab) -> Result<()> {
    let daemon = Daemon::start(lab)?;
    eventually("the daemon loads the drop program", || {
        Ok(lab.run_json(&["status", "--format", "json"])?["drops"]["in_force"] == true)
    })?;
    daemon.stop()
}

/// What `trafctl reconcile` says of what happens in `action`.
fn reconciled<T>(lab: &Lab, action: impl FnOnce() -> Result<T>) -> Result<(T, Value)> {
    let mut command = lab.trafctl(&["reconcile", "--for", "10m", "--format", "json"])?;
    let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(running.stderr.take().context("no stderr")?);
    let mut line = String::new();
    said.read_line(&mut line)?;
    ensure!(line.contains("following packets"), "{line}");
    let done = action();
    run_ok(std::process::Command::new("kill").args(["-INT", &running.id().to_string()]))?;
    let output = running.wait_with_output()?;
    said.read_to_string(&mut line)?;
    ensure!(output.status.success(), "{line}");
    Ok((done?, serde_json::from_slice(&output.stdout)?))
}

/// Attempts of a measurement in which packets pass in interrupts.
const ATTEMPTS: u32 = 10;

/// Packets and bytes.
type Amount = (u64, u64);

fn amount(value: &Value) -> Amount {
    (value["packets"].as_u64().unwrap_or(0), value["bytes"].as_u64().unwrap_or(0))
}

/// The way of these figures to or from an end, 0 if there is none.
fn way(of: &Value, end: &str) -> Amount {
    let ways = of["ways"].as_array().into_iter().flatten();
    let name = |way: &Value| match (way["end"].as_str(), way["interface"].as_str()) {
        (Some("uplink" | "other"), Some(name)) => name.to_owned(),
        (end, _) => end.unwrap_or_default().to_owned(),
    };
    ways.filter(|way| name(way) == end).map(amount).next().unwrap_or_default()
}

/// The ends of all ways.
fn ends(of: &Value) -> usize {
    of["ways"].as_array().map_or(0, Vec::len)
}

fn sum<const N: usize>(counts: [&UdpCount; N]) -> Amount {
    counts.iter().fold((0, 0), |sum, count| {
        assert_eq!(count.packets, count.packets_received, "a datagram was lost");
        (sum.0 + count.packets, sum.1 + count.l3_bytes)
    })
}

fn is_even(of: &Value) -> Result<()> {
    ensure!(of["difference"] == serde_json::json!({"packets": 0, "bytes": 0}), "{of:#}");
    Ok(())
}

/// An IPv4 packet to everyone on the link, of 20 bytes.
fn broadcast(from: &Container) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(from.mac().0);
    frame.extend([8, 0, 0x45, 0, 0, 20, 0, 0, 0, 0, 1, 253, 0, 0, 10, 1, 0, 1, 255, 255, 255, 255]);
    frame
}

#[test]
fn a_bridge_with_the_uplink_as_a_port_keeps_ends_apart() -> Result<()> {
    let (lab, world) = node("reconcile-bridge", true)?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 2, 0, 1].into(), "fd00:2::1".parse()?)?;
    introduce(&[&a, &b, &world])?;
    let venet = lab.venet()?;
    let routed = venet.container("301", [10, 3, 0, 1].into(), "fd00:3::1".parse()?)?;
    world.knows_at(&[routed.v4(), routed.v6()], lab.bridge()?.mac())?;
    // Comes in and leaves by the same interface, and no ifb is to blame.
    let neighbour = venet.container("302", [10, 3, 0, 2].into(), "fd00:3::2".parse()?)?;
    for (id, container) in [("301", &routed), ("302", &neighbour)] {
        lab.run_ok(&["address", "add", id, &container.v4().to_string()])?;
    }
    attach(&lab)?;
    let (host_v4, host_v6) = (IpAddr::from(HOST_V4), IpAddr::from(HOST_V6));
    let (sent, document) = reconciled(&lab, || {
        send_raw(a.namespace(), "eth0", &broadcast(&a))?;
        Ok([
            udp_send(a.namespace(), world.namespace(), at(world.v4()), 57, 500)?,
            udp_send(world.namespace(), a.namespace(), at(a.v6()), 61, 600)?,
            udp_send(a.namespace(), b.namespace(), at(b.v6()), 31, 300)?,
            udp_send(a.namespace(), lab.host(), at(host_v4), 17, 400)?,
            udp_send(lab.host(), b.namespace(), at(b.v6()), 13, 450)?,
            udp_send(lab.host(), world.namespace(), at(world.v6()), 11, 100)?,
            udp_send(world.namespace(), lab.host(), at(host_v6), 23, 200)?,
            udp_send(routed.namespace(), world.namespace(), at(world.v4()), 73, 700)?,
            udp_send(world.namespace(), routed.namespace(), at(routed.v4()), 79, 800)?,
            udp_send(routed.namespace(), neighbour.namespace(), at(neighbour.v4()), 19, 350)?,
        ])
    })?;
    let [out, inward, across, to_node, from_node, node_out, node_in, routed_out, routed_in, beside] = &sent;
    let from = &document["from_containers"];
    is_even(from)?;
    assert_eq!(way(from, "eth0"), sum([out, routed_out]), "{from:#}");
    assert_eq!(way(from, "containers"), sum([across, beside]));
    assert_eq!(way(from, "node"), sum([to_node]));
    assert_eq!((amount(&from["to_many"]), amount(&from["dropped"]), ends(from)), ((1, 20), (0, 0), 3));
    let to = &document["to_containers"];
    is_even(to)?;
    assert_eq!(way(to, "eth0"), sum([inward, routed_in]), "{to:#}");
    assert_eq!(way(to, "node"), sum([from_node]));
    assert_eq!(way(to, "containers"), sum([across, beside]));
    let uplink = &document["uplinks"][0];
    is_even(&uplink["sent"])?;
    assert_eq!(way(&uplink["sent"], "containers"), sum([out, routed_out]), "{uplink:#}");
    assert_eq!(way(&uplink["sent"], "node"), sum([node_out]));
    let received = &uplink["received"];
    assert_eq!(way(received, "containers"), sum([inward, routed_in]), "{uplink:#}");
    assert_eq!(way(received, "node"), sum([node_in]));
    assert_eq!((ends(received), &received["rest_packets"]), (2, &0.into()), "{uplink:#}");
    Ok(())
}

#[test]
fn streams_and_drops_on_a_routed_uplink_leave_no_difference() -> Result<()> {
    let (lab, world) = node("reconcile-routed", false)?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 2, 0, 1].into(), "fd00:2::1".parse()?)?;
    introduce(&[&a, &b])?;
    let bridge = lab.bridge()?.mac();
    for container in [&a, &b] {
        container.knows_at(&[world.v4(), world.v6()], bridge)?;
    }
    let uplink = traffic_tests::container::Mac([2, 0, 0, 0, 0, 0x77]);
    world.knows_at(&[a.v4(), a.v6(), b.v4(), b.v6()], uplink)?;
    run_with_input(
        lab.host().command("nft").args(["-f", "-"]),
        "table inet f { chain forward { type filter hook forward priority 0; udp dport 9 drop; }; }",
    )?;
    run_ok(
        lab.host()
            .command("tc")
            .args("qdisc replace dev eth0 root tbf rate 80mbit burst 20000 limit 20000".split_whitespace()),
    )?;
    attach(&lab)?;
    let measure = || {
        reconciled(&lab, || {
            // Super-packets in both directions, through a shaper that drops some.
            for (one, other, address) in [(&a, &world, world.v4()), (&b, &world, world.v6())] {
                tcp_exchange(one.namespace(), other.namespace(), at(address), 1 << 20, 1 << 20)?;
            }
            tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), 4 << 20, 1 << 20)?;
            udp_send(a.namespace(), world.namespace(), SocketAddr::new(world.v4(), 9), 41, 300)
        })
    };
    // Some kernels run no tracing program while process 1 runs (docs/drops.md, "Limits").
    for attempt in 1.. {
        let init = InitWitness::start("reconcile-routed")?;
        let (lost, document) = measure()?;
        match is_explained(&lost, &document) {
            Err(error) if attempt == ATTEMPTS || init.packets()? == 0 => return Err(error),
            Err(_) => {}
            Ok(()) => break,
        }
    }
    Ok(())
}

/// Whether every packet of the streams has a name: none arrived of `lost`.
fn is_explained(lost: &UdpCount, document: &Value) -> Result<()> {
    let (from, to) = (&document["from_containers"], &document["to_containers"]);
    is_even(from)?;
    is_even(to)?;
    // The bridge is the gateway, and no address file says whose the addresses are.
    let dropped = amount(&from["dropped_hidden"]);
    ensure!(lost.packets_received == 0, "{lost:?}");
    ensure!(dropped.0 > lost.packets && dropped.1 > lost.l3_bytes, "the shaper dropped nothing: {from:#}");
    ensure!(way(from, "eth0").0 > 1400 && way(from, "containers").0 > 3000, "{from:#}");
    ensure!((ends(from), ends(to)) == (2, 2), "{document:#}");
    let uplink = &document["uplinks"][0];
    is_even(&uplink["sent"])?;
    ensure!(way(&uplink["sent"], "containers") == way(from, "eth0"), "{uplink:#}");
    ensure!(way(&uplink["received"], "containers") == way(to, "eth0"), "{uplink:#}");
    Ok(())
}

#[test]
fn without_an_uplink_one_message_says_what_to_set() -> Result<()> {
    let (lab, ..) = Lab::with_two("reconcile-none", "1 10.0.0.0/8\n", "")?;
    lab.run_ok(&["attach"])?;
    let refused = |lab: &Lab| -> Result<String> {
        let output = lab.trafctl(&["reconcile"])?.output()?;
        ensure!(output.status.code() == Some(1) && output.stdout.is_empty(), "{output:?}");
        Ok(String::from_utf8(output.stderr)?)
    };
    let message = refused(&lab)?;
    ensure!(message.contains("uplinks = [\"eth0\"]") && message.lines().count() == 1, "{message}");
    lab.configure(&format!("class_file = {:?}\n[node]\nuplinks = ['eno7']\n", lab.path("classes")))?;
    let message = refused(&lab)?;
    ensure!(message.contains("the uplink eno7 does not exist"), "{message}");
    Ok(())
}
