//! The mark for a shaper: `skb->mark = id * 32 + class`, as Virtuozzo's accounting sets it for `tc ... fw`.

use aya_ebpf::bindings::__sk_buff;
use traffic_common::MARK_CLASSES;

use crate::maps::{CONTROL, META, SHAPING_MARKS};

/// Marks a packet that was counted at `index`. One whose container or class the mark has no room for is left as it is.
#[inline(always)]
pub fn mark(skb: *mut __sk_buff, index: u32) {
    let Some(control) = CONTROL.get(0) else { return };
    if control.columns == 0 {
        return;
    }
    // The row width never changes while a set of counters lives, so this undoes what made the index.
    let (slot, column) = (index / control.columns, index % control.columns);
    let Some(&base) = SHAPING_MARKS.get(slot) else { return };
    if base == 0 {
        return;
    }
    let Some(meta) = META.get(0) else { return };
    // There are fewer columns than places; the verifier wants to see it. A column has its class before a packet finds it.
    let class = u32::from(meta.column_class[(column & 0xff) as usize]);
    #[expect(clippy::cast_possible_truncation, reason = "userspace writes no base whose marks do not fit")]
    let base = base as u32;
    if class < MARK_CLASSES {
        // SAFETY: the context of a classifier is a valid `__sk_buff`, whose mark may be written.
        unsafe { (*skb).mark = base + class };
    }
}
