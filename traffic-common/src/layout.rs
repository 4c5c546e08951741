//! The values of the pinned maps.
//!
//! A change of any size, offset or meaning here must raise [`LAYOUT_VERSION`]: pinned maps outlive the program that
//! made them, and a reader must never take one layout for another.

use core::mem::{offset_of, size_of};

/// Version of everything in this module. Kept in [`Meta::layout_version`]; maps of another version are refused.
pub const LAYOUT_VERSION: u32 = 2;

/// Name of the classifier on the host-side ingress hook: packets *out of* the container.
pub const INGRESS_PROGRAM: &str = "trafctl_ingress";
/// Name of the classifier on the host-side egress hook: packets *in to* the container.
pub const EGRESS_PROGRAM: &str = "trafctl_egress";

/// Name of the classifier that stands in the place of [`INGRESS_PROGRAM`] where the shaping mark is configured. The kernel cuts
/// names after 15 bytes, so that both have the same name there.
pub const INGRESS_MARK_PROGRAM: &str = "trafctl_ingress_mark";

/// Interfaces with an index below this are found by one array load, others through a hash.
pub const INTERFACE_INDEX_ENTRIES: u32 = 65_536;
/// Longest container id in bytes; a UUID in braces has 38.
pub const CONTAINER_ID_BYTES: usize = 64;
/// `IFNAMSIZ`: an interface name with its closing zero.
pub const INTERFACE_NAME_BYTES: usize = 16;
/// The column of class 0, which exists in every table: what nothing matches is class 0.
pub const CLASS_ZERO_COLUMN: u32 = 0;
/// The shaping mark has room for classes below this: it is the container's id times this, and the class.
pub const MARK_CLASSES: u32 = 32;
/// The interface slot that takes what arrives on an interface without an entry, so that nothing goes uncounted.
pub const UNKNOWN_INTERFACE_SLOT: u32 = 0;
/// Blocks of the IPv4 index: 64 bytes each, because the kernel pads a smaller element to 8 bytes.
pub const INDEX_V4_BLOCKS: u32 = 1 << 18;
/// Bytes of such a block, each for one of the 2^24 prefixes of 24 bits.
pub const INDEX_V4_BLOCK_BYTES: usize = 64;
/// Bits of a prefix of 24 that stay within a block.
pub const INDEX_V4_BLOCK_BITS: u32 = 6;
/// In an index: longer prefixes than it knows lie here, so the trie has to be asked. Any other value is a column.
pub const INDEX_ASK_TRIE: u8 = u8::MAX;

/// The first three bits of 2000::/3, the addresses that the IPv6 index covers; elsewhere the trie is asked.
pub const INDEX_V6_SPACE: u64 = 0b001;
/// Bits of an address within that space that the index knows: the upper half of the address less the first three.
pub const INDEX_V6_BITS: u32 = 61;
/// Bits of those that find an entry at once: prefixes of 25 bits.
pub const INDEX_V6_ENTRY_BITS: u32 = 22;
/// Blocks of entries in the IPv6 index.
pub const INDEX_V6_BLOCKS: u32 = 1 << 18;
/// Entries of such a block, which fills a cache line.
pub const INDEX_V6_BLOCK_ENTRIES: usize = 16;
/// In an entry of the IPv6 index, from this bit on: the height of the search tree that the lower bits name the root
/// of. Height 0: there is no tree, the entry is a column or [`INDEX_ASK_TRIE`].
pub const INDEX_V6_HEIGHT_SHIFT: u32 = 28;
/// Greatest height of a search tree. Eight levels of eight children tell more ranges than memory holds.
pub const INDEX_V6_MAX_HEIGHT: u32 = 8;
/// Children of a node of a search tree; of a leaf: ranges.
pub const RANGE_NODE_CHILDREN: usize = 8;
/// Most columns a counter set can have: classes 0 to 254.
pub const MAX_COLUMNS: u32 = 255;

/// Direction as the container sees it. The only notion of direction a user ever meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Direction {
    /// To the container: TC egress of the host-side interface.
    In = 0,
    /// From the container: TC ingress of the host-side interface.
    Out = 1,
}

impl Direction {
    /// The other one.
    pub const fn reversed(self) -> Self {
        match self {
            Self::In => Self::Out,
            Self::Out => Self::In,
        }
    }
}

/// Number of [`Direction`]s.
pub const DIRECTIONS: usize = 2;

/// Address family of a counted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Family {
    /// IPv4.
    Ipv4 = 0,
    /// IPv6.
    Ipv6 = 1,
}

