//! Reset baselines: the readings that `vztactl reset_ve_stat` stores, and from which `vznetstat` shows the
//! difference.
//!
//! Counters never go back, so a reset stores a reading. The baselines are in `marks.json` in the state
//! directory, which is replaced as a whole under the lock on the pinned state. They belong to one boot and
//! one set of counters, and each one to one generation of its container. After another boot, set or
//! generation they are void, and figures start from zero.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use traffic_common::{Family, Tally};
use traffic_model::{ByDirection, ContainerId, Snapshot};

use crate::state_file;

/// Name of the file in the state directory.
const FILE_NAME: &str = "marks.json";
/// Version of its content.
const VERSION: u32 = 1;

/// All baselines of one set of counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResetBaselines {
    /// The set that they belong to: the kernel's boot id and the epoch of the counters.
    set: Option<(String, u64)>,
    /// By id and generation of the container.
    by_owner: HashMap<(ContainerId, u32), Baseline>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Baseline {
    taken: Timestamp,
    /// The counters that were not zero.
    readings: HashMap<(u8, Family), ByDirection<Tally>>,
}

impl ResetBaselines {
    /// Stores the counters of one container, or of all, as the new baseline. Drops baselines of another set
    /// of counters and of former owners.
    pub fn set(&mut self, snapshot: &Snapshot, only: Option<&ContainerId>) {
        if !self.are_of(snapshot) {
            self.by_owner.clear();
            self.set = Some((snapshot.boot_id.clone(), snapshot.epoch));
        }
        let owners: std::collections::HashSet<_> =
            snapshot.counters.iter().map(|counter| (counter.container.clone(), counter.generation)).collect();
        self.by_owner.retain(|owner, _| owners.contains(owner) && only.is_some_and(|only| owner.0 != *only));
        for counter in &snapshot.counters {
            if only.is_some_and(|only| counter.container != *only) {
                continue;
            }
            let baseline = self
                .by_owner
                .entry((counter.container.clone(), counter.generation))
                .or_insert_with(|| Baseline { taken: snapshot.time, readings: HashMap::new() });
            if counter.tally != ByDirection::default() {
                baseline.readings.insert((counter.class, counter.family), counter.tally);
            }
        }
    }

    /// Replaces the class counters by their growth since their baselines. Everything else stays.
    pub fn subtract_from(&self, snapshot: &mut Snapshot) {
        if !self.are_of(snapshot) {
            return;
        }
        for counter in &mut snapshot.counters {
            let owner = (counter.container.clone(), counter.generation);
            let reading = self
                .by_owner
                .get(&owner)
                .and_then(|baseline| baseline.readings.get(&(counter.class, counter.family)));
            if let Some(reading) = reading {
                counter.tally = counter.tally.since(reading);
            }
        }
    }

    fn are_of(&self, snapshot: &Snapshot) -> bool {
        self.set.as_ref().is_some_and(|(boot, epoch)| *boot == snapshot.boot_id && *epoch == snapshot.epoch)
    }
}

/// The file of the baselines.
#[derive(Clone, Debug)]
pub struct BaselineFile {
    path: PathBuf,
}

impl BaselineFile {
    /// The file in this state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE_NAME) }
    }

    /// Reads the baselines; without a file there are none.
    ///
    /// # Errors
    /// When the file cannot be read or has content that this version does not know.
    pub fn read(&self) -> anyhow::Result<ResetBaselines> {
        let Some(bytes) = state_file::read(&self.path)? else { return Ok(ResetBaselines::default()) };
        File::parse(&bytes).and_then(ResetBaselines::try_from).with_context(|| {
            format!(
                "cannot use the reset baselines in {} (without the file, vznetstat counts from the beginning)",
                self.path.display()
            )
        })
    }

    /// Replaces the file. The caller holds the lock on the pinned state.
    ///
    /// # Errors
    /// When it cannot be written; the old file stays then.
    pub fn write(&self, baselines: &ResetBaselines) -> anyhow::Result<()> {
        state_file::replace(&self.path, &serde_json::to_vec(&File::from(baselines))?)
    }
}

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    version: u32,
    boot_id: String,
    /// In hexadecimal, because not every JSON reader has numbers of 64 bits.
    epoch: String,
    marks: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    container: String,
    generation: u32,
    taken: Timestamp,
    counters: Vec<Reading>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Reading {
    class: u8,
    family: String,
    in_bytes: u64,
    in_packets: u64,
    out_bytes: u64,
    out_packets: u64,
}

