//! The packets of a calibration, and the figures that must come of them. Pure.
//!
//! The figures follow from the packets alone, by the rules of the wire: neither the kernel program's arithmetic nor
//! its lookup is used.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use traffic_common::{Direction, Family, Tally};
use traffic_model::ByDirection;

/// Bytes of an Ethernet header.
pub(super) const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
const TCP: usize = 20;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
/// `discard`, from a port that means nothing either.
const PORTS: [u16; 2] = [49_152, 9];
/// Whoever forwards one all the same sends it no further.
const HOP_LIMIT: u8 = 1;

/// Payload of a segment, and of the whole of a packet that is segmented behind the hook: two full segments and a
/// shorter one.
const SEGMENT: usize = 1000;
const SEGMENTED: usize = 2 * SEGMENT + 477;
const SEGMENTS: usize = SEGMENTED.div_ceil(SEGMENT);

/// Addresses of the container: from those for tests of network devices and for documentation.
const INSIDE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(198, 18, 7, 77), Ipv6Addr::new(0x2001, 0xdb8, 0x7, 0, 0, 0, 0, 0x77));
/// Peers that may be in no prefix: class 0.
const UNLISTED: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9)),
    IpAddr::V4(Ipv4Addr::new(240, 0, 0, 9)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 9)),
    IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 9)),
    IpAddr::V6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 9)),
];

/// Of how many prefixes of a class an address is tried.
const MOST_TRIED: usize = 16;

/// The addresses of both ends' hardware, in nobody's range. No frame is for the interface that gets it, so neither end
/// hands it to the node.
const HARDWARE: [[u8; 6]; 2] = [[0x02, 0x74, 0x72, 0x61, 0x66, 0x01], [0x02, 0x74, 0x72, 0x61, 0x66, 0x02]];

/// A frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// As the container sees it.
    pub direction: Direction,
    /// From its Ethernet header on.
    pub bytes: Vec<u8>,
    /// How it is segmented behind the hook, if it is.
    pub segmentation: Option<Segmentation>,
}

/// How a frame is segmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// IPv4 or IPv6; TCP both.
    pub family: Family,
    /// Bytes of a segment's payload.
    pub size: u16,
    /// Where the TCP header begins in the frame.
    pub transport: u16,
}

/// All packets of a calibration, and what must be counted of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are sent.
    pub frames: Vec<Frame>,
    /// By class and family.
    pub expected: BTreeMap<(u8, Family), ByDirection<Tally>>,
}

impl Plan {
    /// Packets to and from an address of each class that these prefixes decide, in both families, of many sizes. In
    /// each family some are segmented behind the hook.
    pub fn new(prefixes: &[(IpNet, u8)]) -> Self {
        let peers = peers(prefixes);
        let mut plan = Self::default();
        let mut payload = 1;
        for (&place, &peer) in &peers {
            for direction in Direction::BOTH {
                for _ in 0..2 {
                    plan.add(place, direction, peer, payload);
                    // No two payloads are alike before 1,400 were sent.
                    payload = (payload + 83) % 1400;
                }
            }
        }
        let mut segmented: BTreeMap<Family, (u8, IpAddr)> = BTreeMap::new();
        for ((class, family), peer) in peers {
            segmented.insert(family, (class, peer));
        }
        for (family, (class, peer)) in segmented {
            for direction in Direction::BOTH {
                plan.add_segmented((class, family), direction, peer);
            }
        }
        plan
    }

    fn add(&mut self, place: (u8, Family), direction: Direction, peer: IpAddr, payload: usize) {
        let mut transport = Vec::with_capacity(UDP + payload);
        for port in PORTS {
            transport.extend_from_slice(&port.to_be_bytes());
        }
        transport.extend_from_slice(&length(UDP + payload).to_be_bytes());
        // Without a checksum: nobody reads it.
        transport.resize(UDP + payload, 0);
        let bytes = frame(direction, peer, PROTOCOL_UDP, &transport);
        let tally = Tally { packets: 1, bytes: (bytes.len() - ETHERNET) as u64 };
        self.push(place, Frame { direction, bytes, segmentation: None }, tally);
    }

