//! The state of draining: written by the daemon, read by the API at any time.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use jiff::Timestamp;

use crate::drain::Drained;

/// Stands for no time, such as one before the first drain.
const NEVER: i64 = i64::MIN;

/// The results of the daemon's drains so far. The numbers are independent, so relaxed ordering is enough.
#[derive(Debug)]
pub struct DrainHealth {
    /// When the daemon started.
    since: Timestamp,
    /// Milliseconds since the Unix epoch, or [`NEVER`].
    last_success: AtomicI64,
    failures: AtomicU64,
    gaps: AtomicU64,
    excess_skbs: AtomicU64,
    /// Seconds since the Unix epoch; 0 while nothing is held, and [`NEVER`] if nothing ever is.
    held_since: AtomicI64,
}

/// A reading of [`DrainHealth`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drains {
    /// Since when failures and gaps are counted.
    pub since: Option<Timestamp>,
    /// When the last successful drain ended, to the millisecond; `None` before the first one.
    pub last_success: Option<Timestamp>,
    /// Drains that failed since the daemon started.
    pub failures: u64,
    /// Gaps that drains recorded since the daemon started.
    pub gaps: u64,
    /// Buffers that the last successful drain found counted beyond the kernel's statistics.
    pub excess_skbs: u64,
    /// Since when five-minute rows are kept beyond their retention, for stores that have not verified them. `None` if
    /// that is not required.
    pub held_since: Option<Option<Timestamp>>,
}

impl Default for DrainHealth {
    fn default() -> Self {
        Self::since(Timestamp::now())
    }
}

impl DrainHealth {
    /// Of a daemon that started then.
    pub fn since(since: Timestamp) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            since,
            last_success: AtomicI64::new(NEVER),
            failures: zero(),
            gaps: zero(),
            excess_skbs: zero(),
            held_since: AtomicI64::new(NEVER),
        }
    }

    /// Notes since when rows are kept beyond their retention; `None` if no store has to verify them.
    pub fn holds(&self, since: Option<Option<Timestamp>>) {
        let second = since.map_or(NEVER, |since| since.map_or(0, Timestamp::as_second));
        self.held_since.store(second, Ordering::Relaxed);
    }

    /// Records a successful drain, and what it found.
    pub fn succeeded(&self, now: Timestamp, drained: Drained) {
        self.last_success.store(now.as_millisecond(), Ordering::Relaxed);
        self.gaps.fetch_add(drained.gaps as u64, Ordering::Relaxed);
        self.excess_skbs.store(drained.excess_skbs, Ordering::Relaxed);
    }

    /// Notes a drain that failed.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads the results so far.
    pub fn read(&self) -> Drains {
        Drains {
            since: Some(self.since),
            last_success: Timestamp::from_millisecond(self.last_success.load(Ordering::Relaxed)).ok(),
            failures: self.failures.load(Ordering::Relaxed),
            gaps: self.gaps.load(Ordering::Relaxed),
            excess_skbs: self.excess_skbs.load(Ordering::Relaxed),
            held_since: match self.held_since.load(Ordering::Relaxed) {
                NEVER => None,
                0 => Some(None),
                second => Some(Timestamp::from_second(second).ok()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_as_they_were_noted() {
        let health = DrainHealth::default();
        let since = health.read().since;
        assert_eq!(health.read(), Drains { since, ..Drains::default() });
        health.failed();
        health.succeeded(
            Timestamp::from_nanosecond(1_700_000_000_123_456_789).unwrap(),
            Drained { gaps: 2, excess_skbs: 7, checkpointed: true },
        );
        health.failed();
        health.succeeded(
            Timestamp::from_millisecond(1_700_000_060_456).unwrap(),
            Drained { gaps: 3, excess_skbs: 9, checkpointed: true },
        );
        let last_success = Timestamp::from_millisecond(1_700_000_060_456).ok();
        let drains = Drains { since, last_success, failures: 2, gaps: 5, excess_skbs: 9, held_since: None };
        assert_eq!(health.read(), drains);
        for held_since in [Some(None), Some(Timestamp::from_second(1_700_000_000).ok()), None] {
            health.holds(held_since);
            assert_eq!(health.read(), Drains { held_since, ..drains });
        }
    }
}
