//! Writes the mark for a shaper: `skb->mark = id * 32 + class`, as Virtuozzo's accounting sets it for `tc ...
//! fw`.
//!
//! Only in [`crate::trafctl_ingress_mark`]. Which ids have a mark is decided in `traffic_model::skb_mark`.

use aya_ebpf::bindings::__sk_buff;
use traffic_common::MARK_CLASSES;

use crate::maps::{CLASS_CONTROL, META, SHAPING_MARKS};

/// Marks a packet that was counted at `index`. Keeps the packet's mark if the container or class has none.
#[inline(always)]
pub fn mark(skb: *mut __sk_buff, index: u32) {
    let Some(control) = CLASS_CONTROL.get(0) else { return };
    if control.columns == 0 {
        return;
    }
    // The inverse of the index computation. The row width never changes while a set of counters exists.
    let (slot, column) = (index / control.columns, index % control.columns);
    let Some(&base) = SHAPING_MARKS.get(slot) else { return };
    if base == 0 {
        return;
    }
    let Some(meta) = META.get(0) else { return };
    // There are fewer columns than places; the mask proves that to the verifier. A column's class is written
    // before the table that uses the column is in force.
    let class = u32::from(meta.column_class[(column & 0xff) as usize]);
    #[expect(clippy::cast_possible_truncation, reason = "userspace writes only bases whose marks fit")]
    let base = base as u32;
    if class < MARK_CLASSES {
        // SAFETY: the context of a classifier is a valid `__sk_buff`, whose mark is writable.
        unsafe { (*skb).mark = base + class };
    }
}
