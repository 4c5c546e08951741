//! When a store is compared with the ledger by itself, and which days.
//!
//! Once a day, in the night of UTC, at a time that differs from node to node. Compared is what changed since it was
//! found equal, what differed the last time, days that only the store has, and one thirtieth of all other days: so each
//! of them at least every 30 days.

use std::collections::BTreeSet;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use sha2::{Digest as _, Sha256};
use traffic_ledger::{Ledger, LedgerError};
use traffic_store::{Scope, Verified};

use super::state::{Compared, MOST_DIFFERING, StoreState};

const DAY_S: i64 = 86_400;
/// After midnight of UTC: readings of the day before may be late.
const EARLIEST_S: i64 = 1800;
/// In which the comparisons of all nodes begin.
const SPREAD_S: u64 = 6 * 3600;
/// After a comparison that failed.
const REPEAT_S: i64 = 3600;
/// Days in which everything is compared once more.
const TURNS: i64 = 30;
/// Seconds after midnight of UTC at which a ledger is compared with a store: always the same.
pub(super) fn offset_s(ledger: &str, store: &str) -> i64 {
    let hash = Sha256::new().chain_update(ledger).chain_update([0]).chain_update(store).finalize();
    let number = hash.iter().take(8).fold(0, |number: u64, byte| (number << 8) | u64::from(*byte));
    EARLIEST_S + (number % SPREAD_S).cast_signed()
}

/// Whether it is time to compare. A store that was never compared is, at the first such time after it was first shipped
/// to.
pub(super) fn is_due(noted: &StoreState, now_s: i64, offset_s: i64) -> bool {
    let today = now_s.div_euclid(DAY_S) * DAY_S + offset_s;
    let last = if today <= now_s { today } else { today - DAY_S };
    let tried = noted.compare_tried_s.max(noted.since_s);
    let is_repeated = noted.compare_error.is_some() && now_s - tried >= REPEAT_S;
    // A time that is still to come is of a clock that was ahead.
    tried < last || tried > now_s || is_repeated
}

/// The end of the days that can be compared: that of the last day of UTC that is over for the clock and for the ledger.
pub(super) fn end(ledger: &Ledger, now_s: i64) -> Result<i64, LedgerError> {
    let read_s = ledger.shipped_extent()?.last_reading_ms.map_or(0, |ms| ms.div_euclid(1000));
    Ok(now_s.min(read_s).div_euclid(DAY_S) * DAY_S)
}

/// What to compare, after what was found equal or different. Of a ledger that went back since, everything.
pub(super) fn scope(before: Option<&Compared>, ledger: &Ledger, until: i64) -> Result<Scope, LedgerError> {
    let after = match before {
        Some(before) if ledger.lineage_at(before.changes)? == before.token => before.changes,
        _ => 0,
    };
    let differing = before.map_or(&[][..], |before| &before.differing);
    // More may differ than are kept.
    let turn = if differing.len() < MOST_DIFFERING {
        (until.div_euclid(DAY_S).rem_euclid(TURNS), TURNS)
    } else {
        (0, 1)
    };
    let days = differing.iter().filter_map(|text| number_of_day(text)).collect();
    Ok(Scope { until, after, turn, days })
}

/// What a comparison has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// What is known if nothing differs.
    equal: Compared,
    /// Days with differences, and the tables of what is of no day.
    differing: BTreeSet<String>,
    /// Those of which something was not compared, as the store did not have it yet.
    later: BTreeSet<String>,
}

/// What a comparison of days up to a time has shown.
pub(super) fn found(ledger: &Ledger, verified: &Verified, until_s: i64) -> Result<Found, LedgerError> {
    Ok(Found {
        equal: Compared {
            until_s,
            changes: verified.changes,
            token: ledger.lineage_at(verified.changes)?,
            differing: Vec::new(),
        },
        differing: verified.left.iter().map(|one| day_of(&one.name, one.number)).collect(),
        later: verified.later.iter().map(|(name, number)| day_of(name, *number)).collect(),
    })
}

