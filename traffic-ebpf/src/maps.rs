//! Every map the program reads or counts in, and the values the loader fixes before it is loaded.
//!
//! All maps are pinned by userspace under their names here. Their values are defined in `traffic_common::layout`. The
//! capacities written here are placeholders where the loader sets its own.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, PerCpuArray},
    macros::btf_map,
};
use traffic_common::{
    ClassCounters, ContainerRecord, Control, FaultCounters, INDEX_V4_BLOCK_BYTES, INDEX_V4_BLOCKS,
    INDEX_V6_BLOCK_ENTRIES, INDEX_V6_BLOCKS, INTERFACE_INDEX_ENTRIES, InterfaceCounters, InterfaceEntry,
    InterfaceRecord, Meta, RANGE_NODE_CHILDREN, gso::SkbLayout, interface_flags,
};

/// Offsets in the kernel's `sk_buff`. Read-only data, frozen before load: the verifier folds them into constants.
#[unsafe(no_mangle)]
static SKB_LAYOUT: SkbLayout =
    SkbLayout { known: 0, head: 0, data: 0, end: 0, inner_transport_header: 0, gso_type: 0 };

/// The offsets as the loader set them, not as the compiler sees them.
#[inline(always)]
pub fn skb_layout() -> SkbLayout {
    // SAFETY: a valid static; volatile because its bytes are replaced before load.
    unsafe { core::ptr::read_volatile(&raw const SKB_LAYOUT) }
}

/// ifindex -> entry, for every index below [`INTERFACE_INDEX_ENTRIES`]. Written by userspace before it attaches.
#[btf_map]
pub static INTERFACE_BY_INDEX: Array<InterfaceEntry, { INTERFACE_INDEX_ENTRIES as usize }> = Array::new();

/// ifindex -> entry, for the higher indexes of a node that has seen very many interfaces. Full: attach is refused.
#[btf_map]
pub static INTERFACE_BY_HIGH_INDEX: HashMap<u32, InterfaceEntry, 4096> = HashMap::new();

/// Local IPv4 prefix -> container slot, for shared interfaces. Written by userspace. Full: the address is refused.
#[btf_map]
pub static ADDRESSES_V4: LpmTrie<[u8; 4], u32, 65_536> = LpmTrie::new();

/// Local IPv6 prefix -> container slot, likewise.
#[btf_map]
pub static ADDRESSES_V6: LpmTrie<[u8; 16], u32, 65_536> = LpmTrie::new();

/// The node's own addresses, for uplinks: IPv4 as mapped into IPv6. Written by userspace. Full: the rest is not counted for
/// the node, and userspace says so. Room is taken as it is needed.
#[btf_map]
pub static NODE_ADDRESSES: HashMap<[u64; 2], u32, 65_536, 1> = HashMap::new();

/// A compiled class table of one family: peer's prefix -> column. No prefix: [`traffic_common::CLASS_ZERO_COLUMN`].
pub type ClassTrieV4 = LpmTrie<[u8; 4], u32, 1>;
/// The same for IPv6.
pub type ClassTrieV6 = LpmTrie<[u8; 16], u32, 1>;

/// The two IPv4 class tables; [`CONTROL`] tells which is active. A load puts a whole new trie into the idle place.
#[btf_map]
pub static CLASSES_V4: ArrayOfMaps<ClassTrieV4, 2> = ArrayOfMaps::new();

/// The two IPv6 class tables.
#[btf_map]
pub static CLASSES_V6: ArrayOfMaps<ClassTrieV6, 2> = ArrayOfMaps::new();

/// Column of each IPv4 prefix of 24 bits, or [`traffic_common::INDEX_ASK_TRIE`]: one load answers for most packets.
pub type ClassIndexV4 = Array<[u8; INDEX_V4_BLOCK_BYTES], { INDEX_V4_BLOCKS as usize }>;

