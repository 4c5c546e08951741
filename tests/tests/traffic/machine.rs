//! The interface of a virtual machine: arbitrary frames with arbitrary segmentation headers. The expected
//! packets are computed here from the parts of each frame, or by cutting it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader};
use traffic_tests::container::Mac;
use traffic_tests::witness::{InterfaceStatistics, NftDirection, NftWitness};
use traffic_tests::{Amounts, Counters, Lab, Tap, VnetHeader};

use crate::node::{CLASSES, Expected, NONE, amounts, node};

const MACHINE: Mac = Mac([0x02, 0, 0, 0, 2, 1]);
const LOCAL: [u8; 4] = [10, 2, 0, 1];
const LOCAL_V6: [u8; 16] = [0xfd, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// In class 1, and the address of nobody, so no answer comes.
const PEER: [u8; 4] = [10, 1, 0, 99];
const PEER_V6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99];
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;

/// A machine without a peer: its interface is on no bridge.
fn machine(lab: &Lab) -> Result<Tap<'_>> {
    let tap = lab.tap("vme201.0")?;
    lab.run_ok(&["attach"])?;
    Ok(tap)
}

/// A frame with optional Ethernet tags.
fn ethernet(tags: &[u16], ethertype: u16, rest: &[u8]) -> Vec<u8> {
    let mut frame = [[0x02, 0, 0, 0, 0, 9], MACHINE.0].concat();
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(rest);
    frame
}

fn ipv4(protocol: IpNumber, options: &[u8], payload: &[u8]) -> Result<Vec<u8>> {
    // The length field of a super-packet is ignored; the length of the buffer counts.
    let mut header = Ipv4Header::new(0, 64, protocol, LOCAL, PEER)?;
    header.options = options.try_into()?;
    header.total_len = u16::try_from(header.header_len() + payload.len())?;
    header.fragment_offset = IpFragOffset::ZERO;
    header.header_checksum = header.calc_header_checksum();
    Ok([header.to_bytes().as_slice(), payload].concat())
}

fn ipv6(protocol: IpNumber, payload: &[u8]) -> Result<Vec<u8>> {
    let header = Ipv6Header {
        traffic_class: 0,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length: payload.len().try_into()?,
        next_header: protocol,
        hop_limit: 64,
        source: LOCAL_V6,
        destination: PEER_V6,
    };
    Ok([header.to_bytes().as_slice(), payload].concat())
}

fn tcp(options: &[u8], payload: usize) -> Result<Vec<u8>> {
    let mut header = TcpHeader::new(7, 9, 1, 1000);
    header.ack = true;
    header.set_options_raw(options)?;
    Ok([header.to_bytes().as_slice(), &vec![0xcd; payload]].concat())
}

fn udp(payload: usize) -> Result<Vec<u8>> {
    let header =
        UdpHeader { source_port: 7, destination_port: 9, length: (8 + payload).try_into()?, checksum: 0 };
    Ok([header.to_bytes().as_slice(), &vec![0xab; payload]].concat())
}

/// Packets and layer-3 bytes of a payload that is cut into pieces with a copy of the headers each.
fn cut(payload: usize, piece: usize, headers: usize) -> (u64, u64) {
    let sizes = vec![0_u8; payload];
    let packets = sizes.chunks(piece).map(|part| headers + part.len());
    packets.fold((0, 0), |(count, bytes), packet| (count + 1, bytes + packet as u64))
}

/// A frame, its segmentation, its counter (the family of a class, or a fault) and its expected amounts.
struct Frame {
    what: String,
    header: VnetHeader,
    bytes: Vec<u8>,
    place: &'static str,
    wire: (u64, u64),
}

impl Frame {
    /// A frame without segmentation.
    fn plain(what: &str, bytes: Vec<u8>, place: &'static str, l3_bytes: usize) -> Self {
        Self { what: what.to_owned(), header: VnetHeader::NONE, bytes, place, wire: (1, l3_bytes as u64) }
    }
}

/// The growth of a frame's counter. Before the first frame of its kind the counter does not exist.
fn growth(before: &Counters, after: &Counters, place: &str) -> Amounts {
    if place.starts_with("ipv") {
        after.class("201", 1, place).since(before.class_or_zero("201", 1, place))
    } else {
        after.fault("vme201.0", place).since(before.fault_or_zero("vme201.0", place))
    }
}

