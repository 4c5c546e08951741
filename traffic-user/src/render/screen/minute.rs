//! The last minute of each series, for a small picture in its row.

use std::collections::{HashMap, VecDeque};

use traffic_common::Family;
use traffic_model::{ByDirection, ContainerId, live_rates::CounterRow};

/// How long the past is, in seconds.
const MINUTE_S: f64 = 60.0;

/// The finest series there are: container, class, family.
pub(super) type SeriesKey = (ContainerId, u8, Family);

/// Rates of the last minute, in bytes per second, both directions together.
#[derive(Debug, Default)]
pub(super) struct Minute {
    /// Lengths of the samples in seconds, the oldest first.
    lengths: VecDeque<f64>,
    /// Samples of each series. One that began later has fewer, at the end.
    series: HashMap<SeriesKey, VecDeque<f64>>,
}

impl Minute {
    /// Adds what passed in so many seconds.
    pub fn add(&mut self, rows: &[CounterRow], seconds: f64) {
        let seconds = seconds.max(f64::MIN_POSITIVE);
        for samples in self.series.values_mut() {
            samples.push_back(0.0);
        }
        for row in rows {
            let ByDirection { incoming, outgoing } = row.passed;
            #[expect(clippy::cast_precision_loss, reason = "a picture of eight levels")]
            let rate = incoming.bytes.saturating_add(outgoing.bytes) as f64 / seconds;
            if rate > 0.0 {
                let key = (row.container.clone(), row.class, row.family);
                let samples = self.series.entry(key).or_insert_with(|| VecDeque::from([0.0]));
                if let Some(last) = samples.back_mut() {
                    *last += rate;
                }
            }
        }
        self.lengths.push_back(seconds);
        while self.lengths.len() > 1 && self.lengths.iter().skip(1).sum::<f64>() >= MINUTE_S {
            self.lengths.pop_front();
        }
        let kept = self.lengths.len();
        self.series.retain(|_, samples| {
            samples.drain(..samples.len().saturating_sub(kept));
            samples.iter().any(|&rate| rate > 0.0)
        });
    }

    /// Forgets everything: what follows is of other counters.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The series that had traffic.
    pub fn keys(&self) -> impl Iterator<Item = &SeriesKey> {
        self.series.keys()
    }

    /// The mean rates of a series in so many equal parts of the minute, added to `cells`.
    pub fn add_to(&self, key: &SeriesKey, cells: &mut [f64]) {
        let Some(samples) = self.series.get(key) else { return };
        #[expect(clippy::cast_precision_loss, reason = "a row has few cells")]
        let cell_s = MINUTE_S / cells.len().max(1) as f64;
        // Seconds before now.
        let mut until = 0.0;
        for (&rate, &length) in samples.iter().rev().zip(self.lengths.iter().rev()) {
            let from = until + length;
            for (at, cell) in cells.iter_mut().rev().enumerate() {
                #[expect(clippy::cast_precision_loss, reason = "a row has few cells")]
                let (begin, end) = (at as f64 * cell_s, (at + 1) as f64 * cell_s);
                let overlap = (from.min(end) - until.max(begin)).max(0.0);
                *cell += rate * overlap / cell_s;
            }
            until = from;
        }
    }
}

/// Eight levels, as text. What is there is never drawn as nothing.
pub(super) fn sparkline(cells: &[f64]) -> String {
    const LEVELS: [char; 8] =
        ['\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}'];
    let most = cells.iter().copied().fold(0.0, f64::max);
    let level = |&cell: &f64| {
        if cell <= 0.0 || most <= 0.0 {
            return ' ';
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 8")]
        let at = (cell / most * 8.0).ceil() as usize;
        LEVELS[at.clamp(1, 8) - 1]
    };
    cells.iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use traffic_common::Tally;

    use super::*;

    fn row(id: &str, bytes: u64) -> CounterRow {
        CounterRow {
            container: ContainerId::new(id).unwrap(),
            class: 1,
            family: Family::Ipv4,
            passed: ByDirection {
                incoming: Tally { packets: 1, bytes: bytes / 4 },
                outgoing: Tally { packets: 1, bytes: bytes - bytes / 4 },
            },
            dropped: ByDirection::default(),
        }
    }

    fn key(id: &str) -> SeriesKey {
        (ContainerId::new(id).unwrap(), 1, Family::Ipv4)
    }

    fn cells(minute: &Minute, id: &str, count: usize) -> Vec<f64> {
        let mut cells = vec![0.0; count];
        minute.add_to(&key(id), &mut cells);
        cells
    }

    #[test]
    fn a_minute_is_divided_by_time_and_not_by_samples() {
        let mut minute = Minute::default();
        // A sample of ten seconds, then one of two.
        minute.add(&[row("a", 10_000)], 10.0);
        minute.add(&[row("a", 400)], 2.0);
        assert_eq!(cells(&minute, "a", 6), [0.0, 0.0, 0.0, 0.0, 200.0, 840.0]);
        let sum: f64 = cells(&minute, "a", 6).iter().map(|rate| rate * 10.0).sum();
        assert!((sum - 10_400.0).abs() < 1e-6, "{sum}");
    }

    #[test]
    fn what_is_older_than_a_minute_is_forgotten() {
        let mut minute = Minute::default();
        minute.add(&[row("a", 100)], 1.0);
        for _ in 0..60 {
            minute.add(&[row("b", 100)], 1.0);
        }
        assert_eq!(minute.keys().collect::<Vec<_>>(), [&key("b")]);
        assert_eq!(minute.lengths.len(), 60);
        assert!(cells(&minute, "a", 4).iter().all(|&rate| rate == 0.0));
        assert!(cells(&minute, "b", 4).iter().all(|&rate| (rate - 100.0).abs() < 1e-9));
        minute.add(&[], 1e9);
        minute.add(&[], 60.0);
        assert_eq!(minute.keys().count(), 0);
    }

    #[test]
    fn a_sparkline_has_eight_levels_and_no_hidden_traffic() {
        assert_eq!(sparkline(&[0.0, 1e-9, 50.0, 100.0]), " \u{2581}\u{2584}\u{2588}");
        assert_eq!(sparkline(&[0.0, 0.0]), "  ");
        assert_eq!(sparkline(&[]), "");
    }
}
