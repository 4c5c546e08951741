//! The used part of an allowance, and the thresholds that it has reached. Whole numbers throughout: whoever
//! is one byte below a threshold has not reached it.

use crate::{
    period::Span,
    quota::{FirstPeriod, Limit, Quota},
};

/// What was counted: bytes, or bits per second at a percentile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// To the container.
    pub incoming: u64,
    /// From the container.
    pub outgoing: u64,
    /// Both together, where that is not their sum: percentiles are ranked by themselves.
    pub together: Option<u64>,
}

/// What a container may use in a period: bytes, or bits per second; `None` without a limit.
///
/// `since_s` is when the container was first seen, in seconds since the Unix epoch; `None` if it is older
/// than the ledger. A share is rounded down, and at least 1.
pub fn allowance_in(quota: &Quota, span: Span, since_s: Option<i64>) -> Option<u64> {
    let bytes = match quota.limit {
        Limit::Unlimited => return None,
        Limit::Rate { bits_per_s, .. } => return Some(bits_per_s),
        Limit::Volume(bytes) => bytes,
    };
    let since_s = since_s.unwrap_or(span.start_s).clamp(span.start_s, span.end_s);
    if quota.first_period == FirstPeriod::Whole || since_s == span.start_s {
        return Some(bytes);
    }
    let part = u128::from((span.end_s - since_s).unsigned_abs());
    let whole = u128::from((span.end_s - span.start_s).unsigned_abs()).max(1);
    let share = u128::from(bytes) * part / whole;
    Some(u64::try_from(share).unwrap_or(bytes).max(1))
}

/// The used part in thousandths, rounded down. Of an allowance of 0, nothing can be a part.
pub fn permille(used: u64, allowance: u64) -> u64 {
    let share = (u128::from(used) * 1000).checked_div(u128::from(allowance));
    share.map_or(0, |share| u64::try_from(share).unwrap_or(u64::MAX))
}

/// The thresholds that are reached, in percent and in ascending order.
pub fn reached(thresholds: &[u16], used: u64, allowance: u64) -> Vec<u16> {
    let is_reached = |percent: &u16| u128::from(used) * 100 >= u128::from(allowance) * u128::from(*percent);
    thresholds.iter().copied().filter(is_reached).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quota::Direction;

    const SPAN: Span = Span { start_s: 1000, end_s: 2000 };

    fn quota(first_period: FirstPeriod) -> Quota {
        Quota { limit: Limit::Volume(1001), first_period, ..crate::file::tests::only("allowance = \"1GB\"") }
    }

    #[test]
    fn one_byte_below_a_threshold_is_not_there() {
        assert_eq!(reached(&[80, 100], 799, 1000), [0; 0]);
        assert_eq!(reached(&[80, 100], 800, 1000), [80]);
        assert_eq!(reached(&[80, 100, 150], 1000, 1000), [80, 100]);
        assert_eq!(reached(&[80, 100, 150], 1500, 1000), [80, 100, 150]);
        // 80 % of 3 bytes are 2.4: the third byte reaches them.
        assert_eq!((reached(&[80], 2, 3), reached(&[80], 3, 3)), (vec![], vec![80]));
        assert_eq!(reached(&[1000], u64::MAX, u64::MAX), [0; 0]);
        assert_eq!(reached(&[100], u64::MAX, u64::MAX), [100]);
    }

    #[test]
    fn a_share_is_rounded_down_and_of_nothing_zero() {
        assert_eq!(
            [permille(999, 1000), permille(1, 3), permille(7, 2), permille(0, 0)],
            [999, 333, 3500, 0]
        );
        assert_eq!(permille(u64::MAX, 1), u64::MAX);
    }

    #[test]
    fn a_container_of_mid_period_has_the_whole_or_its_share() {
        let at = |first_period, since_s| allowance_in(&quota(first_period), SPAN, since_s);
        for since in [None, Some(900), Some(1000), Some(1500), Some(2500)] {
            assert_eq!(at(FirstPeriod::Whole, since), Some(1001));
        }
        assert_eq!(at(FirstPeriod::Share, None), Some(1001), "it is older than the ledger");
        assert_eq!(at(FirstPeriod::Share, Some(10)), Some(1001));
        assert_eq!(at(FirstPeriod::Share, Some(1001)), Some(999), "a second is missing");
        assert_eq!(at(FirstPeriod::Share, Some(1500)), Some(500));
        assert_eq!(at(FirstPeriod::Share, Some(1999)), Some(1));
        assert_eq!(
            at(FirstPeriod::Share, Some(2000)),
            Some(1),
            "never nothing, of which no share can be used"
        );
    }

    #[test]
    fn each_direction_counts_what_it_names() {
        let used = Used { incoming: 5, outgoing: 7, together: None };
        assert_eq!(Direction::ALL.map(|(direction, _)| direction.of(used)), [5, 7, 12, 7]);
        let ranked = Used { together: Some(9), ..used };
        assert_eq!(Direction::ALL.map(|(direction, _)| direction.of(ranked)), [5, 7, 9, 7]);
        let most = Used { incoming: u64::MAX, outgoing: 1, together: None };
        assert_eq!(Direction::Sum.of(most), u64::MAX);
    }

    proptest! {
        /// Against fractions of whole numbers, taken one byte at a time.
        #[test]
        fn a_threshold_is_reached_at_the_first_byte_that_is_not_below_it(
            allowance in 1_u64..5000, percent in 1_u16..300
        ) {
            let first = (0..=allowance * 3).find(|used| used * 100 >= allowance * u64::from(percent));
            for used in 0..=allowance * 3 {
                let is_reached = !reached(&[percent], used, allowance).is_empty();
                prop_assert_eq!(is_reached, first.is_some_and(|first| used >= first));
            }
        }
    }
}
