//! When the counters are drained: at multiples of the interval on the wall clock, and at the end of every
//! five-minute bucket whatever the interval is. So each bucket holds the traffic of its own time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use traffic_model::calendar::FIVE_MINUTES_S;

/// The next drain. It stays due until it is done, however long the daemon is busy.
#[derive(Debug)]
pub(super) struct Schedule {
    interval: Duration,
    due: Instant,
}

impl Schedule {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, due: next(interval, SystemTime::now(), Instant::now()) }
    }

    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// Plans the next drain. The wall clock is read each time, because it may have been set.
    pub(super) fn plan_next(&mut self) {
        self.due = next(self.interval, SystemTime::now(), Instant::now());
    }

    /// Has the next drain follow within this time.
    pub(super) fn plan_within(&mut self, time: Duration) {
        self.due = self.due.min(Instant::now() + time);
    }
}

/// Length of a bucket.
const BUCKET: Duration = Duration::from_secs(FIVE_MINUTES_S.unsigned_abs());

/// When the wall clock next shows a multiple of the interval, or a bucket ends, if that is earlier. The wall
/// clock is read before the monotonic one, so that the time between the two readings makes a drain late, and
/// never early.
fn next(interval: Duration, wall: SystemTime, now: Instant) -> Instant {
    let since_epoch = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    let until = |step: Duration| {
        let into = since_epoch.as_nanos() % step.as_nanos().max(1);
        step - Duration::from_nanos(u64::try_from(into).unwrap_or(0))
    };
    now + until(interval).min(until(BUCKET))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn drains_are_aligned_to_the_wall_clock() {
        let now = Instant::now();
        let at = |seconds, millis| {
            next(
                Duration::from_mins(1),
                UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis),
                now,
            )
        };
        assert_eq!(at(1_800_000_000, 0), now + Duration::from_mins(1));
        assert_eq!(at(1_800_000_017, 250), now + Duration::from_millis(42_750));
        assert_eq!(at(1_800_000_059, 999), now + Duration::from_millis(1));
    }

    #[test]
    fn every_bucket_ends_with_a_drain_whatever_the_interval_is() {
        let now = Instant::now();
        for (interval_s, at_s, wait_s) in [
            (90, 1_800_000_000, 90),
            (90, 1_800_000_270, 30),
            (420, 1_800_000_120, 180),
            (3600, 1_800_000_000, 300),
        ] {
            let wall = UNIX_EPOCH + Duration::from_secs(at_s);
            let due = next(Duration::from_secs(interval_s), wall, now);
            assert_eq!(due, now + Duration::from_secs(wait_s), "{interval_s} {at_s}");
        }
    }

    #[test]
    fn a_drain_missed_while_busy_stays_due() {
        let begin = Instant::now();
        let mut schedule = Schedule { interval: Duration::from_millis(20), due: begin };
        thread::sleep(Duration::from_millis(50));
        assert_eq!(schedule.due(), begin);
        let before = Instant::now();
        schedule.plan_next();
        assert!(schedule.due() > before, "one is done for all that were missed");
        assert!(schedule.due() <= Instant::now() + Duration::from_millis(20));
    }
}
