//! The maps by which a packet's container and class are found. The classifiers and the drop program read them. By
//! which entry an interface is known is in `interfaces.rs`.
//!
//! As in `maps.rs`, each comment states key, value, writer, reader, and what happens when the map is full.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie},
    macros::btf_map,
};
use traffic_common::{ARRAY_WORDS, ARRAYS_PER_TABLE, ContainerRecord, Control};

// Finding the container.

/// Local IPv4 addresses on shared interfaces, and those of containers' devices on an uplink.
///
/// Key: prefix; value: container slot, or `ADDRESS_WITHOUT_SLOT`, and `ADDRESS_ON_UPLINK` where it is on an
/// uplink. Writer: userspace. Reader: program. Full: the address is refused with a message, and all others stay.
#[btf_map]
pub static ADDRESSES_V4: LpmTrie<[u8; 4], u32, 65_536> = LpmTrie::new();

/// Local IPv6 addresses. Otherwise as [`ADDRESSES_V4`].
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

/// The owner of each container slot.
///
/// Key: container slot; value: record. Writer: userspace. Reader: userspace, and the drop program for the
/// generation. Full: a container without a slot is counted as the fault `ContainerTableFull`.
#[btf_map]
pub static CONTAINERS: Array<ContainerRecord, 1> = Array::new();
