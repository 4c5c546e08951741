//! Cuts a buffer into the packets that it becomes on the wire.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};

/// The header fields of an IP packet that the expansion needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Headers {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Length in bytes to the end of the transport header, for TCP and UDP.
    through_transport: Option<usize>,
}

impl Headers {
    /// Parses them. None when the packet is not IP or is truncated.
    pub(super) fn read(protocol: u16, l3: &[u8]) -> Option<Self> {
        let bytes = |from: usize, to: usize| l3.get(from..to);
        let (source, destination, mut next, mut offset) = match protocol {
            0x0800 => {
                let address = |from| Some(IpAddr::from(<[u8; 4]>::try_from(bytes(from, from + 4)?).ok()?));
                (address(12)?, address(16)?, *l3.get(9)?, usize::from(l3.first()? & 15) * 4)
            }
            0x86dd => {
                let address = |from| Some(IpAddr::from(<[u8; 16]>::try_from(bytes(from, from + 16)?).ok()?));
                (address(8)?, address(24)?, *l3.get(6)?, 40)
            }
            _ => return None,
        };
        // Hop-by-hop, routing and destination options. A fragment is never a super-packet.
        while protocol == 0x86dd && matches!(next, 0 | 43 | 60) {
            let length = (usize::from(*l3.get(offset + 1)?) + 1) * 8;
            next = *l3.get(offset)?;
            offset += length;
        }
        let through_transport = match next {
            6 => l3.get(offset + 12).map(|byte| offset + usize::from(byte >> 4) * 4),
            17 => Some(offset + 8),
            _ => None,
        };
        Some(Self { source, destination, through_transport })
    }
}

/// The layer-3 lengths of the packets that a buffer becomes on the wire.
pub(super) fn cut(note: &[u8], ip: Option<&Headers>, length: usize) -> Result<Vec<u64>> {
    // virtio_net_hdr: flags, gso_type, hdr_len, gso_size, ...
    let (kind, segment) = (note[1], usize::from(u16::from_ne_bytes([note[4], note[5]])));
    // VIRTIO_NET_HDR_GSO_NONE. The bit 0x80 only marks TCP with ECN.
    if kind & 0x7f == 0 {
        return Ok(vec![length as u64]);
    }
    // TCPV4, TCPV6, UDP_L4. Other kinds do not occur here, so a buffer of one is an error.
    ensure!(matches!(kind & 0x7f, 1 | 4 | 5), "a buffer has the unknown segmentation type {kind}");
    let headers =
        ip.and_then(|ip| ip.through_transport).context("a super-packet has an unknown transport protocol")?;
    ensure!(
        segment > 0 && length >= headers,
        "a super-packet of {length} bytes cannot have segments of {segment}"
    );
    let mut left = length - headers;
    let mut packets = Vec::new();
    while left > 0 {
        let payload = left.min(segment);
        packets.push((headers + payload) as u64);
        left -= payload;
    }
    if packets.is_empty() {
        packets.push(headers as u64);
    }
    Ok(packets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp_v4(payload: usize) -> (Headers, usize) {
        let headers = Headers {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            through_transport: Some(52),
        };
        (headers, 52 + payload)
    }

    #[test]
    fn each_piece_of_a_super_packet_has_all_headers() {
        let (headers, length) = tcp_v4(2_500);
        let note = [0, 1, 66, 0, 0xe8, 0x03, 0, 0, 0, 0];
        assert_eq!(cut(&note, Some(&headers), length).unwrap(), [1052, 1052, 552]);
    }

    #[test]
    fn a_plain_buffer_is_one_packet() {
        let (headers, length) = tcp_v4(2_500);
        assert_eq!(cut(&[0; 10], Some(&headers), length).unwrap(), [2552]);
    }

    #[test]
    fn an_unknown_segmentation_type_is_an_error() {
        let (headers, length) = tcp_v4(2_500);
        assert!(cut(&[0, 3, 0, 0, 9, 9, 0, 0, 0, 0], Some(&headers), length).is_err());
    }
}
