//! Decides where a frame belongs by the accounting contract, with a second parser over the whole frame as a
//! slice.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Counter, Interface, Way, frames::Frame};

/// The class file of the node.
pub const CLASSES: &str = "0 172.16.0.0/12\n1 0.0.0.0/0\n2 192.0.2.0/24\n3 192.0.2.77/32\n5 198.51.100.128/25\n\
    2 2001:db8:0:2::/64\n4 2001:db8:0:2::77/128\n1 2001:db8::/32\n6 2001:db8:0:3:8000::/65\n";

/// Addresses of containers on the shared interface.
pub const SHARED: [(&str, &str); 4] =
    [("301", "10.3.0.1"), ("302", "10.3.0.2"), ("301", "fd00:3::1"), ("302", "fd00:3::2")];

/// Addresses of containers, and addresses on both sides of a prefix's edge.
pub const PLACES_V4: [[u8; 4]; 11] = [
    [10, 1, 0, 1],
    [10, 3, 0, 1],
    [10, 3, 0, 2],
    [10, 3, 0, 3],
    [192, 0, 2, 76],
    [192, 0, 2, 77],
    [192, 0, 3, 0],
    [172, 31, 255, 255],
    [172, 32, 0, 0],
    [198, 51, 100, 127],
    [198, 51, 100, 128],
];

/// The same for IPv6.
pub const PLACES_V6: [[u8; 16]; 8] = [
    v6([0xfd00, 1, 0, 0, 0, 0, 0, 1]),
    v6([0xfd00, 3, 0, 0, 0, 0, 0, 1]),
    v6([0xfd00, 3, 0, 0, 0, 0, 0, 2]),
    v6([0x2001, 0xdb8, 0, 2, 0, 0, 0, 0x76]),
    v6([0x2001, 0xdb8, 0, 2, 0, 0, 0, 0x77]),
    v6([0x2001, 0xdb8, 0, 3, 0x7fff, 0, 0, 1]),
    v6([0x2001, 0xdb8, 0, 3, 0x8000, 0, 0, 1]),
    v6([0x2001, 0xdb9, 0, 0, 0, 0, 0, 1]),
];

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8]) -> [u8; 16] {
    Ipv6Addr::new(a, b, c, d, e, f, g, h).octets()
}

/// Which address is the container's, and which the peer's.
enum Parsed {
    V4 { peer: [u8; 4], local: [u8; 4] },
    V6 { peer: [u8; 16], local: [u8; 16] },
    Fault(&'static str),
}

/// The counter that grows, and by how many packets and bytes.
pub fn judge(frame: &Frame) -> (Counter, u64, u64) {
    let (protocol, l3) = behind_link_header(&frame.bytes);
    let (packets, bytes) = match frame.gso {
        None => (1, l3.len() as u64),
        Some(gso) => segments(protocol, l3, gso),
    };
    (counter(frame, protocol, l3), packets, bytes)
}

/// The protocol that the link layer announces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Ipv4,
    Ipv6,
    Other,
    ThirdTag,
    /// The frame ends before the protocol.
    Unsaid,
}

fn behind_link_header(frame: &[u8]) -> (Protocol, &[u8]) {
    let mut rest = frame.get(12..).unwrap_or_default();
    for tags in 0.. {
        let Some((kind, behind)) = rest.split_at_checked(2) else { return (Protocol::Unsaid, &[]) };
        let protocol = match kind {
            [0x08, 0x00] => Protocol::Ipv4,
            [0x86, 0xdd] => Protocol::Ipv6,
            [0x81, 0x00] | [0x88, 0xa8] if tags == 2 => Protocol::ThirdTag,
            [0x81, 0x00] | [0x88, 0xa8] => {
                rest = behind.get(2..).unwrap_or_default();
                continue;
            }
            _ => Protocol::Other,
        };
        return (protocol, behind);
    }
    (Protocol::Unsaid, &[])
}

fn counter(frame: &Frame, protocol: Protocol, l3: &[u8]) -> Counter {
    let interface = match frame.interface {
        Interface::Own => "veth101.0",
        Interface::Shared => "shared0",
        Interface::Unknown => return Counter::Fault("(other)", "unknown_interface"),
    };
    let owner = |found: Option<&str>| match frame.interface {
        Interface::Own => Some("101".to_owned()),
        _ => found.map(str::to_owned),
    };
    let (container, class, family) = match parse(protocol, l3, frame.way) {
        Parsed::Fault(fault) => return Counter::Fault(interface, fault),
        Parsed::V4 { peer, local } => {
            let local = Ipv4Addr::from(local).to_string();
            (owner(of_address(&local)), class_v4(peer), "ipv4")
        }
        Parsed::V6 { peer, local } => {
            let local = Ipv6Addr::from(local).to_string();
            (owner(of_address(&local)), class_v6(Ipv6Addr::from(peer)), "ipv6")
        }
    };
    match container {
        Some(container) => Counter::Class(container, class, family),
        None => Counter::Fault(interface, "no_container"),
    }
}

fn of_address(address: &str) -> Option<&'static str> {
    SHARED.iter().find(|(_, of)| *of == address).map(|(id, _)| *id)
}

