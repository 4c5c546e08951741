//! How many packets and bytes a super-packet becomes on the wire.
//!
//! Both programs use it: the classifiers on what they count, the drop program on what was dropped. So both come to the
//! same figures. The arithmetic is in `traffic_common::wire`.

use traffic_common::{Tally, gso, wire};

use crate::headers::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV6_HEADER_LEN, Ipv4Header, Ipv6Header, VLAN_TAG_LEN, is_vlan,
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
/// Most extension headers that are walked. Segmentation itself has no limit.
const MAX_EXTENSION_HEADERS: u32 = 16;
/// Most VLAN tags that are walked behind those that the link layer may have. The kernel segments no
/// frame with more than eight.
const MAX_FURTHER_TAGS: u32 = 8;
/// Above this layer-3 length, the kernel takes the hop-by-hop header of an IPv6 super-packet for that of BIG
/// TCP (`GRO_LEGACY_MAX_SIZE`).
const LEGACY_MAX_LEN: u32 = 65_536;
/// Bytes of that header, which segmentation removes.
const JUMBO_HEADER_LEN: u32 = 8;
/// Option type of the jumbo payload option.
const JUMBO_OPTION: u8 = 0xc2;

/// `gso_size` of a buffer whose segments differ in size (`GSO_BY_FRAGS`).
const BY_FRAGMENTS: u32 = 0xffff;

/// A super-packet, wherever it is seen.
pub trait Buffer: Copy {
    /// Bytes of the buffer, `gso_size` and `gso_segs`.
    fn sizes(self) -> (u32, u32, u32);
    /// The EtherType by which the kernel knows the packet, and the bytes in the linear part.
    fn protocol_and_linear(self) -> (u32, u32);
    /// Copies a `T` from `offset`. `None` if the buffer is too short.
    fn load<T: Copy>(self, offset: u32) -> Option<T>;
    /// `skb_shared_info::gso_type`, where it is known.
    fn gso_type(self) -> Option<u32>;
    /// Offset of the transport header from the start of the buffer, as far as the kernel knows it.
    fn transport(self) -> Option<u32>;
    /// The same of the inner transport header.
    fn inner_transport(self) -> Option<u32>;
    /// Whether segmentation removes the hop-by-hop header of an IPv6 BIG TCP buffer.
    fn jumbo_is_removed(self) -> bool;
}

/// [`super_packet`] returns one word: bytes in the lower part, packets above, and the topmost bit if they are
/// estimated. 512 KiB in segments of one byte behind 64 KiB of headers are 2^35 bytes in 2^19 packets.
const BYTE_BITS: u32 = 40;
const ESTIMATED: u64 = 1 << 63;

#[inline(always)]
const fn pack(tally: Tally, estimated: bool) -> u64 {
    tally.packets << BYTE_BITS | tally.bytes | if estimated { ESTIMATED } else { 0 }
}

/// What [`super_packet`] packed: the tally, and whether it is estimated.
#[inline(always)]
pub const fn unpack(packed: u64) -> (Tally, bool) {
    let tally = Tally { packets: (packed & !ESTIMATED) >> BYTE_BITS, bytes: packed & ((1 << BYTE_BITS) - 1) };
    (tally, packed & ESTIMATED != 0)
}

/// The result of parsing the outermost network header.
struct Network {
    /// Whether all headers were read.
    is_complete: bool,
    /// Offset of the outermost transport header from the start of the buffer.
    transport: u32,
    protocol: u8,
    /// Bytes of a jumbo header that the wire does not carry: 0 or 8.
    jumbo: u32,
}

impl Network {
    /// No header is known.
    const UNREAD: Self = Self { is_complete: false, transport: 0, protocol: 0, jumbo: 0 };
}

