//! What the drop program and userspace share: the key of a drop counter, groups of reasons, and faults.
//!
//! These maps are a set of their own. Their version is [`DROPS_VERSION`], so that a change here leaves the
//! counters of [`LAYOUT_VERSION`](super::LAYOUT_VERSION) alone.

use core::mem::{offset_of, size_of};

/// Version of everything in this file. Drop counters of another version are removed and begin anew.
pub const DROPS_VERSION: u32 = 1;
/// Name of the program on the tracepoint `kfree_skb`.
pub const DROP_PROGRAM: &str = "trafctl_drops";
/// Most counters of drops. One exists for each container, class, family, direction and group that ever lost a
/// packet.
pub const DROP_ENTRIES: u32 = 65_536;
/// Reasons of the kernel's core enumeration that have a place in [`DropReasons`].
pub const CORE_REASONS: usize = 256;
/// Reasons of the qdisc subsystem that have a place in [`DropReasons`].
pub const QDISC_REASONS: usize = 64;

/// Why packets were dropped, in the few groups that users see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropGroup {
    /// A queueing discipline refused or discarded it: tbf, HTB, fq_codel and the like.
    Shaper = 0,
    /// A rule refused it: nft, iptables, a filter, policer or program of tc, IPsec policy.
    Firewall = 1,
    /// No route leads there, the route refuses, or the addresses or the TTL do not allow forwarding.
    NoRoute = 2,
    /// A queue of a device was full, or nobody read from it.
    QueueFull = 3,
    /// The packet was larger than the way allows.
    TooBig = 4,
    /// The next hop did not answer.
    Neighbour = 5,
    /// Any other reason, or none that the kernel states.
    Other = 6,
}

/// Number of [`DropGroup`] values.
pub const DROP_GROUPS: usize = 7;

impl DropGroup {
    /// All groups, in the order of their numbers.
    pub const ALL: [Self; DROP_GROUPS] = [
        Self::Shaper,
        Self::Firewall,
        Self::NoRoute,
        Self::QueueFull,
        Self::TooBig,
        Self::Neighbour,
        Self::Other,
    ];

    /// The name used in output. Names never change once released.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shaper => "shaper",
            Self::Firewall => "firewall",
            Self::NoRoute => "no_route",
            Self::QueueFull => "queue_full",
            Self::TooBig => "too_big",
            Self::Neighbour => "neighbour",
            Self::Other => "other",
        }
    }
}

/// What the program knows of a reason, or of the place of a drop: a [`DropGroup`] in the lower four bits, and
/// these bits.
pub mod drop_kind {
    /// The bits of the group.
    pub const GROUP: u8 = 0x0f;
    /// Never after the egress hook: the packet was not yet counted at the interface that should send it.
    pub const BEFORE_EGRESS: u8 = 0x10;
    /// Before the ingress hook: the packet was not counted at all.
    pub const BEFORE_INGRESS: u8 = 0x20;
    /// The kernel states no reason. The place decides. Only of a reason.
    pub const UNSPECIFIED: u8 = 0x40;
    /// The place cuts a packet into pieces and drops these first: what is freed is the whole. Only of a place.
    pub const CUTS: u8 = 0x40;
    /// The packet was delivered, or is a copy. In a kind that has it, no other bit means anything.
    pub const NO_LOSS: u8 = 0x80;
}

/// Key of a drop counter. The value is a [`Tally`](crate::Tally), added to atomically.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct DropKey {
    /// The container's slot.
    pub slot: u32,
    /// The generation of the slot's owner, so that its next owner has counters of its own.
    pub generation: u32,
    /// Column of the class.
    pub column: u8,
    /// A [`Family`](crate::Family).
    pub family: u8,
    /// A [`Direction`](crate::Direction).
    pub direction: u8,
    /// A [`DropGroup`].
    pub group: u8,
}

/// Drops that are in no counter of a container, by name. Packets and bytes, as elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum DropFault {
    /// The packet went through a bridge's own interface or an ifb, which hides where it came from, and its
    /// source is the address of no known container. The sender's drop is missing.
    NoSender = 0,
    /// On a shared interface: the local address belongs to no container. It was not counted in a class
    /// either.
    NoContainer = 1,
    /// The table of drop counters is full.
    TableFull = 2,
    /// The packet's headers could not be read.
    Unreadable = 3,
    /// Size by the plain rule, because the segmentation type is unknown. These packets *are* in a counter as
    /// well.
    Estimated = 4,
}

