//! The state of draining: written by the daemon, read by the API at any time.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use jiff::Timestamp;

/// Stands for a time before the first drain.
const NEVER: i64 = i64::MIN;

/// The results of the daemon's drains so far. The numbers are independent, so relaxed ordering is enough.
#[derive(Debug)]
pub struct DrainHealth {
    /// Milliseconds since the Unix epoch, or [`NEVER`].
    last_success: AtomicI64,
    failures: AtomicU64,
    gaps: AtomicU64,
}

/// A reading of [`DrainHealth`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drains {
    /// When the last successful drain ended, to the millisecond; `None` before the first one.
    pub last_success: Option<Timestamp>,
    /// Drains that failed since the daemon started.
    pub failures: u64,
    /// Gaps that drains recorded since the daemon started.
    pub gaps: u64,
}

impl Default for DrainHealth {
    fn default() -> Self {
        Self { last_success: AtomicI64::new(NEVER), failures: AtomicU64::new(0), gaps: AtomicU64::new(0) }
    }
}

impl DrainHealth {
    /// Records a successful drain and the number of gaps that it stored.
    pub fn succeeded(&self, now: Timestamp, gaps: usize) {
        self.last_success.store(now.as_millisecond(), Ordering::Relaxed);
        self.gaps.fetch_add(gaps as u64, Ordering::Relaxed);
    }

    /// Notes a drain that failed.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads the results so far.
    pub fn read(&self) -> Drains {
        Drains {
            last_success: Timestamp::from_millisecond(self.last_success.load(Ordering::Relaxed)).ok(),
            failures: self.failures.load(Ordering::Relaxed),
            gaps: self.gaps.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_as_they_were_noted() {
        let health = DrainHealth::default();
        assert_eq!(health.read(), Drains::default());
        health.failed();
        health.succeeded(Timestamp::from_nanosecond(1_700_000_000_123_456_789).unwrap(), 2);
        health.failed();
        health.succeeded(Timestamp::from_millisecond(1_700_000_060_456).unwrap(), 3);
        let last_success = Timestamp::from_millisecond(1_700_000_060_456).ok();
        assert_eq!(health.read(), Drains { last_success, failures: 2, gaps: 5 });
    }
}
