//! Every map of the program, and the constants that the loader sets before load.
//!
//! Userspace creates all maps and pins them under the names used here. Their values are defined in
//! `traffic_common::layout`. Each comment states key, value, writer, reader, and what happens when the map is
//! full. "Program" means the classifiers, "userspace" means `traffic-user/src/kernel`. The program never
//! inserts into a map.
//!
//! Capacities of 1 are placeholders: the loader sets the configured ones.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, PerCpuArray},
    macros::btf_map,
};
use traffic_common::{
    ARRAY_WORDS, ARRAYS_PER_TABLE, CARRIED_IPSEC, ClassBlock, ClassCounters, ContainerRecord, Control,
    FaultCounters, INTERFACE_INDEX_ENTRIES, InterfaceCounters, InterfaceEntry, InterfaceRecord, Meta,
    gso::SkbLayout, interface_flags,
};

/// What the loader knows of the running kernel. Read-only data, frozen before load.
#[unsafe(no_mangle)]
pub static SKB_LAYOUT: SkbLayout = SkbLayout {
    known: 0,
    head: 0,
    data: 0,
    end: 0,
    inner_transport_header: 0,
    gso_type: 0,
    transport_header: 0,
    network_header: 0,
    tc_skip_classify: 0,
    tc_skip_classify_mask: 0,
    jumbo_is_removed: 0,
    interleaves: 0,
    sec_path_mask: 0,
    active_extensions: 0,
    extensions: 0,
    sec_path_at: 0,
    sec_path_len: 0,
    sec_path_olen: 0,
    sec_path_flags: 0,
};

/// Reads one field of [`SKB_LAYOUT`] as set by the loader. Each by itself: of a copy on the stack, the
/// verifier would not know that it is a constant.
macro_rules! of_kernel {
    ($field:ident) => {
        // SAFETY: a valid static; volatile because the loader replaces its bytes, which the compiler does not
        // see.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::SKB_LAYOUT.$field) }
    };
}
pub(crate) use of_kernel;

// Finding the container.

/// The interface entries of all but very high indexes.
///
/// Key: ifindex below [`INTERFACE_INDEX_ENTRIES`]; value: entry, or zeros without one. Writer: userspace,
/// before it attaches. Reader: program. Full: impossible, since every such index has an element.
#[btf_map]
pub static INTERFACE_BY_INDEX: Array<InterfaceEntry, { INTERFACE_INDEX_ENTRIES as usize }> = Array::new();

/// The interface entries of higher indexes, on a node that has had very many interfaces.
///
/// Key: ifindex; value: entry. Writer: userspace, before it attaches. Reader: program. Full: attach is
/// refused.
#[btf_map]
pub static INTERFACE_BY_HIGH_INDEX: HashMap<u32, InterfaceEntry, 4096> = HashMap::new();

/// Local IPv4 addresses on shared interfaces.
///
/// Key: prefix; value: container slot, or `ADDRESS_WITHOUT_SLOT`. Writer: userspace. Reader: program. Full:
/// the address is refused with a message, and all others stay.
#[btf_map]
pub static ADDRESSES_V4: LpmTrie<[u8; 4], u32, 65_536> = LpmTrie::new();

/// Local IPv6 addresses on shared interfaces. Otherwise as [`ADDRESSES_V4`].
#[btf_map]
pub static ADDRESSES_V6: LpmTrie<[u8; 16], u32, 65_536> = LpmTrie::new();

/// The node's own addresses, for uplinks.
///
/// Key: IPv6 address, or IPv4 mapped into IPv6; value: unused. Writer: userspace. Reader: program. Full: the
/// address is not counted for the node, and userspace reports it. Elements are allocated on demand.
#[btf_map]
pub static NODE_ADDRESSES: HashMap<[u64; 2], u32, 65_536, 1> = HashMap::new();

// Finding the class.

/// A part of a class table: 504 lines.
///
/// The kernel allocates up to 32 KiB from its direct map, where an address is translated by few entries of
/// the TLB. A value of one size for all tables lets the program's lookups be inlined, which
/// `BPF_F_INNER_MAP` does not.
pub type ClassArray = Array<[u64; ARRAY_WORDS], 1>;

/// The two class tables, each as a sequence of lines in inner arrays.
///
/// Key: number of the array, those of the second table from `ARRAYS_PER_TABLE` on; value: an array. The
/// layout is described in `traffic_common::layout`. Writer: userspace, which fills the places of the idle
/// table. Reader: program. Full: the table is refused before it is written.
#[btf_map]
pub static CLASS_LINES: ArrayOfMaps<ClassArray, { 2 * ARRAYS_PER_TABLE as usize }> = ArrayOfMaps::new();

/// The word that switches tables, and the width of a container's row in [`CLASS_COUNTERS`].
///
/// Key: 0; value: control words. Writer: userspace. Reader: program, once per packet. Full: impossible.
#[btf_map]
pub static CLASS_CONTROL: Array<Control, 1> = Array::new();

