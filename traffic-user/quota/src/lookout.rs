//! Between two drains: which containers may have reached their next threshold, and when to look.
//!
//! A drain leaves the sum of each quota and the amount of its next threshold. What is left to that amount takes
//! time: no container is faster than [`BYTES_PER_S`]. So a container is looked at when that time is over, and at
//! least after [`SHORTEST`] if it is close. A look adds what was counted since the drain to the sums of the drain.
//! If that reaches a threshold, a drain is asked for, which finds the crossing by itself: a look only brings it
//! forward. So a look that fails or is wrong changes no figure and loses no crossing.
//!
//! Looks pause for as long as keeps them and the wake-ups around them below a hundredth of a core. Drains that were
//! asked for take a tenth at most, but some may follow each other at once: thresholds are reached together at times,
//! and rarely.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{quota::Direction, usage::Used};

/// The highest rate that is expected of a container in each direction: 100 Gbit/s. One that is faster is found
/// later, by a look or by the next drain.
pub const BYTES_PER_S: u64 = 12_500_000_000;
/// The shortest time between two looks.
pub const SHORTEST: Duration = Duration::from_millis(250);
/// How long the pause after a look is, as a multiple of what the look took. A third of the hundredth of a core is left
/// for waking up, and for what other threads do then.
const PAUSE_AFTER_LOOK: u32 = 150;
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long drains that were asked for are paid off, as a multiple of what they took.
const PAID_AFTER_DRAIN: u32 = 10;
/// As long as no more is to be paid off, drains follow without a longer pause.
const CREDIT: Duration = Duration::from_secs(30);
/// The pause after a look that failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(2);

/// What is used of a quota at a drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The container's id.
    pub container: String,
    /// What counts.
    pub direction: Direction,
    /// The classes that count; empty for all that are billed.
    pub classes: Vec<u8>,
    /// What was used at the drain.
    pub used: Used,
    /// The amount of the next threshold.
    pub next: u64,
}

/// When a look or a drain was, and what it cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// The time of a CPU that it took.
    pub cpu: Duration,
}

impl Taken {
    /// The end of the pause after a look.
    fn pause(&self) -> Instant {
        self.ended + self.cpu.saturating_mul(PAUSE_AFTER_LOOK).clamp(SHORTEST, LONGEST_PAUSE)
    }
}

/// What a container counted since the drain: class, bytes in, bytes out.
pub type Counted = Vec<(u8, u64, u64)>;

/// What a look has found, by container; `None` for one of which nothing can be said before the next drain.
pub type Found = Vec<(String, Option<Counted>)>;

impl Sum {
    /// Whether a class counts.
    pub fn has_class(&self, class: u8) -> bool {
        if self.classes.is_empty() { class != 0 } else { self.classes.contains(&class) }
    }

    /// Bytes left to the next threshold; 0 if it is reached.
    fn left(&self, counted: &[(u8, u64, u64)]) -> u64 {
        let mut used = self.used;
        for (_, incoming, outgoing) in counted.iter().filter(|(class, ..)| self.has_class(*class)) {
            used.incoming = used.incoming.saturating_add(*incoming);
            used.outgoing = used.outgoing.saturating_add(*outgoing);
        }
        self.next.saturating_sub(self.direction.of(used))
    }

    /// The least time until so many bytes are counted.
    fn time(&self, left: u64) -> Duration {
        let per_s = if self.direction == Direction::Sum { 2 * BYTES_PER_S } else { BYTES_PER_S };
        Duration::from_nanos(
            u64::try_from(u128::from(left) * 1_000_000_000 / u128::from(per_s)).unwrap_or(u64::MAX),
        )
    }
}

/// The containers that are watched, and when.
#[derive(Debug, Default)]
pub struct Lookout {
    containers: BTreeMap<String, Watched>,
    /// No look is before this.
    pause: Option<Instant>,
    /// When the drains are paid off that were asked for.
    paid: Option<Instant>,
    /// The containers for which a drain was asked, with the amounts that they had reached.
    asked: BTreeMap<String, Vec<u64>>,
    /// Those for which drains were asked in vain.
    in_vain: BTreeMap<String, Vec<u64>>,
}

