//! ResetBaselines: readings that `vztactl reset_ve_stat` takes, and from which `vznetstat` shows what came since.
//!
//! Counters never go back, so a reset is a reading put aside. The marks are in `marks.json` in the state directory, written
//! whole under the lock on the pinned state. They belong to one boot and one set of counters, and each to one life of
//! its container; with another boot, set or life they are void, and figures show from their beginning.

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

/// All marks of one set of counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResetBaselines {
    /// The set they belong to: the kernel's boot id and the counters' epoch.
    set: Option<(String, u64)>,
    /// Each container's, by its id and generation.
    marks: HashMap<(ContainerId, u32), Mark>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    taken: Timestamp,
    /// What the counters held that were not zero.
    readings: HashMap<(u8, Family), ByDirection<Tally>>,
}

impl ResetBaselines {
    /// ResetBaselines where the counters stand: those of one container, or all. ResetBaselines of another set of counters, and of lives that
    /// are over, are let go.
    pub fn set(&mut self, snapshot: &Snapshot, only: Option<&ContainerId>) {
        if !self.are_of(snapshot) {
            self.marks.clear();
            self.set = Some((snapshot.boot_id.clone(), snapshot.epoch));
        }
        let lives: std::collections::HashSet<_> =
            snapshot.counters.iter().map(|counter| (counter.container.clone(), counter.generation)).collect();
        self.marks.retain(|life, _| lives.contains(life) && only.is_some_and(|only| life.0 != *only));
        for counter in &snapshot.counters {
            if only.is_some_and(|only| counter.container != *only) {
                continue;
            }
            let mark = self
                .marks
                .entry((counter.container.clone(), counter.generation))
                .or_insert_with(|| Mark { taken: snapshot.time, readings: HashMap::new() });
            if counter.tally != ByDirection::default() {
                mark.readings.insert((counter.class, counter.family), counter.tally);
            }
        }
    }

    /// Leaves of the class counters what came since their marks. All else stays as it is.
    pub fn subtract_from(&self, snapshot: &mut Snapshot) {
        if !self.are_of(snapshot) {
            return;
        }
        for counter in &mut snapshot.counters {
            let life = (counter.container.clone(), counter.generation);
            let reading =
                self.marks.get(&life).and_then(|mark| mark.readings.get(&(counter.class, counter.family)));
            if let Some(reading) = reading {
                counter.tally = counter.tally.since(reading);
            }
        }
    }

    fn are_of(&self, snapshot: &Snapshot) -> bool {
        self.set.as_ref().is_some_and(|(boot, epoch)| *boot == snapshot.boot_id && *epoch == snapshot.epoch)
    }
}

/// Where the marks are kept.
#[derive(Clone, Debug)]
pub struct MarkFile {
    path: PathBuf,
}

impl MarkFile {
    /// The file in this state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE_NAME) }
    }

    /// Reads it; where there is none, there are no marks.
    ///
    /// # Errors
    /// When it can't be read, or holds something else than marks that this version knows.
    pub fn read(&self) -> anyhow::Result<ResetBaselines> {
        let Some(bytes) = state_file::read(&self.path)? else { return Ok(ResetBaselines::default()) };
        File::parse(&bytes).and_then(ResetBaselines::try_from).with_context(|| {
            format!(
                "cannot use the marks in {}; without the file, counters show from their beginning",
                self.path.display()
            )
        })
    }

    /// Writes it whole. The caller holds the lock on the pinned state.
    ///
    /// # Errors
    /// When it can't be written; the old marks stay then.
    pub fn write(&self, marks: &ResetBaselines) -> anyhow::Result<()> {
        state_file::replace(&self.path, &serde_json::to_vec(&File::from(marks))?)
    }
}

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    version: u32,
    boot_id: String,
    /// In hexadecimal, since JSON's numbers are not that long everywhere.
    epoch: String,
    marks: Vec<MarkEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct MarkEntry {
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
        // The version first: the rest of another one may look different.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            bail!("they are of version {version}, and this trafctl knows version {VERSION}");
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}

impl From<&ResetBaselines> for File {
    fn from(marks: &ResetBaselines) -> Self {
        let (boot_id, epoch) = marks.set.clone().unwrap_or_default();
        let reading = |(&(class, family), tally): (&(u8, Family), &ByDirection<Tally>)| Reading {
            class,
            family: family.name().to_owned(),
            in_bytes: tally.incoming.bytes,
            in_packets: tally.incoming.packets,
            out_bytes: tally.outgoing.bytes,
            out_packets: tally.outgoing.packets,
        };
        let entry = |((container, generation), mark): (&(ContainerId, u32), &Mark)| MarkEntry {
            container: container.to_string(),
            generation: *generation,
            taken: mark.taken,
            counters: mark.readings.iter().map(reading).collect(),
        };
        Self {
            version: VERSION,
            boot_id,
            epoch: format!("{epoch:016x}"),
            marks: marks.marks.iter().map(entry).collect(),
        }
    }
}

impl TryFrom<File> for ResetBaselines {
    type Error = anyhow::Error;