impl Family {
    /// Both families, in the order of their numbers.
    pub const ALL: [Self; FAMILIES] = [Self::Ipv4, Self::Ipv6];

    /// The name used in output: `ipv4` or `ipv6`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

/// Number of [`Family`] values.
pub const FAMILIES: usize = 2;

/// Why a packet is in no class counter. Every early return of the kernel program names one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Fault {
    /// The frame carries no IP: ARP, LLDP, spanning tree and the like.
    NotIp = 0,
    /// The packet ends before its IP header does.
    Truncated = 1,
    /// The version nibble contradicts the protocol, or the IPv4 header length is below 20 bytes.
    Malformed = 2,
    /// More in-band VLAN tags than the two that are looked through.
    VlanDepth = 3,
    /// On a shared interface: the local address belongs to no container.
    NoContainer = 4,
    /// The interface's container got no counter slot because all were taken.
    ContainerTableFull = 5,
    /// The program ran on an interface that userspace never registered.
    UnknownInterface = 6,
    /// No class table is loaded; cannot happen after a successful attach.
    NoClassTable = 7,
    /// A slot or column number lies outside its map; cannot happen unless maps were tampered with.
    NoCounter = 8,
    /// On an uplink: neither from nor to an address of the node's own. A container's, counted where it is at home, or a
    /// stranger's; no fault of anybody.
    NotTheNodes = 9,
}

/// Number of [`Fault`]s.
pub const FAULTS: usize = 10;
/// Places for faults in a map value; the spare ones let a newer program add a fault without a new layout.
pub const FAULT_PLACES: usize = 16;

impl Fault {
    /// All faults, in the order of their numbers.
    pub const ALL: [Self; FAULTS] = [
        Self::NotIp,
        Self::Truncated,
        Self::Malformed,
        Self::VlanDepth,
        Self::NoContainer,
        Self::ContainerTableFull,
        Self::UnknownInterface,
        Self::NoClassTable,
        Self::NoCounter,
        Self::NotTheNodes,
    ];

    /// The name used in output and in the ledger; never changes once released.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::VlanDepth => "vlan_depth",
            Self::NoContainer => "no_container",
            Self::ContainerTableFull => "container_table_full",
            Self::UnknownInterface => "unknown_interface",
            Self::NoClassTable => "no_class_table",
            Self::NoCounter => "no_counter",
            Self::NotTheNodes => "not_the_nodes",
        }
    }
}

/// Packets on the wire and their layer-3 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Tally {
    /// Packets as the wire carries them, after segmentation.
    pub packets: u64,
    /// Bytes from the start of each IP header to the end of what is carried, headers of every segment included.
    pub bytes: u64,
}

impl core::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// One container's traffic of one class: the element of the counter map, one cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ClassCounters {
    /// Indexed by [`Family`], then by [`Direction`].
    pub tallies: [[Tally; DIRECTIONS]; FAMILIES],
}

/// What passed an interface in one direction, whatever became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Passed {
    /// As on the wire; equals the sum of class counters and faults.
    pub wire: Tally,
    /// Socket buffers; compares with the kernel's packet statistics of the interface.
    pub skbs: u64,
    /// Their lengths with the link-layer header; compares with the kernel's byte statistics of the interface.
    pub skb_bytes: u64,
}

/// Everything that passed one interface, one cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct InterfaceCounters {
    /// Indexed by [`Direction`].
    pub passed: [Passed; DIRECTIONS],
}

/// The rarely touched counters of one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FaultCounters {
    /// Indexed by [`Direction`], then by [`Fault`].
    pub faults: [[Tally; FAULT_PLACES]; DIRECTIONS],
    /// By [`Direction`]: packets that *are* in a class or fault counter, but whose size on the wire came from the plain
    /// rule because the kernel's segmentation type could not be read or is not known.
    pub estimated: [Tally; DIRECTIONS],
}

/// What the program knows of an interface, found by its index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct InterfaceEntry {
    /// Bits of [`interface_flags`]; zero means that there is no entry.
    pub flags: u32,
    /// Where its totals and faults are counted.
    pub interface_slot: u32,
    /// Its container's counters; meaningless with [`interface_flags::SHARED`] or [`interface_flags::NO_SLOT`].
    pub container_slot: u32,
    /// Bytes before the network header: 14 with Ethernet, 0 on a layer-3 device.
    pub link_header_len: u32,
}

