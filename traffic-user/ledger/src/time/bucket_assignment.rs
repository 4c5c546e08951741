//! In which bucket a reading is booked, and what the wall clock did since the one before. Pure.
//!
//! The bucket follows the wall clock as it stood at the reading, because that is the clock of the bill. Whether it
//! stepped is told by `CLOCK_BOOTTIME`, which neither steps nor stops. After a step backward traffic is booked into
//! buckets that hold some already: they are marked with their span, and rolled up again. A clock that points before
//! everything that may still be written (a closed period, buckets already dropped) is not believed: the traffic stays
//! in the bucket of the reading before.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use traffic_model::calendar::{FIVE_MINUTES_S, five_minutes_of};

/// A reading that begins so soon after the end of a bucket closes that bucket: drains are aligned to the clock, and
/// the last minute of a month belongs to that month. At most this much traffic is booked one bucket early.
pub const GRACE_S: i64 = 2;
/// Steps smaller than this are not told from a clock that is being slewed.
const STEP_TOLERANCE: SignedDuration = SignedDuration::from_secs(2);
/// A clock may be slewed by 500 parts in a million; twice that is allowed for.
const SLEW_DIVISOR: i32 = 1000;

/// One instant on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// The wall clock.
    pub wall: Timestamp,
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub boottime_ns: u64,
}

/// What lies between two readings of the same boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// How long it really was.
    pub elapsed: SignedDuration,
    /// By how much the wall clock was set forward (or back, if negative), where it was.
    pub step: Option<SignedDuration>,
}

/// Compares two readings of the same boot, the later one second.
pub fn passage(previous: ClockReading, now: ClockReading) -> Passage {
    let nanoseconds = i128::from(now.boottime_ns) - i128::from(previous.boottime_ns);
    let elapsed = SignedDuration::from_nanos_i128(nanoseconds.max(0));
    let step = now.wall.duration_since(previous.wall) - elapsed;
    let tolerance = STEP_TOLERANCE + elapsed / SLEW_DIVISOR;
    Passage { elapsed, step: (step.abs() > tolerance).then_some(step) }
}

/// What is known when a reading is to be booked. Times in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct BookingInput {
    /// Time of the reading.
    pub now_s: i64,
    /// Since when it covers traffic, by the clock as it stands now.
    pub span_start_s: i64,
    /// Nothing may be booked before this.
    pub floor_s: i64,
    /// The bucket of the reading before.
    pub last_bucket_s: Option<i64>,
    /// The newest bucket that holds anything.
    pub newest_bucket_s: Option<i64>,
    /// How often readings are planned.
    pub interval: Duration,
}

/// Where a reading is booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Booking {
    /// Start of the bucket, seconds since the Unix epoch.
    pub bucket_s: i64,
    /// The bucket also holds traffic of another time: the reading was late, or the clock went back.
    pub marked: bool,
    /// The clock was not believed.
    pub held: bool,
}

/// Chooses the bucket of a reading.
pub fn booking(input: &BookingInput) -> Booking {
    let own = five_minutes_of(input.now_s);
    let into_bucket_s = input.now_s - own;
    let closes_bucket_before = into_bucket_s <= GRACE_S && own - input.span_start_s > into_bucket_s;
    let wanted = if closes_bucket_before { own - FIVE_MINUTES_S } else { own };
    let held = wanted < input.floor_s;
    let bucket_s =
        if held { input.last_bucket_s.unwrap_or(input.floor_s).max(input.floor_s) } else { wanted };
    let late = input.span_start_s < bucket_s - straddle_s(input.interval) - GRACE_S;
    let reopened = input.newest_bucket_s.is_some_and(|newest| bucket_s < newest);
    Booking { bucket_s, marked: late || reopened || held, held }
}

/// How much of the bucket before a reading may cover in the ordinary run of things. Readings are planned at multiples of
/// the interval: where those meet every end of a bucket, nothing.
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

    fn input(now_s: i64, span_start_s: i64) -> BookingInput {
        BookingInput {
            now_s,
            span_start_s,
            floor_s: 0,
            last_bucket_s: None,
            newest_bucket_s: None,
            interval: Duration::from_mins(1),
        }
    }

    #[test]
    fn an_even_clock_makes_no_step() {
        let passed = passage(reading(T, 100), reading(T + 60, 160));
        assert_eq!(passed, Passage { elapsed: SignedDuration::from_secs(60), step: None });
        // A day at 500 ppm.
        assert_eq!(passage(reading(T, 100), reading(T + 86_443, 86_500)).step, None);
    }

    #[test]
    fn steps_are_seen_both_ways() {
        let forward = passage(reading(T, 100), reading(T + 7260, 160));
        assert_eq!(forward.step, Some(SignedDuration::from_hours(2)));
        let back = passage(reading(T, 100), reading(T + 60 - 7200, 160));
        assert_eq!(back.step, Some(SignedDuration::from_hours(-2)));
        assert_eq!(back.elapsed, SignedDuration::from_secs(60));
    }

    #[test]
    fn a_reading_on_the_boundary_closes_the_bucket_before() {
        assert_eq!(booking(&input(T + 300, T + 240)).bucket_s, T);
        assert_eq!(booking(&input(T + 301, T + 241)).bucket_s, T);
        assert_eq!(booking(&input(T + 303, T + 243)).bucket_s, T + 300);
        // Read every second: most of the time covered lies after the boundary.
        assert_eq!(booking(&input(T + 301, T + 300)).bucket_s, T + 300);
        assert!(!booking(&input(T + 300, T + 240)).marked);
        assert!(!booking(&input(T + 330, T + 300)).marked);
    }

    #[test]
    fn a_bucket_is_marked_when_the_reading_at_its_start_was_left_out() {
        // A minute that belongs to the bucket before, if only that.
        assert!(booking(&input(T + 360, T + 240)).marked);
        assert!(booking(&input(T + 304, T + 240)).marked);
        // Every 90 s, an end of a bucket is met only now and then.
        let every_90_s = BookingInput { interval: Duration::from_secs(90), ..input(T + 360, T + 270) };
        assert!(!booking(&every_90_s).marked);
        assert!(booking(&BookingInput { span_start_s: T + 180, ..every_90_s }).marked);
    }

    #[test]
    fn a_late_reading_is_booked_where_it_was_taken_and_marked() {
        let late = booking(&input(T + 3630, T));
        assert_eq!(late, Booking { bucket_s: T + 3600, marked: true, held: false });
    }

    #[test]
    fn a_clock_before_the_floor_is_not_believed() {
        let held = booking(&BookingInput { floor_s: T, last_bucket_s: Some(T + 900), ..input(1000, 940) });
        assert_eq!(held, Booking { bucket_s: T + 900, marked: true, held: true });
        let closed =
            booking(&BookingInput { floor_s: T, last_bucket_s: Some(T - 300), ..input(T - 30, T - 90) });
        assert_eq!(closed.bucket_s, T);
    }

    #[test]
    fn going_back_into_a_bucket_marks_it() {
        let again = booking(&BookingInput { newest_bucket_s: Some(T + 3600), ..input(T + 60, T) });
        assert_eq!(again, Booking { bucket_s: T, marked: true, held: false });
    }
}
