//! From a buffer to its two addresses.
//!
//! The bytes are read where they are: directly when the headers lie in the buffer's linear part, through a helper when
//! a sender arranged that they do not. Lengths claimed by headers are never used for counting.

use aya_ebpf::programs::TcContext;
use traffic_common::{Family, Fault};

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_HEADER_LEN: u32 = 14;
const VLAN_TAG_LEN: u32 = 4;
const MAX_VLAN_TAGS: u32 = 2;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER_LEN: u32 = 20;
/// Bytes of an IPv6 header without extensions.
pub const IPV6_HEADER_LEN: u32 = 40;

/// The fixed part of an IPv4 header.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv4Header {
    version_ihl: u8,
    dscp_ecn: u8,
    total_length: [u8; 2],
    identification: [u8; 2],
    flags_offset: [u8; 2],
    time_to_live: u8,
    protocol: u8,
    checksum: [u8; 2],
    source: [u8; 4],
    destination: [u8; 4],
}

/// The fixed part of an IPv6 header.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv6Header {
    version_class_flow: [u8; 4],
    payload_length: [u8; 2],
    next_header: u8,
    hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

/// Source and destination of one family, and the two header fields that segmentation needs.
pub enum Addresses {
    V4 { source: [u8; 4], destination: [u8; 4], header_len: u32, protocol: u8 },
    V6 { source: [u8; 16], destination: [u8; 16], payload_length: u16, next_header: u8 },
}

impl Addresses {
    #[inline(always)]
    pub fn family(&self) -> Family {
        match self {
            Self::V4 { .. } => Family::Ipv4,
            Self::V6 { .. } => Family::Ipv6,
        }
    }
}

/// What parsing found. The offset holds for faults too, so that they are measured in the same bytes.
pub struct Parsed {
    /// Where layer 3 begins, from the start of the buffer.
    pub l3_offset: u32,
    pub addresses: Result<Addresses, Fault>,
}

/// Reads a `T` at `offset`, wherever in the buffer it lies. `None`: the packet is too short.
#[inline(always)]
pub fn load<T: Copy>(ctx: &TcContext, offset: u32) -> Option<T> {
    let start = ctx.data() + offset as usize;
    if start + size_of::<T>() <= ctx.data_end() {
        // SAFETY: the bounds were checked, which the verifier checks again; packets know no alignment.
        return Some(unsafe { (start as *const T).read_unaligned() });
    }
    ctx.load(offset as usize).ok()
}

/// Finds layer 3 behind `link_header_len` bytes (14 for Ethernet, 0 for a layer-3 device) and reads the addresses.
#[inline(always)]
pub fn parse(ctx: &TcContext, link_header_len: u32) -> Parsed {
    if link_header_len != ETHERNET_HEADER_LEN {
        // SAFETY: the context of a classifier is a valid `__sk_buff`.
        let protocol = unsafe { (*ctx.skb.skb).protocol };
        #[expect(clippy::cast_possible_truncation, reason = "a be16 in a wider field")]
        return addresses(ctx, 0, u16::from_be(protocol as u16));
    }
    let mut offset = ETHERNET_HEADER_LEN;
    let Some(first) = load::<[u8; 2]>(ctx, offset - 2) else {
        return Parsed { l3_offset: offset, addresses: Err(Fault::Truncated) };
    };
    let mut ethertype = u16::from_be_bytes(first);
    for _ in 0..MAX_VLAN_TAGS {
        if !is_vlan(ethertype) {
            break;
        }
        // A tag that is cut short belongs to the link layer all the same: the packet has no layer 3 at all.
        let Some(next) = load::<[u8; 2]>(ctx, offset + 2) else {
            return Parsed { l3_offset: offset, addresses: Err(Fault::Truncated) };
        };
        ethertype = u16::from_be_bytes(next);
        offset += VLAN_TAG_LEN;
    }
    if is_vlan(ethertype) {
        return Parsed { l3_offset: offset, addresses: Err(Fault::VlanDepth) };
    }
    addresses(ctx, offset, ethertype)
}

#[inline(always)]
fn is_vlan(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_SERVICE_VLAN
}

#[inline(always)]
fn addresses(ctx: &TcContext, l3_offset: u32, ethertype: u16) -> Parsed {
    let addresses = match ethertype {
        ETHERTYPE_IPV4 => ipv4(ctx, l3_offset),
        ETHERTYPE_IPV6 => ipv6(ctx, l3_offset),
        _ => Err(Fault::NotIp),
    };
    Parsed { l3_offset, addresses }
}

#[inline(always)]
fn ipv4(ctx: &TcContext, offset: u32) -> Result<Addresses, Fault> {
    let header: Ipv4Header = load(ctx, offset).ok_or(Fault::Truncated)?;
    let header_len = u32::from(header.version_ihl & 0x0f) * 4;
    if header.version_ihl >> 4 != 4 || header_len < IPV4_HEADER_LEN {
        return Err(Fault::Malformed);
    }
    if ctx.len() < offset + header_len {
        return Err(Fault::Truncated);
    }
    Ok(Addresses::V4 {
        source: header.source,
        destination: header.destination,
        header_len,
        protocol: header.protocol,
    })
}

#[inline(always)]
fn ipv6(ctx: &TcContext, offset: u32) -> Result<Addresses, Fault> {
    let header: Ipv6Header = load(ctx, offset).ok_or(Fault::Truncated)?;
    if header.version_class_flow[0] >> 4 != 6 {
        return Err(Fault::Malformed);
    }
    Ok(Addresses::V6 {
        source: header.source,
        destination: header.destination,
        payload_length: u16::from_be_bytes(header.payload_length),
        next_header: header.next_header,
    })
}
