//! Resyncs: how often the daemon compares all interfaces and container files with what is attached, and what it
//! makes of the result.
//!
//! This is the safety net under the events of `mod.rs` and `file_watch.rs`. A test of those events must run
//! without it, because the next resync would hide an event that was lost. `TRAFCTL_TEST_RESYNC` sets the
//! interval for tests. It is not an option of the program and not for use on a node.

use std::{
    env,
    ffi::OsStr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::time::{Interval, MissedTickBehavior};

use super::{mailbox::WorkerEvent, worker::Worker};
use crate::{
    health::{Components, Part},
    node::{Host, Pass, Selection},
    time,
};

/// Test support: `off`, or a duration such as `200ms`.
const VARIABLE: &str = "TRAFCTL_TEST_RESYNC";
/// How often everything is compared.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// The timer of resyncs.
pub(super) struct Resync {
    /// `None` in a test that turned resyncs off.
    timer: Option<Interval>,
}

impl Resync {
    /// Starts the timer. The first tick comes one interval from now.
    ///
    /// # Errors
    /// When the test's variable has a value that is neither `off` nor a duration.
    pub(super) fn start() -> anyhow::Result<Self> {
        let interval = interval(env::var_os(VARIABLE).as_deref())?;
        Ok(Self {
            timer: interval.map(|interval| {
                let mut timer = tokio::time::interval_at((Instant::now() + interval).into(), interval);
                timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
                timer
            }),
        })
    }

    /// Waits until the next resync is due; forever when resyncs are off. May be dropped and called again.
    pub(super) async fn tick(&mut self) {
        match &mut self.timer {
            Some(timer) => drop(timer.tick().await),
            None => std::future::pending().await,
        }
    }
}

fn interval(value: Option<&OsStr>) -> anyhow::Result<Option<Duration>> {
    let Some(value) = value else { return Ok(Some(INTERVAL)) };
    if value == "off" {
        return Ok(None);
    }
    let parsed = value.to_str().and_then(|text| text.parse::<jiff::SignedDuration>().ok());
    let interval = parsed.and_then(|interval| Duration::try_from(interval).ok());
    let interval = interval.filter(|interval| !interval.is_zero());
    interval
        .map(Some)
        .with_context(|| format!("{VARIABLE} is {value:?}; set it to off or to a duration such as 200ms"))
}

impl Worker {
    /// Runs a resync. A failure is a state of the daemon, which is logged once, and a resync follows soon.
    pub(super) fn resync_or_retry(&mut self, doing: &str) {
        let result = self.resync();
        if result.is_ok() {
            self.components.works(Part::Resync);
        }
        self.note_resync(doing, &result);
    }

    /// Notes a failure of work that a resync repeats; only a whole resync shows that all is well.
    pub(super) fn note_resync(&self, doing: &str, result: &anyhow::Result<()>) {
        if let Err(error) = result {
            self.components.failed_because(Part::Resync, &format!("{doing}: {error:#}"));
            self.report(WorkerEvent::Retry);
        }
    }

    pub(super) fn new_pass(&self) -> anyhow::Result<Pass> {
        let mut pass = Pass::new(Selection::Matching);
        pass.list(&self.host.netlink)?;
        Ok(pass)
    }

    /// Has the next drain record what passed on interfaces that came and went; returns whether there is anything.
    pub(super) fn note_gaps(&mut self) -> bool {
        let gaps = self.follower.came_and_went.take_gaps(time::now_or_end());
        let any = !gaps.is_empty();
        self.ledger.note_gaps(gaps);
        any
    }
}

/// Notes what is wrong with the files that name owners. Reading them has logged it.
pub(super) fn note_owners(components: &Components, host: &Host) {
    let problems = host.policy.problems();
    match problems.is_empty() {
        true => components.works(Part::Owners),
        false => components.set_failed(Part::Owners, &problems.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_fixed_unless_a_test_sets_it() {
        let parse = |value: &str| interval(Some(OsStr::new(value)));
        assert_eq!(interval(None).unwrap(), Some(INTERVAL));
        assert_eq!(parse("off").unwrap(), None);
        assert_eq!(parse("200ms").unwrap(), Some(Duration::from_millis(200)));
        assert_eq!(parse("2s").unwrap(), Some(Duration::from_secs(2)));
        for wrong in ["", "on", "0s", "-1s", "10"] {
            assert!(parse(wrong).unwrap_err().to_string().contains(VARIABLE), "{wrong:?}");
        }
    }
}
