//! The maps of the drop program, beside those by which it finds container and class ([`crate::finding`]), and
//! the reasons that the loader sets before load.
//!
//! They are pinned in a directory of their own, and live as long as the counters that they belong to.

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    macros::btf_map,
};
use traffic_common::{
    CORE_REASONS, DROP_ENTRIES, DROP_FAULTS, DropControl, DropKey, DropReasons, QDISC_REASONS, Tally,
};

use crate::kernel_layout::of_kernel;

/// What each reason means. Read-only data, frozen before load.
#[unsafe(no_mangle)]
pub static DROP_REASONS: DropReasons = DropReasons { core: [0; CORE_REASONS], qdisc: [0; QDISC_REASONS] };

/// Writes an address of the kernel as the name of the function that it is in.
#[unsafe(no_mangle)]
pub static PLACE_FORMAT: [u8; 4] = *b"%ps\0";

/// What was dropped of each container, class, family and direction, by group.
///
/// Key: a [`DropKey`]; value: packets and bytes, added to atomically. Writer: this program, which also inserts.
/// Reader: userspace, which removes what belongs to former owners of a slot. Full: the drop is counted as the
/// fault `TableFull`. Allocated in advance, because packets are dropped where no memory may be requested.
#[btf_map]
pub static DROP_COUNTERS: HashMap<DropKey, Tally, { DROP_ENTRIES as usize }> = HashMap::new();

/// What could not be attributed.
///
/// Key: a `DropFault`; value: packets and bytes, added to atomically. Writer: this program. Reader: userspace.
/// Full: impossible.
#[btf_map]
pub static DROP_FAULT_COUNTERS: Array<Tally, DROP_FAULTS> = Array::new();

/// Which program counts. Key: 0. Writer: userspace. Reader: this program, once for each drop. Full: impossible.
#[btf_map]
pub static DROP_CONTROL: Array<DropControl, 1> = Array::new();

/// The kind of each place that dropped a packet without a reason, so that its name is asked for only once.
///
/// Key: the address; value: a `drop_kind`. Writer and reader: this program. Full: the name is asked for each
/// time.
#[btf_map]
pub static DROP_PLACES: HashMap<u64, u32, 1024> = HashMap::new();

/// Whether this program is the one that counts.
#[inline(always)]
pub fn is_active() -> bool {
    // SAFETY: volatile, because userspace changes it.
    DROP_CONTROL
        .get(0)
        .is_some_and(|control| unsafe { (&raw const control.active).read_volatile() } == of_kernel!(number))
}
