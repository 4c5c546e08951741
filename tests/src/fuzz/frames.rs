//! Generates frames with every kind of wrong field.

use std::fmt;

use super::{Interface, Way, reference};

/// A frame and the circumstances in which the program sees it.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its direction, as seen by the container.
    pub way: Way,
    /// Its interface.
    pub interface: Interface,
    /// The bytes from the Ethernet header on.
    pub bytes: Vec<u8>,
    /// Segment size and number of segments of a super-packet.
    pub gso: Option<(u16, u16)>,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame {:?} on {:?}, gso {:?}: ", self.way, self.interface, self.gso)?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The longest frame of a test run, minus some room for a tag.
const LONGEST: usize = 3300;
const ETHERNET: usize = 14;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TAGS: [u16; 2] = [0x8100, 0x88a8];
/// ARP, LLDP, MPLS, PPPoE, MACsec, an old value that is not a tag, a length, loopback.
const OTHERS: [u16; 9] = [0x0806, 0x88cc, 0x8847, 0x8863, 0x8864, 0x88e5, 0x9100, 46, 0x9000];
/// Extension headers, and protocols that may follow them.
const NEXT_HEADERS: [u8; 12] = [0, 43, 44, 50, 51, 59, 60, 135, 6, 17, 132, 58];
const PROTOCOLS: [u8; 8] = [6, 17, 132, 1, 4, 41, 47, 50];
const SEGMENT_SIZES: [u16; 7] = [1, 8, 100, 536, 1448, 9000, 0xffff];
const SEGMENT_COUNTS: [u16; 5] = [0, 1, 2, 7, 0xffff];

/// Generates the same frames from the same seed.
pub struct Generator {
    random: fastrand::Rng,
}

impl Generator {
    /// Creates a generator.
    pub fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed) }
    }

    /// The next frame.
    pub fn frame(&mut self) -> Frame {
        let interface = match self.random.u8(..) {
            0..8 => Interface::Unknown,
            8..72 => Interface::Shared,
            _ => Interface::Own,
        };
        let mut bytes = if self.one_in(20) { self.noise() } else { self.structured() };
        if self.one_in(6) {
            for _ in 0..self.random.usize(1..6) {
                let at = self.random.usize(12..bytes.len());
                bytes[at] ^= 1 << self.random.u32(..8);
            }
        }
        if self.one_in(4) {
            bytes.truncate(self.random.usize(ETHERNET..=bytes.len()));
        }
        bytes.truncate(LONGEST);
        acceptable(&mut bytes);
        let gso = self.one_in(4).then(|| {
            let size = if self.one_in(3) { self.random.u16(1..) } else { self.of(&SEGMENT_SIZES) };
            (size, self.of(&SEGMENT_COUNTS))
        });
        Frame { way: if self.random.bool() { Way::In } else { Way::Out }, interface, bytes, gso }
    }

    fn one_in(&mut self, number: u32) -> bool {
        self.random.u32(..number) == 0
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.random.usize(..values.len())]
    }

    fn some_bytes(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.random.usize(..=most)];
        self.random.fill(&mut bytes);
        bytes
    }

    fn noise(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; ETHERNET];
        self.random.fill(&mut bytes);
        bytes.extend(self.some_bytes(300));
        bytes
    }

    fn structured(&mut self) -> Vec<u8> {
        let mut frame = vec![2; 12];
        let tags = [0, 0, 0, 0, 1, 1, 2, 2, 3, 4][self.random.usize(..10)];
        for _ in 0..tags {
            frame.extend(self.of(&TAGS).to_be_bytes());
            frame.extend(self.random.u16(..).to_be_bytes());
        }
        let (ethertype, body) = match self.random.u8(..20) {
            0..9 => (IPV4, self.ipv4()),
            9..17 => (IPV6, self.ipv6()),
            17 => (self.of(&OTHERS), self.some_bytes(100)),
            18 => (self.random.u16(..), self.ipv4()),
            // The protocol field names one protocol and the header is of the other.
            _ if self.random.bool() => (IPV4, self.ipv6()),
            _ => (IPV6, self.ipv4()),
        };
        frame.extend(ethertype.to_be_bytes());
        frame.extend(body);
        frame
    }

    fn payload(&mut self) -> Vec<u8> {
        let most = if self.one_in(8) { LONGEST } else { 200 };
        self.some_bytes(most)
    }

    fn ipv4(&mut self) -> Vec<u8> {
        let header_words = if self.one_in(3) { self.random.u8(..16) } else { 5 };
        let mut packet = vec![0; 20];
        self.random.fill(&mut packet);
        packet[0] = 0x40 | header_words;
        packet[9] = if self.random.bool() { self.of(&PROTOCOLS) } else { self.random.u8(..) };
        for at in [12, 16] {
            if !self.one_in(4) {
                packet[at..at + 4].copy_from_slice(&self.of(&reference::PLACES_V4));
            }
        }
        packet.extend(self.some_bytes(usize::from(header_words.saturating_sub(5)) * 4));
        packet.extend(self.payload());
        if self.random.bool() {
            // Here both fields are correct.
            let len = u16::try_from(packet.len()).unwrap_or(u16::MAX);
            packet[2..4].copy_from_slice(&len.to_be_bytes());
        }
        packet
    }

    fn ipv6(&mut self) -> Vec<u8> {
        let mut packet = vec![0; 40];
        self.random.fill(&mut packet);
        packet[0] = 0x60 | self.random.u8(..16);
        for at in [8, 24] {
            if !self.one_in(4) {
                packet[at..at + 16].copy_from_slice(&self.of(&reference::PLACES_V6));
            }
        }
        packet[6] = self.of(&NEXT_HEADERS);
        for _ in 0..self.random.u32(..12) {
            let mut header = [self.of(&NEXT_HEADERS), self.random.u8(..3), 0, 0, 0, 0, 0, 0];
            self.random.fill(&mut header[2..]);
            packet.extend(header);
            packet.extend(self.some_bytes(8));
        }
        packet.extend(self.payload());
        packet
    }
}

/// A test run refuses frames that end within an IP header that the Ethernet header announces. Behind a tag it
/// accepts them.
fn acceptable(frame: &mut Vec<u8>) {
    frame.resize(frame.len().max(ETHERNET), 0);
    let header = match u16::from_be_bytes([frame[12], frame[13]]) {
        IPV4 => 20,
        IPV6 => 40,
        _ => 0,
    };
    if frame.len() < ETHERNET + header {
        frame.splice(12..12, [0x81, 0, 0, 7]);
    }
}
