//! How many packets and layer-3 bytes a socket buffer becomes on the wire.
//!
//! The hook sees whole super-packets; segmentation happens later, in the device or just before it. Each
//! function here computes the result of one kind of segmentation. `l3_len` is always the number of bytes from
//! the start of the outermost IP header to the end of the buffer, as carried. Reading headers and
//! segmentation types is the kernel program's part.

use crate::Tally;

/// A buffer that is a single packet.
#[inline(always)]
pub const fn unsegmented(l3_len: u32) -> Tally {
    Tally { packets: 1, bytes: l3_len as u64 }
}

/// TCP and UDP segmentation: the payload is cut into pieces of `gso_size`, each behind a copy of all
/// `headers` bytes.
///
/// `headers` reaches from the outermost IP header to the end of the (innermost) transport header.
#[inline(always)]
pub const fn segmented(l3_len: u32, headers: u32, gso_size: u32) -> Tally {
    let payload = l3_len.saturating_sub(headers);
    if gso_size == 0 || payload <= gso_size {
        return unsegmented(l3_len);
    }
    // Not `div_ceil`: with the divisor known to be non-zero this compiles to one division on the BPF target.
    let packets = (payload - 1) / gso_size + 1;
    Tally { packets: packets as u64, bytes: l3_len as u64 + (packets as u64 - 1) * headers as u64 }
}

/// UDP fragmentation offload: IP fragments of `gso_size` bytes each, with the UDP header only in the first.
///
/// `l3_headers` is the length of the IP header with extension headers. `fragment_header` is the header that
/// each fragment gains: 0 bytes for IPv4, 8 for IPv6.
#[inline(always)]
pub const fn fragmented(l3_len: u32, l3_headers: u32, gso_size: u32, fragment_header: u32) -> Tally {
    let payload = l3_len.saturating_sub(l3_headers);
    if gso_size == 0 || payload <= gso_size {
        return unsegmented(l3_len);
    }
    let packets = ((payload - 1) / gso_size + 1) as u64;
    Tally {
        packets,
        bytes: l3_len as u64 + (packets - 1) * l3_headers as u64 + packets * fragment_header as u64,
    }
}

/// SCTP: the buffer is a list of complete packets without headers, and only their number is known.
#[inline(always)]
pub const fn counted(l3_len: u32, headers: u32, gso_segs: u32) -> Tally {
    if gso_segs <= 1 {
        return unsegmented(l3_len);
    }
    Tally { packets: gso_segs as u64, bytes: l3_len as u64 + (gso_segs as u64 - 1) * headers as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Cuts a payload packet by packet, as a reference.
    fn cut(mut payload: u64, piece: u64, headers: u64) -> Tally {
        let mut tally = Tally::default();
        loop {
            let taken = payload.min(piece);
            tally.packets += 1;
            tally.bytes += headers + taken;
            payload -= taken;
            if payload == 0 {
                return tally;
            }
        }
    }

    #[test]
    fn a_full_tcp_buffer_over_ipv4() {
        // 65,160 bytes of payload behind 20 + 32 bytes of headers make 45 segments of 1,448 bytes.
        assert_eq!(segmented(65_212, 52, 1448), Tally { packets: 45, bytes: 65_160 + 45 * 52 });
    }

    #[test]
    fn a_payload_of_exactly_one_segment_is_one_packet() {
        assert_eq!(segmented(52 + 1448, 52, 1448), unsegmented(1500));
        assert_eq!(segmented(52 + 1449, 52, 1448), Tally { packets: 2, bytes: 1449 + 2 * 52 });
    }

    #[test]
    fn headers_longer_than_the_buffer_cannot_underflow() {
        assert_eq!(segmented(40, 60, 1000), unsegmented(40));
        assert_eq!(fragmented(30, 40, 8, 8), unsegmented(30));
    }

    #[test]
    fn a_segment_size_of_zero_means_one_packet() {
        assert_eq!(segmented(4000, 40, 0), unsegmented(4000));
        assert_eq!(fragmented(4000, 40, 0, 8), unsegmented(4000));
    }

    #[test]
    fn ufo_repeats_the_ip_header_but_not_the_udp_header() {
        // 20 IP + 8 UDP + 3,000 data at 1,480 per fragment: 1,480 + 1,480 + 48.
        assert_eq!(fragmented(3028, 20, 1480, 0), Tally { packets: 3, bytes: 3008 + 3 * 20 });
        // With IPv6 every fragment has 8 more bytes.
        assert_eq!(fragmented(3048, 40, 1448, 8), Tally { packets: 3, bytes: 3008 + 3 * 48 });
    }

    #[test]
    fn sctp_uses_only_the_number_of_segments() {
        assert_eq!(counted(32 + 7000, 32, 5), Tally { packets: 5, bytes: 7000 + 5 * 32 });
        assert_eq!(counted(532, 32, 0), unsegmented(532));
    }

    proptest! {
        #[test]
        fn segmentation_agrees_with_cutting(
            payload in 1u32..600_000, headers in 28u32..200, gso in 1u32..65_535,
        ) {
            let expected = cut(payload.into(), gso.into(), headers.into());
            prop_assert_eq!(segmented(payload + headers, headers, gso), expected);
        }

        #[test]
        fn fragmentation_agrees_with_cutting(payload in 1u32..70_000, l3 in 20u32..100, gso in 8u32..9_000) {
            prop_assert_eq!(fragmented(payload + l3, l3, gso, 0), cut(payload.into(), gso.into(), l3.into()));
            let expected = cut(payload.into(), gso.into(), u64::from(l3) + 8);
            if payload > gso {
                prop_assert_eq!(fragmented(payload + l3, l3, gso, 8), expected);
            }
        }
    }
}
