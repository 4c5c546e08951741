//! The maps by which an interface is known. All programs read them.
//!
//! As in `maps.rs`, each comment states key, value, writer, reader, and what happens when the map is full.

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    macros::btf_map,
};
use traffic_common::{INTERFACE_INDEX_ENTRIES, InterfaceEntry};

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

/// What userspace has written for an interface. `None` or zeros if nothing.
#[inline(always)]
pub fn entry_of(ifindex: u32) -> Option<&'static InterfaceEntry> {
    if ifindex < INTERFACE_INDEX_ENTRIES {
        INTERFACE_BY_INDEX.get(ifindex)
    } else {
        // SAFETY: the value is only read. An update replaces the whole element, so there are no torn reads.
        unsafe { INTERFACE_BY_HIGH_INDEX.get(&ifindex) }
    }
}
