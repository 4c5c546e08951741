//! Devices in containers that have no end on the host, and devices above a counted interface.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::Command;

use anyhow::{Context as _, Result};
use etherparse::PacketBuilder;
use rustix::process::Signal;
use serde_json::Value;
use traffic_tests::check::{bypassed, eventually, hooks, is_a_gap, is_well, is_well_but};
use traffic_tests::container::Mac;
use traffic_tests::daemon::Daemon;
use traffic_tests::namespace::Namespace;
use traffic_tests::process::run_ok;
use traffic_tests::traffic::{RawSocket, udp_send};
use traffic_tests::{Counters, Lab, VnetHeader};

use crate::cgroups::{Running, name};
use crate::{host, node};

/// A host with an uplink, and whoever is on its wire.
struct Wire {
    outside: Namespace,
}

impl Wire {
    fn new(lab: &Lab) -> Result<Self> {
        let outside = Namespace::new("wire")?;
        lab.host().ip(&format!("link add eno1 type veth peer name wire netns {}", outside.name()))?;
        lab.host().ip_batch("link set eno1 up\naddr add 10.9.0.1/24 dev eno1\n")?;
        outside.ip_batch("link set wire up\naddr add 10.9.0.254/24 dev wire\n")?;
        Ok(Self { outside })
    }
}

/// A namespace with a macvlan on the uplink.
fn with_macvlan(lab: &Lab, label: &str, number: u8) -> Result<Namespace> {
    let inside = Namespace::new(label)?;
    lab.host()
        .ip(&format!("link add link eno1 name eth0 netns {} type macvlan mode bridge", inside.name()))?;
    inside.ip_batch(&format!("link set eth0 up\naddr add 10.9.0.{number}/24 dev eth0\n"))?;
    Ok(inside)
}

fn configure(lab: &Lab, more: &str) -> Result<()> {
    let classes = lab.path("classes");
    lab.configure(&format!(
        "class_file = {classes:?}\n[node]\nuplinks = ['eno1']\n[drain]\ninterval = '250ms'\n{more}"
    ))
}

fn packets_of_the_node(lab: &Lab) -> Result<u64> {
    let counters = Counters::at_rest(lab)?;
    Ok(counters.class_or_zero("0", 1, "ipv4").in_packets + counters.class_or_zero("0", 1, "ipv4").out_packets)
}