impl File {
    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        // The version first: the rest of another version may differ.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            bail!("the file has version {version}, this trafctl reads version {VERSION}");
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}

impl From<&ResetBaselines> for File {
    fn from(baselines: &ResetBaselines) -> Self {
        let (boot_id, epoch) = baselines.set.clone().unwrap_or_default();
        let reading = |(&(class, family), tally): (&(u8, Family), &ByDirection<Tally>)| Reading {
            class,
            family: family.name().to_owned(),
            in_bytes: tally.incoming.bytes,
            in_packets: tally.incoming.packets,
            out_bytes: tally.outgoing.bytes,
            out_packets: tally.outgoing.packets,
        };
        let entry = |((container, generation), baseline): (&(ContainerId, u32), &Baseline)| Entry {
            container: container.to_string(),
            generation: *generation,
            taken: baseline.taken,
            counters: baseline.readings.iter().map(reading).collect(),
        };
        Self {
            version: VERSION,
            boot_id,
            epoch: format!("{epoch:016x}"),
            marks: baselines.by_owner.iter().map(entry).collect(),
        }
    }
}

impl TryFrom<File> for ResetBaselines {
    type Error = anyhow::Error;

    fn try_from(file: File) -> anyhow::Result<Self> {
        let epoch = u64::from_str_radix(&file.epoch, 16).context("its epoch is not a number")?;
        let mut by_owner = HashMap::new();
        for entry in file.marks {
            let mut readings = HashMap::new();
            for reading in entry.counters {
                let family = Family::ALL.into_iter().find(|family| family.name() == reading.family);
                let family = family.with_context(|| format!("family {:?} is unknown", reading.family))?;
                let tally = ByDirection {
                    incoming: Tally { packets: reading.in_packets, bytes: reading.in_bytes },
                    outgoing: Tally { packets: reading.out_packets, bytes: reading.out_bytes },
                };
                readings.insert((reading.class, family), tally);
            }
            let owner = (ContainerId::new(&entry.container)?, entry.generation);
            by_owner.insert(owner, Baseline { taken: entry.taken, readings });
        }
        Ok(Self { set: Some((file.boot_id, epoch)), by_owner })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use traffic_model::sample;

    use super::*;

    fn id(text: &str) -> ContainerId {
        ContainerId::new(text).unwrap()
    }

    /// The sample after more traffic: each figure grew by a different number.
    fn later(by: u64) -> Snapshot {
        let mut snapshot = sample::snapshot();
        for (at, counter) in (0..).zip(&mut snapshot.counters) {
            let grow = |tally: &mut Tally, step: u64| {
                tally.bytes = tally.bytes.wrapping_add(by * (at + 1) * 10 + step);
                tally.packets += by + step;
            };
            grow(&mut counter.tally.incoming, 1);
            grow(&mut counter.tally.outgoing, 2);
        }
        snapshot.counters.retain(|counter| counter.container.as_str() != sample::UUID);
        snapshot
    }

    fn since(baselines: &ResetBaselines, snapshot: &Snapshot) -> Vec<[u64; 4]> {
        let mut snapshot = snapshot.clone();
        baselines.subtract_from(&mut snapshot);
        let figures = |tally: &ByDirection<Tally>| {
            [tally.incoming.bytes, tally.incoming.packets, tally.outgoing.bytes, tally.outgoing.packets]
        };
        snapshot.counters.iter().map(|counter| figures(&counter.tally)).collect()
    }

    #[test]
    fn after_a_reset_only_the_growth_is_shown() {
        let mut baselines = ResetBaselines::default();
        let first = sample::snapshot();
        let whole = since(&baselines, &first);
        baselines.set(&first, None);
        assert!(since(&baselines, &first).iter().all(|row| *row == [0; 4]));
        let grown = since(&baselines, &later(3));
        assert_eq!(grown[0], [31, 4, 32, 5]);
        assert_eq!(grown[2], [91, 4, 92, 5]);
        assert!(
            since(&ResetBaselines::default(), &first) == whole,
            "without a baseline nothing is subtracted"
        );
    }

    #[test]
    fn one_container_is_reset_and_the_others_are_not() {
        let mut baselines = ResetBaselines::default();
        let (first, second) = (sample::snapshot(), later(3));
        baselines.set(&first, Some(&id("102")));
        let of_101 = first.counters.iter().filter(|counter| counter.container == id("101")).count();
        assert_eq!(since(&baselines, &first)[..of_101], since(&ResetBaselines::default(), &first)[..of_101]);
        assert_eq!(since(&baselines, &first)[of_101], [0; 4]);
        // Each container has its own baseline.
        baselines.set(&second, Some(&id("101")));
        assert!(since(&baselines, &second)[..of_101].iter().all(|row| *row == [0; 4]));
        assert_eq!(since(&baselines, &second)[of_101], [3 * 80 + 1, 4, 3 * 80 + 2, 5]);
        baselines.set(&second, Some(&id("102")));
        assert!(since(&baselines, &second).iter().all(|row| *row == [0; 4]));
    }

    #[test]
    fn baselines_of_another_boot_set_or_generation_are_void() {
        let mut baselines = ResetBaselines::default();
        let first = sample::snapshot();
        baselines.set(&first, None);
        let changes: [fn(&mut Snapshot); 3] = [
            |snapshot| snapshot.boot_id.push('x'),
            |snapshot| snapshot.epoch += 1,
            |snapshot| snapshot.counters.iter_mut().for_each(|counter| counter.generation += 1),
        ];
        for change in changes {
            let mut other = first.clone();
            change(&mut other);
            assert_eq!(since(&baselines, &other), since(&ResetBaselines::default(), &other));
            // A new reset belongs to the new counters, and the old baselines are gone for good.
            let mut again = baselines.clone();
            again.set(&other, Some(&id("102")));
            assert_eq!(since(&again, &first), since(&ResetBaselines::default(), &first));
        }
    }

    #[test]
    fn a_reading_from_before_the_reset_shows_zero() {
        let mut baselines = ResetBaselines::default();
        baselines.set(&later(3), None);
        let mut earlier = sample::snapshot();
        earlier.counters.truncate(9);
        assert!(since(&baselines, &earlier).iter().all(|row| *row == [0; 4]));
    }

    #[test]
    fn baselines_are_stored_in_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = BaselineFile::new(directory.path());
        assert_eq!(file.read().unwrap(), ResetBaselines::default());
        let mut baselines = ResetBaselines::default();
        baselines.set(&sample::snapshot(), None);
        file.write(&baselines).unwrap();
        assert_eq!(file.read().unwrap(), baselines);

        for (text, reason) in [
            ("", "EOF"),
            ("{\"version\":2}", "version 2, this trafctl reads version 1"),
            ("{\"version\":1,\"boot_id\":\"b\",\"epoch\":\"x\",\"marks\":[]}", "not a number"),
        ] {
            fs::write(directory.path().join(FILE_NAME), text).unwrap();
            let error = format!("{:#}", file.read().unwrap_err());
            assert!(
                error.starts_with("cannot use the reset baselines in ") && error.contains(reason),
                "{error}"
            );
        }
    }
}
