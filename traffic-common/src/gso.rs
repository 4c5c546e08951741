//! The kernel's segmentation types, and where in an `sk_buff` to read them.
//!
//! The program's context, `__sk_buff`, has the segment size but not the segmentation type, which decides
//! which headers repeat. The kernel's own `sk_buff` has it. The loader takes the offsets from the running
//! kernel's BTF and passes them to the program as [`SkbLayout`]. The arithmetic is in [`wire`](crate::wire).

/// `SKB_GSO_TCPV4`
pub const TCPV4: u32 = 1 << 0;
/// `SKB_GSO_TCPV6`
pub const TCPV6: u32 = 1 << 4;
/// `SKB_GSO_GRE`
pub const GRE: u32 = 1 << 6;
/// `SKB_GSO_GRE_CSUM`
pub const GRE_CSUM: u32 = 1 << 7;
/// `SKB_GSO_IPXIP4`
pub const IPXIP4: u32 = 1 << 8;
/// `SKB_GSO_IPXIP6`
pub const IPXIP6: u32 = 1 << 9;
/// `SKB_GSO_UDP_TUNNEL`
pub const UDP_TUNNEL: u32 = 1 << 10;
/// `SKB_GSO_UDP_TUNNEL_CSUM`
pub const UDP_TUNNEL_CSUM: u32 = 1 << 11;
/// `SKB_GSO_SCTP`
pub const SCTP: u32 = 1 << 14;
/// `SKB_GSO_ESP`: encrypted only after segmentation, which also adds a trailer of unknown length.
pub const ESP: u32 = 1 << 15;
/// `SKB_GSO_UDP`: UDP fragmentation offload (UFO), sent by old guests.
pub const UDP: u32 = 1 << 16;
/// `SKB_GSO_UDP_L4`: UDP segmentation.
pub const UDP_L4: u32 = 1 << 17;

/// With any of these, the headers that repeat end with the *inner* transport header.
pub const TUNNELS: u32 = GRE | GRE_CSUM | IPXIP4 | IPXIP6 | UDP_TUNNEL | UDP_TUNNEL_CSUM;

/// The enumerators that the loader compares with the kernel's. The numbers are not part of the kernel's
/// stable interface.
pub const ENUMERATORS: [(&str, u32); 12] = [
    ("SKB_GSO_TCPV4", TCPV4),
    ("SKB_GSO_TCPV6", TCPV6),
    ("SKB_GSO_GRE", GRE),
    ("SKB_GSO_GRE_CSUM", GRE_CSUM),
    ("SKB_GSO_IPXIP4", IPXIP4),
    ("SKB_GSO_IPXIP6", IPXIP6),
    ("SKB_GSO_UDP_TUNNEL", UDP_TUNNEL),
    ("SKB_GSO_UDP_TUNNEL_CSUM", UDP_TUNNEL_CSUM),
    ("SKB_GSO_SCTP", SCTP),
    ("SKB_GSO_ESP", ESP),
    ("SKB_GSO_UDP", UDP),
    ("SKB_GSO_UDP_L4", UDP_L4),
];

/// The smallest segment size that the kernel's own TCP uses (`TCP_MIN_SND_MSS`). A smaller one is the
/// sender's claim. Such packets are counted by the rule and also reported apart.
pub const SMALLEST_SEGMENT: u32 = 48;

/// What the program knows of the running kernel, in its read-only data: byte offsets in the kernel's
/// structures, and how this kernel behaves.
///
/// The verifier takes each field for a constant and removes the code that it rules out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SkbLayout {
    /// 1 when the offsets are valid. With 0 the program uses the plain rule and counts packets as estimated,
    /// and it does not call the helper that reads kernel memory.
    pub known: u32,
    /// `sk_buff::head`
    pub head: u32,
    /// `sk_buff::data`
    pub data: u32,
    /// `sk_buff::end`, an offset from `head` on 64-bit kernels.
    pub end: u32,
    /// `sk_buff::inner_transport_header`, an offset from `head`.
    pub inner_transport_header: u32,
    /// `skb_shared_info::gso_type`
    pub gso_type: u32,
    /// `sk_buff::transport_header`, an offset from `head`.
    pub transport_header: u32,
    /// `sk_buff::network_header`, an offset from `head`.
    pub network_header: u32,
    /// The byte that holds the bit `sk_buff::tc_skip_classify`. An ifb sets it on a packet that it sends
    /// again.
    pub tc_skip_classify: u32,
    /// That bit within its byte.
    pub tc_skip_classify_mask: u32,
    /// 1 if segmentation removes the hop-by-hop header of an IPv6 BIG TCP buffer (from 5.19, before 7.0).
    pub jumbo_is_removed: u32,
    /// 1 if two programs can interleave on one CPU, as on PREEMPT_RT. Counters are then added to atomically.
    pub interleaves: u32,
    /// The bit of `sk_buff::active_extensions` for a packet that was decrypted (`SKB_EXT_SEC_PATH`); 0 where
    /// the kernel decrypts none.
    pub sec_path_mask: u32,
    /// `sk_buff::active_extensions`, a byte.
    pub active_extensions: u32,
    /// `sk_buff::extensions`, a pointer.
    pub extensions: u32,
    /// The byte of `skb_ext` with the position of the `sec_path`, in units of 8 bytes from the `skb_ext`.
    pub sec_path_at: u32,
    /// `sec_path::len`
    pub sec_path_len: u32,
    /// `sec_path::olen`
    pub sec_path_olen: u32,
    /// `sec_path::ovec[0].flags`
    pub sec_path_flags: u32,
}

/// `XFRM_GRO` in the flags of an `xfrm_offload`: decrypted before the packet first came in.
pub const XFRM_GRO: u32 = 32;

const _: () = assert!(size_of::<SkbLayout>() == 76);

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, nineteen u32 without padding.
unsafe impl aya::Pod for SkbLayout {}