#[test]
fn a_macvlan_in_a_container_is_named_and_a_gap_of_its_size() -> Result<()> {
    let lab = node("macvlan")?;
    configure(&lab, "")?;
    let wire = Wire::new(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    is_well(&lab)?;
    let id = name("mail");
    let inside = with_macvlan(&lab, "macvlan-a", 2)?;
    let _running = Running::start(&format!("lxc.payload.{id}"), &inside)?;
    let label = format!("{id}/eth0");
    let told = format!("{label}: a macvlan on eno1, in container {id} (LXC): it has no end on this host");
    is_well_but(&lab, &[&told])?;
    let report = host(&lab)?;
    let device = &report["without_host_end"][0];
    assert_eq!((&device["container"], &device["parent"]), (&Value::from(id.as_str()), &Value::from("eno1")));
    // Those of other tests may run beside it.
    let without = report["without_interface"].as_array().context("no list")?;
    assert!(!without.iter().any(|one| one["container"] == id), "{report}");

    // To the wire, which is more than nothing on the uplink, and none of it the node's.
    let of_node = packets_of_the_node(&lab)?;
    udp_send(&inside, &wire.outside, "10.9.0.254:0".parse()?, 31, 300)?;
    is_a_gap(&lab, &label, &inside, "eth0")?;
    // Between two children it never passes the uplink.
    let other = with_macvlan(&lab, "macvlan-b", 3)?;
    udp_send(&inside, &other, "10.9.0.3:0".parse()?, 17, 500)?;
    is_a_gap(&lab, &label, &inside, "eth0")?;
    assert_eq!(packets_of_the_node(&lab)?, of_node);
    let named = format!("{}/eth0", other.name());
    is_well_but(&lab, &[&told, &format!("{named}: a macvlan on eno1: it has no end on this host")])?;
    is_a_gap(&lab, &named, &other, "eth0")?;
    daemon.stop()?;

    // The next daemon goes on where this one was.
    udp_send(&inside, &wire.outside, "10.9.0.254:0".parse()?, 5, 700)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    is_a_gap(&lab, &label, &inside, "eth0")?;
    daemon.stop()?;

    let ignore = |label: &str| format!("[[interfaces.rule]]\npattern = '{label}'\nkind = 'ignore'\n");
    configure(&lab, &format!("{}{}", ignore(&label), ignore(&named)))?;
    is_well(&lab)?;
    assert_eq!(host(&lab)?["without_host_end"], serde_json::json!([]));
    Ok(())
}

/// What a container has received and sent in class 1: packets and bytes.
fn counted(lab: &Lab, id: &str, family: &str) -> Result<[u64; 4]> {
    let of = Counters::at_rest(lab)?.class_or_zero(id, 1, family);
    Ok([of.in_packets, of.in_bytes, of.out_packets, of.out_bytes])
}

#[test]
fn a_macvlan_is_counted_on_the_uplink_by_its_addresses() -> Result<()> {
    let lab = node("on-uplink")?;
    let (mail, shop) = (name("mail"), name("shop"));
    let owner =
        |id: &str, addresses: &str| format!("[[container]]\nid = '{id}'\naddresses = [{addresses}]\n");
    let on_uplink = |id: &str, addresses: &str| owner(id, addresses) + "on_uplink = true\n";
    configure(&lab, &(on_uplink(&mail, "'10.9.0.2', '2001:db8:9:2::/64'") + &owner(&shop, "'10.9.0.3'")))?;
    let wire = Wire::new(&lab)?;
    lab.host().ip("-6 addr add 2001:db8:9::1/48 dev eno1 nodad")?;
    wire.outside.ip("-6 addr add 2001:db8:9::fe/48 dev wire nodad")?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let inside = with_macvlan(&lab, "on-uplink-a", 2)?;
    inside.ip("-6 addr add 2001:db8:9:2::7/48 dev eth0 nodad")?;
    let _mail = Running::start(&format!("lxc.payload.{mail}"), &inside)?;
    eventually("the device is assigned", || Ok(host(&lab)?["on_uplinks"][0]["owner"]["container"] == mail))?;
    is_well(&lab)?;
    assert_eq!(host(&lab)?["on_uplinks"][0]["uplink"], "eno1");

    // Both families and directions, with different sizes; the node's own stays apart.
    let of_node = packets_of_the_node(&lab)?;
    let v4 = counted(&lab, &mail, "ipv4")?;
    udp_send(&inside, &wire.outside, "10.9.0.254:0".parse()?, 31, 300)?;
    udp_send(&wire.outside, &inside, "10.9.0.2:0".parse()?, 17, 500)?;
    let sum =
        |before: [u64; 4], more: [u64; 4]| -> [u64; 4] { std::array::from_fn(|at| before[at] + more[at]) };
    assert_eq!(counted(&lab, &mail, "ipv4")?, sum(v4, [17, 17 * 528, 31, 31 * 328]));
    let v6 = counted(&lab, &mail, "ipv6")?;
    udp_send(&inside, &wire.outside, "[2001:db8:9::fe]:0".parse()?, 13, 700)?;
    let found = counted(&lab, &mail, "ipv6")?;
    // Neighbour discovery of the lab adds to them.
    assert!(found[2] - v6[2] >= 13 && found[3] - v6[3] >= 13 * 748, "{v6:?} {found:?}");
    assert_eq!(packets_of_the_node(&lab)?, of_node);
    udp_send(&wire.outside, lab.host(), "10.9.0.1:0".parse()?, 11, 40)?;
    assert_eq!(packets_of_the_node(&lab)?, of_node + 11);
    assert_eq!(bypassed(&lab, &format!("{mail}/eth0"))?, [0; 4]);

    // The addresses of others are counted where they are, and not once more on the uplink: told, and a gap.
    let other = with_macvlan(&lab, "on-uplink-b", 3)?;
    let _shop = Running::start(&format!("lxc.payload.{shop}"), &other)?;
    udp_send(&other, &wire.outside, "10.9.0.254:0".parse()?, 5, 100)?;
    let told =
        format!("{shop}/eth0: a macvlan on eno1, in container {shop} (LXC): it has no end on this host");
    is_well_but(&lab, &[&told])?;
    is_a_gap(&lab, &format!("{shop}/eth0"), &other, "eth0")?;
    assert_eq!(counted(&lab, &shop, "ipv4")?, [0; 4]);
    let both = on_uplink(&mail, "'10.9.0.2'") + &on_uplink(&shop, "'10.9.0.3'");
    configure(&lab, &(both.clone() + &owner("new", "'10.9.0.9'")))?;
    // One problem, whose advice is not about limits that are far away. Where an address counts is part of it.
    is_well_but(
        &lab,
        &[
            "the program lacks 1 of the containers' addresses (10.9.0.9/32, ...) and counts 1 of the containers' \
           addresses otherwise than configured (10.9.0.3/32, ...); run `trafctl attach`",
        ],
    )?;
    configure(&lab, &both)?;
    daemon.signal(Signal::HUP)?;
    eventually("the reload is done", || Ok(is_well(&lab).is_ok()))?;
    assert_eq!(host(&lab)?["without_host_end"], serde_json::json!([]));
    let before = counted(&lab, &shop, "ipv4")?;
    udp_send(&other, &wire.outside, "10.9.0.254:0".parse()?, 7, 60)?;
    assert_eq!(counted(&lab, &shop, "ipv4")?, sum(before, [0, 0, 7, 7 * 88]));
    is_well(&lab)?;
    daemon.stop()?;

    // No uplink, nothing to be counted on.
    lab.configure(&on_uplink(&mail, "'10.9.0.2'"))?;
    let refused = lab.trafctl(&["config", "check"])?.output()?;
    assert!(!refused.status.success());
    let text =
        String::from_utf8_lossy(&refused.stdout).into_owned() + &String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("no uplink is named"), "{text}");
    Ok(())
}

