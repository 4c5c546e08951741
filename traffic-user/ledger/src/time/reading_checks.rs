//! What a reading says about the time since the one before: its span, the bucket it goes to, and the gaps in between.
//! Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use traffic_model::Snapshot;

use crate::{
    time::bucket_assignment::{Booking, BookingInput, ClockReading, GRACE_S, booking, passage},
    write::gaps::{Gap, GapReason},
};

/// Why a drain happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainTrigger {
    /// Its time has come.
    Interval,
    /// The first one after the daemon's start.
    Started,
    /// Something is about to change: a container went, the class table is to be replaced, maps are to be removed, the
    /// daemon stops.
    Event,
}

/// What a drain needs to know besides the reading.
#[derive(Clone, Copy, Debug)]
pub struct DrainContext {
    /// How often drains are planned. One that comes later than twice that leaves a gap record.
    pub interval: Duration,
    /// Why this one happens.
    pub trigger: DrainTrigger,
}

/// A reading that is in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    pub epoch: i64,
    pub boot_id: String,
    pub clock: ClockReading,
    pub bucket_s: i64,
    pub class_table: i64,
}

/// What the ledger knows when a reading arrives.
#[derive(Clone, Debug)]
pub(crate) struct Before {
    /// The last reading of the node, of whatever epoch.
    pub latest: Option<Past>,
    /// The last reading of the same epoch.
    pub same_epoch: Option<Past>,
    /// Number of the class table of the new reading.
    pub class_table: i64,
    /// Nothing may be booked before this.
    pub floor_s: i64,
    /// The newest bucket that holds anything.
    pub newest_bucket_s: Option<i64>,
    /// Why drains failed since the last reading, where they did.
    pub failing: Option<GapReason>,
}

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Timeline {
    pub span_start: Timestamp,
    pub booking: Booking,
    pub gaps: Vec<Gap>,
    /// The wall clock has been set, or may have been while the node was down.
    pub unsteady: bool,
}

/// A wall clock this far ahead after a reboot is not taken for granted.
const REBOOT_JUMP: SignedDuration = SignedDuration::from_hours(24);

/// Judges a reading. Its boottime must not lie before that of `latest` in the same boot.
pub(crate) fn judge(snapshot: &Snapshot, context: &DrainContext, before: &Before) -> Timeline {
    let now = ClockReading { wall: snapshot.time, boottime_ns: snapshot.boottime_ns };
    let span_start = before.same_epoch.as_ref().map_or_else(
        || snapshot.epoch_created.min(now.wall),
        |past| now.wall.checked_sub(passage(past.clock, now).elapsed).unwrap_or(Timestamp::MIN),
    );
    let mut gaps = Vec::new();
    let mut unsteady = false;
    if let Some(latest) = &before.latest {
        let stepped = step_gap(latest, now, &snapshot.boot_id);
        unsteady = stepped.is_some()
            || (latest.boot_id != snapshot.boot_id
                && now.wall.duration_since(latest.clock.wall) > REBOOT_JUMP);
        gaps.extend(stepped);
        if before.same_epoch.is_none() {
            let same_boot = latest.boot_id == snapshot.boot_id;
            let reason = if same_boot { GapReason::CountersRenewed } else { GapReason::Reboot };
            let end = snapshot.epoch_created.max(latest.clock.wall);
            gaps.push(Gap::of_node(reason, latest.clock.wall, end));
        }
        gaps.extend(late_gap(span_start, now.wall, context, before.failing));
    }
    if let Some(past) = &before.same_epoch {
        // Where it was drained just before the change, nothing is mixed.
        let drained_before = snapshot.class_table.loaded.duration_since(past.clock.wall).abs()
            <= SignedDuration::from_secs(GRACE_S);
        if past.class_table != before.class_table && !drained_before {
            gaps.push(Gap::of_node(GapReason::ClassTableMixed, past.clock.wall, snapshot.class_table.loaded));
        }
    }
    let booking = booking(&BookingInput {
        now_s: now.wall.as_second(),
        span_start_s: span_start.as_second(),
        floor_s: before.floor_s,
        last_bucket_s: before.latest.as_ref().map(|past| past.bucket_s),
        newest_bucket_s: before.newest_bucket_s,
        interval: context.interval,
    });
    Timeline { span_start, booking, gaps, unsteady }
}

fn step_gap(latest: &Past, now: ClockReading, boot_id: &str) -> Option<Gap> {
    let detail = if latest.boot_id == boot_id {
        let step = passage(latest.clock, now).step?;
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
    let detail = "counted all the same, booked as one".to_owned();
    Some(Gap::of_node(reason, span_start, now).with_detail(detail))
}
