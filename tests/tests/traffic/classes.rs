//! The class of a peer: nested prefixes, class 0, and no prefix, each with a flow of its own.

use std::net::IpAddr;

use anyhow::Result;
use traffic_tests::container::introduce;
use traffic_tests::traffic::{tcp_exchange, udp_send};
use traffic_tests::{Container, Lab};

use crate::node::{Expected, NONE, amounts, at, family, node};

/// A class file as an operator writes it: everything, the country, neighbours in it, one of their machines,
/// free networks.
const CLASSES: &str = "\
    1 0.0.0.0/0\n\
    2 198.51.0.0/16\n\
    3 198.51.100.0/24\n\
    4 198.51.100.128/25\n\
    15 198.51.100.200/32\n\
    0 203.0.113.0/24\n\
    5 203.0.113.8/29\n\
    6 192.0.0.0/9\n\
    7 2001:db8::/32\n\
    8 2001:db8:8000::/33\n\
    9 2001:db8:8000:1::/64\n\
    10 2001:db8:8000:1::99/128\n\
    0 2001:db8:ffff::/48\n";

/// Peers, and the class of each in the table.
const PEERS: &[(&str, u8)] = &[
    ("8.8.8.8", 1),
    ("198.50.255.255", 1),
    ("198.51.0.1", 2),
    ("198.51.99.255", 2),
    ("198.51.101.1", 2),
    ("198.51.100.1", 3),
    ("198.51.100.127", 3),
    ("198.51.100.129", 4),
    ("198.51.100.199", 4),
    ("198.51.100.201", 4),
    ("198.51.100.200", 15),
    // In Virtuozzo's order class 0 takes all of its networks, even longer prefixes within them.
    ("203.0.113.1", 0),
    ("203.0.113.9", 0),
    ("203.0.112.255", 1),
    ("192.127.0.1", 6),
    ("192.128.0.1", 1),
    ("2001:db8::1", 7),
    ("2001:db8:7fff:ffff::1", 7),
    ("2001:db8:8000::1", 8),
    ("2001:db8:8000:2::1", 8),
    ("2001:db8:8000:1::98", 9),
    ("2001:db8:8000:1:ffff::1", 9),
    ("2001:db8:8000:1::99", 10),
    ("2001:db8:ffff:1::1", 0),
    // In no prefix.
    ("2001:db9::1", 0),
    ("3fff::1", 0),
];

/// A container, and a host outside the node that has the addresses of all peers.
fn world(lab: &Lab) -> Result<(Container, Container)> {
    let container = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let mut beyond = lab.bridged_as("uplink", [10, 99, 0, 1].into(), "fd00:99::1".parse()?)?;
    for (address, _) in PEERS {
        beyond.add_address(address.parse()?)?;
    }
    introduce(&[&container, &beyond])?;
    Ok((container, beyond))
}

#[test]
fn each_peer_counts_only_in_its_class() -> Result<()> {
    let lab = node("classes", CLASSES)?;
    let (container, beyond) = world(&lab)?;
    lab.run_ok(&["attach"])?;
    let mut expected = Expected::default();
    for (number, (address, class)) in PEERS.iter().enumerate() {
        let to: IpAddr = address.parse()?;
        // All flows have different sizes, so that swapped flows show.
        let number = number as u64 + 1;
        let count =
            tcp_exchange(container.namespace(), beyond.namespace(), at(to), 7_000 * number, 300 * number)?;
        let sent = udp_send(container.namespace(), beyond.namespace(), at(to), number, 100)?;
        assert_eq!(sent.packets_received, sent.packets);
        expected = expected.class("101", *class, family(to), amounts(&count.server, &count.client)).class(
            "101",
            *class,
            family(to),
            amounts(&NONE, &sent),
        );
    }
    let counters = expected.compare(&lab)?;
    assert!(counters.interfaces.iter().all(|row| row.interface != "uplink"));
    Ok(())
}

#[test]
fn a_new_table_applies_from_the_moment_it_is_loaded() -> Result<()> {
    let lab = node("classes-load", "1 0.0.0.0/0\n2 198.51.100.0/24\n1 2001:db8::/32\n")?;
    let (container, beyond) = world(&lab)?;
    lab.run_ok(&["attach"])?;
    let mut expected = Expected::default();
    let tables = [
        // A removed class keeps its counts.
        ("5 0.0.0.0/0\n3 198.51.100.1/32\n", 3, 0),
        ("", 0, 0),
        ("1 0.0.0.0/0\n2 198.51.100.0/24\n9 2001:db8::1/128\n", 2, 9),
    ];
    let (v4, v6): (IpAddr, IpAddr) = ("198.51.100.1".parse()?, "2001:db8::1".parse()?);
    let flow = |expected: Expected, class_v4, class_v6| {
        let there = udp_send(container.namespace(), beyond.namespace(), at(v4), 11, 500)?;
        let there_v6 = udp_send(container.namespace(), beyond.namespace(), at(v6), 13, 600)?;
        anyhow::Ok(expected.class("101", class_v4, "ipv4", amounts(&NONE, &there)).class(
            "101",
            class_v6,
            "ipv6",
            amounts(&NONE, &there_v6),
        ))
    };
    expected = flow(expected, 2, 1)?;
    for (number, (table, class_v4, class_v6)) in tables.into_iter().enumerate() {
        let file = lab.write(&format!("classes-{number}"), table)?;
        // One of them is empty.
        lab.run_ok(&["classes".as_ref(), "load".as_ref(), "--force".as_ref(), file.as_os_str()])?;
        expected = flow(expected, class_v4, class_v6)?;
    }
    expected.compare(&lab)?;
    Ok(())
}
