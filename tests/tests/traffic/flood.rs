//! Frames to an address that the bridge does not know.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Result, ensure};
use traffic_tests::Lab;
use traffic_tests::container::{Container, Mac};
use traffic_tests::process::run_ok;
use traffic_tests::witness::InterfaceStatistics;

use crate::node::{CLASSES, Expected, NONE, amounts, neighbours, node};

const DATAGRAMS: u64 = 300;
const PAYLOAD: usize = 100;
/// With IPv4 and UDP headers.
const BYTES: u64 = 100 + 28;

/// Sends to a neighbour that nobody is.
fn send_to_nobody(from: &Container, nobody: IpAddr) -> Result<()> {
    from.knows_at(&[nobody], Mac([2, 0, 0, 0, 0x99, 0x99]))?;
    let socket = from.namespace().enter(|| Ok(UdpSocket::bind(("0.0.0.0", 0))?))?;
    for _ in 0..DATAGRAMS {
        socket.send_to(&[0; PAYLOAD], (nobody, 9))?;
    }
    Ok(())
}

fn flood_off(lab: &Lab, interface: &str) -> Result<()> {
    let arguments = ["link", "set", "dev", interface, "flood", "off"];
    run_ok(lab.host().command("bridge").args(arguments)).map(drop)
}

#[test]
fn a_frame_to_an_unknown_address_counts_for_all_whose_cable_carries_it() -> Result<()> {
    let lab = node("flood", CLASSES)?;
    let (a, b) = neighbours(&lab)?;
    let carried = (DATAGRAMS, DATAGRAMS * BYTES);
    let nobody = IpAddr::from([10, 3, 0, 99]);
    let before = InterfaceStatistics::read(lab.host(), b.interface())?;
    send_to_nobody(&a, nobody)?;
    let flooded = || {
        Expected::default().class("102", 1, "ipv4", amounts(&carried, &NONE)).class(
            "101",
            3,
            "ipv4",
            amounts(&NONE, &carried),
        )
    };
    flooded().compare(&lab)?;
    let after = InterfaceStatistics::read(lab.host(), b.interface())?;
    ensure!(after.tx_packets - before.tx_packets == DATAGRAMS, "{before:?} {after:?}");
    // The setting that stops it, and another sending: only the sender's figures grow.
    flood_off(&lab, b.interface())?;
    send_to_nobody(&a, nobody)?;
    flooded().class("101", 3, "ipv4", amounts(&NONE, &carried)).compare(&lab)?;
    let last = InterfaceStatistics::read(lab.host(), b.interface())?;
    ensure!(last.tx_packets == after.tx_packets, "{after:?} {last:?}");
    Ok(())
}
