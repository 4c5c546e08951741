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

use crate::state_file::{self, StateLock};

/// Name of the file in the state directory.
const FILE_NAME: &str = "marks.json";
/// Largest file, in bytes: 18,000 containers with 16 classes in both families.
const MOST_BYTES: u64 = 64 << 20;
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
    state_dir: PathBuf,
    path: PathBuf,
}

impl BaselineFile {
    /// The file in this state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned(), path: state_dir.join(FILE_NAME) }
    }

    /// Reads the baselines; without a file there are none. An entry that cannot be used is logged and skipped.
    ///
    /// # Errors
    /// When the file cannot be read or has content that this version does not know.
    pub fn read(&self) -> anyhow::Result<ResetBaselines> {
        let (baselines, problems) = self.load()?;
        problems.iter().for_each(|problem| tracing::warn!("{problem}"));
        Ok(baselines)
    }

    /// What is wrong with the file.
    pub fn problems(&self) -> Vec<String> {
        self.load().map_or_else(|error| vec![format!("{error:#}")], |(_, problems)| problems)
    }

    /// The usable baselines, and why others are not.
    fn load(&self) -> anyhow::Result<(ResetBaselines, Vec<String>)> {
        let Some(bytes) = state_file::read(&self.path, MOST_BYTES)? else { return Ok(Default::default()) };
        let (baselines, skipped) = File::parse(&bytes).and_then(usable).with_context(|| {
            format!(
                "cannot use the reset baselines in {} (without the file, vznetstat counts from the beginning)",
                self.path.display()
            )
        })?;
        let problem = |why: String| {
            format!(
                "{}: {why}; vznetstat shows this container from the beginning until its next reset",
                self.path.display()
            )
        };
        Ok((baselines, skipped.into_iter().map(problem).collect()))
    }

    /// Replaces the file. The caller holds the lock on the pinned state.
    ///
    /// # Errors
    /// When it cannot be written; the old file stays then.
    pub fn write(&self, baselines: &ResetBaselines) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(&File::from(baselines))?;
        StateLock::take(&self.state_dir)?.replace(FILE_NAME, &bytes, MOST_BYTES)
    }
}

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    version: u32,
    boot_id: String,
    /// In hexadecimal, because not every JSON reader has numbers of 64 bits.
    epoch: String,
    /// Each an [`Entry`], unless it is damaged.
    marks: Vec<serde_json::Value>,
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
            marks: baselines
                .by_owner
                .iter()
                .map(entry)
                .filter_map(|entry| serde_json::to_value(entry).ok())
                .collect(),
        }
    }
}

/// The usable entries of a file, and why others are skipped.
fn usable(file: File) -> anyhow::Result<(ResetBaselines, Vec<String>)> {
    let epoch = u64::from_str_radix(&file.epoch, 16).context("its epoch is not a number")?;
    let mut by_owner = HashMap::new();
    let mut skipped = Vec::new();
    for (number, mark) in (1..).zip(file.marks) {
        let named = mark.get("container").and_then(|id| id.as_str()).unwrap_or("?").to_owned();
        match baseline(mark) {
            Ok((owner, baseline)) => _ = by_owner.insert(owner, baseline),
            Err(error) => {
                let named: String = named.chars().take(80).collect();
                skipped.push(format!("entry {number} (container {named:?}) is skipped: {error:#}"));
            }
        }
    }
    Ok((ResetBaselines { set: Some((file.boot_id, epoch)), by_owner }, skipped))
}

fn baseline(mark: serde_json::Value) -> anyhow::Result<((ContainerId, u32), Baseline)> {
    let entry: Entry = serde_json::from_value(mark)?;
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
    Ok(((ContainerId::new(&entry.container)?, entry.generation), Baseline { taken: entry.taken, readings }))
}

#[cfg(test)]
mod tests;
