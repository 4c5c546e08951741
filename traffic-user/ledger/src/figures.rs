//! Volumes and what they are measured on. Pure.

use serde::Serialize;
use traffic_common::tally;

/// Bytes of an Ethernet header and its check sequence, as IF-MIB's octet counters of switches and routers have them.
const L2_OVERHEAD: u64 = 14 + 4;
/// Bytes of preamble, start of frame and the smallest gap between frames.
const L1_OVERHEAD: u64 = L2_OVERHEAD + 8 + 12;

/// What a byte figure is measured on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// From the IP header on: what is counted.
    #[default]
    L3,
    /// Ethernet frames: 18 bytes more a packet.
    L2,
    /// What a frame takes of the line: 38 bytes more a packet.
    L1,
}

impl Basis {
    /// Bytes on this basis of packets with so many layer-3 bytes.
    pub const fn bytes(self, packets: u64, l3_bytes: u64) -> u64 {
        let overhead = match self {
            Self::L3 => 0,
            Self::L2 => L2_OVERHEAD,
            Self::L1 => L1_OVERHEAD,
        };
        l3_bytes.saturating_add(packets.saturating_mul(overhead))
    }

    /// The sentence that every output carries.
    pub const fn statement(self) -> &'static str {
        match self {
            Self::L3 => "layer 3: bytes from the IP header to the end of each packet on the wire",
            Self::L2 => {
                "layer 2: layer-3 bytes and 18 a packet (Ethernet header 14, check sequence 4); no VLAN tags, and \
                 frames shorter than 64 bytes are taken as they are, without the padding of the line"
            }
            Self::L1 => {
                "layer 1: layer-3 bytes and 38 a packet (Ethernet header 14, check sequence 4, preamble 8, gap 12); no \
                 VLAN tags, and frames shorter than 64 bytes are taken as they are, without the padding of the line"
            }
        }
    }
}

/// Packets and bytes in, packets and bytes out.
pub(crate) type Sums = [u64; 4];

/// Adds to sums, under the overflow rule of [`tally`].
pub(crate) fn add(total: &mut Sums, sums: Sums) {
    tally::add_each(total, &sums);
}

/// Packets on the wire and their bytes on the basis of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Volume {
    /// Adds another volume.
    pub const fn add(&mut self, other: Self) {
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// Volumes of both directions; one of them is left out where a row is about the other only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// To the container.
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    pub incoming: Option<Volume>,
    /// From the container.
    #[serde(rename = "out", skip_serializing_if = "Option::is_none")]
    pub outgoing: Option<Volume>,
    /// Both, as far as they are shown.
    pub total: Volume,
}

impl Figures {
    /// From packets and layer-3 bytes in, packets and layer-3 bytes out.
    pub fn new(values: [u64; 4], basis: Basis) -> Self {
        let volume = |packets, l3_bytes| Volume { packets, bytes: basis.bytes(packets, l3_bytes) };
        let (incoming, outgoing) = (volume(values[0], values[1]), volume(values[2], values[3]));
        let mut total = incoming;
        total.add(outgoing);
        Self { incoming: Some(incoming), outgoing: Some(outgoing), total }
    }
}