/// Sizes of the pieces and of the payload: at the limits and between them.
const SIZES: &[(usize, usize)] =
    &[(1400, 2 * 1400 + 1), (536, 60_000), (1416, 1417), (1416, 2 * 1416), (1000, 4321), (1408, 64_800)];

/// Every kind of segmentation, with optional tags.
fn segmented(tags: &[u16], sizes: &[(usize, usize)]) -> Result<Vec<Frame>> {
    let link = 14 + 4 * tags.len();
    let mut frames = Vec::new();
    for &(piece, payload) in sizes {
        let mut add = |kind: &str, header: VnetHeader, ethertype, packet: &[u8], wire| {
            frames.push(Frame {
                what: format!("{kind}, {payload} bytes in pieces of {piece}, {} tags", tags.len()),
                header,
                bytes: ethernet(tags, ethertype, packet),
                place: if ethertype == IPV4 { "ipv4" } else { "ipv6" },
                wire,
            });
        };
        let (ip4, ip6) = (20, 40);
        let short = |value: usize| u16::try_from(value).map_err(anyhow::Error::from);
        let size = short(piece)?;
        for (options, name) in [(&[][..], "TCP"), (&TIMESTAMPS, "TCP with timestamps")] {
            let header = 20 + options.len();
            let segment = tcp(options, payload)?;
            add(
                &format!("{name} over IPv4"),
                VnetHeader::tcp_v4(short(link + ip4)?, short(link + ip4 + header)?, size),
                IPV4,
                &ipv4(IpNumber::TCP, &[], &segment)?,
                cut(payload, piece, ip4 + header),
            );
            add(
                &format!("{name} over IPv6"),
                VnetHeader::tcp_v6(short(link + ip6)?, short(link + ip6 + header)?, size),
                IPV6,
                &ipv6(IpNumber::TCP, &segment)?,
                cut(payload, piece, ip6 + header),
            );
        }
        add(
            "TCP behind IPv4 options",
            VnetHeader::tcp_v4(short(link + 28)?, short(link + 48)?, size),
            IPV4,
            &ipv4(IpNumber::TCP, &[1; 8], &tcp(&[], payload)?)?,
            cut(payload, piece, 28 + 20),
        );
        let datagram = udp(payload)?;
        add(
            "UDP segments over IPv4",
            VnetHeader::udp_l4(short(link + ip4)?, size),
            IPV4,
            &ipv4(IpNumber::UDP, &[], &datagram)?,
            cut(payload, piece, ip4 + 8),
        );
        add(
            "UDP segments over IPv6",
            VnetHeader::udp_l4(short(link + ip6)?, size),
            IPV6,
            &ipv6(IpNumber::UDP, &datagram)?,
            cut(payload, piece, ip6 + 8),
        );
        // The UDP header is part of the data that is cut into fragments, so it occurs once. All fragments but
        // the last have a multiple of 8 bytes. IPv6 adds a header of 8 bytes to each.
        add(
            "UDP fragments over IPv4",
            VnetHeader::udp_fragments(short(link + ip4)?, size),
            IPV4,
            &ipv4(IpNumber::UDP, &[], &datagram)?,
            cut(8 + payload, piece, ip4),
        );
        add(
            "UDP fragments over IPv6",
            VnetHeader::udp_fragments(short(link + ip6)?, size),
            IPV6,
            &ipv6(IpNumber::UDP, &datagram)?,
            cut(8 + payload, piece, ip6 + 8),
        );
    }
    Ok(frames)
}

/// Sends frames one by one and compares their counters after each, so that an error names the frame.
fn check_all(name: &str, frames: &[Frame]) -> Result<Counters> {
    let lab = node(name, CLASSES)?;
    let tap = machine(&lab)?;
    let mut expected = Expected::default();
    let mut earlier = Counters::read(&lab)?;
    for frame in frames {
        tap.send(frame.header, &frame.bytes).with_context(|| frame.what.clone())?;
        let now = Counters::read(&lab)?;
        let sent = amounts(&NONE, &frame.wire);
        let counted = growth(&earlier, &now, frame.place);
        ensure!(counted == sent, "{}: counted {counted:?} instead of {sent:?}: {now:#?}", frame.what);
        let estimated = now.interface("vme201.0").out_estimated_packets;
        ensure!(estimated == 0, "{}: {estimated} packets were estimated", frame.what);
        expected = if frame.place.starts_with("ipv") {
            expected.class("201", 1, frame.place, sent)
        } else {
            expected.fault("vme201.0", frame.place, sent)
        };
        earlier = now;
    }
    let counters = expected.compare(&lab)?;
    let statistics = InterfaceStatistics::read(lab.host(), "vme201.0")?;
    assert_eq!(counters.interface("vme201.0").out_skbs, statistics.rx_packets);
    Ok(counters)
}

