//! Statistics over the samples of several rounds. Ratios and differences are only taken within one round,
//! because the machine's speed drifts between rounds.

/// The median of some values and their spread.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Summary {
    /// Half of the values are below it.
    pub median: f64,
    /// A quarter of the values is below it.
    pub lower_quartile: f64,
    /// A quarter of the values is above it.
    pub upper_quartile: f64,
}

impl Summary {
    /// Summarises some values; `None` without any.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Some(Self {
            median: quantile(&sorted, 0.5)?,
            lower_quartile: quantile(&sorted, 0.25)?,
            upper_quartile: quantile(&sorted, 0.75)?,
        })
    }
}

/// A quantile of sorted values, interpolated between two of them.
fn quantile(sorted: &[f64], fraction: f64) -> Option<f64> {
    let place = fraction * (sorted.len().checked_sub(1)?) as f64;
    #[expect(clippy::cast_possible_truncation, reason = "it is between 0 and the number of values")]
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

/// Pairs the values of two lists by round.
pub fn by_round(a: &[f64], b: &[f64], with: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    a.iter().zip(b).map(|(&a, &b)| with(a, b)).collect()
}

/// The difference in each round.
pub fn differences(a: &[f64], b: &[f64]) -> Vec<f64> {
    by_round(a, b, |a, b| a - b)
}

/// The ratio in each round. A divisor below `least` counts as `least`, so that a cost too small to measure
/// does not cause an unbounded or negative ratio.
pub fn ratios(a: &[f64], b: &[f64], least: f64) -> Vec<f64> {
    by_round(a, b, |a, b| a / b.max(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_quartiles_of_known_values_are_right() {
        let odd = Summary::of(&[9.0, 1.0, 5.0, 3.0, 7.0]);
        assert_eq!(odd, Some(Summary { median: 5.0, lower_quartile: 3.0, upper_quartile: 7.0 }));
        let even = Summary::of(&[4.0, 1.0, 2.0, 3.0]);
        assert_eq!(even, Some(Summary { median: 2.5, lower_quartile: 1.75, upper_quartile: 3.25 }));
        let single = Summary::of(&[6.0]);
        assert_eq!(single, Some(Summary { median: 6.0, lower_quartile: 6.0, upper_quartile: 6.0 }));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn an_outlier_does_not_move_the_median() {
        let summary = Summary::of(&[10.0, 11.0, 12.0, 13.0, 9000.0]).map(|summary| summary.median);
        assert_eq!(summary, Some(12.0));
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine had half the speed in the second round, which does not affect the ratio.
        assert_eq!(ratios(&[30.0, 60.0], &[10.0, 20.0], 0.1), [3.0, 3.0]);
        assert_eq!(differences(&[30.0, 60.0], &[10.0, 20.0]), [20.0, 40.0]);
    }

    #[test]
    fn the_ratio_to_an_unmeasurable_cost_is_bounded() {
        assert_eq!(ratios(&[30.0, 30.0], &[0.0, -2.0], 0.5), [60.0, 60.0]);
    }
}
