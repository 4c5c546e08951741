//! Addition to counters that are not per CPU.

use core::arch::asm;

use traffic_common::Tally;

/// Adds packets and bytes to a counter that other CPUs, and interrupts on this one, add to as well.
#[inline(always)]
pub fn add(counter: *mut Tally, amount: &Tally) {
    // The target has no atomic types in `core`, but the instruction exists in every kernel.
    // SAFETY: adds to two aligned u64 of a map's value.
    unsafe {
        asm!("lock *(u64 *)({at} + 0) += {amount}", at = in(reg) counter, amount = in(reg) amount.packets);
        asm!("lock *(u64 *)({at} + 8) += {amount}", at = in(reg) counter, amount = in(reg) amount.bytes);
    }
}
