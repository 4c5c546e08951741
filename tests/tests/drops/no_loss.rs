//! What the kernel frees as a drop, and what is no loss: it was delivered, or it was a copy.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Result, ensure};
use traffic_tests::Lab;
use traffic_tests::traffic::{RawSocket, udp_send};

use crate::node::{
    Amount, PAYLOAD, all_attributed, all_dropped, at, bridged, dump, figure, node, received, sent, settles,
};

/// Nothing was dropped in any direction.
fn nothing_is_dropped(lab: &Lab) -> Result<()> {
    let after = dump(lab)?;
    for direction in ["in", "out"] {
        ensure!(all_dropped(&after, direction) == Amount::default(), "{after:#}");
    }
    all_attributed(&after)
}

/// Datagrams from a container that nobody need receive.
fn throw(from: &traffic_tests::Container, to: SocketAddr, datagrams: u64) -> Result<()> {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let socket = from.namespace().enter(|| Ok(UdpSocket::bind(any)?))?;
    for _ in 0..datagrams {
        socket.send_to(&[0x5a; PAYLOAD], to)?;
    }
    Ok(())
}

#[test]
fn what_reached_the_node_was_delivered_even_if_no_socket_takes_it() -> Result<()> {
    let lab = node("drops-delivered", "")?;
    let [a, _b] = bridged(&lab)?;
    let unread = lab.host().enter(|| Ok(UdpSocket::bind("0.0.0.0:5000")?))?;
    for (to, datagrams) in [
        // A port that is closed, on both families, and a socket that is never read.
        (SocketAddr::from(([10, 255, 255, 254], 5001)), 200),
        (SocketAddr::from((traffic_tests::container::HOST_V6, 5001)), 200),
        (SocketAddr::from(([10, 255, 255, 254], 5000)), 1_500),
    ] {
        throw(&a, to, datagrams)?;
    }
    let counted = figure(&dump(&lab)?, ("101", 0, [10, 255, 255, 254].into(), "out"), "counted");
    ensure!(counted.packets == 1_700, "{counted:?}");
    drop(unread);
    nothing_is_dropped(&lab)
}

#[test]
fn a_full_sniffer_loses_only_its_copies() -> Result<()> {
    let lab = node("drops-sniffer", "")?;
    let [a, b] = bridged(&lab)?;
    // Both sides of the way, with the smallest buffers, and never read.
    let sniffers: Vec<RawSocket> = ["veth101.0", "veth102.0", "br0"]
        .into_iter()
        .map(|interface| RawSocket::listening(lab.host(), interface))
        .collect::<Result<_>>()?;
    for to in [b.v4(), b.v6()] {
        let count = udp_send(a.namespace(), b.namespace(), at(to), 600, PAYLOAD)?;
        ensure!(received(&count, to) == sent(&count), "{count:?}");
        settles(&lab, ("101", 2, to, "out"), sent(&count), sent(&count))?;
    }
    drop(sniffers);
    nothing_is_dropped(&lab)
}

#[test]
fn what_goes_to_many_is_never_lost_by_its_sender() -> Result<()> {
    let lab = node("drops-multicast", "")?;
    let [a, _b] = bridged(&lab)?;
    for to in ["239.1.2.3:5000", "[ff02::1234%0]:5000"].map(|text| text.replace("%0", "")) {
        let mut to: SocketAddr = to.parse()?;
        if let SocketAddr::V6(v6) = &mut to {
            v6.set_scope_id(2);
        }
        throw(&a, to, 100)?;
    }
    let after = dump(&lab)?;
    ensure!(all_dropped(&after, "out") == Amount::default(), "{after:#}");
    Ok(())
}
