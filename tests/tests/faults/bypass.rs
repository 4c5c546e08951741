//! Packets that take a path around the hook of an attached interface: a problem, and a gap of their size.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use traffic_tests::check::{bypassed, eventually, is_well_but, trafctl};
use traffic_tests::foreign::{Foreign, XdpMode, XdpVerdict};
use traffic_tests::traffic::{RawSocket, udp_send};
use traffic_tests::witness::InterfaceStatistics;
use traffic_tests::{Amounts, Container, Counters, Daemon, Lab};

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

/// Sends datagrams that need not arrive: so many of 200 bytes, on the wire 242.
fn send(from: &Container, to: &Container, count: u64) -> Result<()> {
    let to = at(to.v4());
    from.namespace().enter(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        for _ in 0..count {
            socket.send_to(&[5; 200], (to.ip(), 9))?;
        }
        Ok(())
    })
}

#[test]
fn what_another_program_puts_at_the_containers_end_is_a_gap_of_its_size() -> Result<()> {
    let lab = node("peer")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    // All that 102 sends appears in 101 at once. 102's own program runs before, and counts it.
    let redirect = Foreign::redirect_to_peer(lab.host(), b.interface(), a.interface())?;
    let before = Counters::at_rest(&lab)?;
    send(&b, &a, 41)?;
    let expected = [41, 41 * 242, 0, 0];
    eventually("the gap has its size", || Ok(bypassed(&lab, a.interface())? == expected))
        .with_context(|| format!("{:?}", bypassed(&lab, a.interface())))?;
    is_well_but(&lab, &[&format!("{}: of 41 buffers in since it was attached, 0", a.interface())])?;
    drop(redirect);
    // What takes the usual way is counted, and no gap.
    send(&b, &a, 7)?;
    eventually("the rest is counted", || {
        let now = Counters::read(&lab)?;
        Ok(now.class_or_zero("101", 2, "ipv4").in_packets
            == before.class_or_zero("101", 2, "ipv4").in_packets + 7)
    })?;
    lab.run_ok(&["detach", a.interface()])?;
    lab.run_ok(&["attach", a.interface()])?;
    send(&b, &a, 3)?;
    eventually("it is drained", || {
        Ok(traffic_tests::check::booked(&lab, "101")?.in_packets
            == before.class_or_zero("101", 2, "ipv4").in_packets + 10)
    })?;
    ensure!(bypassed(&lab, a.interface())? == expected, "{:?}", bypassed(&lab, a.interface())?);
    daemon.stop_after_errors()
}

#[test]
fn what_xdp_takes_on_the_hosts_side_is_a_gap_of_its_size() -> Result<()> {
    // The statistics of a veth lack the link-layer header of what native XDP sees.
    for (name, mode, frame) in [("native", XdpMode::Native, 228), ("generic", XdpMode::Generic, 242)] {
        let lab = node(name)?;
        let (a, b) = pair(&lab)?;
        let mut daemon = Daemon::start(&lab)?;
        daemon.settled()?;
        // One that lets everything pass is no problem.
        let _pass = Foreign::xdp(lab.host(), b.interface(), mode, XdpVerdict::Pass)?;
        udp_send(b.namespace(), a.namespace(), at(a.v4()), 11, 300)?;
        traffic_tests::check::is_well(&lab)?;
        let drops = Foreign::xdp(lab.host(), a.interface(), mode, XdpVerdict::Drop)?;
        send(&a, &b, 23)?;
        let expected = [0, 0, 23, 23 * frame];
        eventually("the gap has its size", || Ok(bypassed(&lab, a.interface())? == expected))
            .with_context(|| format!("{name}: {:?}", bypassed(&lab, a.interface())))?;
        let problem = format!(
            "{}: of 23 buffers out since it was attached, 0 reached the program: an XDP program ({name}, id ",
            a.interface()
        );
        is_well_but(&lab, &[&problem])?;
        let host = lab.run_ok(&["host"])?;
        let told = format!("BEFORE TRAFCTL {}: an XDP program ({name}, id ", a.interface());
        ensure!(host.contains(&told), "{host}");
        drop(drops);
        daemon.stop_after_errors()?;
    }
    Ok(())
}

#[test]
fn what_xdp_answers_or_redirects_is_a_gap_of_its_size_on_both_sides() -> Result<()> {
    let lab = node("redirect")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    // What native XDP sends reaches the container's end only if that end polls, as with any program on it.
    let _polls = [&a, &b].map(|one| Foreign::xdp(one.namespace(), "eth0", XdpMode::Native, XdpVerdict::Pass));
    let back = Foreign::xdp(lab.host(), a.interface(), XdpMode::Native, XdpVerdict::SendBack)?;
    send(&a, &b, 13)?;
    eventually("the gap has its size", || Ok(bypassed(&lab, a.interface())? == [13, 13 * 242, 13, 13 * 228]))
        .with_context(|| format!("{:?}", bypassed(&lab, a.interface())))?;
    drop(back);
    let on = Foreign::xdp_redirect(lab.host(), a.interface(), b.interface(), XdpMode::Native)?;
    send(&a, &b, 17)?;
    eventually("the gaps have their sizes", || {
        Ok(bypassed(&lab, a.interface())? == [13, 13 * 242, 30, 30 * 228]
            && bypassed(&lab, b.interface())? == [17, 17 * 242, 0, 0])
    })
    .with_context(|| format!("{:?} {:?}", bypassed(&lab, a.interface()), bypassed(&lab, b.interface())))?;
    // The receiver has them.
    let received = InterfaceStatistics::read(b.namespace(), "eth0")?;
    ensure!(received.rx_packets >= 17, "{received:?}");
    let status = trafctl(&lab, &["status"])?;
    assert_eq!(status.status.code(), Some(1));
    drop(on);
    daemon.stop_after_errors()
}