    fn add_segmented(&mut self, place: (u8, Family), direction: Direction, peer: IpAddr) {
        let mut transport = Vec::with_capacity(TCP + SEGMENTED);
        for port in PORTS {
            transport.extend_from_slice(&port.to_be_bytes());
        }
        transport.resize(TCP + SEGMENTED, 0);
        // Five words of header, and the flag ACK.
        transport[12..14].copy_from_slice(&[5 << 4, 0x10]);
        let bytes = frame(direction, peer, PROTOCOL_TCP, &transport);
        let network = match place.1 {
            Family::Ipv4 => IPV4,
            Family::Ipv6 => IPV6,
        };
        let tally =
            Tally { packets: SEGMENTS as u64, bytes: (SEGMENTED + SEGMENTS * (network + TCP)) as u64 };
        let segmentation =
            Segmentation { family: place.1, size: length(SEGMENT), transport: length(ETHERNET + network) };
        self.push(place, Frame { direction, bytes, segmentation: Some(segmentation) }, tally);
    }

    fn push(&mut self, place: (u8, Family), frame: Frame, tally: Tally) {
        *self.expected.entry(place).or_default().of_mut(frame.direction) += tally;
        self.frames.push(frame);
    }

    /// How many packets more there are where the frames of this direction are segmented before they are counted.
    pub(super) fn more_segments_in(&self, direction: Direction) -> i128 {
        let segmented = |frame: &&Frame| frame.direction == direction && frame.segmentation.is_some();
        self.frames.iter().filter(segmented).count() as i128 * (SEGMENTS as i128 - 1)
    }

    /// How many frames go in this direction.
    pub fn frames_in(&self, direction: Direction) -> u64 {
        self.frames.iter().filter(|frame| frame.direction == direction).count() as u64
    }
}

/// An address of each class and family. A class whose prefixes are all covered by longer ones of others has none.
fn peers(prefixes: &[(IpNet, u8)]) -> BTreeMap<(u8, Family), IpAddr> {
    let mut found = BTreeMap::new();
    let take = |found: &mut BTreeMap<_, _>, address: IpAddr| {
        found.entry((class_of(prefixes, address), family_of(address))).or_insert(address);
    };
    UNLISTED.into_iter().for_each(|address| take(&mut found, address));
    let mut tried: BTreeMap<(u8, Family), usize> = BTreeMap::new();
    for (prefix, class) in prefixes {
        let place = (*class, family_of(prefix.addr()));
        let tried = tried.entry(place).or_default();
        if *tried < MOST_TRIED && !found.contains_key(&place) {
            *tried += 1;
            // Where longer prefixes cover its beginning, they may leave its end.
            take(&mut found, prefix.network());
            take(&mut found, prefix.broadcast());
        }
    }
    found
}

/// The class of an address by the longest of the prefixes that contain it; 0 if none does.
fn class_of(prefixes: &[(IpNet, u8)], address: IpAddr) -> u8 {
    let containing = prefixes.iter().filter(|(prefix, _)| prefix.contains(&address));
    containing.max_by_key(|(prefix, _)| prefix.prefix_len()).map_or(0, |(_, class)| *class)
}

const fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::Ipv4,
        IpAddr::V6(_) => Family::Ipv6,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "all lengths here are below 4 KiB")]
const fn length(bytes: usize) -> u16 {
    bytes as u16
}

/// An Ethernet frame with an IP packet.
fn frame(direction: Direction, peer: IpAddr, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let (source, destination) = match direction {
        Direction::Out => (HARDWARE[0], HARDWARE[1]),
        Direction::In => (HARDWARE[1], HARDWARE[0]),
    };
    let mut bytes = [destination, source].concat();
    match peer {
        IpAddr::V4(peer) => {
            bytes.extend_from_slice(&0x0800_u16.to_be_bytes());
            bytes.extend_from_slice(&ipv4_header(direction, peer, protocol, transport.len()));
        }
        IpAddr::V6(peer) => {
            bytes.extend_from_slice(&0x86dd_u16.to_be_bytes());
            bytes.extend_from_slice(&[0x60, 0, 0, 0]);
            bytes.extend_from_slice(&length(transport.len()).to_be_bytes());
            bytes.extend_from_slice(&[protocol, HOP_LIMIT]);
            for address in ends(direction, peer, INSIDE.1) {
                bytes.extend_from_slice(&address.octets());
            }
        }
    }
    bytes.extend_from_slice(transport);
    bytes
}

