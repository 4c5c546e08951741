//! The pace of maintenance: how long one call and each of its transactions may take.

use std::time::{Duration, Instant};

/// How long units share a transaction. One transaction per unit would wait for the disk as often; a longer
/// one would make other writers fail after [`BUSY_TIMEOUT`](crate::migrate::BUSY_TIMEOUT).
const TRANSACTION: Duration = Duration::from_millis(500);
/// Pause between transactions of unlimited maintenance. A waiting writer polls at least every 100 ms; without
/// a pause it would hardly ever find the lock free.
const PAUSE: Duration = Duration::from_millis(110);

/// How much time maintenance may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// `None` for no limit.
    pub until: Option<Instant>,
}

impl Pace {
    pub(crate) fn is_over(self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// When a transaction that begins now should end.
    pub(crate) fn end_of_transaction(self) -> Instant {
        let end = Instant::now() + TRANSACTION;
        self.until.map_or(end, |until| end.min(until))
    }

    /// Lets other writers in between two transactions.
    pub(crate) fn pause(self) {
        if self.until.is_none() {
            std::thread::sleep(PAUSE);
        }
    }
}
