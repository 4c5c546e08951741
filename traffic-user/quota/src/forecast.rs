//! What a period comes to, and when the allowance runs out.
//!
//! The rest of the period is taken to have the mean rate of the last days, in each direction by itself. A
//! mean over the period alone would say nothing after its first night, and a mean over an hour would follow
//! every peak. Whole numbers throughout.

use serde::Serialize;

use crate::{period::Span, quota::Direction, usage::Used};

/// The method in words.
pub const METHOD: &str = "used until the last reading, and for the rest of the period the mean rate of the \
                          last seven days (or of all that is recorded, if that is less); none from less \
                          than a day, for rates, and for periods that move with each day";

/// Nothing is expected from less than this, in seconds: a night is not a month.
const SHORTEST_S: u64 = 86_400;

/// What was counted lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recent {
    /// Bytes.
    pub used: Used,
    /// In how many seconds.
    pub seconds: u64,
}

/// What a period comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// Bytes at the end of the period.
    pub expected: u64,
    /// When the allowance is used up, in seconds since the Unix epoch; `None` if that is not expected within
    /// the period, or has happened already.
    pub runs_out_s: Option<i64>,
}

/// Forecasts a period from what was used until `last_s`, the time of the last reading in seconds since the
/// Unix epoch. `None` where less than a day is known, or the reading is not within the period.
pub fn forecast(
    (direction, allowance): (Direction, u64),
    span: Span,
    last_s: i64,
    (used, recent): (Used, Recent),
) -> Option<Forecast> {
    if recent.seconds < SHORTEST_S || last_s < span.start_s || last_s > span.end_s {
        return None;
    }
    let after = |seconds: u64| direction.of(after(used, recent, seconds));
    let rest = (span.end_s - last_s).unsigned_abs();
    let expected = after(rest);
    let is_used_up = direction.of(used) >= allowance;
    let runs_out_s = (!is_used_up && expected >= allowance).then(|| {
        // `after` never falls, so the first second with the whole allowance is found by halving.
        let (mut below, mut enough) = (0, rest);
        while enough - below > 1 {
            let middle = below + (enough - below) / 2;
            if after(middle) >= allowance { enough = middle } else { below = middle }
        }
        last_s.saturating_add_unsigned(enough)
    });
    Some(Forecast { expected, runs_out_s })
}

/// What is used after so many more seconds.
fn after(used: Used, recent: Recent, seconds: u64) -> Used {
    let more = |used: u64, recent_used: u64| {
        let more = u128::from(recent_used) * u128::from(seconds) / u128::from(recent.seconds);
        used.saturating_add(u64::try_from(more).unwrap_or(u64::MAX))
    };
    Used {
        incoming: more(used.incoming, recent.used.incoming),
        outgoing: more(used.outgoing, recent.used.outgoing),
        together: None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 86_400;
    const MONTH: Span = Span { start_s: 0, end_s: 30 * 86_400 };

    fn used(incoming: u64, outgoing: u64) -> Used {
        Used { incoming, outgoing, together: None }
    }

    #[test]
    fn the_rest_of_the_period_goes_on_as_the_last_days() {
        let recent = Recent { used: used(700, 1400), seconds: 7 * DAY };
        let last_s = 10 * 86_400;
        let of = |direction, allowance| {
            forecast((direction, allowance), MONTH, last_s, (used(900, 1000), recent)).unwrap()
        };
        // Twenty days with 100 and 200 bytes each.
        assert_eq!(of(Direction::In, 1_000_000).expected, 2900);
        assert_eq!(of(Direction::Out, 1_000_000).expected, 5000);
        assert_eq!(of(Direction::Sum, 1_000_000), Forecast { expected: 7900, runs_out_s: None });
        assert_eq!(of(Direction::Larger, 1_000_000).expected, 5000);
        // 300 a day: 3000 more take ten days.
        assert_eq!(of(Direction::Sum, 4900).runs_out_s, Some(20 * 86_400));
        assert_eq!(of(Direction::Larger, 5000).runs_out_s, Some(MONTH.end_s));
        assert_eq!(of(Direction::Larger, 5001).runs_out_s, None);
        assert_eq!(of(Direction::Sum, 1900).runs_out_s, None, "it is used up already");
    }

    #[test]
    fn nothing_is_expected_from_a_night_or_outside_the_period() {
        let of = |seconds, last_s| {
            let recent = Recent { used: used(5, 5), seconds };
            forecast((Direction::Sum, 100), MONTH, last_s, (used(1, 1), recent))
        };
        assert_eq!(of(DAY - 1, 86_400), None);
        assert!(of(DAY, 0).is_some(), "the first second of a period has the days before it");
        assert_eq!(of(DAY, 0).unwrap().expected, 302);
        assert_eq!(of(DAY, -1), None);
        assert_eq!(of(DAY, MONTH.end_s).unwrap().expected, 2, "nothing is left of the period");
        assert_eq!(of(DAY, MONTH.end_s + 1), None);
    }

    proptest! {
        /// Against a naive search, second by second.
        #[test]
        fn it_runs_out_in_the_first_second_with_the_whole_allowance(
            (before, lately) in ((0_u64..2000, 0_u64..2000), (0_u64..4_000_000, 0_u64..4_000_000)),
            allowance in 1_u64..6000,
            length in 1_i64..400,
            which in 0_usize..4,
        ) {
            let direction = Direction::ALL[which].0;
            let span = Span { start_s: -5, end_s: length };
            let recent = Recent { used: used(lately.0, lately.1), seconds: DAY };
            let used = used(before.0, before.1);
            let found = forecast((direction, allowance), span, 0, (used, recent)).unwrap();
            let at = |second: i64| direction.of(Used {
                incoming: used.incoming + lately.0 * second.unsigned_abs() / DAY,
                outgoing: used.outgoing + lately.1 * second.unsigned_abs() / DAY,
                together: None,
            });
            prop_assert_eq!(found.expected, at(length));
            let first = (0..=length).find(|second| at(*second) >= allowance).filter(|second| *second > 0);
            prop_assert_eq!(found.runs_out_s, first);
        }
    }
}
