//! When the counters of each container began, as the metrics show it.
//!
//! An id that goes to a new customer restarts at zero. Prometheus sees a restart only if the value falls. If
//! the new customer sends more than the old one had before the next scrape, it takes both for one counter, and
//! `increase()` shows only the difference. So a new life is shown as zero first, for longer than a usual scrape
//! interval, and `_created` says when it began, for those who read that.
//!
//! A file in the state directory keeps the lives for the next daemon, which would take every life for the first
//! one otherwise. Only the daemon writes it. It says nothing after a reboot.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use traffic_model::{ContainerId, Snapshot};

use crate::state_file;

/// Name of the file.
const FILE: &str = "lives.json";
/// Largest such file, in bytes.
const MOST_BYTES: u64 = 16 << 20;
/// Version of that file.
const VERSION: u32 = 1;

/// How long a new life is shown as zero: each Prometheus that scrapes once a minute sees it at least once.
const ZERO_FOR: Duration = Duration::from_secs(90);

/// The life that a container's counters have now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    version: u32,
    /// Boot and epoch of the last page.
    epoch: (String, u64),
    /// Time of the last page.
    last: Option<Timestamp>,
    lives: BTreeMap<String, Life>,
}

/// The lives that earlier pages showed.
#[derive(Debug, Default)]
pub struct Lives {
    known: Mutex<Known>,
    /// `None` to keep them in memory only.
    file: Option<PathBuf>,
    /// Whether the log says that the file cannot be written.
    failure_logged: Mutex<bool>,
}

impl Lives {
    /// The lives that earlier daemons noted in a state directory. A file that cannot be read is as good as none.
    pub fn kept_in(state_dir: &Path) -> Self {
        let file = state_dir.join(FILE);
        let read = || -> anyhow::Result<Option<Known>> {
            let Some(bytes) = state_file::read(&file, MOST_BYTES)? else { return Ok(None) };
            let known: Known =
                serde_json::from_slice(&bytes).with_context(|| format!("cannot read {}", file.display()))?;
            Ok(Some(known).filter(|known| known.version == VERSION))
        };
        let known = read().unwrap_or_else(|error| {
            tracing::warn!("{error:#}; the metrics show all counters as begun with their epoch");
            None
        });
        Self { known: Mutex::new(known.unwrap_or_default()), file: Some(file), ..Self::default() }
    }

    /// Notes the lives in a reading, and returns how to show them.
    pub fn follow(&self, snapshot: &Snapshot) -> Shown {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (shown, changed) = Self::note(&mut known, snapshot);
        if changed {
            self.store(&known);
        }
        shown
    }

    /// Writes the file. It is replaced as a whole, and a failure changes nothing of what this daemon shows.
    fn store(&self, known: &Known) {
        let Some(file) = &self.file else { return };
        let stored = serde_json::to_vec(known)
            .map_err(anyhow::Error::from)
            .and_then(|bytes| state_file::replace(file, &bytes, MOST_BYTES));
        let mut logged = self.failure_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = &stored
            && !*logged
        {
            tracing::warn!("{error:#}; after a restart, the metrics show other times of creation");
        }
        *logged = stored.is_err();
    }

    /// Returns how to show the lives, and whether one of them is new.
    fn note(known: &mut Known, snapshot: &Snapshot) -> (Shown, bool) {
        let epoch = (snapshot.boot_id.clone(), snapshot.epoch);
        if known.epoch != epoch {
            *known = Known { version: VERSION, epoch, ..Known::default() };
        }
        let now = Duration::from_nanos(snapshot.boottime_ns);
        let last = known.last;
        let (mut shown, mut changed) = (Shown::default(), false);
        for counter in snapshot.present_counters() {
            let generation = counter.generation;
            let life = match known.lives.get(counter.container.as_str()) {
                // A reading that began earlier may come later.
                Some(life) if generation <= life.generation => *life,
                // It began after the last page, on which it was not.
                before => {
                    changed = true;
                    Life {
                        generation,
                        created: last.map_or(snapshot.epoch_created, |last| last.max(snapshot.epoch_created)),
                        zero_until: before.map(|_| now.saturating_add(ZERO_FOR)),
                    }
                }
            };
            known.lives.insert(counter.container.to_string(), life);
            let is_zero = life.zero_until.is_some_and(|until| now < until);
            shown.0.insert(counter.container.clone(), (life.created, is_zero));
        }
        known.last = Some(last.map_or(snapshot.time, |last| last.max(snapshot.time)));
        (shown, changed)
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
                is_retired: lives.iter().any(|other| other.0 == id && other.1 > generation),
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
    #[test]
    fn the_next_daemon_shows_the_same_and_knows_the_earlier_life() {
        let (dir, id) = (tempfile::tempdir().unwrap(), |id| ContainerId::new(id).unwrap());
        let lives = Lives::kept_in(dir.path());
        lives.follow(&reading(10, &[("101", 1), ("102", 1)]));
        let before = lives.follow(&reading(20, &[("101", 2), ("102", 1)]));
        drop(lives);
        let lives = Lives::kept_in(dir.path());
        assert_eq!(lives.follow(&reading(30, &[("101", 2), ("102", 1)])), before, "still zero, and as old");
        drop(lives);
        // The id goes to another customer while no daemon runs.
        let lives = Lives::kept_in(dir.path());
        let page = lives.follow(&reading(500, &[("101", 2), ("102", 2)]));
        assert_eq!((page.is_zero(&id("101")), page.is_zero(&id("102"))), (false, true));
        assert!(page.created(&id("102")) >= Some(reading(20, &[]).time));
        assert_eq!(page.created(&id("101")), before.created(&id("101")));
        // Whatever is in the way, the metrics go on.
        for content in [&b"{"[..], b"", b"{\"version\":2}"] {
            std::fs::write(dir.path().join(FILE), content).unwrap();
            let page = Lives::kept_in(dir.path()).follow(&reading(600, &[("101", 2)]));
            assert_eq!(page.created(&id("101")), Some(reading(0, &[]).epoch_created));
        }
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        std::fs::create_dir(dir.path().join(FILE)).unwrap();
        assert!(!Lives::kept_in(dir.path()).follow(&reading(700, &[("101", 2)])).is_zero(&id("101")));
    }
}
