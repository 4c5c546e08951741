//! When the counters are drained: at multiples of the interval on the wall clock, so that drains coincide
//! with the ends of buckets.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

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
}

/// When the wall clock next shows a multiple of the interval. The wall clock is read before the monotonic
/// one, so that the time between the two readings makes a drain late, and never early.
fn next(interval: Duration, wall: SystemTime, now: Instant) -> Instant {
    let since_epoch = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    let into = since_epoch.as_nanos() % interval.as_nanos().max(1);
    now + (interval - Duration::from_nanos(u64::try_from(into).unwrap_or(0)))
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
