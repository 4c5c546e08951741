//! Addresses with known classes, and frames built from their parts.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader,
};

use crate::bench::{Case, Place, Way};

pub const CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
pub const CONTAINER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1);
/// In class 2 by a /24; the default route is class 1.
pub const FOREIGN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
/// In class 3 by a /32 in that /24.
pub const SPECIAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
/// In class 0 explicitly.
pub const FREE: Ipv4Addr = Ipv4Addr::new(172, 16, 5, 5);
pub const FOREIGN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 9);
pub const SPECIAL_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 0x77);
/// In no prefix, so in class 0.
pub const NOWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 1);

pub const CLASSES: &str = "0 172.16.0.0/12\n1 0.0.0.0/0\n2 192.0.2.0/24\n3 192.0.2.77/32\n\
    2 2001:db8:0:2::/64\n4 2001:db8:0:2::77/128\n1 2001:db8::/32\n";

pub fn case(what: &'static str, way: Way, frame: Vec<u8>, place: Place, bytes: usize) -> Case {
    Case { what, way, frame, gso: None, place, packets: 1, bytes: bytes as u64 }
}

pub fn ethernet(ethertype: u16, rest: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header {
        source: [2, 0, 0, 0, 0, 1],
        destination: [2, 0, 0, 0, 0, 2],
        ether_type: EtherType(ethertype),
    };
    [header.to_bytes().as_slice(), rest].concat()
}

pub fn tagged(tags: &[u16], ethertype: u16, rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (at, _) in tags.iter().enumerate() {
        body.extend([0, 7]);
        body.extend(tags.get(at + 1).unwrap_or(&ethertype).to_be_bytes());
    }
    body.extend(rest);
    ethernet(tags[0], &body)
}

pub fn ipv4(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Result<Vec<u8>> {
    let header = Ipv4Header::new(
        payload.len().try_into()?,
        64,
        IpNumber(protocol),
        source.octets(),
        destination.octets(),
    )?;
    Ok([header.to_bytes().as_slice(), payload].concat())
}

pub fn ipv6(next_header: u8, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Result<Vec<u8>> {
    let header = Ipv6Header {
        traffic_class: 0,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length: payload.len().try_into()?,
        next_header: IpNumber(next_header),
        hop_limit: 64,
        source: source.octets(),
        destination: destination.octets(),
    };
    Ok([header.to_bytes().as_slice(), payload].concat())
}

pub fn udp(len: usize) -> Result<Vec<u8>> {
    let header =
        UdpHeader { source_port: 7, destination_port: 8, length: (8 + len).try_into()?, checksum: 0 };
    Ok([header.to_bytes().as_slice(), &vec![0xab; len]].concat())
}

pub fn tcp(options: &[u8], len: usize) -> Result<Vec<u8>> {
    let mut header = TcpHeader::new(7, 8, 1, 1000);
    header.set_options_raw(options)?;
    Ok([header.to_bytes().as_slice(), &vec![0xcd; len]].concat())
}