impl Found {
    /// What is known after it. What differed before differs until a comparison has seen all of it. As long as anything
    /// differs, nothing more is known to be equal.
    pub fn after(self, before: Option<&Compared>) -> Compared {
        let mut differing = self.differing;
        let former = before.map_or(&[][..], |before| &before.differing);
        differing.extend(former.iter().filter(|day| self.later.contains(*day)).cloned());
        if differing.is_empty() {
            return self.equal;
        }
        let differing = differing.into_iter().take(MOST_DIFFERING).collect();
        Compared { differing, ..before.cloned().unwrap_or_default() }
    }
}

/// The day of a part, or the table of one that belongs to no day.
fn day_of(part: &str, number: i64) -> String {
    match (part, Timestamp::from_second(number)) {
        ("5min" | "day", Ok(start)) => start.to_zoned(TimeZone::UTC).date().to_string(),
        _ => part.to_owned(),
    }
}

/// The number of a day since the Unix epoch, from what [`day_of`] says; `None` for a table.
fn number_of_day(text: &str) -> Option<i64> {
    let start = text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some(start.timestamp().as_second().div_euclid(DAY_S))
}

/// Start of the first day that differs, in Unix seconds.
pub(super) fn first_day_s(differing: &[String]) -> Option<i64> {
    differing.iter().filter_map(|text| number_of_day(text)).min().map(|day| day * DAY_S)
}

#[cfg(test)]
mod tests {
    use traffic_store::Difference;

    use super::*;

    #[test]
    fn a_store_is_compared_once_a_day_at_its_time() {
        let midnight = 1_794_268_800;
        assert_eq!(midnight % DAY_S, 0);
        let due = |tried_s: i64, now_s: i64| {
            is_due(&StoreState { compare_tried_s: tried_s, since_s: 7, ..StoreState::default() }, now_s, 3600)
        };
        assert!(!due(midnight - 1000, midnight + 3599), "the time of yesterday");
        assert!(due(midnight - 1000, midnight + 3600));
        assert!(!due(midnight + 3600, midnight + 3601) && !due(midnight + 3600, midnight + DAY_S + 3599));
        assert!(due(midnight + 3600, midnight + DAY_S + 3600));
        // The shipper did not run for a while, or the clock was ahead.
        assert!(due(midnight, midnight + 9 * DAY_S) && due(midnight + 40 * DAY_S, midnight + 3700));
        // One that could not be compared is tried again.
        let mut failed = StoreState { compare_tried_s: midnight + 3600, ..StoreState::default() };
        assert!(!is_due(&failed, midnight + 7200, 3600));
        failed.compare_error = Some("away".to_owned());
        assert!(is_due(&failed, midnight + 7200, 3600) && !is_due(&failed, midnight + 7199, 3600));
        // One that was never compared waits for its time.
        let new = StoreState { since_s: midnight + 4000, ..StoreState::default() };
        assert!(!is_due(&new, midnight + 5000, 3600) && is_due(&new, midnight + DAY_S + 3600, 3600));
    }

    #[test]
    fn nodes_are_compared_at_different_times_of_the_night() {
        let times: Vec<i64> =
            (0..200).map(|at| offset_s(&format!("ledger-{at}"), "postgresql://s@db/t")).collect();
        assert!(times.iter().all(|time| (EARLIEST_S..EARLIEST_S + 6 * 3600).contains(time)));
        let hours: BTreeSet<i64> = times.iter().map(|time| (time - EARLIEST_S) / 3600).collect();
        assert_eq!(hours.len(), 6);
        assert_eq!(offset_s("a", "b"), offset_s("a", "b"));
        assert_ne!(offset_s("a", "b"), offset_s("a", "c"));
    }

    fn ledger(dir: &tempfile::TempDir) -> Ledger {
        Ledger::open(&dir.path().join("ledger.sqlite"), traffic_ledger::LedgerConfig::default()).unwrap()
    }