/// Bits of [`InterfaceEntry::flags`].
pub mod interface_flags {
    /// The entry is in use.
    pub const PRESENT: u32 = 1;
    /// Many containers share the interface; the local address tells which.
    pub const SHARED: u32 = 2;
    /// No container slot was free: everything is [`super::Fault::ContainerTableFull`].
    pub const NO_SLOT: u32 = 4;
    /// An uplink of the node, instead of [`PRESENT`]: its own traffic passes here beside that of others, and *ingress* is
    /// in to it. Without `PRESENT`, so that the program's common path need not ask.
    pub const UPLINK: u32 = 8;
}

/// An address as the key of the node's own addresses: IPv4 as it is mapped into IPv6.
pub const fn node_address_v4([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// The value of a local address on a shared interface that has an owner but no counter slot.
pub const ADDRESS_WITHOUT_SLOT: u32 = u32::MAX;

/// Which of the two class tables is in force. Read once a packet, so that a packet never sees parts of both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// 0 or 1: index into each map of class tables.
    pub active_table: u32,
    /// Number of columns a container has in the counter map.
    pub columns: u32,
}

/// A node of the search trees behind the IPv6 index, one cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RangeNode {
    /// First address of every child but the first, ascending, in [`INDEX_V6_BITS`] bits; [`RangeNode::NO_CHILD`] where
    /// there are fewer.
    pub starts: [u64; RANGE_NODE_CHILDREN - 1],
    /// In a leaf: the column of each child (or [`INDEX_ASK_TRIE`]), a byte each, the first in the lowest. In a node
    /// above: number of the first child; the others follow it.
    pub children: u64,
}

impl RangeNode {
    /// Above every address: the child is not there.
    pub const NO_CHILD: u64 = 1 << 62;

    /// Which child an address of [`INDEX_V6_BITS`] bits belongs to.
    #[inline(always)]
    pub fn child(&self, address: u64) -> u32 {
        // Both numbers are below 2^63, so the sign of the difference is the comparison, without a branch.
        let mut child = RANGE_NODE_CHILDREN as u64 - 1;
        for start in self.starts {
            child -= address.wrapping_sub(start) >> 63;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most seven")]
        return child as u32;
    }

    /// What a leaf says of a child: a column or [`INDEX_ASK_TRIE`].
    #[inline(always)]
    pub fn column(&self, child: u32) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "one byte of it")]
        return (self.children >> (child * 8)) as u32 & 0xff;
    }
}

/// State of a slot record.
pub mod slot_state {
    /// Never used, or given up by an owner that was gone. What was counted in it until then is in nobody's name, and
    /// becomes the slot's base when it goes to the next owner.
    pub const FREE: u32 = 0;
    /// Belongs to the named container or interface, which exists or may come back.
    pub const IN_USE: u32 = 1;
    /// Its owner was retired: the counters stay until the slot is given away, a returning owner gets another slot.
    pub const RETIRED: u32 = 2;
}

/// Who owns a container slot. Written and read by userspace only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ContainerRecord {
    /// One of [`slot_state`].
    pub state: u32,
    /// Raised each time the slot goes to another container; 0 before the first. Stays when the slot is freed.
    pub generation: u32,
    /// When this container first got the slot, in seconds since the Unix epoch.
    pub since_unix_s: u64,
    /// The id in UTF-8, padded with zeros.
    pub id: [u8; CONTAINER_ID_BYTES],
}

/// The kernel's own statistics of an interface, in the container's directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct InterfaceStatistics {
    /// Buffers, by [`Direction`].
    pub packets: [u64; DIRECTIONS],
    /// Bytes with the link-layer header, by [`Direction`].
    pub bytes: [u64; DIRECTIONS],
}

/// Who owns an interface slot. Written and read by userspace only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct InterfaceRecord {
    /// One of [`slot_state`].
    pub state: u32,
    /// Raised each time the slot goes to another interface; 0 before the first. Stays when the slot is freed.
    pub generation: u32,
    /// The interface's index while it exists, 0 after it went.
    pub ifindex: u32,
    /// The container's slot, or `u32::MAX` for a shared interface or one without a slot.
    pub container_slot: u32,
    /// 1 where many containers share it.
    pub shared: u32,
    /// Bytes before the network header.
    pub link_header_len: u32,
    /// When the program was attached to the interface of this index, in seconds since the Unix epoch.
    pub attached_unix_s: u64,
    /// The kernel's statistics just before that.
    pub kernel_before: InterfaceStatistics,
    /// Our own totals (buffers and their bytes) at that moment, since a slot outlives its interface.
    pub counted_before: InterfaceStatistics,
    /// When the interface went, in seconds since the Unix epoch; 0 while it exists.
    pub gone_unix_s: u64,
    /// What the kernel counted on this slot's interfaces while the program was not attached to them. Only grows.
    pub unseen: InterfaceStatistics,
    /// The name in UTF-8, padded with zeros.
    pub name: [u8; INTERFACE_NAME_BYTES],
    /// The id of its container as text, padded with zeros; empty when shared.
    pub container: [u8; CONTAINER_ID_BYTES],
}

