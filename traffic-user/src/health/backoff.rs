//! When a failed attempt is repeated: at planned moments that other events do not move.

use std::time::{Duration, Instant};

/// Plans the retries of one part.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    delay: Duration,
    due: Option<Instant>,
}

impl Backoff {
    /// The first retry follows after `first`; each further one after twice the time, up to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, delay: first, due: None }
    }

    /// Plans the next attempt, after one that failed.
    pub fn failed(&mut self, now: Instant) {
        self.due = Some(now + self.delay);
        self.delay = (self.delay * 2).min(self.longest);
    }

    /// Plans none, after an attempt that succeeded or is no longer wanted.
    pub const fn succeeded(&mut self) {
        self.due = None;
        self.delay = self.first;
    }

    /// When the next attempt is due; `None` if none is planned.
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether an attempt is due now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    /// Takes the planned attempt: until it failed or succeeded, none is planned.
    pub const fn begin(&mut self) {
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_planned_and_become_rarer_up_to_a_limit() {
        let now = Instant::now();
        let mut retry = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        assert_eq!(retry.due(), None);
        for seconds in [1, 2, 4, 5, 5] {
            retry.failed(now);
            assert_eq!(retry.due(), Some(now + Duration::from_secs(seconds)));
            assert!(!retry.is_due(now) && retry.is_due(now + Duration::from_secs(seconds)));
        }
        retry.begin();
        assert_eq!(retry.due(), None);
        retry.failed(now);
        retry.succeeded();
        assert_eq!(retry.due(), None);
        retry.failed(now);
        assert_eq!(retry.due(), Some(now + Duration::from_secs(1)));
    }
}