/// The indexes before the two IPv4 class tables. A place may be empty; then the trie is asked for every packet.
#[btf_map]
pub static CLASS_INDEX_V4: ArrayOfMaps<ClassIndexV4, 2> = ArrayOfMaps::new();

/// Entries of the IPv6 index: what each prefix of 25 bits in 2000::/3 is, or the root of a search tree.
pub type ClassIndexV6 = Array<[u32; INDEX_V6_BLOCK_ENTRIES], { INDEX_V6_BLOCKS as usize }>;
/// The nodes of its search trees, each the words of a [`traffic_common::RangeNode`]. The inner map may have any size
/// (`BPF_F_INNER_MAP`): tables differ much. Its value is no struct, because kernels 5.15 to 6.1 would then refuse every map
/// made without type information in its place: they note of a struct that it has no timer, and of anything else nothing.
pub type ClassRangesV6 = Array<[u64; RANGE_NODE_CHILDREN], 1, 0x1000>;

/// The indexes before the two IPv6 class tables; a place may be empty.
#[btf_map]
pub static CLASS_INDEX_V6: ArrayOfMaps<ClassIndexV6, 2> = ArrayOfMaps::new();

/// The search trees of the two IPv6 indexes.
#[btf_map]
pub static CLASS_RANGES_V6: ArrayOfMaps<ClassRangesV6, 2> = ArrayOfMaps::new();

/// The word that switches tables, and the width of a container's row in [`CLASS_COUNTERS`]. One element.
#[btf_map]
pub static CONTROL: Array<Control, 1> = Array::new();

/// container slot * columns + column -> counters. The program only ever adds, and userspace only reads.
#[btf_map]
pub static CLASS_COUNTERS: PerCpuArray<ClassCounters, 1> = PerCpuArray::new();

/// interface slot -> what passed.
#[btf_map]
pub static INTERFACE_COUNTERS: PerCpuArray<InterfaceCounters, 1> = PerCpuArray::new();

/// interface slot -> faults and estimates.
#[btf_map]
pub static FAULT_COUNTERS: PerCpuArray<FaultCounters, 1> = PerCpuArray::new();

/// container slot -> its owner. Userspace only.
#[btf_map]
pub static CONTAINERS: Array<ContainerRecord, 1> = Array::new();

/// interface slot -> its owner. Userspace only.
#[btf_map]
pub static INTERFACES: Array<InterfaceRecord, 1> = Array::new();

/// Like [`CLASS_COUNTERS`], but one for all CPUs: what a slot held when its present owner got it. Userspace only.
#[btf_map]
pub static CLASS_BASES: Array<ClassCounters, 1> = Array::new();

/// The same for [`INTERFACE_COUNTERS`].
#[btf_map]
pub static INTERFACE_BASES: Array<InterfaceCounters, 1> = Array::new();

/// The same for [`FAULT_COUNTERS`].
#[btf_map]
pub static FAULT_BASES: Array<FaultCounters, 1> = Array::new();

/// container slot -> its id times 32: what the shaping mark begins with. 0: its packets are not marked. 64 bits, which the
/// kernel takes for an element anyway. Read by [`crate::trafctl_ingress_mark`] only.
#[btf_map]
pub static SHAPING_MARKS: Array<u64, 1> = Array::new();

/// What this set of maps is. Written by userspace, and read by userspace, and for the classes of columns by
/// [`crate::shaping`].
#[btf_map]
pub static META: Array<Meta, 1> = Array::new();

/// The interface's entry, or `None` if userspace never made one.
#[inline(always)]
pub fn interface(ifindex: u32) -> Option<&'static InterfaceEntry> {
    let entry = if ifindex < INTERFACE_INDEX_ENTRIES {
        INTERFACE_BY_INDEX.get(ifindex)
    } else {
        // SAFETY: the value is read only; a torn read during an update is excluded because updates replace elements.
        unsafe { INTERFACE_BY_HIGH_INDEX.get(&ifindex) }
    };
    entry.filter(|entry| entry.flags & (interface_flags::PRESENT | interface_flags::UPLINK) != 0)
}
