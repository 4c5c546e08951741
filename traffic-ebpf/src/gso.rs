//! How many packets and bytes a buffer becomes on the wire.
//!
//! Nearly every buffer is a single packet, and the first test returns. For a super-packet, the segmentation
//! type is read from the kernel's own `sk_buff` at offsets from BTF (`traffic_common::gso`). The arithmetic
//! is in `traffic_common::wire`.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_probe_read_kernel};
use traffic_common::{Direction, Tally, gso, gso::SkbLayout, wire};

use crate::{
    count,
    maps::skb_layout,
    parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV6_HEADER_LEN, Ipv4Header, Ipv6Header, LinkLayer, load},
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const UDP_HEADER_LEN: u32 = 8;
const SCTP_HEADER_LEN: u32 = 12;
/// Bytes of the fragment header that each IPv6 fragment gains.
const FRAGMENT_HEADER_LEN: u32 = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
/// Most extension headers that are walked. The kernel's own segmentation meets fewer in practice.
const MAX_EXTENSION_HEADERS: u32 = 8;

/// Above this length, the kernel's IPv6 super-packets have a hop-by-hop header (`GRO_LEGACY_MAX_SIZE`).
const LEGACY_MAX_LEN: u32 = 65_536;
/// Bytes of that header, which segmentation removes.
const JUMBO_HEADER_LEN: u32 = 8;
/// Option type of the jumbo payload option.
const JUMBO_OPTION: u8 = 0xc2;

/// `gso_size` of a buffer whose segments differ in size (`GSO_BY_FRAGS`).
const BY_FRAGMENTS: u32 = 0xffff;

/// Packets and layer-3 bytes of this buffer on the wire.
#[inline(always)]
pub fn on_wire(
    skb: *mut __sk_buff,
    link: &LinkLayer,
    gso_size: u32,
    len: u32,
    (interface_slot, direction): (u32, Direction),
) -> Tally {
    if gso_size == 0 {
        return wire::unsegmented(len.saturating_sub(link.l3_offset));
    }
    let packed = super_packet(skb, link.l3_offset, link.ethertype);
    let tally = Tally { packets: (packed & !ESTIMATED) >> BYTE_BITS, bytes: packed & ((1 << BYTE_BITS) - 1) };
    if packed & ESTIMATED != 0 {
        count::estimated(interface_slot, direction, &tally);
    }
    tally
}

/// [`super_packet`] returns one word: bytes in the lower part, packets above, and the topmost bit if they are
/// estimated. 512 KiB in segments of one byte behind 255 bytes of headers are 2^27 bytes in 2^19 packets.
const BYTE_BITS: u32 = 40;
const ESTIMATED: u64 = 1 << 63;

#[inline(always)]
const fn pack(tally: Tally, estimated: bool) -> u64 {
    tally.packets << BYTE_BITS | tally.bytes | if estimated { ESTIMATED } else { 0 }
}

/// The result of parsing the outermost network header.
struct Network {
    /// Offset of the outermost transport header from the start of the buffer.
    transport: u32,
    protocol: u8,
    /// Bytes of a jumbo header that the wire does not carry: 0 or 8.
    jumbo: u32,
}

#[inline(never)]
fn super_packet(skb: *mut __sk_buff, l3_offset: u32, ethertype: u32) -> u64 {
    // SAFETY: the context of a classifier is a valid `__sk_buff`.
    let (len, gso_size, gso_segs) = unsafe { ((*skb).len, (*skb).gso_size, (*skb).gso_segs) };
    let l3_len = len.saturating_sub(l3_offset);
    let network = match ethertype {
        ETHERTYPE_IPV4 => ipv4(skb, l3_offset),
        ETHERTYPE_IPV6 => ipv6(skb, l3_offset, len),
        _ => None,
    };
    let Some(network) = network else {
        // Its headers are unknown, so the whole length is divided by the segment size.
        return pack(wire::segmented(l3_len, 0, gso_size), true);
    };
    let l3_len = l3_len.saturating_sub(network.jumbo);

    let layout = skb_layout();
    let kind = if layout.known == 0 { 0 } else { kind_of_segmentation(skb, &layout).unwrap_or(0) };
    let transport =
        if kind & gso::TUNNELS != 0 { inner_transport(skb, &layout, len) } else { Some(network.transport) };
    let known = transport.is_some();
    let transport = transport.unwrap_or(network.transport);
    let headers = transport.saturating_sub(l3_offset).saturating_sub(network.jumbo);
    if known {
        if kind & (gso::TCPV4 | gso::TCPV6) != 0 {
            return pack(wire::segmented(l3_len, headers + tcp_header_len(skb, transport), gso_size), false);
        }
        if kind & gso::UDP_L4 != 0 {
            return pack(wire::segmented(l3_len, headers + UDP_HEADER_LEN, gso_size), false);
        }
        if kind & gso::UDP != 0 {
            let fragment_header = if ethertype == ETHERTYPE_IPV6 { FRAGMENT_HEADER_LEN } else { 0 };
            return pack(wire::fragmented(l3_len, headers, gso_size, fragment_header), false);
        }
        if kind & gso::SCTP != 0 {
            return pack(wire::counted(l3_len, headers + SCTP_HEADER_LEN, gso_segs), false);
        }
    }
    // Without the kernel's segmentation type, the outermost transport header decides: the plain rule.
    let tally = match network.protocol {
        TCP => wire::segmented(l3_len, headers + tcp_header_len(skb, transport), gso_size),
        SCTP if gso_size == BY_FRAGMENTS => wire::counted(l3_len, headers + SCTP_HEADER_LEN, gso_segs),
        UDP => wire::segmented(l3_len, headers + UDP_HEADER_LEN, gso_size),
        _ => wire::segmented(l3_len, headers, gso_size),
    };
    pack(tally, true)
}

