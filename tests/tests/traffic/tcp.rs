//! TCP between bridged containers, with and without super-packets.

use anyhow::Result;
use traffic_tests::traffic::tcp_exchange;
use traffic_tests::witness::{InterfaceStatistics, NftWitness};
use traffic_tests::{Container, Counters, Lab};

use crate::node::{CLASSES, Expected, MEGABYTE, amounts, at, family, neighbours, node};

/// Compares with the interface statistics, which count the same buffers and bytes as trafctl's `skbs`.
fn same_buffers(
    lab: &Lab,
    container: &Container,
    before: InterfaceStatistics,
    counters: &Counters,
) -> Result<()> {
    let now = InterfaceStatistics::read(lab.host(), container.interface())?;
    let row = counters.interface(container.interface());
    assert_eq!(
        (row.in_skbs, row.in_skb_bytes),
        (now.tx_packets - before.tx_packets, now.tx_bytes - before.tx_bytes)
    );
    assert_eq!(
        (row.out_skbs, row.out_skb_bytes),
        (now.rx_packets - before.rx_packets, now.rx_bytes - before.rx_bytes)
    );
    Ok(())
}

#[test]
fn super_packets_count_as_their_segments_for_both_ends() -> Result<()> {
    let lab = node("tcp-gso", CLASSES)?;
    let (a, b) = neighbours(&lab)?;
    let before = [&a, &b].map(|end| InterfaceStatistics::read(lab.host(), end.interface()));
    let mut expected = Expected::default();
    let mut segments = 0;
    for (to, forward, back) in
        [(b.v4(), 20 * MEGABYTE, 3 * MEGABYTE), (b.v6(), 15 * MEGABYTE + 1, 2 * MEGABYTE + 7)]
    {
        let count = tcp_exchange(a.namespace(), b.namespace(), at(to), forward, back)?;
        segments += count.client.segments;
        // Out of one container is in to the other, each in the class of its peer.
        expected = expected.class("101", 2, family(to), amounts(&count.server, &count.client)).class(
            "102",
            1,
            family(to),
            amounts(&count.client, &count.server),
        );
    }
    let counters = expected.compare(&lab)?;
    for (end, before) in [&a, &b].into_iter().zip(before) {
        same_buffers(&lab, end, before?, &counters)?;
    }
    // The kernel must have passed super-packets, or the test proves little.
    assert!(counters.interface("veth101.0").out_skbs < segments / 4);
    Ok(())
}

#[test]
fn without_offloads_the_containers_own_nftables_agree() -> Result<()> {
    let lab = node("tcp-plain", CLASSES)?;
    let (a, b) = neighbours(&lab)?;
    a.offload(false)?;
    b.offload(false)?;
    let inside_a = NftWitness::attach(a.namespace(), "eth0")?;
    let inside_b = NftWitness::attach(b.namespace(), "eth0")?;
    for to in [b.v4(), b.v6()] {
        tcp_exchange(a.namespace(), b.namespace(), at(to), 3 * MEGABYTE, MEGABYTE + 1)?;
    }
    let (in_a, in_b) = (inside_a.read()?, inside_b.read()?);
    let counters = Expected::default()
        .class("101", 2, "ipv4", amounts(&in_a.ingress.v4, &in_a.egress.v4))
        .class("101", 2, "ipv6", amounts(&in_a.ingress.v6, &in_a.egress.v6))
        .class("102", 1, "ipv4", amounts(&in_b.ingress.v4, &in_b.egress.v4))
        .class("102", 1, "ipv6", amounts(&in_b.ingress.v6, &in_b.egress.v6))
        .compare(&lab)?;
    let row = counters.interface("veth101.0");
    assert_eq!((row.in_skbs, row.out_skbs), (row.amounts.in_packets, row.amounts.out_packets));
    // The witnesses at both ends of the bridge also agree with each other.
    assert_eq!((in_a.egress, in_a.ingress), (in_b.ingress, in_b.egress));
    Ok(())
}
