//! Percentiles by nearest rank. Pure.

/// Collects the non-zero values of a population of known size, and returns the value at the percentile's
/// rank.
///
/// Nearest rank means: of `n` values in ascending order, the one at position `ceil(percent / 100 * n)`.
/// Values that were never pushed count as zero. Only the largest values that the rank can fall on are kept,
/// unordered. From time to time all values that became too small are removed together, so most values cost
/// one comparison.
#[derive(Clone, Debug)]
pub struct Percentile {
    /// How many of the largest values matter, which is the rank counted from the top.
    kept: usize,
    /// Values up to this no longer matter.
    floor: u64,
    values: Vec<u64>,
}

impl Percentile {
    /// Prepares for `n` values. `percent` is above 0 and at most 100.
    pub fn new(percent: f64, n: u64) -> Self {
        Self {
            kept: usize::try_from(from_top(percent, n)).unwrap_or(usize::MAX),
            floor: 0,
            values: Vec::new(),
        }
    }

    /// Adds one value.
    pub fn push(&mut self, value: u64) {
        if value <= self.floor {
            return;
        }
        self.values.push(value);
        if self.values.len() >= self.kept.saturating_mul(2) {
            self.floor = self.at_rank();
        }
    }

    /// Adds all values of another part of the same population.
    pub fn absorb(&mut self, other: &Self) {
        other.values.iter().for_each(|&value| self.push(value));
    }

    /// The value at the rank; 0 if there are no values.
    pub fn value(&mut self) -> u64 {
        self.at_rank()
    }

    /// Removes everything below the rank. With fewer values than matter, the rank falls on one of the zeros.
    fn at_rank(&mut self) -> u64 {
        let Some(last) = self.kept.checked_sub(1).filter(|&last| last < self.values.len()) else { return 0 };
        let (_, &mut at_rank, _) = self.values.select_nth_unstable_by(last, |a, b| b.cmp(a));
        self.values.truncate(self.kept);
        at_rank
    }
}

/// The rank counted from the largest of `n` values: 1 is the largest. 0 without values.
pub fn from_top(percent: f64, n: u64) -> u64 {
    n - rank(percent, n) + u64::from(n > 0)
}

/// The rank from below, 1 to `n`. Computed in thousandths of a percent, so that no float rounding decides a
/// bill.
fn rank(percent: f64, n: u64) -> u64 {
    // A value out of range, or NaN, becomes the nearest end.
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
        // In two parts, as two readers split it.
        let (first, second) = values.split_at(values.len() / 3);
        let [mut whole, part] = [first, second].map(|values| {
            let mut percentile = Percentile::new(percent, n);
            values.iter().for_each(|&value| percentile.push(value));
            percentile
        });
        whole.absorb(&part);
        whole.value()
    }

    #[test]
    fn known_values() {
        assert_eq!(of(95.0, 0, &[]), 0);
        assert_eq!(of(95.0, 1, &[7]), 7);
        assert_eq!(of(95.0, 20, &(1..=20).collect::<Vec<_>>()), 19);
        assert_eq!(of(100.0, 20, &(1..=20).collect::<Vec<_>>()), 20);
        // The 95th percentile ignores one busy bucket of twenty.
        assert_eq!(of(95.0, 20, &[1000]), 0);
        assert_eq!(of(95.0, 20, &[1000, 999]), 999);
    }

    proptest! {
        #[test]
        fn matches_sorting_all_values(
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