/// Number of [`DropFault`] values.
pub const DROP_FAULTS: usize = 5;

impl DropFault {
    /// All faults, in the order of their numbers.
    pub const ALL: [Self; DROP_FAULTS] =
        [Self::NoSender, Self::NoContainer, Self::TableFull, Self::Unreadable, Self::Estimated];

    /// The name used in output. Names never change once released.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoSender => "no_sender",
            Self::NoContainer => "no_container",
            Self::TableFull => "table_full",
            Self::Unreadable => "unreadable",
            Self::Estimated => "estimated",
        }
    }
}

/// Which program counts, and what the set of drop counters is. One element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DropControl {
    /// [`DROPS_VERSION`] of the creator. First, so that every version can read it.
    pub version: u32,
    /// The number of the program that counts. Any other that is attached does nothing, so that one program
    /// takes over from another between two packets.
    pub active: u32,
    /// When the counters were created, in seconds since the Unix epoch.
    pub created_unix_s: u64,
    /// The kernel's id of the map `META` of the counters that the active program reads.
    pub meta_map_id: u32,
    /// The inode of the network namespace whose drops are counted.
    pub namespace_inode: u32,
    /// Bits of [`drop_lacks`].
    pub lacks: u32,
    /// Unused.
    pub reserved: u32,
    /// What names the active program: the first bytes of the SHA-256 of its object file.
    pub program: u64,
}

/// What the running kernel does not offer to the drop program, in [`DropControl::lacks`].
pub mod drop_lacks {
    /// Reasons (before 5.17). Every drop is in the group `other`.
    pub const REASONS: u32 = 1;
    /// The names of the kernel's own functions (before 5.13). A super-packet of which every segment is dropped
    /// may count twice, as may a fragment and its packet, and what a full sniffer discards counts as lost.
    pub const PLACES: u32 = 2;
}

/// What the program knows of the running kernel, in its read-only data. Offsets are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are named after the kernel's, `structure_member`")]
pub struct DropLayout {
    /// The program's number; see [`DropControl::active`].
    pub number: u32,
    /// Inode of the network namespace whose drops are counted.
    pub namespace_inode: u32,
    /// 1 if the tracepoint states a reason.
    pub has_reason: u32,
    /// 1 if the program may ask for the name of the place.
    pub has_places: u32,
    /// Number of the qdisc subsystem of reasons; 0 where there is none.
    pub qdisc_subsystem: u32,
    /// 1 if segmentation removes the hop-by-hop header of an IPv6 BIG TCP buffer.
    pub jumbo_is_removed: u32,
    pub skb_len: u32,
    pub skb_data_len: u32,
    pub skb_head: u32,
    pub skb_data: u32,
    pub skb_end: u32,
    pub skb_network_header: u32,
    pub skb_transport_header: u32,
    pub skb_inner_transport_header: u32,
    pub skb_protocol: u32,
    pub skb_iif: u32,
    pub skb_dev: u32,
    /// `pkt_len` of `qdisc_skb_cb`, in `sk_buff::cb`.
    pub skb_pkt_len: u32,
    pub skb_tc_at_ingress: u32,
    pub skb_tc_at_ingress_mask: u32,
    pub skb_redirected: u32,
    pub skb_redirected_mask: u32,
    pub skb_from_ingress: u32,
    pub skb_from_ingress_mask: u32,
    pub skb_pkt_type: u32,
    pub skb_pkt_type_shift: u32,
    pub net_device_ifindex: u32,
    pub net_device_net: u32,
    pub net_inum: u32,
    pub shared_gso_size: u32,
    pub shared_gso_segs: u32,
    pub shared_gso_type: u32,
}

/// The kind of each reason, in the program's read-only data. See [`drop_kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DropReasons {
    /// By number in the kernel's core enumeration.
    pub core: [u8; CORE_REASONS],
    /// By number in the enumeration of qdiscs.
    pub qdisc: [u8; QDISC_REASONS],
}

const _: () = {
    assert!(size_of::<DropKey>() == 12);
    assert!(offset_of!(DropKey, column) == 8 && offset_of!(DropKey, group) == 11);
    assert!(size_of::<DropControl>() == 40);
    assert!(offset_of!(DropControl, created_unix_s) == 8 && offset_of!(DropControl, program) == 32);
    assert!(size_of::<DropLayout>() == 32 * 4);
    assert!(size_of::<DropReasons>() == CORE_REASONS + QDISC_REASONS);
};
