//! The daemon's memory over time.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

/// Growth from one third of a daemon's life to the next that counts. Allocators return pages at their own time.
const STEP_KIB: u64 = 1024;

/// One reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Seconds since the start of the run.
    pub seconds: u64,
    /// The process id of the daemon.
    pub process: u32,
    /// Memory of its own in KiB. Pages of the program's file, which come when a part of it first runs, are left
    /// out: a debug build has many.
    pub memory_kib: u64,
}

/// All readings, in order.
#[derive(Debug, Default, Serialize)]
pub struct Memory {
    samples: Vec<Sample>,
}

impl Memory {
    /// Reads the memory of a process.
    ///
    /// # Errors
    ///
    /// When the process does not exist.
    pub fn read(&mut self, process: u32, since: Duration) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
        let memory_kib = line.trim().trim_end_matches("kB").trim().parse()?;
        self.samples.push(Sample { seconds: since.as_secs(), process, memory_kib });
        Ok(memory_kib)
    }

    /// All readings, in order.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The largest readings in the three thirds of the last daemon's life, in KiB. None with fewer than nine
    /// readings.
    #[must_use]
    pub fn thirds(&self) -> Option<[u64; 3]> {
        let last = self.samples.last()?.process;
        let life: Vec<u64> = self
            .samples
            .iter()
            .filter(|sample| sample.process == last)
            .map(|sample| sample.memory_kib)
            .collect();
        if life.len() < 9 {
            return None;
        }
        let third = life.len() / 3;
        let largest = |part: &[u64]| part.iter().copied().max();
        Some([largest(&life[..third])?, largest(&life[third..2 * third])?, largest(&life[2 * third..])?])
    }

    /// Describes the growth when the memory grew steadily. What is lost grows in both steps. The start shows in the
    /// first step alone, and one large piece of work, such as loading a class table, in either.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let [first, second, last] = self.thirds()?;
        (second > first + STEP_KIB && last > second + STEP_KIB).then(|| {
            format!(
                "the daemon's memory grew: {first} KiB, {second} KiB, {last} KiB in the thirds of its life"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(readings: &[u64]) -> Memory {
        let sample = |&memory_kib: &u64| Sample { seconds: 0, process: 2, memory_kib };
        let mut samples = vec![Sample { seconds: 0, process: 1, memory_kib: 90_000 }];
        samples.extend(readings.iter().map(sample));
        Memory { samples }
    }

    #[test]
    fn steady_growth_differs_from_growth_that_stops() {
        assert_eq!(memory(&[10, 11, 12, 20, 21, 22, 30, 31, 32]).thirds(), Some([12, 22, 32]));
        assert_eq!(memory(&[10; 8]).thirds(), None);
        assert_eq!(memory(&[9000, 9100, 9000, 9200, 9100, 9200, 9100, 9300, 9200]).fault(), None);
        // The start, and a table that was loaded in the last third.
        assert_eq!(memory(&[42, 44, 44, 47, 46, 46, 47, 47, 48].map(|mib| mib << 10)).fault(), None);
        assert_eq!(memory(&[45, 45, 44, 46, 45, 46, 45, 49, 46].map(|mib| mib << 10)).fault(), None);
        let grows = memory(&[9000, 9500, 10_000, 11_000, 12_000, 13_000, 14_000, 15_000, 16_000]);
        assert!(grows.fault().is_some());
    }
}