/// What a super-packet becomes on the wire, packed into a word. `l3_offset` is the start of layer 3 in the buffer, and
/// `ethertype` its protocol.
#[inline(never)]
pub fn super_packet<B: Buffer>(skb: B, l3_offset: u32, ethertype: u32) -> u64 {
    let (len, gso_size, gso_segs) = skb.sizes();
    let l3_len = len.saturating_sub(l3_offset);
    // Tags that are not looked through belong to the fault's bytes, and segmentation repeats them too.
    let (network_offset, ethertype) = behind_further_tags(skb, l3_offset, ethertype);
    let mut network = match ethertype {
        ETHERTYPE_IPV4 => ipv4(skb, network_offset),
        ETHERTYPE_IPV6 => ipv6(skb, network_offset, len),
        _ => Network::UNREAD,
    };
    // Behind many extension headers, further tags, or labels of MPLS, the kernel knows where the transport
    // header is. It repeats all of that in each segment. From a tap or a packet socket, the position is the
    // sender's claim, so the result counts as estimated.
    let by_kernel = forgotten(u32::from(!network.is_complete)) != 0;
    if by_kernel {
        let read = network.transport.max(l3_offset);
        // Never within what was read: where nothing set the position, it may be anything.
        let start = network_offset.max(read);
        network.transport = skb.transport().filter(|&offset| offset > start).unwrap_or(read);
    }
    network.transport = forgotten(network.transport);
    #[expect(clippy::cast_possible_truncation, reason = "it was a byte before")]
    let protocol = forgotten(network.protocol.into()) as u8;
    network.protocol = protocol;
    network.jumbo = forgotten(network.jumbo);
    let l3_len = l3_len.saturating_sub(network.jumbo);

    let kind = skb.gso_type().unwrap_or(0);
    let mut transport = network.transport;
    let mut known = true;
    // What will be encrypted is estimated: segmentation adds a trailer to each packet.
    let estimated = by_kernel || kind & gso::ESP != 0;
    if kind & (gso::TUNNELS | gso::ESP) != 0 {
        match skb.inner_transport() {
            Some(inner) => transport = inner,
            None => known = false,
        }
    }
    let headers = transport.saturating_sub(l3_offset).saturating_sub(network.jumbo);
    if known {
        if kind & (gso::TCPV4 | gso::TCPV6) != 0 {
            let headers = headers + tcp_header_len(skb, transport);
            return pack(wire::segmented(l3_len, headers, gso_size), estimated);
        }
        if kind & gso::UDP_L4 != 0 {
            return pack(wire::segmented(l3_len, headers + UDP_HEADER_LEN, gso_size), estimated);
        }
        if kind & gso::UDP != 0 {
            let fragment_header = if ethertype == ETHERTYPE_IPV6 { FRAGMENT_HEADER_LEN } else { 0 };
            return pack(wire::fragmented(l3_len, headers, gso_size, fragment_header), estimated);
        }
        if kind & gso::SCTP != 0 {
            return pack(wire::counted(l3_len, headers + SCTP_HEADER_LEN, gso_segs), estimated);
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

/// The same value, of which the verifier knows nothing.
///
/// Where it knows the range of an offset, a comparison may have only one outcome. Then the value matters to it,
/// it follows each chain of headers by itself, and gives up. It loses track in the upper half of a word.
#[inline(always)]
pub fn forgotten(value: u32) -> u32 {
    let mut word = 0_u64;
    let on_stack = &raw mut word;
    // SAFETY: a live variable; BPF programs here are little-endian. Volatile, so that the compiler does not skip
    // the way over the stack.
    unsafe {
        on_stack.write_volatile(u64::from(value) << 32);
        on_stack.cast::<u32>().add(1).read_volatile()
    }
}

/// Offset of the network header, and its EtherType, behind any further tags.
#[inline(always)]
fn behind_further_tags<B: Buffer>(skb: B, mut offset: u32, mut ethertype: u32) -> (u32, u32) {
    for _ in 0..MAX_FURTHER_TAGS {
        if !is_vlan(ethertype) {
            break;
        }
        let Some(next) = skb.load::<[u8; 2]>(offset + 2) else { break };
        ethertype = u32::from(u16::from_be_bytes(next));
        offset = forgotten(offset + VLAN_TAG_LEN);
    }
    (forgotten(offset), ethertype)
}

#[inline(always)]
fn ipv4<B: Buffer>(skb: B, offset: u32) -> Network {
    let Some(header) = skb.load::<Ipv4Header>(offset) else {
        return Network::UNREAD;
    };
    let transport = offset + Ipv4Header::len(header.version_ihl);
    Network { is_complete: true, transport, protocol: header.protocol, jumbo: 0 }
}

#[inline(always)]
fn ipv6<B: Buffer>(skb: B, network_offset: u32, len: u32) -> Network {
    let Some(header) = skb.load::<Ipv6Header>(network_offset) else {
        return Network::UNREAD;
    };
    let mut offset = network_offset + IPV6_HEADER_LEN;
    let jumbo = jumbo_header(skb, offset, len - network_offset, header.next_header);
    let mut next_header = header.next_header;
    for _ in 0..=MAX_EXTENSION_HEADERS {
        let (unit, extra) = match next_header {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY => (8, 1),
            AUTHENTICATION => (4, 2),
            FRAGMENT => (0, 0),
            _ => return Network { is_complete: true, transport: offset, protocol: next_header, jumbo },
        };
        let Some([next, length]) = skb.load::<[u8; 2]>(offset) else {
            return Network { is_complete: true, transport: offset, protocol: next_header, jumbo };
        };
        next_header = next;
        let header_len = if unit == 0 { FRAGMENT_HEADER_LEN } else { (u32::from(length) + extra) * unit };
        offset = forgotten(offset + header_len);
    }
    Network { is_complete: false, transport: offset, protocol: next_header, jumbo }
}

/// Length of the hop-by-hop header that holds the true length of an IPv6 BIG TCP buffer, where segmentation
/// removes it. The conditions are those of the kernel's `ipv6_has_hopopt_jumbo`, no more and no fewer: it looks
/// neither at the length field of the IP header nor at that of the option.
#[inline(always)]
fn jumbo_header<B: Buffer>(skb: B, offset: u32, l3_len: u32, next_header: u8) -> u32 {
    if !skb.jumbo_is_removed() || next_header != HOP_BY_HOP || l3_len <= LEGACY_MAX_LEN {
        return 0;
    }
    let (protocol, linear) = skb.protocol_and_linear();
    // Not behind a tag within the frame, and only in the linear part.
    if protocol != ETHERTYPE_IPV6 || offset + JUMBO_HEADER_LEN > linear {
        return 0;
    }
    // next header, length in units of 8 bytes after the first, option type
    match skb.load::<[u8; 3]>(offset) {
        Some([TCP, 0, JUMBO_OPTION]) => JUMBO_HEADER_LEN,
        _ => 0,
    }
}

/// Length of the TCP header at `offset`, options included.
#[inline(always)]
fn tcp_header_len<B: Buffer>(skb: B, offset: u32) -> u32 {
    let data_offset = skb.load::<u8>(offset + 12).unwrap_or(0);
    u32::from(data_offset >> 4) * 4
}
