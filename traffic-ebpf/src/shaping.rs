//! Writes the mark for a shaper: `skb->mark = id * 32 + class`, as Virtuozzo's accounting sets it for `tc ...
//! fw`.
//!
//! Only in [`crate::trafctl_ingress_mark`]. Which ids have a mark is decided in `traffic_model::skb_mark`.

use aya_ebpf::bindings::__sk_buff;
use traffic_common::MARK_CLASSES;

use crate::{
    classify::Place,
    maps::{META, SHAPING_MARKS},
};

/// Marks a packet that was counted at `place`. Keeps the packet's mark if the container or class has none.
#[inline(always)]
pub fn mark(skb: *mut __sk_buff, place: Place) {
    let Some(&base) = SHAPING_MARKS.get(place.slot) else { return };
    if base == 0 {
        return;
    }
    let Some(meta) = META.get(0) else { return };
    // There are fewer columns than places; the mask proves that to the verifier. A column's class is written
    // before the table that uses the column is in force.
    let class = u32::from(meta.column_class[(place.column & 0xff) as usize]);
    #[expect(clippy::cast_possible_truncation, reason = "userspace writes only bases whose marks fit")]
    let base = base as u32;
    if class < MARK_CLASSES {
        // SAFETY: the context of a classifier is a valid `__sk_buff`, whose mark is writable.
        unsafe { (*skb).mark = base + class };
    }
}
