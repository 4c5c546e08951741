//! The percentile by nearest rank over five-minute rates. Pure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Collects the non-zero values of a series whose length is known, and gives the value at the percentile's rank.
///
/// Nearest rank: of `n` values in ascending order the one at place `ceil(percent / 100 * n)`. Values that were never
/// pushed are zero and count. Only the largest values that the rank can fall on are kept.
#[derive(Clone, Debug)]
pub struct Percentile {
    /// How many of the largest values matter: the rank counted from the top.
    kept: u64,
    largest: BinaryHeap<Reverse<u64>>,
}

impl Percentile {
    /// For a series of `n` values. `percent` is above 0 and at most 100.
    pub fn new(percent: f64, n: u64) -> Self {
        Self { kept: n - rank(percent, n) + u64::from(n > 0), largest: BinaryHeap::new() }
    }

    /// Takes one value of the series.
    pub fn push(&mut self, value: u64) {
        if (self.largest.len() as u64) < self.kept {
            self.largest.push(Reverse(value));
        } else if let Some(mut least) = self.largest.peek_mut()
            && value > least.0
        {
            *least = Reverse(value);
        }
    }

    /// The value at the rank; 0 for an empty series.
    pub fn value(&self) -> u64 {
        // With fewer values than matter, the rank falls on one of the zeros.
        if (self.largest.len() as u64) < self.kept {
            0
        } else {
            self.largest.peek().map_or(0, |least| least.0)
        }
    }
}

/// The rank from below, 1 to `n`, in thousandths of a percent so that no rounding of floats decides a bill.
fn rank(percent: f64, n: u64) -> u64 {
    // Out of range or not a number becomes the nearest end.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0..=100,000 before"
    )]
    let thousandths = (percent * 1000.0).round().clamp(0.0, 100_000.0) as u128;
    let rank = (thousandths * u128::from(n)).div_ceil(100_000);
    u64::try_from(rank).unwrap_or(n).clamp(n.min(1), n)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(percent: f64, n: u64, values: &[u64]) -> u64 {
        let mut percentile = Percentile::new(percent, n);
        values.iter().for_each(|&value| percentile.push(value));
        percentile.value()
    }

    #[test]
    fn known_values() {
        assert_eq!(of(95.0, 0, &[]), 0);
        assert_eq!(of(95.0, 1, &[7]), 7);
        assert_eq!(of(95.0, 20, &(1..=20).collect::<Vec<_>>()), 19);
        assert_eq!(of(100.0, 20, &(1..=20).collect::<Vec<_>>()), 20);
        // One busy bucket of twenty is what the 95th percentile forgives.
        assert_eq!(of(95.0, 20, &[1000]), 0);
        assert_eq!(of(95.0, 20, &[1000, 999]), 999);
    }

    proptest! {
        #[test]
        fn agrees_with_sorting_everything(
            values in proptest::collection::vec(0..1000_u64, 0..300), zeros in 0..300_u64, percent in 1..=100_u32,
        ) {
            let n = values.len() as u64 + zeros;
            let mut all = values.clone();
            all.resize(usize::try_from(n).unwrap(), 0);
            all.sort_unstable();
            let rank = (u64::from(percent) * n).div_ceil(100).max(1);
            let naive = if n == 0 { 0 } else { all[usize::try_from(rank - 1).unwrap()] };
            prop_assert_eq!(of(f64::from(percent), n, &values), naive);
        }
    }
}