#[test]
fn a_machine_sends_every_kind_of_super_packet() -> Result<()> {
    let frames = segmented(&[], SIZES)?;
    let counters = check_all("tap-gso", &frames)?;
    let row = counters.interface("vme201.0");
    assert_eq!(row.out_skbs, frames.len() as u64);
    assert_eq!(row.out_skb_bytes, frames.iter().map(|frame| frame.bytes.len() as u64).sum::<u64>());
    Ok(())
}

#[test]
fn tags_around_a_super_packet_are_not_counted() -> Result<()> {
    for tags in [&[VLAN][..], &[SERVICE_VLAN, VLAN], &[SERVICE_VLAN, VLAN, VLAN]] {
        let frames = segmented(tags, &SIZES[..2])?;
        let row = check_all("tap-tags", &frames)?.interface("vme201.0");
        // The kernel moves the outer tag out of the frame before any hook sees it.
        let bytes: usize = frames.iter().map(|frame| frame.bytes.len() - 4).sum();
        assert_eq!(row.out_skb_bytes, bytes as u64);
    }
    Ok(())
}

#[test]
fn the_kernels_own_segmentation_agrees() -> Result<()> {
    let lab = node("tap-cut", CLASSES)?;
    let tap = machine(&lab)?;
    tap.on_bridge(lab.bridge()?, MACHINE)?;
    let container = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    lab.run_ok(&["attach"])?;
    // The last device segments every buffer, and nftables in the container sees the packets.
    container.offload(false)?;
    let inside = NftWitness::attach(container.namespace(), "eth0")?;
    let mut expected = Expected::default();
    let mut earlier = NftDirection::default();
    for mut frame in segmented(&[], SIZES)? {
        frame.bytes[..6].copy_from_slice(&container.mac().0);
        tap.send(frame.header, &frame.bytes).with_context(|| frame.what.clone())?;
        let deadline = Instant::now() + Duration::from_secs(5);
        let (now, arrived) = loop {
            let now = inside.read()?.ingress;
            let (was, is) = if frame.place == "ipv4" { (earlier.v4, now.v4) } else { (earlier.v6, now.v6) };
            let arrived = (is.packets - was.packets, is.bytes - was.bytes);
            // Another kernel thread may still be delivering them.
            if arrived.0 >= frame.wire.0 || Instant::now() > deadline {
                break (now, arrived);
            }
        };
        ensure!(arrived == frame.wire, "{}: {arrived:?} arrived instead of {:?}", frame.what, frame.wire);
        earlier = now;
        expected = expected.class("201", 1, frame.place, amounts(&NONE, &arrived)).class(
            "101",
            2,
            frame.place,
            amounts(&arrived, &NONE),
        );
    }
    let counters = expected.compare(&lab)?;
    // Both interfaces passed whole buffers.
    let (machine, container) = (counters.interface("vme201.0"), counters.interface("veth101.0"));
    assert_eq!(machine.out_skbs, container.in_skbs);
    assert!(machine.out_skbs < machine.amounts.out_packets / 10);
    Ok(())
}

