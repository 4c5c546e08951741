//! Compares the last readings with the live counters. It is the only check that looks outside the file.
//!
//! A counter only grows within one life. So a last reading above the live counter means that one of them was
//! changed, or that the machine went back to an earlier moment. Traffic after the last drain makes the live
//! counters larger; that is in order.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use rusqlite::Connection;
use traffic_common::tally;
use traffic_model::Snapshot;

use crate::{
    error::LedgerError,
    ids,
    write::{
        difference::{class_readings, difference, fault_readings, interface_readings},
        readings::LastReadings,
    },
};

/// What the comparison found.
#[derive(Debug, Default)]
pub(crate) struct LiveComparison {
    /// Number of last readings that were compared.
    pub readings: u64,
    /// A sentence for each reading above its live counter.
    pub problems: Vec<String>,
}

/// Compares the last readings of the counters' epoch; `None` if it was never drained into this ledger.
///
/// `snapshot` must be read after `view` was begun. Otherwise, a drain in between raises the readings.
pub(super) fn compare(view: &Connection, snapshot: &Snapshot) -> Result<Option<LiveComparison>, LedgerError> {
    let Some(epoch) = ids::find_epoch(view, snapshot)? else { return Ok(None) };
    let last = LastReadings::load(view, epoch)?;
    let containers: HashSet<(&str, u32)> =
        snapshot.counters.iter().map(|counter| (counter.container.as_str(), counter.generation)).collect();
    let interfaces: HashSet<(&str, u32)> =
        snapshot.interfaces.iter().map(|counter| (counter.interface.as_str(), counter.generation)).collect();

    let mut compared = LiveComparison::default();
    let readings = last.classes.iter().filter(|(key, _)| {
        containers.contains(&(key.container.as_str(), key.generation)) // otherwise its slot was freed
    });
    compared.add(readings, class_readings(snapshot), |key| {
        format!("container {} class {} {}", key.container, key.class, key.family.name())
    });
    let is_watched = |name: &str, generation| interfaces.contains(&(name, generation));
    let readings = last.faults.iter().filter(|(key, _)| is_watched(&key.interface, key.generation));
    compared.add(readings, fault_readings(snapshot), |key| {
        format!("interface {} fault {}", key.interface, key.fault.name())
    });
    let readings = last.interfaces.iter().filter(|(key, _)| is_watched(&key.interface, key.generation));
    compared.add(readings, interface_readings(snapshot), |key| format!("interface {}", key.interface));
    compared.problems.sort();
    Ok(Some(compared))
}

impl LiveComparison {
    fn add<'a, K: Clone + Eq + Hash + 'a, const N: usize>(
        &mut self,
        readings: impl Iterator<Item = (&'a K, &'a [u64; N])>,
        live: impl Iterator<Item = (K, [u64; N])>,
        name: impl Fn(&K) -> String,
    ) {
        let mut sums: HashMap<K, [u64; N]> = HashMap::new();
        for (key, values) in live {
            tally::add_each(sums.entry(key).or_insert([0; N]), &values);
        }
        for (key, reading) in readings {
            self.readings += 1;
            // A counter at zero may be left out of a snapshot.
            let live = sums.get(key).copied().unwrap_or([0; N]);
            let fell_from = difference(Some(reading), &live).fell_from;
            for (direction, fell) in [("in", fell_from.incoming), ("out", fell_from.outgoing)] {
                if fell.is_some() {
                    self.problems.push(format!(
                        "live counters: {}: {direction} is below its last reading; one of them was changed, or the \
                         machine was reverted; the next drain records a gap",
                        name(key)
                    ));
                }
            }
        }
    }
}
