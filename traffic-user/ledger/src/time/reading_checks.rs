//! Checks a reading against the previous one: the time it covers, and the gaps in between. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use traffic_model::Snapshot;

use crate::{
    time::{bucket_assignment::GRACE_S, clock_line::ClockEvent},
    write::gaps::{Gap, GapReason},
};

/// Why a drain happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainTrigger {
    /// The interval has elapsed.
    Interval,
    /// The daemon has just started.
    Started,
    /// Something is about to change: a container stopped, the class table or the maps will be replaced, or
    /// the daemon stops.
    Event,
}

/// What a drain needs besides the reading.
#[derive(Clone, Copy, Debug)]
pub struct DrainContext {
    /// Planned interval between drains. A drain later than twice this leaves a gap record.
    pub interval: Duration,
    /// Why this drain happens.
    pub trigger: DrainTrigger,
}

/// When an earlier reading was taken, and where its traffic went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LastReading {
    pub epoch: i64,
    pub boot_id: String,
    /// The wall clock of the reading.
    pub wall: Timestamp,
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub boottime_ns: u64,
    pub bucket_s: i64,
    pub class_table: i64,
}

/// The times of a reading and of those before it, by the clock that traffic is booked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BookedTimes {
    pub now: Timestamp,
    /// Of the last reading of the same epoch.
    pub same_epoch: Option<Timestamp>,
    /// Of the last reading in any epoch.
    pub latest: Option<Timestamp>,
    /// When the node booted.
    pub booted: Timestamp,
}

impl BookedTimes {
    /// An instant of this boot that the wall clock showed, which may have been wrong then.
    pub fn within_boot(&self, shown: Timestamp) -> Timestamp {
        if shown > self.now { self.now } else { shown.max(self.booted.min(self.now)) }
    }
}

/// What the ledger knows before a reading is written.
#[derive(Clone, Debug)]
pub(crate) struct PriorState {
    /// The last reading of the node, in any epoch.
    pub latest: Option<LastReading>,
    /// The last reading of the same epoch.
    pub same_epoch: Option<LastReading>,
    /// Id of the class table of the new reading.
    pub class_table: i64,
    /// Why drains failed since the last reading, if they did.
    pub failing: Option<GapReason>,
    pub times: BookedTimes,
    pub event: ClockEvent,
}

/// Start of the time that a reading covers. Of counters that were never read, this is their creation.
pub(crate) fn span_start(snapshot: &Snapshot, times: &BookedTimes) -> Timestamp {
    times.same_epoch.unwrap_or_else(|| times.within_boot(snapshot.epoch_created))
}

/// The gaps between the last reading and this one.
pub(crate) fn gaps_before(snapshot: &Snapshot, context: &DrainContext, prior: &PriorState) -> Vec<Gap> {
    let times = &prior.times;
    let start = span_start(snapshot, times);
    let mut gaps = Vec::new();
    if let (Some(latest), Some(at)) = (&prior.latest, times.latest) {
        gaps.extend(clock_gap(prior.event, at, times.now));
        if prior.same_epoch.is_none() {
            let same_boot = latest.boot_id == snapshot.boot_id;
            let reason = if same_boot { GapReason::CountersRenewed } else { GapReason::Reboot };
            gaps.push(Gap::of_node(reason, at, start.max(at)));
        }
        if !matches!(prior.event, ClockEvent::Reverted { .. }) {
            gaps.extend(late_gap(start, times.now, context, prior.failing));
        }
    }
    if let (Some(last), Some(at)) = (&prior.same_epoch, times.same_epoch) {
        // A drain just before the change separates the two tables.
        let drained_before =
            snapshot.class_table.loaded.duration_since(last.wall).abs() <= SignedDuration::from_secs(GRACE_S);
        if last.class_table != prior.class_table && !drained_before {
            let loaded = snapshot.class_table.loaded.clamp(at.min(times.now), times.now);
            gaps.push(Gap::of_node(GapReason::ClassTableMixed, at, loaded));
        }
    }
    gaps
}

fn clock_gap(event: ClockEvent, last: Timestamp, now: Timestamp) -> Option<Gap> {
    let by = |by_ms: i64| format!("{:+.3} s", SignedDuration::from_millis(by_ms).as_secs_f64());
    let (reason, detail) = match event {
        ClockEvent::Steady => return None,
        ClockEvent::Stepped { by_ms } => {
            (GapReason::ClockStepped, format!("the clock was set by {}", by(by_ms)))
        }
        ClockEvent::Distrusted { by_ms } => (
            GapReason::ClockStepped,
            format!(
                "the clock is off by {} and is not followed; time continues from the last reading",
                by(by_ms)
            ),
        ),
        ClockEvent::Ahead { by_ms } => (
            GapReason::ClockStepped,
            format!("after a reboot the clock stood {} from the last trusted reading", by(by_ms)),
        ),
        ClockEvent::BootMoves { by_ms } => (
            GapReason::ClockStepped,
            format!("the clock was set by {}; what this boot recorded before was moved along", by(by_ms)),
        ),
        ClockEvent::SinceMoves { by_ms, .. } => (
            GapReason::ClockStepped,
            format!(
                "the clock has been off by {} for a week and is followed now, with what was recorded since",
                by(by_ms)
            ),
        ),
        ClockEvent::Reverted { by_ms } => (
            GapReason::Reverted,
            format!(
                "the node went back {} together with its memory; what it counted since then and until this \
                 reading is not known",
                by_ms.map_or_else(|| "into an earlier boot".to_owned(), |by_ms| format!("by {}", by(by_ms)))
            ),
        ),
    };
    // The clock of another boot may have been far in the future.
    let last = if matches!(event, ClockEvent::Ahead { .. }) { last.min(now) } else { last };
    Some(Gap::of_node(reason, last, now).with_detail(detail))
}

fn late_gap(
    span_start: Timestamp,
    now: Timestamp,
    context: &DrainContext,
    failing: Option<GapReason>,
) -> Option<Gap> {
    let interval = SignedDuration::try_from(context.interval).unwrap_or(SignedDuration::MAX);
    let allowed = interval.saturating_mul(2).saturating_add(SignedDuration::from_secs(GRACE_S));
    if failing.is_none() && now.duration_since(span_start) <= allowed {
        return None;
    }
    let reason = failing.unwrap_or(match context.trigger {
        DrainTrigger::Started => GapReason::DaemonDown,
        DrainTrigger::Interval | DrainTrigger::Event => GapReason::MissedDrain,
    });
    let detail = "all traffic was counted and is recorded in one bucket".to_owned();
    Some(Gap::of_node(reason, span_start, now).with_detail(detail))
}
