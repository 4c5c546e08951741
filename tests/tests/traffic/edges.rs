//! Super-packets at the limits of what the kernel's segmentation does, sent by a virtual machine. The witness is
//! nftables behind the kernel's own segmentation.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use traffic_tests::container::Mac;
use traffic_tests::witness::NftWitness;
use traffic_tests::{Counters, Lab, VnetHeader};

use crate::node::{CLASSES, node};

const MACHINE: Mac = Mac([0x02, 0, 0, 0, 2, 1]);
/// fd00:2::1 and fd00:1::1.
const SOURCE: [u8; 16] = [0xfd, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const TARGET: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// A TCP super-packet over IPv6 behind these extension headers, the first of which is of type `first`.
fn frame(to: Mac, first: u8, extensions: &[u8], payload: usize) -> Vec<u8> {
    let mut frame = [to.0, MACHINE.0].concat();
    frame.extend(0x86dd_u16.to_be_bytes());
    frame.extend([0x60, 0, 0, 0]);
    let length = u16::try_from(extensions.len() + 20 + payload).unwrap_or(0);
    frame.extend(length.to_be_bytes());
    frame.extend([first, 64]);
    frame.extend(SOURCE);
    frame.extend(TARGET);
    frame.extend(extensions);
    frame.extend([0, 7, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 0x40, 0, 0, 0, 0, 0]);
    frame.extend(vec![0xcd; payload]);
    frame
}

/// Destination options, `count` of them, and TCP behind.
fn destination_options(count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for at in 1..=count {
        all.extend([if at == count { 6 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
    }
    all
}

/// Sends a frame in segments of `size`, and compares with what arrives in the container.
fn arrives(
    lab: &Lab,
    send: &dyn Fn(VnetHeader, &[u8]) -> Result<()>,
    inside: &NftWitness,
    case: (&[u8], usize, u16),
) -> Result<(u64, u64)> {
    let (bytes, headers, size) = case;
    let before = inside.read()?.ingress.v6;
    let link = 14 + u16::try_from(headers)?;
    send(VnetHeader::tcp_v6(link, link + 20, size), bytes)?;
    let payload = bytes.len() - 14 - headers - 20;
    let packets = payload.div_ceil(size.into()) as u64;
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let now = inside.read()?.ingress.v6;
        let arrived = (now.packets - before.packets, now.bytes - before.bytes);
        if arrived.0 >= packets || Instant::now() > deadline {
            ensure!(
                arrived.0 == packets,
                "{arrived:?} arrived, not {packets} packets: {:#?}",
                Counters::read(lab)?
            );
            return Ok(arrived);
        }
    }
}

#[test]
fn headers_and_segment_sizes_at_the_limits_are_exact() -> Result<()> {
    let lab = node("edges", CLASSES)?;
    let tap = lab.tap("vme201.0")?;
    tap.on_bridge(lab.bridge()?, MACHINE)?;
    let container = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    lab.run_ok(&["attach"])?;
    container.offload(false)?;
    let inside = NftWitness::attach(container.namespace(), "eth0")?;
    let send = |header: VnetHeader, bytes: &[u8]| tap.send(header, bytes);
    let mut small = (0, 0);
    for (options, payload, size) in
        [(0, 3000, 1000), (9, 40_000, 536), (16, 9000, 700), (4, 470, 47), (2, 480, 48)]
    {
        let extensions = destination_options(options);
        let bytes = frame(container.mac(), if options == 0 { 6 } else { 60 }, &extensions, payload);
        let arrived = arrives(&lab, &send, &inside, (&bytes, 40 + extensions.len(), size))
            .with_context(|| format!("{options} options"))?;
        if size < 48 {
            small = arrived;
        }
        let counters = Counters::read(&lab)?;
        let row = counters.interface("vme201.0");
        assert_eq!((row.out_estimated_packets, row.in_estimated_packets), (0, 0), "{options} options");
        assert_eq!((row.out_small_segment_packets, row.out_small_segment_bytes), small, "{options} options");
    }
    // All of them together, from both ends.
    let all = inside.read()?.ingress.v6;
    let all = (all.packets, all.bytes);
    let counters = Counters::at_rest(&lab)?;
    // The container may answer, so only what it was sent is compared.
    let sent = counters.class("201", 1, "ipv6");
    let received = counters.class("101", 2, "ipv6");
    assert_eq!((sent.out_packets, sent.out_bytes), all);
    assert_eq!((received.in_packets, received.in_bytes), all);
    assert_eq!(counters.interface("veth101.0").in_small_segment_bytes, small.1);
    ensure!(small.0 == 10, "{small:?}");

    // More headers than are walked: the kernel's own position is used, and the size is marked.
    let extensions = destination_options(60);
    let bytes = frame(container.mac(), 60, &extensions, 20_000);
    let arrived = arrives(&lab, &send, &inside, (&bytes, 40 + extensions.len(), 800))?;
    let counters = Counters::at_rest(&lab)?;
    let (sent, row) = (counters.class("201", 1, "ipv6"), counters.interface("vme201.0"));
    assert_eq!((sent.out_packets, sent.out_bytes), (all.0 + arrived.0, all.1 + arrived.1));
    assert_eq!(row.out_estimated_packets, arrived.0);
    Ok(())
}