    fn try_from(file: File) -> anyhow::Result<Self> {
        let epoch = u64::from_str_radix(&file.epoch, 16).context("its epoch is no number")?;
        let mut marks = HashMap::new();
        for entry in file.marks {
            let mut readings = HashMap::new();
            for reading in entry.counters {
                let family = Family::ALL.into_iter().find(|family| family.name() == reading.family);
                let family = family.with_context(|| format!("there is no family {:?}", reading.family))?;
                let tally = ByDirection {
                    incoming: Tally { packets: reading.in_packets, bytes: reading.in_bytes },
                    outgoing: Tally { packets: reading.out_packets, bytes: reading.out_bytes },
                };
                readings.insert((reading.class, family), tally);
            }
            let life = (ContainerId::new(&entry.container)?, entry.generation);
            marks.insert(life, Mark { taken: entry.taken, readings });
        }
        Ok(Self { set: Some((file.boot_id, epoch)), marks })
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

    /// The sample after more traffic: each figure grew by another number.
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

    fn since(marks: &ResetBaselines, snapshot: &Snapshot) -> Vec<[u64; 4]> {
        let mut snapshot = snapshot.clone();
        marks.subtract_from(&mut snapshot);
        let figures = |tally: &ByDirection<Tally>| {
            [tally.incoming.bytes, tally.incoming.packets, tally.outgoing.bytes, tally.outgoing.packets]
        };
        snapshot.counters.iter().map(|counter| figures(&counter.tally)).collect()
    }

    #[test]
    fn after_a_mark_only_what_came_since_shows() {
        let mut marks = ResetBaselines::default();
        let first = sample::snapshot();
        let whole = since(&marks, &first);
        marks.set(&first, None);
        assert!(since(&marks, &first).iter().all(|row| *row == [0; 4]));
        let grown = since(&marks, &later(3));
        assert_eq!(grown[0], [31, 4, 32, 5]);
        assert_eq!(grown[2], [91, 4, 92, 5]);
        assert!(since(&ResetBaselines::default(), &first) == whole, "without marks nothing is taken off");
    }

    #[test]
    fn one_container_is_marked_and_the_others_are_not() {
        let mut marks = ResetBaselines::default();
        let (first, second) = (sample::snapshot(), later(3));
        marks.set(&first, Some(&id("102")));
        let of_101 = first.counters.iter().filter(|counter| counter.container == id("101")).count();
        assert_eq!(since(&marks, &first)[..of_101], since(&ResetBaselines::default(), &first)[..of_101]);
        assert_eq!(since(&marks, &first)[of_101], [0; 4]);
        // Each has a mark of its own.
        marks.set(&second, Some(&id("101")));
        assert!(since(&marks, &second)[..of_101].iter().all(|row| *row == [0; 4]));
        assert_eq!(since(&marks, &second)[of_101], [3 * 80 + 1, 4, 3 * 80 + 2, 5]);
        marks.set(&second, Some(&id("102")));
        assert!(since(&marks, &second).iter().all(|row| *row == [0; 4]));
    }

    #[test]
    fn marks_of_another_boot_set_or_life_are_void() {
        let mut marks = ResetBaselines::default();
        let first = sample::snapshot();
        marks.set(&first, None);
        let changes: [fn(&mut Snapshot); 3] = [
            |snapshot| snapshot.boot_id.push('x'),
            |snapshot| snapshot.epoch += 1,
            |snapshot| snapshot.counters.iter_mut().for_each(|counter| counter.generation += 1),
        ];
        for change in changes {
            let mut other = first.clone();
            change(&mut other);
            assert_eq!(since(&marks, &other), since(&ResetBaselines::default(), &other));
            // A new mark then is of the new ones, and the old ones are gone for good.
            let mut again = marks.clone();
            again.set(&other, Some(&id("102")));
            assert_eq!(since(&again, &first), since(&ResetBaselines::default(), &first));
        }
    }

    #[test]
    fn a_reading_from_before_the_mark_is_nothing() {
        let mut marks = ResetBaselines::default();
        marks.set(&later(3), None);
        let mut earlier = sample::snapshot();
        earlier.counters.truncate(9);
        assert!(since(&marks, &earlier).iter().all(|row| *row == [0; 4]));
    }

    #[test]
    fn marks_are_kept_in_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = MarkFile::new(directory.path());
        assert_eq!(file.read().unwrap(), ResetBaselines::default());
        let mut marks = ResetBaselines::default();
        marks.set(&sample::snapshot(), None);
        file.write(&marks).unwrap();
        assert_eq!(file.read().unwrap(), marks);

        for (text, reason) in [
            ("", "EOF"),
            ("{\"version\":2}", "version 2, and this trafctl knows version 1"),
            ("{\"version\":1,\"boot_id\":\"b\",\"epoch\":\"x\",\"marks\":[]}", "no number"),
        ] {
            fs::write(directory.path().join(FILE_NAME), text).unwrap();
            let error = format!("{:#}", file.read().unwrap_err());
            assert!(error.starts_with("cannot use the marks in ") && error.contains(reason), "{error}");
        }
    }
}
