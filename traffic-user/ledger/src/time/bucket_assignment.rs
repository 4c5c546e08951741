//! Assigns a reading to a five-minute bucket, and detects steps of the wall clock. Pure.
//!
//! The bucket follows the wall clock at the time of the reading, because bills follow that clock.
//! `CLOCK_BOOTTIME`, which neither steps nor stops, shows whether the wall clock stepped. After a step
//! backward, traffic goes into buckets that already hold some; these become mixed, keep their real time span,
//! and are summed again. A clock that points before everything that may still be written (a closed period,
//! dropped rows) is not trusted: the traffic stays in the bucket of the previous reading.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use traffic_model::calendar::{FIVE_MINUTES_S, five_minutes_of};

/// A reading at most this long after the end of a bucket still closes that bucket, in seconds. Drains are
/// aligned to the clock, and the last minute of a month belongs to that month. At most this much traffic
/// lands one bucket early.
pub const GRACE_S: i64 = 2;
/// Smaller steps cannot be distinguished from a clock that is being slewed.
const STEP_TOLERANCE: SignedDuration = SignedDuration::from_secs(2);
/// A clock may be slewed by 500 parts per million; this allows twice that.
const SLEW_DIVISOR: i32 = 1000;

/// One instant on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// The wall clock.
    pub wall: Timestamp,
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub boottime_ns: u64,
}

/// What happened between two readings of the same boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockComparison {
    /// The real time between them.
    pub elapsed: SignedDuration,
    /// How far the wall clock was set forward, or back if negative; `None` if it was not set.
    pub step: Option<SignedDuration>,
}

/// Compares two readings of the same boot, the later one second.
pub fn compare_clocks(previous: ClockReading, now: ClockReading) -> ClockComparison {
    let nanoseconds = i128::from(now.boottime_ns) - i128::from(previous.boottime_ns);
    let elapsed = SignedDuration::from_nanos_i128(nanoseconds.max(0));
    let step = now.wall.duration_since(previous.wall) - elapsed;
    let tolerance = STEP_TOLERANCE + elapsed / SLEW_DIVISOR;
    ClockComparison { elapsed, step: (step.abs() > tolerance).then_some(step) }
}

/// What is known when a reading is assigned. Times in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct AssignmentInput {
    /// Time of the reading.
    pub now_s: i64,
    /// Start of the time that the reading covers, by the current wall clock.
    pub span_start_s: i64,
    /// Nothing may be written before this.
    pub floor_s: i64,
    /// The bucket of the previous reading.
    pub last_bucket_s: Option<i64>,
    /// The newest bucket that holds anything.
    pub newest_bucket_s: Option<i64>,
    /// The planned interval between readings.
    pub interval: Duration,
}

/// The bucket of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketAssignment {
    /// Start of the bucket, seconds since the Unix epoch.
    pub bucket_s: i64,
    /// Whether the bucket also holds traffic of another time: the reading was late, or the clock went back.
    pub mixed: bool,
    /// Whether the clock was not trusted.
    pub held: bool,
}

/// Chooses the bucket of a reading.
pub fn assign_bucket(input: &AssignmentInput) -> BucketAssignment {
    let own = five_minutes_of(input.now_s);
    let into_bucket_s = input.now_s - own;
    let closes_bucket_before = into_bucket_s <= GRACE_S && own - input.span_start_s > into_bucket_s;
    let wanted = if closes_bucket_before { own - FIVE_MINUTES_S } else { own };
    let held = wanted < input.floor_s;
    let bucket_s =
        if held { input.last_bucket_s.unwrap_or(input.floor_s).max(input.floor_s) } else { wanted };
    let late = input.span_start_s < bucket_s - straddle_s(input.interval) - GRACE_S;
    let reopened = input.newest_bucket_s.is_some_and(|newest| bucket_s < newest);
    BucketAssignment { bucket_s, mixed: late || reopened || held, held }
}

