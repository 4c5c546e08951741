//! When a store is compared with the ledger by itself, and which days.
//!
//! Once a day, in the night of UTC, at a time that differs from node to node. Compared is what changed since it was
//! found equal, and one thirtieth of all other days: so each of them at least every 30 days.

use std::collections::BTreeSet;

use jiff::{Timestamp, tz::TimeZone};
use sha2::{Digest as _, Sha256};
use traffic_ledger::{Ledger, LedgerError};
use traffic_store::{Scope, Verified};

use super::state::{Compared, StoreState};

const DAY_S: i64 = 86_400;
/// After midnight of UTC: readings of the day before may be late.
const EARLIEST_S: i64 = 1800;
/// In which the comparisons of all nodes begin.
const SPREAD_S: u64 = 6 * 3600;
/// After a comparison that failed.
const REPEAT_S: i64 = 3600;
/// Days in which everything is compared once more.
const TURNS: i64 = 30;
/// How many differing days are kept.
const MOST_DIFFERING: usize = 100;

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

/// What to compare, after what was found equal. Of a ledger that went back since, everything.
pub(super) fn scope(before: Option<&Compared>, ledger: &Ledger, until: i64) -> Result<Scope, LedgerError> {
    let after = match before {
        Some(before) if ledger.lineage_at(before.changes)? == before.token => before.changes,
        _ => 0,
    };
    Ok(Scope { until, after, turn: (until.div_euclid(DAY_S).rem_euclid(TURNS), TURNS) })
}

/// What a comparison of days up to a time has shown.
pub(super) fn compared(ledger: &Ledger, verified: &Verified, until_s: i64) -> Result<Compared, LedgerError> {
    let differing = if verified.repaired == verified.differences.len() {
        BTreeSet::new()
    } else {
        verified.differences.iter().map(|one| day_of(&one.name, one.number)).collect()
    };
    Ok(Compared {
        until_s,
        changes: verified.changes,
        token: ledger.lineage_at(verified.changes)?,
        differing: differing.into_iter().take(MOST_DIFFERING).collect(),
    })
}

/// The day of a part, or the table of one that belongs to no day.
fn day_of(part: &str, number: i64) -> String {
    match (part, Timestamp::from_second(number)) {
        ("5min" | "day", Ok(start)) => start.to_zoned(TimeZone::UTC).date().to_string(),
        _ => part.to_owned(),
    }
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

    #[test]
    fn differences_are_named_by_day_unless_all_are_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let ledger =
            Ledger::open(&dir.path().join("ledger.sqlite"), traffic_ledger::LedgerConfig::default()).unwrap();
        let of = |name: &str, number| Difference {
            name: name.to_owned(),
            number,
            table: "traffic",
            in_ledger: 1,
            in_store: 2,
        };
        let mut verified = Verified {
            changes: 5,
            differences: vec![of("5min", 1_794_268_800), of("5min", 1_794_269_100), of("gap", 3)],
            repaired: 2,
            ..Verified::default()
        };
        let found = compared(&ledger, &verified, 9).unwrap();
        assert_eq!(found.differing, ["2026-11-10", "gap"]);
        assert_eq!((found.until_s, found.changes), (9, 5));
        verified.repaired = 3;
        assert!(compared(&ledger, &verified, 9).unwrap().differing.is_empty());
        // Nothing of another lineage is believed.
        let noted = Compared { changes: 5, token: Some("another".to_owned()), ..found.clone() };
        assert_eq!(scope(Some(&noted), &ledger, 0).unwrap().after, 0);
        assert_eq!(scope(Some(&found), &ledger, 0).unwrap().after, 5);
        assert_eq!(scope(None, &ledger, 31 * DAY_S).unwrap().turn, (1, 30));
    }
}