// Counting. The counters only grow: the program adds, and userspace reads and never resets.

/// The traffic of each container and class.
///
/// Key: container slot * blocks of a container + column / `BLOCK_COLUMNS`; value: counters, per CPU. Writer:
/// program. Reader: userspace. Full: a container without a slot is counted as the fault `ContainerTableFull`.
#[btf_map]
pub static CLASS_COUNTERS: PerCpuArray<ClassBlock, 1> = PerCpuArray::new();

/// The totals of each interface.
///
/// Key: interface slot; value: counters, per CPU. Writer: program. Reader: userspace. Full: further
/// interfaces share the slot `UNKNOWN_INTERFACE_SLOT`.
#[btf_map]
pub static INTERFACE_COUNTERS: PerCpuArray<InterfaceCounters, 1> = PerCpuArray::new();

/// The faults and estimates of each interface. Otherwise as [`INTERFACE_COUNTERS`].
#[btf_map]
pub static FAULT_COUNTERS: PerCpuArray<FaultCounters, 1> = PerCpuArray::new();

// Records of userspace. Their keys are slots, so their capacity is that of the counters.

/// The owner of each container slot.
///
/// Key: container slot; value: record. Writer and reader: userspace. Full: see [`CLASS_COUNTERS`].
#[btf_map]
pub static CONTAINERS: Array<ContainerRecord, 1> = Array::new();

/// The owner of each interface slot.
///
/// Key: interface slot; value: record. Writer and reader: userspace. Full: see [`INTERFACE_COUNTERS`].
#[btf_map]
pub static INTERFACES: Array<InterfaceRecord, 1> = Array::new();

/// What a container slot's counters held when its present owner got it. Readers subtract it.
///
/// Key: container slot * columns + column; value: counters, summed over CPUs. Writer and reader: userspace.
#[btf_map]
pub static CLASS_BASES: Array<ClassCounters, 1> = Array::new();

/// The same for [`INTERFACE_COUNTERS`].
#[btf_map]
pub static INTERFACE_BASES: Array<InterfaceCounters, 1> = Array::new();

/// The same for [`FAULT_COUNTERS`].
#[btf_map]
pub static FAULT_BASES: Array<FaultCounters, 1> = Array::new();

/// What was counted for a slot in the set of maps before this one. Readers add it.
///
/// Key and value: as [`CLASS_BASES`]. Writer: userspace, once, before the set comes into use. Reader:
/// userspace.
#[btf_map]
pub static CLASS_CARRIED: Array<ClassCounters, 1> = Array::new();

/// The same for [`INTERFACE_COUNTERS`].
#[btf_map]
pub static INTERFACE_CARRIED: Array<InterfaceCounters, 1> = Array::new();

/// The same for [`FAULT_COUNTERS`].
#[btf_map]
pub static FAULT_CARRIED: Array<FaultCounters, 1> = Array::new();

/// The skb mark of each container's class 0.
///
/// Key: container slot; value: id * 32, or 0 if its packets are not marked (64 bits, which an element takes
/// anyway). Writer: userspace, when a container gets its slot. Reader: [`crate::trafctl_ingress_mark`]. Full:
/// as [`CLASS_COUNTERS`].
#[btf_map]
pub static SHAPING_MARKS: Array<u64, 1> = Array::new();

/// What this set of maps is: layout, epoch, capacities, program, class table, and the class of each column.
///
/// Key: 0; value: description. Writer: userspace. Reader: userspace, and [`crate::shaping`] for the classes.
/// Full: impossible.
#[btf_map]
pub static META: Array<Meta, 1> = Array::new();

/// The interface's entry. `None` if userspace has not written one.
#[inline(always)]
pub fn interface(ifindex: u32) -> Option<&'static InterfaceEntry> {
    let entry = if ifindex < INTERFACE_INDEX_ENTRIES {
        INTERFACE_BY_INDEX.get(ifindex)
    } else {
        // SAFETY: the value is only read. An update replaces the whole element, so there are no torn reads.
        unsafe { INTERFACE_BY_HIGH_INDEX.get(&ifindex) }
    };
    entry.filter(|entry| entry.flags & (interface_flags::PRESENT | interface_flags::UPLINK) != 0)
}

/// Notes in the interface's entry that it has carried IPsec.
#[inline(always)]
pub fn note_ipsec(ifindex: u32) {
    let entry = if ifindex < INTERFACE_INDEX_ENTRIES {
        INTERFACE_BY_INDEX.get_ptr_mut(ifindex)
    } else {
        INTERFACE_BY_HIGH_INDEX.get_ptr_mut(&ifindex)
    };
    if let Some(entry) = entry {
        // SAFETY: an element of the map. Only this bit changes, and whoever writes the whole element
        // meanwhile writes the same length.
        unsafe { (*entry).link_header_len |= CARRIED_IPSEC };
    }
}