#[test]
fn headers_beyond_the_linear_part_are_read() -> Result<()> {
    // The kernel puts only the headers that a frame announces into the linear part, here the Ethernet header,
    // and the rest of a long frame elsewhere. Without a checksum to complete it does not look further.
    let linear = |header: VnetHeader| VnetHeader { hdr_len: 14, ..header };
    let segments = |header: VnetHeader| VnetHeader { flags: 0, ..linear(header) };
    let mut frames = Vec::new();
    for payload in [4200, 9000, 30_001, 65_000] {
        for (ethertype, packet, place) in [
            (IPV4, ipv4(IpNumber::UDP, &[], &udp(payload)?)?, "ipv4"),
            (IPV4, ipv4(IpNumber::UDP, &[1; 40], &udp(payload)?)?, "ipv4"),
            (IPV6, ipv6(IpNumber::UDP, &udp(payload)?)?, "ipv6"),
        ] {
            let mut frame =
                Frame::plain("one packet", ethernet(&[], ethertype, &packet), place, packet.len());
            frame.header = linear(VnetHeader::NONE);
            frames.push(frame);
        }
        for tags in [&[VLAN][..], &[SERVICE_VLAN, VLAN]] {
            let packet = ipv6(IpNumber::UDP, &udp(payload)?)?;
            let mut frame =
                Frame::plain("one tagged packet", ethernet(tags, IPV6, &packet), "ipv6", packet.len());
            frame.header = linear(VnetHeader::NONE);
            frames.push(frame);
        }
        let segment = tcp(&TIMESTAMPS, payload)?;
        frames.push(Frame {
            what: format!("TCP over IPv4, {payload} bytes"),
            header: segments(VnetHeader::tcp_v4(34, 66, 1400)),
            bytes: ethernet(&[], IPV4, &ipv4(IpNumber::TCP, &[], &segment)?),
            place: "ipv4",
            wire: cut(payload, 1400, 52),
        });
        frames.push(Frame {
            what: format!("TCP over IPv6, {payload} bytes"),
            header: segments(VnetHeader::tcp_v6(54, 86, 1400)),
            bytes: ethernet(&[], IPV6, &ipv6(IpNumber::TCP, &segment)?),
            place: "ipv6",
            wire: cut(payload, 1400, 72),
        });
        frames.push(Frame {
            what: format!("UDP fragments over IPv4, {payload} bytes"),
            header: segments(VnetHeader::udp_fragments(34, 1480)),
            bytes: ethernet(&[], IPV4, &ipv4(IpNumber::UDP, &[], &udp(payload)?)?),
            place: "ipv4",
            wire: cut(8 + payload, 1480, 20),
        });
    }
    check_all("tap-linear", &frames)?;
    Ok(())
}

#[test]
fn odd_frames_are_counted_where_they_belong() -> Result<()> {
    let v4 = ipv4(IpNumber::UDP, &[], &udp(200)?)?;
    let v6 = ipv6(IpNumber::UDP, &udp(200)?)?;
    let mut padded = ethernet(&[], IPV4, &ipv4(IpNumber::UDP, &[], &udp(1)?)?);
    padded.resize(60, 0);
    let mut frames = vec![
        Frame::plain("IPv4", ethernet(&[], IPV4, &v4), "ipv4", 228),
        Frame::plain("IPv6", ethernet(&[], IPV6, &v6), "ipv6", 248),
        Frame::plain("padding is counted", padded, "ipv4", 46),
        Frame::plain("ARP", ethernet(&[], 0x0806, &[1; 28]), "not_ip", 28),
        Frame::plain("ARP, padded", ethernet(&[], 0x0806, &[1; 46]), "not_ip", 46),
        Frame::plain("802.3 with a length", ethernet(&[], 38, &[0x42; 38]), "not_ip", 38),
        Frame::plain("an unknown EtherType behind a tag", ethernet(&[VLAN], 0x88b5, &[1; 50]), "not_ip", 50),
        // Of four tags the kernel removes the outermost, and three are one too many.
        Frame::plain("four tags", ethernet(&[VLAN; 4], IPV4, &v4), "vlan_depth", 4 + 228),
        Frame::plain("an Ethernet header alone", ethernet(&[], IPV4, &[]), "truncated", 0),
        Frame::plain("half an IPv4 header", ethernet(&[], IPV4, &v4[..10]), "truncated", 10),
        Frame::plain("a truncated IPv4 header", ethernet(&[], IPV4, &v4[..19]), "truncated", 19),
        Frame::plain("a truncated IPv6 header", ethernet(&[], IPV6, &v6[..39]), "truncated", 39),
        Frame::plain("half a header behind tags", ethernet(&[VLAN, VLAN], IPV4, &v4[..12]), "truncated", 12),
        Frame::plain("IPv6 announced as IPv4", ethernet(&[], IPV4, &v6), "malformed", 248),
        Frame::plain("IPv4 announced as IPv6", ethernet(&[], IPV6, &v4), "malformed", 228),
    ];
    for tags in 0..=3 {
        let tagged = |ethertype, packet: &[u8]| ethernet(&[VLAN; 3][..tags], ethertype, packet);
        frames.push(Frame::plain("IPv4 behind tags", tagged(IPV4, &v4), "ipv4", 228));
        frames.push(Frame::plain("IPv6 behind tags", tagged(IPV6, &v6), "ipv6", 248));
    }
    check_all("tap-odd", &frames)?;
    Ok(())
}
