//! Every map of the program, and the constants that the loader sets before load.
//!
//! Userspace creates all maps and pins them under the names used here. Their values are defined in
//! `traffic_common::layout`. Each comment states key, value, writer, reader, and what happens when the map is
//! full. "Program" means the classifiers, "userspace" means `traffic-user/src/kernel`. The program never
//! inserts into a map.
//!
//! Capacities of 1 are placeholders: the loader sets the configured ones.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, PerCpuArray},
    macros::btf_map,
};
use traffic_common::{
    ARRAYS_PER_TABLE, CARRIED_IPSEC, ClassBlock, ClassCounters, FaultCounters, INTERFACE_INDEX_ENTRIES,
    InterfaceCounters, InterfaceEntry, InterfaceRecord, Meta, SHADOW_ARRAYS, SHADOW_BLOCKS, ShadowControl,
    gso::SkbLayout, interface_flags,
};

pub use crate::{finding::*, interfaces::*};

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

// The shadow class table. Empty while there is none.

/// How the shadow is read.
///
/// Key: 0; value: control words. Writer: userspace. Reader: program, for each packet while the word in
/// [`CLASS_CONTROL`] says that there is a shadow. Full: impossible.
#[btf_map]
pub static SHADOW_CONTROL: Array<ShadowControl, 1> = Array::new();

/// The shadow's table, whose columns are pairs of classes. Otherwise as [`CLASS_LINES`], with one place.
#[btf_map]
pub static SHADOW_LINES: ArrayOfMaps<ClassArray, { ARRAYS_PER_TABLE as usize }> = ArrayOfMaps::new();

/// A part of the shadow's counters.
pub type ShadowArray = PerCpuArray<ClassBlock, { SHADOW_BLOCKS as usize }>;

/// The traffic of each container and pair of classes.
///
/// The counters have the order of [`CLASS_COUNTERS`], with pairs for columns, and lie in inner arrays, so that they
/// take no memory while there is no shadow. Key: index of the counter / `SHADOW_BLOCKS`; value: an array. Writer of
/// the arrays: userspace; of the counters: program. Reader: userspace. Full: a shadow that needs more is refused.
#[btf_map]
pub static SHADOW_COUNTERS: ArrayOfMaps<ShadowArray, { SHADOW_ARRAYS as usize }> = ArrayOfMaps::new();

/// What this set of maps is: layout, epoch, capacities, program, class table, and the class of each column.
///
/// Key: 0; value: description. Writer: userspace. Reader: userspace, and [`crate::shaping`] for the classes.
/// Full: impossible.
#[btf_map]
pub static META: Array<Meta, 1> = Array::new();

/// The interface's entry. `None` if userspace has not written one for an interface that is counted.
#[inline(always)]
pub fn interface(ifindex: u32) -> Option<&'static InterfaceEntry> {
    entry_of(ifindex).filter(|entry| entry.flags & (interface_flags::PRESENT | interface_flags::UPLINK) != 0)
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