/// How much of the previous bucket a reading may normally cover, in seconds. Readings are planned at
/// multiples of the interval; if these meet every end of a bucket, nothing.
fn straddle_s(interval: Duration) -> i64 {
    let bucket = Duration::from_secs(FIVE_MINUTES_S.unsigned_abs());
    if !interval.is_zero() && bucket.as_nanos().is_multiple_of(interval.as_nanos()) {
        return 0;
    }
    i64::try_from(interval.as_secs()).unwrap_or(i64::MAX).min(FIVE_MINUTES_S / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: i64 = 1_800_000_000;

    fn reading(wall_s: i64, boot_s: u64) -> ClockReading {
        ClockReading { wall: Timestamp::from_second(wall_s).unwrap(), boottime_ns: boot_s * 1_000_000_000 }
    }

    fn input(now_s: i64, span_start_s: i64) -> AssignmentInput {
        AssignmentInput {
            now_s,
            span_start_s,
            floor_s: 0,
            last_bucket_s: None,
            newest_bucket_s: None,
            interval: Duration::from_mins(1),
        }
    }

    #[test]
    fn a_steady_clock_has_no_step() {
        let passed = compare_clocks(reading(T, 100), reading(T + 60, 160));
        assert_eq!(passed, ClockComparison { elapsed: SignedDuration::from_secs(60), step: None });
        // A day at 500 ppm.
        assert_eq!(compare_clocks(reading(T, 100), reading(T + 86_443, 86_500)).step, None);
    }

    #[test]
    fn steps_are_detected_in_both_directions() {
        let forward = compare_clocks(reading(T, 100), reading(T + 7260, 160));
        assert_eq!(forward.step, Some(SignedDuration::from_hours(2)));
        let back = compare_clocks(reading(T, 100), reading(T + 60 - 7200, 160));
        assert_eq!(back.step, Some(SignedDuration::from_hours(-2)));
        assert_eq!(back.elapsed, SignedDuration::from_secs(60));
    }

    #[test]
    fn a_reading_on_the_border_closes_the_previous_bucket() {
        assert_eq!(assign_bucket(&input(T + 300, T + 240)).bucket_s, T);
        assert_eq!(assign_bucket(&input(T + 301, T + 241)).bucket_s, T);
        assert_eq!(assign_bucket(&input(T + 303, T + 243)).bucket_s, T + 300);
        // Read every second: most of the covered time lies after the border.
        assert_eq!(assign_bucket(&input(T + 301, T + 300)).bucket_s, T + 300);
        assert!(!assign_bucket(&input(T + 300, T + 240)).mixed);
        assert!(!assign_bucket(&input(T + 330, T + 300)).mixed);
    }

    #[test]
    fn a_bucket_is_mixed_if_the_reading_at_its_start_is_missing() {
        // The reading covers a minute that belongs to the previous bucket.
        assert!(assign_bucket(&input(T + 360, T + 240)).mixed);
        assert!(assign_bucket(&input(T + 304, T + 240)).mixed);
        // At 90 s, readings meet the end of a bucket only now and then.
        let every_90_s = AssignmentInput { interval: Duration::from_secs(90), ..input(T + 360, T + 270) };
        assert!(!assign_bucket(&every_90_s).mixed);
        assert!(assign_bucket(&AssignmentInput { span_start_s: T + 180, ..every_90_s }).mixed);
    }

    #[test]
    fn a_late_reading_is_assigned_to_its_own_time_and_mixed() {
        let late = assign_bucket(&input(T + 3630, T));
        assert_eq!(late, BucketAssignment { bucket_s: T + 3600, mixed: true, held: false });
    }

    #[test]
    fn a_clock_before_the_floor_is_not_trusted() {
        let held =
            assign_bucket(&AssignmentInput { floor_s: T, last_bucket_s: Some(T + 900), ..input(1000, 940) });
        assert_eq!(held, BucketAssignment { bucket_s: T + 900, mixed: true, held: true });
        let closed = assign_bucket(&AssignmentInput {
            floor_s: T,
            last_bucket_s: Some(T - 300),
            ..input(T - 30, T - 90)
        });
        assert_eq!(closed.bucket_s, T);
    }

    #[test]
    fn going_back_into_a_bucket_makes_it_mixed() {
        let again = assign_bucket(&AssignmentInput { newest_bucket_s: Some(T + 3600), ..input(T + 60, T) });
        assert_eq!(again, BucketAssignment { bucket_s: T, mixed: true, held: false });
    }
}
