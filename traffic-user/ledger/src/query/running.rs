//! What a running step comes to if its traffic goes on as until now.

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    error::LedgerError,
    figures::{Basis, Figures, Sums},
    query::query_plan::{By, Plan},
};

/// Nothing is estimated from less than this, in seconds: a night is not a month.
const SHORTEST_ESTIMATE_S: i64 = 86_400;

/// What a running month comes to if its traffic goes on as until now.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Packets and bytes at the end of the month.
    #[serde(flatten)]
    pub figures: Figures,
    /// Start of the time that the estimate is made from.
    pub from: Timestamp,
    /// Its end: the last reading.
    pub until: Timestamp,
}

/// The last step of a report, if it is a week, a month or a year that is not over.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunningStep {
    /// Its name.
    pub period: String,
    /// Its end.
    pub end: Timestamp,
    /// What its billed classes come to.
    #[serde(flatten)]
    pub estimate: Estimate,
}

/// What was counted from `start` to `last`, scaled to the time from `start` to `end`.
pub(crate) fn estimate(
    counted: Sums,
    basis: Basis,
    (start, last, end): (Timestamp, Timestamp, Timestamp),
) -> Option<Estimate> {
    let (elapsed, whole) = (last.as_second() - start.as_second(), end.as_second() - start.as_second());
    if elapsed < SHORTEST_ESTIMATE_S || whole < elapsed {
        return None;
    }
    let scaled = counted.map(|value| {
        let all = u128::from(value) * u128::from(whole.unsigned_abs()) / u128::from(elapsed.unsigned_abs());
        u64::try_from(all).unwrap_or(u64::MAX)
    });
    Some(Estimate { figures: Figures::new(scaled, basis), from: start, until: last })
}

/// The running step of a report; `None` if its last step is over, or is not shown from its begin (or the
/// ledger's) to the last reading.
pub(crate) fn running_step(
    plan: &Plan<'_>,
    last_reading: Option<Timestamp>,
    counted: Sums,
) -> Result<Option<RunningStep>, LedgerError> {
    let (Some(last), Some(at)) = (last_reading, plan.steps.len().checked_sub(1)) else { return Ok(None) };
    let (period, start, shown_until) = plan.step_named(at)?;
    let end = Timestamp::from_second(plan.last_end)?;
    let begins = at > 0 || plan.first_from()?.is_none() || start.as_second() == plan.recorded_from;
    let is_shown = begins && start <= last && last <= shown_until && last < end;
    if !matches!(plan.query.by, By::Week | By::Month | By::Year) || !is_shown {
        return Ok(None);
    }
    let estimate = estimate(counted, plan.query.basis, (start, last, end));
    Ok(estimate.map(|estimate| RunningStep { period, end, estimate }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn an_estimate_goes_on_as_until_now() {
        let month = (at("2026-11-01T00:00:00Z"), at("2026-11-11T00:00:00Z"), at("2026-12-01T00:00:00Z"));
        let found = estimate([10, 1000, 20, 7], Basis::L3, month).unwrap();
        let incoming = found.figures.incoming.unwrap();
        assert_eq!((incoming.packets, incoming.bytes), (30, 3000));
        let outgoing = found.figures.outgoing.unwrap();
        assert_eq!((outgoing.packets, outgoing.bytes), (60, 21));
        assert_eq!((found.from, found.until), (month.0, month.1));
        let huge = estimate([1, u64::MAX, 1, 1], Basis::L3, month).unwrap();
        assert_eq!(huge.figures.incoming.unwrap().bytes, u64::MAX);
    }

    #[test]
    fn nothing_is_estimated_from_a_night_or_after_the_end() {
        let [start, end] = ["2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"].map(at);
        for (last, some) in [
            ("2026-11-01T00:00:00Z", false),
            ("2026-11-01T23:59:59Z", false),
            ("2026-11-02T00:00:00Z", true),
            ("2026-12-01T00:00:00Z", true),
            ("2026-12-01T00:00:01Z", false),
        ] {
            assert_eq!(estimate([1; 4], Basis::L3, (start, at(last), end)).is_some(), some, "{last}");
        }
    }
}
