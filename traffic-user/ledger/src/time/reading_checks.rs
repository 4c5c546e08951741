//! Checks a reading against the previous one: the time it covers, its bucket, and the gaps in between. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use traffic_model::Snapshot;

use crate::{
    time::bucket_assignment::{
        AssignmentInput, BucketAssignment, ClockReading, GRACE_S, assign_bucket, compare_clocks,
    },
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
    pub clock: ClockReading,
    pub bucket_s: i64,
    pub class_table: i64,
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
    /// Nothing may be written before this.
    pub floor_s: i64,
    /// The newest bucket that holds anything.
    pub newest_bucket_s: Option<i64>,
    /// Why drains failed since the last reading, if they did.
    pub failing: Option<GapReason>,
}

/// The result of checking a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReadingCheck {
    pub span_start: Timestamp,
    pub bucket: BucketAssignment,
    pub gaps: Vec<Gap>,
    /// Whether the wall clock was set, or may have been while the node was down.
    pub unsteady: bool,
}

/// A wall clock that is further ahead than this after a reboot is not trusted.
const REBOOT_JUMP: SignedDuration = SignedDuration::from_hours(24);

/// Checks a reading. In the same boot, its boottime must not be before that of `latest`.
pub(crate) fn check_reading(snapshot: &Snapshot, context: &DrainContext, prior: &PriorState) -> ReadingCheck {
    let now = ClockReading { wall: snapshot.time, boottime_ns: snapshot.boottime_ns };
    let span_start = prior.same_epoch.as_ref().map_or_else(
        || snapshot.epoch_created.min(now.wall),
        |last| now.wall.checked_sub(compare_clocks(last.clock, now).elapsed).unwrap_or(Timestamp::MIN),
    );
    let mut gaps = Vec::new();
    let mut unsteady = false;
    if let Some(latest) = &prior.latest {
        let stepped = step_gap(latest, now, &snapshot.boot_id);
        unsteady = stepped.is_some()
            || (latest.boot_id != snapshot.boot_id
                && now.wall.duration_since(latest.clock.wall) > REBOOT_JUMP);
        gaps.extend(stepped);
        if prior.same_epoch.is_none() {
            let same_boot = latest.boot_id == snapshot.boot_id;
            let reason = if same_boot { GapReason::CountersRenewed } else { GapReason::Reboot };
            let end = snapshot.epoch_created.max(latest.clock.wall);
            gaps.push(Gap::of_node(reason, latest.clock.wall, end));
        }
        gaps.extend(late_gap(span_start, now.wall, context, prior.failing));
    }
    if let Some(last) = &prior.same_epoch {
        // A drain just before the change separates the two tables.
        let drained_before = snapshot.class_table.loaded.duration_since(last.clock.wall).abs()
            <= SignedDuration::from_secs(GRACE_S);
        if last.class_table != prior.class_table && !drained_before {
            gaps.push(Gap::of_node(GapReason::ClassTableMixed, last.clock.wall, snapshot.class_table.loaded));
        }
    }
    let bucket = assign_bucket(&AssignmentInput {
        now_s: now.wall.as_second(),
        span_start_s: span_start.as_second(),
        floor_s: prior.floor_s,
        last_bucket_s: prior.latest.as_ref().map(|last| last.bucket_s),
        newest_bucket_s: prior.newest_bucket_s,
        interval: context.interval,
    });
    ReadingCheck { span_start, bucket, gaps, unsteady }
}

fn step_gap(latest: &LastReading, now: ClockReading, boot_id: &str) -> Option<Gap> {
    let detail = if latest.boot_id == boot_id {
        let step = compare_clocks(latest.clock, now).step?;
        format!("the clock was set by {:+.3} s", step.as_secs_f64())
    } else if now.wall < latest.clock.wall {
        let behind = latest.clock.wall.duration_since(now.wall);
        format!("after a reboot the clock stood {:.3} s before the last reading", behind.as_secs_f64())
    } else {
        return None;
    };
    Some(Gap::of_node(GapReason::ClockStepped, latest.clock.wall, now.wall).with_detail(detail))
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
