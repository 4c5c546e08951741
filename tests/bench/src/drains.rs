//! How long a drain of 1,000 containers takes, as the daemon logs it, without drops and with.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData};
use traffic_common::{ContainerRecord, Direction, DropGroup, DropKey, Family, Tally};
use traffic_tests::{Lab, process::Process};

use crate::{
    control::{AllCounters, COLUMNS, CONTAINERS, PART},
    progress::Progress,
    results::Results,
};

/// The drains.
pub const DRAIN: &str = "drain 1,000 containers";
/// Drains in which packets of each container were dropped for four reasons.
pub const WITH_DROPS: &str = "trafctl, with drops";

/// Reasons of each container.
const REASONS: [DropGroup; 4] =
    [DropGroup::Shaper, DropGroup::Firewall, DropGroup::QueueFull, DropGroup::Other];
/// Counters of drops.
const DROPS: u64 = CONTAINERS as u64 * REASONS.len() as u64;

/// The counters of drops, written as if packets had been dropped.
struct DropCounters {
    counters: HashMap<MapData, DropKey, Tally>,
    keys: Vec<DropKey>,
    raised: u64,
    is_there: bool,
}

impl DropCounters {
    /// `None` before the daemon has loaded the program.
    fn open(lab: &Lab) -> Result<Option<Self>> {
        let pin = lab.bpffs().join("drops/DROP_COUNTERS");
        if !pin.exists() {
            return Ok(None);
        }
        let counters = Map::HashMap(MapData::from_pin(pin)?).try_into()?;
        let records = MapData::from_pin(lab.bpffs().join("maps/CONTAINERS"))?;
        let records: Array<MapData, ContainerRecord> = Map::Array(records).try_into()?;
        let mut keys = Vec::new();
        for slot in 0..CONTAINERS {
            let generation = records.get(&slot, 0)?.generation;
            keys.extend(REASONS.map(|group| DropKey {
                slot,
                generation,
                column: 1,
                family: Family::Ipv4 as u8,
                direction: Direction::In as u8,
                group: group as u8,
            }));
        }
        Ok(Some(Self { counters, keys, raised: 0, is_there: false }))
    }

    /// Makes every counter grow by a different amount.
    fn raise(&mut self) -> Result<()> {
        self.raised += 1;
        self.is_there = true;
        for (number, key) in (1..).zip(&self.keys) {
            let packets = self.raised * number;
            self.counters.insert(key, Tally { packets, bytes: packets * 100 }, 0)?;
        }
        Ok(())
    }

    /// As if nothing had been dropped. A counter that comes back is higher than before.
    fn remove(&mut self) -> Result<()> {
        self.is_there = false;
        for key in &self.keys {
            self.counters.remove(key)?;
        }
        Ok(())
    }
}

/// Measures the drains without drops and with in turn.
pub fn run(
    lab: &Lab,
    counters: &mut AllCounters,
    rounds: usize,
    (results, progress): (&mut Results, &Progress),
) -> Result<()> {
    let mut command = lab.trafctl(&["run"])?;
    command.env("TRAFCTL_LOG", "warn,trafctl=debug").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut daemon = Process::spawn(&mut command)?;
    let stderr = daemon.child().stderr.take().context("the daemon's messages")?;
    let (mut seen, mut drops) = ([0; 2], None);
    // The log is kept for the error when the daemon ends.
    let mut log = BTreeMap::new();
    for (number, line) in BufReader::new(stderr).lines().enumerate() {
        let line = line?;
        log.insert(number, line.clone());
        let Some(drained) = Drained::of(&line) else { continue };
        let is_full = drained.rows == u64::from(CONTAINERS * COLUMNS) * 2;
        let variant = [0, DROPS].iter().position(|rows| *rows == drained.drops).filter(|_| is_full);
        if let Some(variant) = variant {
            seen[variant] += 1;
            progress.note(&format!("control, drains: round {} of {rounds}", seen[0]));
            // The first drain inserts the rows that later drains update.
            if seen[variant] > 1 {
                let name = ["trafctl", WITH_DROPS][variant];
                results.push(PART, DRAIN, name, (drained.milliseconds / 1000.0, "s"));
            }
            if seen.iter().all(|seen| *seen > rounds) {
                return Ok(());
            }
        }
        counters.raise()?;
        match &mut drops {
            None => drops = DropCounters::open(lab)?,
            Some(drops) if seen[0] > seen[1] => drops.raise()?,
            Some(drops) if drops.is_there => drops.remove()?,
            Some(_) => {}
        }
    }
    ensure!(seen.iter().all(|seen| *seen > rounds), "the daemon ended: {log:?}");
    Ok(())
}

/// The daemon's message about a drain.
#[derive(Debug, PartialEq)]
pub struct Drained {
    /// How long it took.
    pub milliseconds: f64,
    /// Rows of classes.
    pub rows: u64,
    /// Rows of drops.
    drops: u64,
}

impl Drained {
    /// `None` for another line of the log.
    pub fn of(line: &str) -> Option<Self> {
        let (milliseconds, counts) = line.split_once("drained in ")?.1.split_once(" ms: ")?;
        let count = |of: &str| -> Option<u64> {
            let found = counts.split(", ").find_map(|count| count.strip_suffix(of))?;
            found.split(' ').next()?.parse().ok()
        };
        let rows = count(" rows of classes")?;
        Some(Self { milliseconds: milliseconds.parse().ok()?, rows, drops: count(" of drops")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_message_about_a_drain_is_parsed() {
        let line = "2026-01-01T00:00:00Z DEBUG trafctl::drain: drained in 81.5 ms: 32000 rows of classes, 1 of faults, \
                    2 of interfaces, 4000 of drops";
        assert_eq!(Drained::of(line), Some(Drained { milliseconds: 81.5, rows: 32_000, drops: 4000 }));
        assert_eq!(Drained::of("DEBUG something else"), None);
    }
}
