//! Late readings, spread evenly over the time that they cover. A rate then uses its true span. The sums stay
//! where they were booked.

use std::collections::BTreeMap;

use rusqlite::Connection;
use traffic_model::calendar::{FIVE_MINUTES_S, five_minutes_of};

use crate::{error::LedgerError, time::bucket_assignment::GRACE_S};

/// The rows of one bucket and series that cover more than their bucket. Times in seconds since the Unix
/// epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    pub bucket: i64,
    pub series: i64,
    /// The covered time.
    pub start: i64,
    pub end: i64,
}

impl Spread {
    /// The part of an amount that falls into the bucket that begins at `at`. The parts of all buckets add up
    /// to the amount.
    pub fn part(&self, amount: u64, at: i64) -> u64 {
        let length = (self.end - self.start).max(1).unsigned_abs();
        let until = |time: i64| {
            let passed = (time.clamp(self.start, self.end) - self.start).unsigned_abs();
            u128::from(amount) * u128::from(passed) / u128::from(length)
        };
        u64::try_from(until(at + FIVE_MINUTES_S) - until(at)).unwrap_or(u64::MAX)
    }

    /// Whether it covers any of a range.
    pub fn overlaps(&self, (from, to): (i64, i64)) -> bool {
        self.start < to && self.end > from
    }

    /// The buckets that it covers, within a range.
    pub fn buckets(&self, (from, to): (i64, i64)) -> impl Iterator<Item = i64> + use<> {
        let first = five_minutes_of(self.start.max(from));
        let end = self.end.min(to);
        std::iter::successors(Some(first), |at| Some(at + FIVE_MINUTES_S)).take_while(move |&at| at < end)
    }
}

/// Late readings by series and bucket.
pub(crate) type Late = BTreeMap<(i64, i64), Spread>;

/// The late readings that cover any of a range.
pub(crate) fn late(view: &Connection, range: (i64, i64)) -> Result<Late, LedgerError> {
    let mut statement = view.prepare_cached(
        "SELECT bucket, stream, start, end FROM span
         WHERE (start < bucket - ?3 OR end > bucket + 300 + ?3) AND start < ?2 AND end > ?1",
    )?;
    let rows = statement.query_map([range.0, range.1, GRACE_S], |row| {
        let spread =
            Spread { bucket: row.get(0)?, series: row.get(1)?, start: row.get(2)?, end: row.get(3)? };
        Ok(((spread.series, spread.bucket), spread))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_and_follow_the_covered_time() {
        let spread = Spread { bucket: 900, series: 1, start: 150, end: 1050 };
        let buckets: Vec<i64> = spread.buckets((0, 3000)).collect();
        assert_eq!(buckets, [0, 300, 600, 900]);
        let parts: Vec<u64> = buckets.iter().map(|&at| spread.part(1001, at)).collect();
        assert_eq!((parts.iter().sum::<u64>(), parts[1]), (1001, 334));
        assert_eq!(spread.part(900, 0) + spread.part(900, 900), 300);
        assert_eq!(spread.part(u64::MAX, 1200), 0);
        assert_eq!(spread.buckets((300, 900)).collect::<Vec<_>>(), [300, 600]);
    }
}
