//! Assigns a reading to a five-minute bucket. Pure.
//!
//! The bucket follows the time at which the reading is booked (`clock_line`). After a step backward, traffic
//! goes into buckets that already hold some; these become mixed, keep their real time span, and are summed
//! again. Nothing is written into a closed period or where rows were dropped: that traffic goes into the
//! first bucket after them.

use traffic_model::calendar::{FIVE_MINUTES_S, five_minutes_of};

/// A reading at most this long after the end of a bucket still closes that bucket, in seconds. Drains are
/// aligned to the clock, and the last minute of a month belongs to that month. At most this much traffic
/// lands one bucket early.
pub const GRACE_S: i64 = 2;
/// What is known when a reading is assigned. Times in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct AssignmentInput<'a> {
    /// Time of the reading.
    pub now_s: i64,
    /// Start of the time that the reading covers.
    pub span_start_s: i64,
    /// Where nothing may be written.
    pub frozen: &'a Frozen,
    /// The bucket of the previous reading.
    pub last_bucket_s: Option<i64>,
}

/// Times into which nothing may be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    /// Start and end of the closed periods, in order.
    pub closed: Vec<(i64, i64)>,
    /// Rows before this were dropped.
    pub dropped_before_s: Option<i64>,
}

impl Frozen {
    /// The first bucket from this one on that may be written.
    pub fn writable_from(&self, bucket_s: i64) -> i64 {
        let from = bucket_s.max(self.dropped_before_s.unwrap_or(bucket_s));
        self.closed.iter().fold(from, |at, &(start, end)| if start <= at && at < end { end } else { at })
    }
}

/// The bucket of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketAssignment {
    /// Start of the bucket, seconds since the Unix epoch.
    pub bucket_s: i64,
    /// Whether the bucket also holds traffic of another time: the reading was late, or the clock went back.
    pub mixed: bool,
}

/// Chooses the bucket of a reading. `holds_rows` tells whether a bucket already does.
pub fn assign_bucket(
    input: &AssignmentInput<'_>,
    mut holds_rows: impl FnMut(i64) -> bool,
) -> BucketAssignment {
    let own = five_minutes_of(input.now_s);
    let into_bucket_s = input.now_s - own;
    let closes_bucket_before = into_bucket_s <= GRACE_S && own - input.span_start_s > into_bucket_s;
    let wanted = if closes_bucket_before { own - FIVE_MINUTES_S } else { own };
    let bucket_s = input.frozen.writable_from(wanted);
    let late = input.span_start_s < bucket_s - GRACE_S;
    let reopened = input.last_bucket_s.is_some_and(|last| bucket_s != last) && holds_rows(bucket_s);
    BucketAssignment { bucket_s, mixed: late || reopened || bucket_s != wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: i64 = 1_800_000_000;
    const NOTHING: Frozen = Frozen { closed: Vec::new(), dropped_before_s: None };

    fn assign(now_s: i64, span_start_s: i64) -> BucketAssignment {
        assign_into(now_s, span_start_s, &NOTHING)
    }

    fn assign_into(now_s: i64, span_start_s: i64, frozen: &Frozen) -> BucketAssignment {
        let last_bucket_s = Some(five_minutes_of(span_start_s));
        assign_bucket(&AssignmentInput { now_s, span_start_s, frozen, last_bucket_s }, |_| false)
    }

    #[test]
    fn a_reading_on_the_border_closes_the_previous_bucket() {
        assert_eq!(assign(T + 300, T + 240).bucket_s, T);
        assert_eq!(assign(T + 301, T + 241).bucket_s, T);
        assert_eq!(assign(T + 303, T + 243).bucket_s, T + 300);
        // Read every second: most of the covered time lies after the border.
        assert_eq!(assign(T + 301, T + 300).bucket_s, T + 300);
        assert!(!assign(T + 300, T + 240).mixed);
        assert!(!assign(T + 330, T + 300).mixed);
    }

    #[test]
    fn a_bucket_is_mixed_if_the_reading_at_its_start_is_missing() {
        // The reading covers a minute that belongs to the previous bucket.
        assert!(assign(T + 360, T + 240).mixed);
        assert!(assign(T + 304, T + 240).mixed);
    }

    #[test]
    fn a_late_reading_is_assigned_to_its_own_time_and_mixed() {
        assert_eq!(assign(T + 3630, T), BucketAssignment { bucket_s: T + 3600, mixed: true });
    }

    #[test]
    fn nothing_is_written_into_a_closed_period_or_where_rows_were_dropped() {
        let closed =
            Frozen { closed: vec![(T - 900, T - 600), (T - 600, T)], dropped_before_s: Some(T - 3600) };
        assert_eq!(assign_into(T - 700, T - 760, &closed), BucketAssignment { bucket_s: T, mixed: true });
        assert_eq!(assign_into(T - 5000, T - 5060, &closed).bucket_s, T - 3600);
        // A period that was closed too early does not hold back what comes before it.
        let future = Frozen { closed: vec![(T + 86_400, T + 90_000)], dropped_before_s: None };
        assert_eq!(assign_into(T + 60, T, &future), BucketAssignment { bucket_s: T, mixed: false });
    }

    #[test]
    fn only_a_bucket_that_holds_other_rows_becomes_mixed() {
        let input = AssignmentInput {
            now_s: T + 60,
            span_start_s: T,
            frozen: &NOTHING,
            last_bucket_s: Some(T + 3600),
        };
        assert!(assign_bucket(&input, |bucket_s| bucket_s == T).mixed);
        // A bucket far in the future, from a clock that was wrong once, does not matter.
        assert!(!assign_bucket(&input, |bucket_s| bucket_s == T + 86_400 * 3650).mixed);
    }
}