/// A machine's own end of a macvtap, through the character device that a hypervisor opens.
fn open_macvtap(lab: &Lab, name: &str) -> Result<fs::File> {
    // Only a /sys of this namespace has the device.
    let script = format!("cat /sys/class/net/{name}/tap*/dev");
    let number = run_ok(Command::new("ip").args(["netns", "exec", lab.host().name(), "sh", "-c", &script]))?;
    let (major, minor) = number.trim().split_once(':').context("the number of a device")?;
    let node = lab.path("tap");
    run_ok(Command::new("mknod").arg(&node).args(["c", major, minor]))?;
    Ok(fs::File::options().read(true).write(true).open(&node)?)
}

#[test]
fn a_machines_own_end_is_counted_in_the_directions_of_the_machine() -> Result<()> {
    const MACHINE: [u8; 6] = [2, 0, 0, 0, 7, 7];
    let lab = node("macvtap")?;
    configure(&lab, "[[container]]\nid = 'vm7'\ninterfaces = ['tap7']\n")?;
    let wire = Wire::new(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    lab.host().ip_batch(&format!(
        "link add link eno1 name tap7 address {} type macvtap mode bridge\nlink set tap7 up",
        Mac(MACHINE)
    ))?;
    let machine = open_macvtap(&lab, "tap7")?;
    eventually("it is attached", || Ok(hooks(&lab, "tap7")?.len() == 2))?;
    is_well(&lab)?;
    let of_node = packets_of_the_node(&lab)?;
    let before = counted(&lab, "vm7", "ipv4")?;
    let frame =
        |to: [u8; 6], from: [u8; 6], [source, target]: [[u8; 4]; 2], payload: usize| -> Result<Vec<u8>> {
            let mut frame = Vec::new();
            let packet = PacketBuilder::ethernet2(from, to).ipv4(source, target, 64).udp(7, 9);
            packet.write(&mut frame, &vec![7; payload])?;
            Ok(frame)
        };
    let (own, its) = ([10, 9, 0, 7], [10, 9, 0, 77]);
    let out = frame([2, 0, 0, 0, 9, 9], MACHINE, [own, its], 300)?;
    for _ in 0..19 {
        let with_header = [VnetHeader::NONE.to_bytes().as_slice(), &out].concat();
        (&machine).write_all(&with_header)?;
    }
    let back = frame(MACHINE, [2, 0, 0, 0, 9, 9], [its, own], 500)?;
    let socket = RawSocket::open(&wire.outside, "wire")?;
    for _ in 0..13 {
        socket.send(&back)?;
    }
    let is = counted(&lab, "vm7", "ipv4")?;
    let grown: [u64; 4] = std::array::from_fn(|at| is[at] - before[at]);
    assert_eq!(grown, [13, 13 * 528, 19, 19 * 328]);
    assert_eq!(packets_of_the_node(&lab)?, of_node, "none of it is the node's own");
    // What the hypervisor reads is what was counted.
    let mut buffer = [0; 2048];
    let mut read = 0;
    for _ in 0..13 {
        let length = (&machine).read(&mut buffer)?;
        read += u64::from(buffer[VnetHeader::BYTES..length] == back);
    }
    assert_eq!(read, 13);
    is_well(&lab)?;
    daemon.stop()
}