/// What the set of maps is. One element; written by userspace under its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Meta {
    /// [`LAYOUT_VERSION`] of the maker. First, so that every version can read it.
    pub layout_version: u32,
    /// 0 until the set is complete: a crash during creation is told from a finished set.
    pub ready: u32,
    /// Random number of this set of counters: a consumer that sees another starts from zero.
    pub epoch: u64,
    /// When the set was made, in seconds since the Unix epoch.
    pub created_unix_s: u64,
    /// The kernel's boot id, as text without a closing zero.
    pub boot_id: [u8; 36],
    /// Capacity for containers.
    pub container_slots: u32,
    /// Capacity for interfaces.
    pub interface_slots: u32,
    /// Capacity for classes in use.
    pub columns: u32,
    /// Columns given to classes so far.
    pub columns_used: u32,
    /// Version of the program on the links: major, minor and patch as `major << 20 | minor << 10 | patch`.
    pub program_version: u32,
    /// SHA-256 of the program's object file.
    pub program_hash: [u8; 32],
    /// SHA-256 that names the class table in force.
    pub table_hash: [u8; 32],
    /// When that table was loaded, in seconds since the Unix epoch.
    pub table_loaded_unix_s: u64,
    /// Its prefixes after compilation.
    pub table_prefixes: u64,
    /// Class of each column; only the first [`Meta::columns_used`] count.
    pub column_class: [u8; 256],
}

const _: () = {
    assert!(size_of::<Tally>() == 16);
    assert!(size_of::<ClassCounters>() == 64);
    assert!(size_of::<Passed>() == 32);
    assert!(offset_of!(Passed, skbs) == 16);
    assert!(offset_of!(Passed, skb_bytes) == 24);
    assert!(size_of::<InterfaceCounters>() == 64);
    assert!(size_of::<FaultCounters>() == 2 * 16 * 16 + 2 * 16);
    assert!(offset_of!(FaultCounters, estimated) == 512);
    assert!(size_of::<InterfaceEntry>() == 16);
    assert!(size_of::<RangeNode>() == 64);
    assert!(offset_of!(RangeNode, children) == 56);
    assert!(INDEX_V6_BLOCKS as usize * INDEX_V6_BLOCK_ENTRIES == 1 << INDEX_V6_ENTRY_BITS);
    assert!(offset_of!(InterfaceEntry, interface_slot) == 4);
    assert!(offset_of!(InterfaceEntry, container_slot) == 8);
    assert!(offset_of!(InterfaceEntry, link_header_len) == 12);
    assert!(size_of::<Control>() == 8);
    assert!(size_of::<ContainerRecord>() == 80);
    assert!(offset_of!(ContainerRecord, id) == 16);
    assert!(size_of::<InterfaceStatistics>() == 32);
    assert!(size_of::<InterfaceRecord>() == 216);
    assert!(offset_of!(InterfaceRecord, attached_unix_s) == 24);
    assert!(offset_of!(InterfaceRecord, kernel_before) == 32);
    assert!(offset_of!(InterfaceRecord, name) == 136);
    assert!(size_of::<Meta>() == 416);
    assert!(offset_of!(Meta, epoch) == 8);
    assert!(offset_of!(Meta, container_slots) == 60);
    assert!(offset_of!(Meta, table_hash) == 112);
    assert!(offset_of!(Meta, column_class) == 160);
    assert!(FAULTS <= FAULT_PLACES);
    assert!(INDEX_V4_BLOCK_BYTES == 1 << INDEX_V4_BLOCK_BITS);
    assert!(INDEX_V4_BLOCKS as usize * INDEX_V4_BLOCK_BYTES == 1 << 24);
    assert!(MAX_COLUMNS <= INDEX_ASK_TRIE as u32);
};

#[cfg(feature = "user")]
mod pod {
    use super::*;

    // SAFETY (all of them): `repr(C)`, every field an integer or an array of integers, no padding (the sizes above are
    // the sums of the fields), so any byte pattern is a value and every byte is initialised.
    macro_rules! pod {
        ($($t:ty),*) => { $(
            // SAFETY: see above the macro.
            unsafe impl aya::Pod for $t {}
        )* };
    }
    pod!(
        ClassCounters,
        InterfaceCounters,
        FaultCounters,
        InterfaceEntry,
        Control,
        ContainerRecord,
        InterfaceRecord,
        Meta,
        RangeNode
    );
}
