//! Devices in containers that have no end on the host, and devices above a counted interface.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use traffic_tests::check::{eventually, is_well, is_well_but};
use traffic_tests::daemon::Daemon;
use traffic_tests::namespace::Namespace;
use traffic_tests::traffic::udp_send;
use traffic_tests::witness::InterfaceStatistics;
use traffic_tests::{Counters, Lab};

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

/// The gaps of an interface: their sum in the order of the kernel's statistics of a device in the container.
fn bypassed(lab: &Lab, interface: &str) -> Result<[u64; 4]> {
    let document = lab.run_json(&["gaps", "--format", "json"])?;
    let all = document["gaps"].as_array().context("no list of gaps")?;
    let mut sum = [0; 4];
    for gap in all.iter().filter(|gap| gap["interface"] == interface) {
        ensure!(gap["reason"] == "bypassed", "{gap}");
        for (at, name) in ["in_skbs", "in_skb_bytes", "out_skbs", "out_skb_bytes"].into_iter().enumerate() {
            sum[at] += gap["size"][name].as_u64().context("a size")?;
        }
    }
    Ok(sum)
}

fn carried(inside: &Namespace) -> Result<[u64; 4]> {
    let of = InterfaceStatistics::read(inside, "eth0")?;
    Ok([of.rx_packets, of.rx_bytes, of.tx_packets, of.tx_bytes])
}

/// Waits until the gaps of a device are what the kernel counted on it.
fn agrees(lab: &Lab, interface: &str, inside: &Namespace) -> Result<()> {
    eventually("the gap has its size", || {
        let is = carried(inside)?;
        Ok(is != [0; 4] && bypassed(lab, interface)? == is)
    })
    .with_context(|| format!("{:?}, the kernel has {:?}", bypassed(lab, interface), carried(inside)))
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
    assert_eq!(report["without_interface"].as_array().map(Vec::is_empty), Some(true), "{report}");

    // To the wire, which is more than nothing on the uplink, and none of it the node's.
    let of_node = packets_of_the_node(&lab)?;
    udp_send(&inside, &wire.outside, "10.9.0.254:0".parse()?, 31, 300)?;
    agrees(&lab, &label, &inside)?;
    // Between two children it never passes the uplink.
    let other = with_macvlan(&lab, "macvlan-b", 3)?;
    udp_send(&inside, &other, "10.9.0.3:0".parse()?, 17, 500)?;
    agrees(&lab, &label, &inside)?;
    assert_eq!(packets_of_the_node(&lab)?, of_node);
    let named = format!("{}/eth0", other.name());
    is_well_but(&lab, &[&told, &format!("{named}: a macvlan on eno1: it has no end on this host")])?;
    agrees(&lab, &named, &other)?;
    daemon.stop()?;

    // The next daemon goes on where this one was.
    udp_send(&inside, &wire.outside, "10.9.0.254:0".parse()?, 5, 700)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    agrees(&lab, &label, &inside)?;
    daemon.stop()?;

    let ignore = |label: &str| format!("[[interfaces.rule]]\npattern = '{label}'\nkind = 'ignore'\n");
    configure(&lab, &format!("{}{}", ignore(&label), ignore(&named)))?;
    is_well(&lab)?;
    assert_eq!(host(&lab)?["without_host_end"], serde_json::json!([]));
    Ok(())
}
