//! Packets that take a path around the hook of an attached interface: a problem, and a gap of their size.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use traffic_tests::check::{eventually, is_well_but};
use traffic_tests::traffic::{RawSocket, udp_send};
use traffic_tests::{Amounts, Counters, Daemon, Lab};

use crate::node::{at, node, pair};

/// The gaps of an interface: reason and buffers to the container.
fn gaps(lab: &Lab, interface: &str) -> Result<Vec<(String, u64)>> {
    let document = lab.run_json(&["gaps", "--format", "json"])?;
    let all = document["gaps"].as_array().context("no list of gaps")?;
    let of = |gap: &Value| Some((gap["reason"].as_str()?.to_owned(), gap["size"]["in_skbs"].as_u64()?));
    let of_interface = all.iter().filter(|gap| gap["interface"] == interface);
    Ok(of_interface.filter_map(of).filter(|(_, buffers)| *buffers > 0).collect())
}

#[test]
fn what_a_packet_socket_sends_past_the_queues_is_a_gap_of_its_size() -> Result<()> {
    let lab = node("past")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let before = gaps(&lab, a.interface())?;
    let sent = udp_send(b.namespace(), a.namespace(), at(a.v4()), 51, 300)?;
    let socket = RawSocket::open(lab.host(), a.interface())?.past_the_queues()?;
    // A frame that nobody answers: an experimental EtherType, to everybody.
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9, 0x88, 0xb5]);
    frame.resize(200, 0);
    let missed = |expected: u64| {
        let mut all = before.clone();
        all.push(("bypassed".to_owned(), expected));
        move |found: &[(String, u64)]| found == all
    };
    for (count, expected) in [(37, 37), (5, 42)] {
        for _ in 0..count {
            socket.send(&frame)?;
        }
        let is_so = missed(expected);
        eventually("the gap has its size", || Ok(is_so(&gaps(&lab, a.interface())?)))
            .with_context(|| format!("{:?}", gaps(&lab, a.interface())))?;
    }
    is_well_but(&lab, &[&format!("{}: of ", a.interface())])?;
    // What was counted is not in doubt, and attaching again finds nothing more.
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), Amounts::incoming(sent.packets, sent.l3_bytes));
    lab.run_ok(&["detach", a.interface()])?;
    lab.run_ok(&["attach", a.interface()])?;
    udp_send(b.namespace(), a.namespace(), at(a.v4()), 9, 300)?;
    eventually("it is drained", || {
        let report = lab.run_json(&["report", "--format", "json"])?;
        Ok(report["rows"].to_string().contains(&(sent.packets + 9).to_string()))
    })?;
    let found = gaps(&lab, a.interface())?;
    ensure!(missed(42)(&found), "{found:?}");
    daemon.stop_after_errors()
}