    fn differing(parts: &[(&str, i64)]) -> Vec<Difference> {
        let of = |(name, number): &(&str, i64)| Difference {
            name: (*name).to_owned(),
            number: *number,
            table: "traffic",
            in_ledger: 1,
            in_store: 2,
        };
        parts.iter().map(of).collect()
    }

    const TENTH: i64 = 1_794_268_800;

    #[test]
    fn what_is_left_is_named_by_day() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(&dir);
        let verified = Verified {
            changes: 5,
            differences: differing(&[("5min", TENTH), ("5min", TENTH + DAY_S), ("gap", 3)]),
            repaired: 1,
            left: differing(&[("5min", TENTH), ("5min", TENTH + 300), ("gap", 3)]),
            ..Verified::default()
        };
        let known = found(&ledger, &verified, 9).unwrap().after(None);
        assert_eq!(known.differing, ["2026-11-10", "gap"]);
        assert_eq!((known.until_s, known.changes), (0, 0), "nothing is known to be equal");
        let verified = Verified { left: Vec::new(), ..verified };
        let known = found(&ledger, &verified, 9).unwrap().after(Some(&known));
        assert_eq!((known.until_s, known.changes, known.differing.len()), (9, 5, 0));
        // Nothing of another lineage is believed.
        let noted = Compared { token: Some("another".to_owned()), ..known.clone() };
        assert_eq!(scope(Some(&noted), &ledger, 0).unwrap().after, 0);
        assert_eq!(scope(Some(&known), &ledger, 0).unwrap().after, 5);
        assert_eq!(scope(None, &ledger, 31 * DAY_S).unwrap().turn, (1, 30));
    }

    #[test]
    fn what_differs_is_compared_again_until_it_was_seen_equal() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(&dir);
        let equal = Compared { until_s: 7, changes: 6, ..Compared::default() };
        let (tenth, eleventh) = (("5min", TENTH + 600), ("day", TENTH + DAY_S));
        let verified =
            Verified { changes: 9, left: differing(&[tenth, eleventh, ("gap", 3)]), ..Verified::default() };
        let known = found(&ledger, &verified, 70).unwrap().after(Some(&equal));
        let days = vec!["2026-11-10".to_owned(), "2026-11-11".to_owned(), "gap".to_owned()];
        assert_eq!(known, Compared { differing: days, ..equal });
        let next = scope(Some(&known), &ledger, 80).unwrap();
        assert_eq!(next.days, BTreeSet::from([TENTH / DAY_S, TENTH / DAY_S + 1]));
        assert_eq!(next.after, 6);
        // A part of the tenth is on its way, so the day was not compared as a whole.
        let later = BTreeSet::from([("5min".to_owned(), TENTH), ("container".to_owned(), 4)]);
        let verified = Verified { changes: 10, later: later.clone(), ..Verified::default() };
        let known = found(&ledger, &verified, 80).unwrap().after(Some(&known));
        assert_eq!((known.until_s, known.changes), (7, 6));
        assert_eq!(known.differing, ["2026-11-10"]);
        // Something that never differed may be on its way.
        let none = found(&ledger, &verified, 80).unwrap().after(None);
        assert_eq!((none.until_s, none.differing.len()), (80, 0));
        let verified = Verified { changes: 11, ..Verified::default() };
        let known = found(&ledger, &verified, 90).unwrap().after(Some(&known));
        assert_eq!((known.until_s, known.changes, known.differing.len()), (90, 11, 0));
    }

    #[test]
    fn everything_is_compared_when_more_differs_than_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(&dir);
        let days: Vec<(&str, i64)> = (0..150).map(|day| ("day", TENTH + day * DAY_S)).collect();
        let of = |count: usize| {
            let verified = Verified { left: differing(&days[..count]), ..Verified::default() };
            found(&ledger, &verified, 1).unwrap().after(None)
        };
        assert_eq!(of(150).differing.len(), MOST_DIFFERING);
        assert_eq!(scope(Some(&of(150)), &ledger, 0).unwrap().turn, (0, 1));
        assert_eq!(scope(Some(&of(99)), &ledger, 0).unwrap().turn, (0, 30));
    }
}
