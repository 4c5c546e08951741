//! When the counters of each container began, as the metrics show it.
//!
//! An id that goes to a new customer restarts at zero. Prometheus sees a restart only if the value falls. If
//! the new customer sends more than the old one had before the next scrape, it takes both for one counter, and
//! `increase()` shows only the difference. So a new life is shown as zero first, for longer than a usual scrape
//! interval, and `_created` says when it began, for those who read that.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use traffic_model::{ContainerId, Snapshot};

/// How long a new life is shown as zero: each Prometheus that scrapes once a minute sees it at least once.
const ZERO_FOR: Duration = Duration::from_secs(90);

/// The life that a container's counters have now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    generation: u32,
    created: Timestamp,
    /// Until when it is shown as zero, by the time since boot.
    zero_until: Option<Duration>,
}

/// What one page shows of lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown(BTreeMap<ContainerId, (Timestamp, bool)>);

impl Shown {
    /// When the counters of a container began; `None` if it was not looked at.
    pub fn created(&self, container: &ContainerId) -> Option<Timestamp> {
        self.0.get(container).map(|shown| shown.0)
    }

    /// Whether the container's counters are shown as zero yet.
    pub fn is_zero(&self, container: &ContainerId) -> bool {
        self.0.get(container).is_some_and(|shown| shown.1)
    }
}

#[derive(Debug, Default)]
struct Known {
    /// Boot and epoch of the last page.
    epoch: (String, u64),
    /// Time of the last page.
    last: Option<Timestamp>,
    lives: BTreeMap<ContainerId, Life>,
}

/// The lives that earlier pages showed.
#[derive(Debug, Default)]
pub struct Lives(Mutex<Known>);

impl Lives {
    /// Notes the lives in a reading, and returns how to show them.
    pub fn follow(&self, snapshot: &Snapshot) -> Shown {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = (snapshot.boot_id.clone(), snapshot.epoch);
        if known.epoch != epoch {
            *known = Known { epoch, ..Known::default() };
        }
        let now = Duration::from_nanos(snapshot.boottime_ns);
        let last = known.last;
        let mut shown = Shown::default();
        for counter in snapshot.present_counters() {
            let generation = counter.generation;
            let life = match known.lives.get(&counter.container) {
                // A reading that began earlier may come later.
                Some(life) if generation <= life.generation => *life,
                // It began after the last page, on which it was not.
                before => Life {
                    generation,
                    created: last.map_or(snapshot.epoch_created, |last| last.max(snapshot.epoch_created)),
                    zero_until: before.map(|_| now.saturating_add(ZERO_FOR)),
                },
            };
            known.lives.insert(counter.container.clone(), life);
            let is_zero = life.zero_until.is_some_and(|until| now < until);
            shown.0.insert(counter.container.clone(), (life.created, is_zero));
        }
        known.last = Some(last.map_or(snapshot.time, |last| last.max(snapshot.time)));
        shown
    }
}

#[cfg(test)]
mod tests {
    use traffic_common::Family;
    use traffic_model::{ByDirection, ClassCounter, sample};

    use super::*;

    fn reading(seconds: u64, lives: &[(&str, u32)]) -> Snapshot {
        let mut snapshot = sample::snapshot();
        snapshot.time = Timestamp::from_second(1_794_312_000 + seconds.cast_signed()).unwrap();
        snapshot.epoch_created = Timestamp::from_second(1_794_300_000).unwrap();
        snapshot.boottime_ns = seconds * 1_000_000_000;
        snapshot.counters = lives
            .iter()
            .map(|&(id, generation)| ClassCounter {
                container: ContainerId::new(id).unwrap(),
                generation,
                class: 1,
                family: Family::Ipv4,
                tally: ByDirection::default(),
            })
            .collect();
        snapshot
    }

    #[test]
    fn a_new_life_is_zero_first_and_begins_after_the_last_page() {
        let (lives, id) = (Lives::default(), |id| ContainerId::new(id).unwrap());
        let first = lives.follow(&reading(10, &[("101", 1)]));
        assert_eq!(first.created(&id("101")), Some(reading(10, &[]).epoch_created));
        assert!(!first.is_zero(&id("101")), "nobody saw an earlier life");
        // Both lives are in the kernel, and a container appears that had none.
        let next = lives.follow(&reading(25, &[("101", 1), ("101", 2), ("102", 1)]));
        assert_eq!(next.created(&id("101")), Some(reading(10, &[]).time));
        assert_eq!((next.is_zero(&id("101")), next.is_zero(&id("102"))), (true, false));
        assert_eq!(next.created(&id("102")), Some(reading(10, &[]).time));
        for (seconds, is_zero) in [(40, true), (114, true), (115, false), (200, false)] {
            let page = lives.follow(&reading(seconds, &[("101", 2)]));
            assert_eq!(page.is_zero(&id("101")), is_zero, "{seconds}");
            assert_eq!(page.created(&id("101")), Some(reading(10, &[]).time), "it does not move");
        }
        // An older reading does not bring the old life back.
        assert!(!lives.follow(&reading(199, &[("101", 1)])).is_zero(&id("101")));
        let third = lives.follow(&reading(300, &[("101", 3)]));
        assert!(third.is_zero(&id("101")));
        assert_eq!(third.created(&id("101")), Some(reading(200, &[]).time));
        // After a reboot, everything begins with its epoch.
        let rebooted = Snapshot { boot_id: "another".to_owned(), ..reading(20, &[("101", 1)]) };
        let page = lives.follow(&rebooted);
        assert_eq!(
            (page.created(&id("101")), page.is_zero(&id("101"))),
            (Some(rebooted.epoch_created), false)
        );
    }
}