#[derive(Debug)]
struct Watched {
    sums: Vec<Sum>,
    /// When it is looked at next; `None` for not before the next drain.
    due: Option<Instant>,
}

impl Watched {
    fn amounts(&self) -> Vec<u64> {
        self.sums.iter().map(|sum| sum.next).collect()
    }
}

impl Lookout {
    /// Takes over the sums of a drain.
    ///
    /// A container for which the drain was asked, and that still has the same threshold before it, is left alone
    /// until that changes or a drain comes that was not asked for: looks and drains disagree about it, and drains decide.
    pub fn drained(&mut self, drain: Taken, sums: Vec<Sum>) {
        let asked = std::mem::take(&mut self.asked);
        let mut containers: BTreeMap<String, Watched> = BTreeMap::new();
        for sum in sums {
            let watched = containers
                .entry(sum.container.clone())
                .or_insert_with(|| Watched { sums: Vec::new(), due: None });
            watched.sums.push(sum);
        }
        if asked.is_empty() {
            self.in_vain.clear();
            self.pause = None;
        } else {
            self.in_vain.extend(asked);
            let cost = drain.cpu.saturating_mul(PAID_AFTER_DRAIN).min(CREDIT);
            let paid = self.paid.map_or(drain.ended, |paid| paid.max(drain.ended)) + cost;
            self.paid = Some(paid);
            self.pause = Some((drain.ended + SHORTEST).max(paid.checked_sub(CREDIT).unwrap_or(paid)));
        }
        self.in_vain.retain(|id, amounts| containers.get(id).is_some_and(|one| one.amounts() == *amounts));
        for (id, watched) in &mut containers {
            if !self.in_vain.contains_key(id) {
                let least = watched.sums.iter().map(|sum| sum.time(sum.left(&[]))).min();
                watched.due = least.and_then(|least| drain.began.checked_add(least));
            }
        }
        self.containers = containers;
    }

    /// The ids of all that are watched.
    pub fn containers(&self) -> impl Iterator<Item = &str> {
        self.containers.keys().map(String::as_str)
    }

    /// When to look next; `None` for not before the next drain.
    pub fn due(&self) -> Option<Instant> {
        let first = self.containers.values().filter_map(|watched| watched.due).min()?;
        Some(self.pause.map_or(first, |pause| first.max(pause)))
    }

    /// The containers to look at now. Those that are due before the next look could be are among them.
    pub fn wanted(&self, now: Instant) -> Vec<String> {
        if self.due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let is_due = |watched: &Watched| watched.due.is_some_and(|due| due <= now + SHORTEST);
        self.containers.iter().filter(|(_, one)| is_due(one)).map(|(id, _)| id.clone()).collect()
    }

    /// Takes over what a look has found. Returns whether to drain at once.
    pub fn looked(&mut self, look: Taken, found: Found) -> bool {
        self.pause = Some(look.pause());
        for (id, counted) in found {
            let Some(watched) = self.containers.get_mut(&id) else { continue };
            watched.due = None;
            let Some(counted) = counted else { continue };
            let left = watched.sums.iter().map(|sum| (sum.left(&counted), sum));
            let times: Vec<Duration> = left.map(|(left, sum)| sum.time(left)).collect();
            if watched.sums.iter().any(|sum| sum.left(&counted) == 0) {
                self.asked.insert(id, watched.amounts());
            } else {
                watched.due = times.into_iter().min().and_then(|least| look.began.checked_add(least));
            }
        }
        !self.asked.is_empty()
    }

    /// A look has failed, or the drain that was asked for: it is tried again later.
    pub fn failed(&mut self, now: Instant) {
        let later = now + PAUSE_AFTER_FAILURE;
        for (id, _) in std::mem::take(&mut self.asked) {
            if let Some(watched) = self.containers.get_mut(&id) {
                watched.due = Some(later);
            }
        }
        self.pause = Some(later);
    }
}

#[cfg(test)]
#[path = "lookout_tests.rs"]
mod tests;
