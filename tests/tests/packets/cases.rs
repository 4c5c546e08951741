//! The packets: every form of header, every fault, and super-packets.

use anyhow::Result;

use crate::bench::{Case, Class, Fault, Gso, In, Out};
use crate::frames::{
    CONTAINER, CONTAINER_V6, FOREIGN, FOREIGN_V6, FREE, NOWHERE_V6, SPECIAL, SPECIAL_V6, case, ethernet,
    ipv4, ipv6, tagged, tcp, udp,
};

/// Every form of header that is an IP packet.
pub fn accepted() -> Result<Vec<Case>> {
    let v4 = |peer, payload: &[u8]| ipv4(17, CONTAINER, peer, payload);
    let v6 = |peer, payload: &[u8]| ipv6(17, CONTAINER_V6, peer, payload);
    let mut with_options = ipv4(17, CONTAINER, FOREIGN, &[&[1; 40], udp(11)?.as_slice()].concat())?;
    with_options[0] = 0x4f;
    let mut fragment = v4(FOREIGN, &[0x55; 123])?;
    fragment[6..8].copy_from_slice(&[0x20, 0xb9]);
    let mut lying = v4(FOREIGN, &udp(300)?)?;
    lying[2..4].copy_from_slice(&[0, 20]);
    let mut lying_v6 = v6(FOREIGN_V6, &udp(301)?)?;
    lying_v6[4..6].copy_from_slice(&[0, 0]);
    let padded = |mut frame: Vec<u8>| {
        frame.resize(60, 0);
        frame
    };
    // hop-by-hop, then destination options, then UDP
    let extended = [&[60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0], udp(21)?.as_slice()].concat();
    let fragment_v6 = [&[17, 0, 0x05, 0xa9, 0, 0, 0, 9], [0x66; 57].as_slice()].concat();
    Ok(vec![
        case("UDP out to a /24", Out, ethernet(0x0800, &v4(FOREIGN, &udp(100)?)?), Class(2, "ipv4"), 128),
        case(
            "UDP in from a /24",
            In,
            ethernet(0x0800, &ipv4(17, FOREIGN, CONTAINER, &udp(101)?)?),
            Class(2, "ipv4"),
            129,
        ),
        case("a /32 inside the /24", Out, ethernet(0x0800, &v4(SPECIAL, &udp(102)?)?), Class(3, "ipv4"), 130),
        case("class 0 explicitly", Out, ethernet(0x0800, &v4(FREE, &udp(103)?)?), Class(0, "ipv4"), 131),
        case(
            "the default route",
            In,
            ethernet(0x0800, &ipv4(17, [8, 8, 8, 8].into(), CONTAINER, &udp(104)?)?),
            Class(1, "ipv4"),
            132,
        ),
        case(
            "the longest IPv4 options",
            Out,
            ethernet(0x0800, &with_options),
            Class(2, "ipv4"),
            20 + 40 + 19,
        ),
        case("a later fragment", Out, ethernet(0x0800, &fragment), Class(2, "ipv4"), 143),
        case("a wrong total length", Out, ethernet(0x0800, &lying), Class(2, "ipv4"), 328),
        case(
            "padding is counted",
            Out,
            padded(ethernet(0x0800, &v4(FOREIGN, &udp(1)?)?)),
            Class(2, "ipv4"),
            46,
        ),
        case(
            "an unknown protocol",
            Out,
            ethernet(0x0800, &ipv4(253, CONTAINER, FOREIGN, &[1; 77])?),
            Class(2, "ipv4"),
            97,
        ),
        case(
            "a header without payload",
            Out,
            ethernet(0x0800, &ipv4(59, CONTAINER, FOREIGN, &[])?),
            Class(2, "ipv4"),
            20,
        ),
        case("one tag", Out, tagged(&[0x8100], 0x0800, &v4(FOREIGN, &udp(33)?)?), Class(2, "ipv4"), 61),
        case(
            "two tags",
            In,
            tagged(&[0x88a8, 0x8100], 0x0800, &ipv4(17, FOREIGN, CONTAINER, &udp(34)?)?),
            Class(2, "ipv4"),
            62,
        ),
        case(
            "two tags, IPv6",
            Out,
            tagged(&[0x8100, 0x8100], 0x86dd, &v6(FOREIGN_V6, &udp(35)?)?),
            Class(2, "ipv6"),
            83,
        ),
        case("IPv6 out to a /64", Out, ethernet(0x86dd, &v6(FOREIGN_V6, &udp(200)?)?), Class(2, "ipv6"), 248),
        case(
            "IPv6 in from a /128",
            In,
            ethernet(0x86dd, &ipv6(17, SPECIAL_V6, CONTAINER_V6, &udp(201)?)?),
            Class(4, "ipv6"),
            249,
        ),
        case("IPv6 in no prefix", Out, ethernet(0x86dd, &v6(NOWHERE_V6, &udp(202)?)?), Class(0, "ipv6"), 250),
        case(
            "IPv6 extension headers",
            Out,
            ethernet(0x86dd, &ipv6(0, CONTAINER_V6, FOREIGN_V6, &extended)?),
            Class(2, "ipv6"),
            40 + 16 + 29,
        ),
        case(
            "a later IPv6 fragment",
            In,
            ethernet(0x86dd, &ipv6(44, FOREIGN_V6, CONTAINER_V6, &fragment_v6)?),
            Class(2, "ipv6"),
            40 + 65,
        ),
        case("a wrong payload length", Out, ethernet(0x86dd, &lying_v6), Class(2, "ipv6"), 349),
        case("a long packet", Out, ethernet(0x0800, &v4(FOREIGN, &udp(3000)?)?), Class(2, "ipv4"), 3028),
    ])
}

