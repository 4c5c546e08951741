//! Volumes, and the network layer that their bytes are measured on. Pure.

use serde::Serialize;
use traffic_common::tally;

/// Bytes of an Ethernet header and checksum, as counted by the IF-MIB octet counters of switches and routers.
const L2_OVERHEAD: u64 = 14 + 4;
/// The same plus preamble, start of frame and the minimum inter-frame gap.
const L1_OVERHEAD: u64 = L2_OVERHEAD + 8 + 12;

/// The network layer that byte figures are measured on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// Layer 3, from the IP header on. This is what is counted.
    #[default]
    L3,
    /// Ethernet frames: 18 more bytes per packet.
    L2,
    /// What a frame occupies on the wire: 38 more bytes per packet.
    L1,
}

impl Basis {
    /// Bytes of each packet outside layer 3.
    pub const fn overhead(self) -> u64 {
        match self {
            Self::L3 => 0,
            Self::L2 => L2_OVERHEAD,
            Self::L1 => L1_OVERHEAD,
        }
    }

    /// Converts layer-3 bytes to bytes on this layer.
    pub const fn bytes(self, packets: u64, l3_bytes: u64) -> u64 {
        l3_bytes.saturating_add(packets.saturating_mul(self.overhead()))
    }

    /// The sentence that states the basis in every output.
    pub const fn statement(self) -> &'static str {
        match self {
            Self::L3 => "layer 3: bytes from the IP header to the end of each packet on the wire",
            Self::L2 => {
                "layer 2: layer-3 bytes plus 18 per packet (Ethernet header 14, checksum 4); without VLAN \
                 tags and without padding of frames below 64 bytes"
            }
            Self::L1 => {
                "layer 1: layer-3 bytes plus 38 per packet (Ethernet header 14, checksum 4, preamble 8, gap \
                 12); without VLAN tags and without padding of frames below 64 bytes"
            }
        }
    }
}

/// Packets in, bytes in, packets out, bytes out.
pub(crate) type Sums = [u64; 4];

/// Adds `sums` to `total`, under the overflow rule of [`tally`].
pub(crate) fn add(total: &mut Sums, sums: Sums) {
    tally::add_each(total, &sums);
}

/// Packets on the wire, and their bytes on the report's basis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Volume {
    /// Adds another volume, saturating.
    pub const fn add(&mut self, other: Self) {
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// Volumes of both directions. A row about a single direction omits the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Traffic to the container.
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    pub incoming: Option<Volume>,
    /// Traffic from the container.
    #[serde(rename = "out", skip_serializing_if = "Option::is_none")]
    pub outgoing: Option<Volume>,
    /// The sum of the directions that are present.
    pub total: Volume,
}

impl Figures {
    /// Converts packets in, layer-3 bytes in, packets out, layer-3 bytes out.
    pub fn new(values: [u64; 4], basis: Basis) -> Self {
        let volume = |packets, l3_bytes| Volume { packets, bytes: basis.bytes(packets, l3_bytes) };
        let (incoming, outgoing) = (volume(values[0], values[1]), volume(values[2], values[3]));
        let mut total = incoming;
        total.add(outgoing);
        Self { incoming: Some(incoming), outgoing: Some(outgoing), total }
    }

    /// The part of one direction.
    pub(crate) fn only(self, of_incoming: bool) -> Self {
        let incoming = self.incoming.filter(|_| of_incoming);
        let outgoing = self.outgoing.filter(|_| !of_incoming);
        Self { incoming, outgoing, total: incoming.or(outgoing).unwrap_or_default() }
    }
}

/// The shares of parts of a whole in thousandths, by largest remainder: they add up to 1000, unless all parts
/// are 0.
pub fn permille_shares(parts: &[u64]) -> Vec<u64> {
    let whole: u128 = parts.iter().map(|&part| u128::from(part)).sum();
    if whole == 0 {
        return vec![0; parts.len()];
    }
    let thousandfold = |at: usize| u128::from(parts[at]) * 1000;
    let mut shares: Vec<u128> = (0..parts.len()).map(|at| thousandfold(at) / whole).collect();
    let missing = 1000 - shares.iter().sum::<u128>();
    let mut by_remainder: Vec<usize> = (0..parts.len()).collect();
    // Stable: of equal remainders, the earlier part is rounded up.
    by_remainder.sort_by_key(|&at| std::cmp::Reverse(thousandfold(at) % whole));
    for at in by_remainder.into_iter().take(usize::try_from(missing).unwrap_or(0)) {
        shares[at] += 1;
    }
    shares.into_iter().map(|share| u64::try_from(share).unwrap_or(1000)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_nearly_equal_halves_share_the_whole() {
        assert_eq!(permille_shares(&[501, 500]), [500, 500]);
        assert_eq!(permille_shares(&[5_000_001, 5_000_000]), [500, 500]);
        assert_eq!(permille_shares(&[1, 1, 1]), [334, 333, 333]);
        assert_eq!(permille_shares(&[0, 0]), [0, 0]);
        assert_eq!(permille_shares(&[u64::MAX, 1]), [1000, 0]);
    }

    proptest! {
        #[test]
        fn shares_add_up_and_are_rounded_by_less_than_one(parts in proptest::collection::vec(any::<u64>(), 1..40)) {
            let whole: u128 = parts.iter().map(|&part| u128::from(part)).sum();
            prop_assume!(whole > 0);
            let shares = permille_shares(&parts);
            prop_assert_eq!(shares.iter().sum::<u64>(), 1000);
            for (part, share) in parts.into_iter().zip(shares) {
                let exact = u128::from(part) * 1000;
                prop_assert!((u128::from(share) * whole).abs_diff(exact) < whole);
            }
        }
    }
}
