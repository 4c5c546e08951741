//! What a reason or a place means: a `drop_kind`.
//!
//! Reasons have other numbers in each kernel, so the loader translates them. Some drops have none: those of a
//! queueing discipline that dequeues, of a refusing route, and others. There the name of the kernel's function
//! decides. It is asked for once for each place.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_snprintf;
use traffic_common::{CORE_REASONS, DropGroup, QDISC_REASONS, drop_kind, drop_places};

use crate::{
    kernel_layout::of_kernel,
    maps::{DROP_PLACES, DROP_REASONS, PLACE_FORMAT},
};

/// The kind where the kernel states no reasons.
pub const WITHOUT_REASON: u8 = drop_kind::UNSPECIFIED | DropGroup::Other as u8;
/// The kind of a reason that was not known when this program was built.
const UNKNOWN: u8 = DropGroup::Other as u8;

/// The kind of a reason. Its upper half is the number of a subsystem.
#[inline(always)]
pub fn of_reason(reason: u32) -> u8 {
    let (subsystem, number) = (reason >> 16, (reason & 0xffff) as usize);
    if subsystem == 0 && number < CORE_REASONS {
        // SAFETY: within the array; volatile because the loader replaces its bytes.
        return unsafe { (&raw const DROP_REASONS.core).cast::<u8>().add(number).read_volatile() };
    }
    if subsystem != 0 && subsystem == of_kernel!(qdisc_subsystem) && number < QDISC_REASONS {
        // SAFETY: as above.
        return unsafe { (&raw const DROP_REASONS.qdisc).cast::<u8>().add(number).read_volatile() };
    }
    UNKNOWN
}

/// The kind of a place, an address within the kernel's code.
#[inline(always)]
pub fn of_place(place: u64) -> u8 {
    if of_kernel!(has_places) == 0 {
        return UNKNOWN;
    }
    // SAFETY: the value is only read; it never changes.
    if let Some(kind) = unsafe { DROP_PLACES.get(place) } {
        #[expect(clippy::cast_possible_truncation, reason = "a kind in a wider field")]
        return *kind as u8;
    }
    let kind = by_name(place);
    // If there is no room, the next drop asks again.
    let _ = DROP_PLACES.insert(place, u32::from(kind), 0);
    kind
}

#[inline(never)]
fn by_name(place: u64) -> u8 {
    let mut name = MaybeUninit::<[u64; 4]>::zeroed();
    let mut place = place;
    // SAFETY: the buffers are as long as stated; the format has one argument of 8 bytes.
    unsafe {
        bpf_snprintf(name.as_mut_ptr().cast(), 32, (&raw const PLACE_FORMAT).cast(), &raw mut place, 8);
        drop_places::kind(name.assume_init()[0])
    }
}