fn parse(protocol: Protocol, l3: &[u8], way: Way) -> Parsed {
    match protocol {
        Protocol::Other => Parsed::Fault("not_ip"),
        Protocol::ThirdTag => Parsed::Fault("vlan_depth"),
        Protocol::Unsaid => Parsed::Fault("truncated"),
        Protocol::Ipv4 => {
            let Some(header) = l3.first_chunk::<20>() else { return Parsed::Fault("truncated") };
            let len = usize::from(header[0] & 0x0f) * 4;
            if header[0] >> 4 != 4 || len < 20 {
                return Parsed::Fault("malformed");
            }
            if l3.len() < len {
                return Parsed::Fault("truncated");
            }
            let at = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
            let (peer, local) = ordered(way, at(12), at(16));
            Parsed::V4 { peer, local }
        }
        Protocol::Ipv6 => {
            let Some(header) = l3.first_chunk::<40>() else { return Parsed::Fault("truncated") };
            if header[0] >> 4 != 6 {
                return Parsed::Fault("malformed");
            }
            let at = |at: usize| std::array::from_fn(|byte| header[at + byte]);
            let (peer, local) = ordered(way, at(8), at(24));
            Parsed::V6 { peer, local }
        }
    }
}

/// The peer and the container of a source and a destination.
fn ordered<A>(way: Way, source: A, destination: A) -> (A, A) {
    match way {
        Way::In => (source, destination),
        Way::Out => (destination, source),
    }
}

/// [`CLASSES`], evaluated by hand.
fn class_v4(peer: [u8; 4]) -> u8 {
    match peer {
        [172, 16..=31, ..] => 0,
        [192, 0, 2, 77] => 3,
        [192, 0, 2, _] => 2,
        [198, 51, 100, 128..=255] => 5,
        _ => 1,
    }
}

fn class_v6(peer: Ipv6Addr) -> u8 {
    match peer.segments() {
        [0x2001, 0xdb8, 0, 2, 0, 0, 0, 0x77] => 4,
        [0x2001, 0xdb8, 0, 2, ..] => 2,
        [0x2001, 0xdb8, 0, 3, 0x8000..=0xffff, ..] => 6,
        [0x2001, 0xdb8, ..] => 1,
        _ => 0,
    }
}

/// The segmentation of a super-packet whose kind the kernel does not state: each piece of the payload behind
/// a copy of all headers that can be recognised.
fn segments(protocol: Protocol, l3: &[u8], (size, count): (u16, u16)) -> (u64, u64) {
    let (tags, protocol) = match protocol {
        Protocol::ThirdTag => further_tags(l3),
        other => (0, other),
    };
    let behind = l3.get(tags..).unwrap_or_default();
    let (headers, transport) = match protocol {
        Protocol::Ipv4 => network_v4(behind),
        Protocol::Ipv6 => network_v6(behind),
        _ => (0, None),
    };
    let headers = if transport.is_none() { 0 } else { tags + headers };
    let headers = headers
        + match transport {
            Some(6) => l3.get(headers + 12).map_or(0, |byte| usize::from(byte >> 4) * 4),
            Some(17) => 8,
            Some(132) if size == 0xffff => {
                // For SCTP only the number of packets is known.
                let more = u64::from(count.max(1)) - 1;
                return (1 + more, l3.len() as u64 + more * (headers as u64 + 12));
            }
            _ => 0,
        };
    let payload = l3.len().saturating_sub(headers);
    let pieces = payload.div_ceil(usize::from(size)).max(1) as u64;
    (pieces, l3.len() as u64 + (pieces - 1) * headers as u64)
}

fn network_v4(l3: &[u8]) -> (usize, Option<u8>) {
    match l3.first_chunk::<20>() {
        Some(header) => (usize::from(header[0] & 0x0f) * 4, Some(header[9])),
        None => (0, None),
    }
}

/// The length of further tags, at most eight, and what is behind them. `l3` begins within the first of them.
fn further_tags(l3: &[u8]) -> (usize, Protocol) {
    let mut at = 0;
    for _ in 0..8 {
        let Some(&kind) = l3.get(at + 2..).and_then(<[u8]>::first_chunk::<2>) else {
            return (at, Protocol::ThirdTag);
        };
        at += 4;
        match kind {
            [0x08, 0x00] => return (at, Protocol::Ipv4),
            [0x86, 0xdd] => return (at, Protocol::Ipv6),
            [0x81, 0x00] | [0x88, 0xa8] => {}
            _ => return (at, Protocol::Other),
        }
    }
    (at, Protocol::ThirdTag)
}

/// Skips at most 17 extension headers, as far as they are present.
fn network_v6(l3: &[u8]) -> (usize, Option<u8>) {
    let Some(header) = l3.first_chunk::<40>() else { return (0, None) };
    let (mut at, mut next) = (40, header[6]);
    for _ in 0..17 {
        let Some(&[following, length]) = l3.get(at..).and_then(<[u8]>::first_chunk) else { break };
        at += match next {
            0 | 43 | 60 | 135 => (usize::from(length) + 1) * 8,
            51 => (usize::from(length) + 2) * 4,
            44 => 8,
            _ => break,
        };
        next = following;
    }
    (at, Some(next))
}
