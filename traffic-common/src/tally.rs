//! Packets and bytes, and the one rule for adding and subtracting them.
//!
//! **The overflow rule.** Userspace sums stay at `u64::MAX` and differences stay at 0. A figure never wraps:
//! a wrapped sum would look like a small bill, a wrapped difference like a huge one. Code that must notice a
//! counter that fell uses [`Tally::checked_sub`].
//!
//! The kernel program adds with [`Tally::count`], which wraps, because saturation would cost every packet a
//! comparison. 2^64 bytes are 46 years at 100 Gbit/s on one CPU, so the two never differ for a real counter.

use core::{iter::Sum, ops::AddAssign};

/// Packets on the wire and their layer-3 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Tally {
    /// Packets as the wire carries them, after segmentation.
    pub packets: u64,
    /// Bytes from the start of each IP header to the end of the packet as carried. Each segment's headers are
    /// included.
    pub bytes: u64,
}

impl Tally {
    /// Whether it has neither packets nor bytes.
    pub const fn is_zero(&self) -> bool {
        self.packets == 0 && self.bytes == 0
    }

    /// Adds on the packet path, modulo 2^64.
    #[inline(always)]
    pub const fn count(&mut self, packets: u64, bytes: u64) {
        self.packets = self.packets.wrapping_add(packets);
        self.bytes = self.bytes.wrapping_add(bytes);
    }

    /// The sum; a part that overflows stays at `u64::MAX`.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self {
            packets: self.packets.saturating_add(other.packets),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// The difference; a part that would be negative is 0.
    #[must_use]
    pub const fn saturating_sub(self, earlier: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(earlier.packets),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }

    /// The difference, or `None` when packets or bytes are below `earlier`.
    #[must_use]
    pub const fn checked_sub(self, earlier: Self) -> Option<Self> {
        match (self.packets.checked_sub(earlier.packets), self.bytes.checked_sub(earlier.bytes)) {
            (Some(packets), Some(bytes)) => Some(Self { packets, bytes }),
            _ => None,
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        *self = self.saturating_add(other);
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), Self::saturating_add)
    }
}

/// Adds figures in place, element by element, under the rule of this module.
pub fn add_each<const N: usize>(total: &mut [u64; N], more: &[u64; N]) {
    for (total, more) in total.iter_mut().zip(more) {
        *total = total.saturating_add(*more);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(packets: u64, bytes: u64) -> Tally {
        Tally { packets, bytes }
    }

    #[test]
    fn sums_stay_at_the_maximum() {
        let mut sum = tally(u64::MAX - 1, 5);
        sum += tally(3, 7);
        assert_eq!(sum, tally(u64::MAX, 12));
        assert_eq!([tally(1, u64::MAX), tally(2, 1)].into_iter().sum::<Tally>(), tally(3, u64::MAX));
        let mut figures = [u64::MAX, 1, 2, 3];
        add_each(&mut figures, &[1, 10, 20, 30]);
        assert_eq!(figures, [u64::MAX, 11, 22, 33]);
    }

    #[test]
    fn differences_stay_at_zero_or_are_refused() {
        assert_eq!(tally(5, 10).saturating_sub(tally(6, 3)), tally(0, 7));
        assert_eq!(tally(5, 10).checked_sub(tally(6, 3)), None);
        assert_eq!(tally(5, 10).checked_sub(tally(3, 11)), None);
        assert_eq!(tally(5, 10).checked_sub(tally(3, 4)), Some(tally(2, 6)));
    }

    #[test]
    fn the_packet_path_wraps() {
        let mut counter = tally(u64::MAX, u64::MAX - 9);
        counter.count(1, 11);
        assert_eq!(counter, tally(0, 1));
        assert!(!counter.is_zero() && tally(0, 0).is_zero());
    }

    proptest! {
        #[test]
        fn below_the_limits_all_agree([a, b, c, d] in [0_u64..1 << 62, 0..1 << 62, 0..1 << 62, 0..1 << 62]) {
            let mut counted = tally(a, b);
            counted.count(c, d);
            prop_assert_eq!(counted, tally(a, b).saturating_add(tally(c, d)));
            prop_assert_eq!(counted.checked_sub(tally(c, d)), Some(tally(a, b)));
            prop_assert_eq!(counted.saturating_sub(tally(c, d)), tally(a, b));
        }
    }
}
