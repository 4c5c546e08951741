//! The headers that both programs read, and their constants.

/// Bytes of a VLAN tag.
pub const VLAN_TAG_LEN: u32 = 4;
/// Most VLAN tags within the frame that are looked through.
pub const MAX_VLAN_TAGS: u32 = 2;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u32 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u32 = 0x86dd;
const ETHERTYPE_VLAN: u32 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u32 = 0x88a8;
/// Whether a VLAN tag follows.
#[inline(always)]
pub fn is_vlan(ethertype: u32) -> bool {
    ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_SERVICE_VLAN
}

/// The fixed part of an IPv4 header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv4Header {
    /// Version in the upper half, header length in 4-byte words in the lower half.
    pub version_ihl: u8,
    dscp_ecn: u8,
    total_length: [u8; 2],
    identification: [u8; 2],
    flags_offset: [u8; 2],
    time_to_live: u8,
    /// The transport protocol.
    pub protocol: u8,
    checksum: [u8; 2],
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

impl Ipv4Header {
    /// Length in bytes, options included.
    #[inline(always)]
    pub fn len(version_ihl: u8) -> u32 {
        u32::from(version_ihl & 0x0f) * 4
    }
}

/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER_LEN: u32 = 20;
/// Bytes of an IPv6 header without extensions.
pub const IPV6_HEADER_LEN: u32 = 40;

/// The fixed part of an IPv6 header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv6Header {
    /// Version in the upper half of the first byte.
    pub version_class_flow: [u8; 4],
    /// The length claimed by the header; 0 in a BIG TCP buffer.
    pub payload_length: [u8; 2],
    /// The type of the next header.
    pub next_header: u8,
    hop_limit: u8,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}