#[inline(always)]
fn ipv4(skb: *mut __sk_buff, l3_offset: u32) -> Option<Network> {
    let header: Ipv4Header = load(skb, l3_offset)?;
    let transport = l3_offset + Ipv4Header::len(header.version_ihl);
    Some(Network { transport, protocol: header.protocol, jumbo: 0 })
}

#[inline(always)]
fn ipv6(skb: *mut __sk_buff, l3_offset: u32, len: u32) -> Option<Network> {
    let header: Ipv6Header = load(skb, l3_offset)?;
    let mut offset = l3_offset + IPV6_HEADER_LEN;
    let jumbo = jumbo_header(skb, offset, len, &header);
    let mut next_header = header.next_header;
    for _ in 0..MAX_EXTENSION_HEADERS {
        let (unit, extra) = match next_header {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY => (8, 1),
            AUTHENTICATION => (4, 2),
            FRAGMENT => (0, 0),
            _ => break,
        };
        let Some([next, length]) = load::<[u8; 2]>(skb, offset) else { break };
        next_header = next;
        offset += if unit == 0 { FRAGMENT_HEADER_LEN } else { (u32::from(length) + extra) * unit };
    }
    Some(Network { transport: offset, protocol: next_header, jumbo })
}

/// Length of the hop-by-hop header that holds the true length of an IPv6 BIG TCP buffer. The conditions are
/// the kernel's.
#[inline(always)]
fn jumbo_header(skb: *mut __sk_buff, offset: u32, len: u32, header: &Ipv6Header) -> u32 {
    if header.payload_length != [0, 0] || header.next_header != HOP_BY_HOP || len <= LEGACY_MAX_LEN {
        return 0;
    }
    // next header, length in units of 8 bytes after the first, option type, option length
    match load::<[u8; 4]>(skb, offset) {
        Some([TCP, 0, JUMBO_OPTION, 4]) => JUMBO_HEADER_LEN,
        _ => 0,
    }
}

/// Length of the TCP header at `offset`, options included.
#[inline(always)]
fn tcp_header_len(skb: *mut __sk_buff, offset: u32) -> u32 {
    let data_offset = load::<u8>(skb, offset + 12).unwrap_or(0);
    u32::from(data_offset >> 4) * 4
}

/// `skb_shared_info::gso_type`
#[inline(always)]
fn kind_of_segmentation(skb: *mut __sk_buff, layout: &SkbLayout) -> Option<u32> {
    let head: u64 = kernel_read(skb as u64, layout.head)?;
    let end: u32 = kernel_read(skb as u64, layout.end)?;
    kernel_read(head + u64::from(end), layout.gso_type)
}

/// Offset of the inner transport header from the start of the buffer.
#[inline(always)]
fn inner_transport(skb: *mut __sk_buff, layout: &SkbLayout, len: u32) -> Option<u32> {
    let head: u64 = kernel_read(skb as u64, layout.head)?;
    let data: u64 = kernel_read(skb as u64, layout.data)?;
    let inner: u16 = kernel_read(skb as u64, layout.inner_transport_header)?;
    // Both are positions relative to the same `head`. The difference is a small offset, or garbage that is
    // refused.
    let offset = head.wrapping_add(u64::from(inner)).wrapping_sub(data);
    #[expect(clippy::cast_possible_truncation, reason = "compared with a 32-bit length first")]
    (offset < u64::from(len)).then_some(offset as u32)
}

#[inline(always)]
fn kernel_read<T>(base: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address and returns an error instead of faulting. At run time the context
    // of a classifier *is* the kernel's `sk_buff`; the fields of `__sk_buff` are a view that the verifier
    // rewrites.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T).ok() }
}