/// Frames without a class, each with its fault.
pub fn refused() -> Result<Vec<Case>> {
    let good = ipv4(17, CONTAINER, FOREIGN, &udp(50)?)?;
    let good_v6 = ipv6(17, CONTAINER_V6, FOREIGN_V6, &udp(50)?)?;
    let with_first_byte = |byte: u8| {
        let mut packet = good.clone();
        packet[0] = byte;
        packet
    };
    let mut wrong_version_v6 = good_v6.clone();
    wrong_version_v6[0] = 0x40;
    Ok(vec![
        case("ARP", In, ethernet(0x0806, &[1; 28]), Fault("not_ip"), 28),
        case("LLDP", Out, ethernet(0x88cc, &[2; 46]), Fault("not_ip"), 46),
        case("802.3 with a length", Out, ethernet(38, &[0x42; 38]), Fault("not_ip"), 38),
        case("ARP behind a tag", Out, tagged(&[0x8100], 0x0806, &[3; 28]), Fault("not_ip"), 28),
        case(
            "three tags",
            Out,
            tagged(&[0x8100, 0x8100, 0x8100], 0x0800, &good),
            Fault("vlan_depth"),
            4 + 78,
        ),
        case("a truncated tag", Out, ethernet(0x8100, &[0, 7]), Fault("truncated"), 0),
        // Behind a tag, because a test run refuses frames that end within an IP header.
        case("IPv4 without a header", Out, tagged(&[0x8100], 0x0800, &[]), Fault("truncated"), 0),
        case("IPv4 one byte short", Out, tagged(&[0x8100], 0x0800, &good[..19]), Fault("truncated"), 19),
        case("truncated options", In, ethernet(0x0800, &with_first_byte(0x4f)[..59]), Fault("truncated"), 59),
        case("IPv6 one byte short", In, tagged(&[0x8100], 0x86dd, &good_v6[..39]), Fault("truncated"), 39),
        case(
            "a header length below 5",
            Out,
            ethernet(0x0800, &with_first_byte(0x44)),
            Fault("malformed"),
            78,
        ),
        case(
            "version 6 in an IPv4 frame",
            Out,
            ethernet(0x0800, &with_first_byte(0x65)),
            Fault("malformed"),
            78,
        ),
        case("version 4 in an IPv6 frame", Out, ethernet(0x86dd, &wrong_version_v6), Fault("malformed"), 98),
    ])
}

/// Super-packets, as far as the context describes them.
pub fn segmented() -> Result<Vec<Case>> {
    let gso = |mut case: Case, size, segments, packets, bytes| {
        case.gso = Some(Gso { size, segments });
        (case.packets, case.bytes) = (packets, bytes);
        case
    };
    let timestamps = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let plain = |way, frame, class| case("", way, frame, class, 0);
    let named = |what, mut case: Case| {
        case.what = what;
        case
    };
    let tcp_v4 = ethernet(0x0800, &ipv4(6, CONTAINER, FOREIGN, &tcp(&timestamps, 3000)?)?);
    let tcp_v6 = ethernet(0x86dd, &ipv6(6, FOREIGN_V6, CONTAINER_V6, &tcp(&timestamps, 2999)?)?);
    let udp_v4 = ethernet(0x0800, &ipv4(17, CONTAINER, FOREIGN, &udp(3000)?)?);
    let extended = [&[6, 0, 1, 4, 0, 0, 0, 0], tcp(&[], 2000)?.as_slice()].concat();
    let tcp_extended = ethernet(0x86dd, &ipv6(60, CONTAINER_V6, FOREIGN_V6, &extended)?);
    let sctp = ethernet(0x0800, &ipv4(132, CONTAINER, FOREIGN, &[9; 12 + 2500])?);
    let tagged_tcp = tagged(&[0x8100], 0x0800, &ipv4(6, CONTAINER, FOREIGN, &tcp(&[], 1500)?)?);
    let not_ip = ethernet(0x0806, &[1; 1000]);
    Ok(vec![
        named(
            "TCP, three full segments and a short one",
            gso(plain(Out, tcp_v4.clone(), Class(2, "ipv4")), 900, 4, 4, 3000 + 4 * 52),
        ),
        named(
            "TCP without a segment count",
            gso(plain(Out, tcp_v4.clone(), Class(2, "ipv4")), 1000, 0, 3, 3000 + 3 * 52),
        ),
        named("TCP that fits into one segment", gso(plain(Out, tcp_v4, Class(2, "ipv4")), 3000, 0, 1, 3052)),
        named("TCP over IPv6, in", gso(plain(In, tcp_v6, Class(2, "ipv6")), 1000, 3, 3, 2999 + 3 * 72)),
        named("UDP segments", gso(plain(Out, udp_v4, Class(2, "ipv4")), 1472, 3, 3, 3000 + 3 * 28)),
        named(
            "TCP behind destination options",
            gso(plain(Out, tcp_extended, Class(2, "ipv6")), 500, 4, 4, 2000 + 4 * 68),
        ),
        named(
            "SCTP, where only the segment count is valid",
            gso(plain(Out, sctp, Class(2, "ipv4")), 0xffff, 5, 5, 2500 + 5 * 32),
        ),
        named("TCP behind a tag", gso(plain(Out, tagged_tcp, Class(2, "ipv4")), 500, 3, 3, 1500 + 3 * 40)),
        named("a super-packet that is not IP", gso(plain(Out, not_ip, Fault("not_ip")), 400, 3, 3, 1000)),
    ])
}