fn ipv4_header(direction: Direction, peer: Ipv4Addr, protocol: u8, payload: usize) -> [u8; IPV4] {
    let mut header = [0; IPV4];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&length(IPV4 + payload).to_be_bytes());
    header[8..10].copy_from_slice(&[HOP_LIMIT, protocol]);
    for (at, address) in [12, 16].into_iter().zip(ends(direction, peer, INSIDE.0)) {
        header[at..at + 4].copy_from_slice(&address.octets());
    }
    let sum: u32 = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !length((folded & 0xffff) as usize + (folded >> 16) as usize);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// Source and destination.
const fn ends<A: Copy>(direction: Direction, peer: A, inside: A) -> [A; 2] {
    match direction {
        Direction::In => [peer, inside],
        Direction::Out => [inside, peer],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes() -> Vec<(IpNet, u8)> {
        [
            ("10.0.0.0/8", 1),
            ("10.0.0.0/9", 2),
            ("10.128.0.0/9", 2),
            ("192.0.2.0/24", 3),
            ("192.0.2.0/25", 4),
            ("2001:db8::/32", 5),
        ]
        .map(|(prefix, class)| (prefix.parse().unwrap(), class))
        .to_vec()
    }

    #[test]
    fn each_class_that_decides_something_has_a_peer() {
        let found = peers(&prefixes());
        let of = |class, family| found.get(&(class, family)).map(ToString::to_string);
        // Nothing is left of class 1, and of class 3 the end.
        assert_eq!(of(1, Family::Ipv4), None);
        assert_eq!(of(2, Family::Ipv4).as_deref(), Some("10.0.0.0"));
        assert_eq!(of(3, Family::Ipv4).as_deref(), Some("192.0.2.255"));
        assert_eq!(of(4, Family::Ipv4).as_deref(), Some("192.0.2.0"));
        assert_eq!(of(5, Family::Ipv6).as_deref(), Some("2001:db8:ffff::9"));
        assert_eq!(of(0, Family::Ipv4).as_deref(), Some("203.0.113.9"));
        assert_eq!(of(0, Family::Ipv6).as_deref(), Some("100::9"));
    }

    #[test]
    fn figures_are_those_of_the_packets() {
        let plan = Plan::new(&prefixes());
        for direction in Direction::BOTH {
            let of_frames: Tally = plan
                .frames
                .iter()
                .filter(|frame| frame.direction == direction)
                .map(|frame| {
                    let is_ipv4 = frame.bytes[12..14] == [8, 0];
                    let length = (frame.bytes.len() - ETHERNET) as u64;
                    match (&frame.segmentation, is_ipv4) {
                        (None, _) => Tally { packets: 1, bytes: length },
                        // Two more headers than the frame has.
                        (Some(_), true) => Tally { packets: 3, bytes: length + 2 * 40 },
                        (Some(_), false) => Tally { packets: 3, bytes: length + 2 * 60 },
                    }
                })
                .sum();
            assert_eq!(plan.expected.values().map(|sums| *sums.of(direction)).sum::<Tally>(), of_frames);
        }
        assert_eq!(plan.frames.iter().filter(|frame| frame.segmentation.is_some()).count(), 4);
        assert_eq!(plan.frames_in(Direction::In), plan.frames_in(Direction::Out));
        assert_eq!(plan.expected.len(), 6);
    }

    #[test]
    fn a_frame_is_a_valid_packet() {
        let plan = Plan::new(&[]);
        let out = plan.frames.iter().find(|frame| frame.direction == Direction::Out).unwrap();
        let packet = &out.bytes[ETHERNET..];
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        assert_eq!(packet[12..20], [198, 18, 7, 77, 203, 0, 113, 9]);
        let sum: u32 =
            packet[..IPV4].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the header's checksum");
        // To the interface's own address, neither.
        assert_eq!(out.bytes[0] & 3, 2);
    }
}
