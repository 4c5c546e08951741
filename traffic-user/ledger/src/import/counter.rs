//! One PVA counter: sums its samples into five minutes, separating new samples from those imported before.
//! Pure.

use std::collections::BTreeMap;

use traffic_model::calendar::five_minutes_of;

use crate::import::ranges::{self, Range};

/// The growth of a counter in the interval that begins at `start` (seconds since the Unix epoch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub start: i64,
    pub amount: i64,
}

/// What the ledger already has. Times in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct KnownState<'a> {
    /// Imported ranges of this counter.
    pub imported: &'a [Range],
    /// Start and end of the closed periods, in order.
    pub closed: &'a [(i64, i64)],
    /// Start of the ledger's own counting.
    pub until: i64,
}

/// The sums of one five-minute bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketSum {
    pub start: i64,
    /// Number and sum of the new samples.
    pub new_samples: (u64, i64),
    /// Number and sum of the samples imported before.
    pub known: (u64, i64),
}

/// The digested samples of a counter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    pub buckets: Vec<BucketSum>,
    /// Imported ranges of this counter after the import.
    pub imported: Vec<Range>,
    /// Imported ranges that these samples do not contain.
    pub missing: Vec<Range>,
    /// Usual distance between samples, in seconds.
    pub interval: i64,
    /// End of the last sample that is taken or was imported before.
    pub end: Option<i64>,
    /// Repeated samples of the same time: their number, and the first one.
    pub duplicates: (u64, Option<Sample>),
    /// Samples from the time that the ledger counts itself.
    pub after_until: (u64, Option<Sample>),
    /// The sample that spans the start of the ledger's own counting.
    pub over_begin: Option<Sample>,
    /// New samples in closed periods, by index of the period.
    pub closed: BTreeMap<usize, (u64, Sample)>,
}

/// PVA's usual interval, for counters with too few samples to tell.
const USUAL_INTERVAL_S: i64 = 60;

/// The most frequent distance between samples; of equally frequent ones, the shortest.
fn interval(samples: &[Sample]) -> i64 {
    let mut distances: BTreeMap<i64, usize> = BTreeMap::new();
    for pair in samples.windows(2) {
        *distances.entry(pair[1].start - pair[0].start).or_default() += 1;
    }
    distances.remove(&0);
    let most = distances.values().max().copied();
    distances
        .iter()
        .find(|(_, count)| Some(**count) == most)
        .map_or(USUAL_INTERVAL_S, |(distance, _)| *distance)
}

/// Digests samples that are sorted by start.
pub fn digest(samples: &[Sample], already: &KnownState<'_>) -> Digest {
    let interval = interval(samples);
    // PVA reads a second or two early or late; a longer distance means that a sample is missing.
    let near = interval + interval / 2;
    let mut digest = Digest { interval, ..Digest::default() };
    let mut taken: Vec<Range> = Vec::new();
    // Whether the previous sample was taken, so that both may form one range.
    let mut open = false;
    let mut last = None;
    for (at, &sample) in samples.iter().enumerate() {
        if last == Some(sample.start) {
            digest.duplicates.0 += 1;
            digest.duplicates.1.get_or_insert(sample);
            continue;
        }
        last = Some(sample.start);
        if sample.start >= already.until {
            digest.after_until.0 += 1;
            digest.after_until.1.get_or_insert(sample);
            continue;
        }
        let next = samples[at + 1..].iter().map(|next| next.start).find(|&start| start > sample.start);
        let end = next.filter(|next| next - sample.start <= near).unwrap_or(sample.start + interval);
        let known = ranges::contains(already.imported, sample.start);
        if !known {
            if end > already.until {
                digest.over_begin = Some(sample);
                open = false;
                continue;
            }
            let period = already.closed.partition_point(|period| period.0 <= sample.start).checked_sub(1);
            if let Some(period) = period.filter(|&period| sample.start < already.closed[period].1) {
                digest.closed.entry(period).or_insert((0, sample)).0 += 1;
                open = false;
                continue;
            }
        }
        digest.end = Some(end);
        match taken.last_mut() {
            Some(range) if open && sample.start - range.1 <= near => range.1 = sample.start,
            _ => taken.push((sample.start, sample.start)),
        }
        open = true;
        digest.add(sample, known);
    }
    digest.missing = ranges::subtract(already.imported, &taken);
    digest.imported = ranges::union(already.imported, &taken, near);
    digest
}

impl Digest {
    fn add(&mut self, sample: Sample, known: bool) {
        let start = five_minutes_of(sample.start);
        if self.buckets.last().is_none_or(|bucket| bucket.start != start) {
            self.buckets.push(BucketSum { start, ..BucketSum::default() });
        }
        if let Some(bucket) = self.buckets.last_mut() {
            let sum = if known { &mut bucket.known } else { &mut bucket.new_samples };
            *sum = (sum.0 + 1, sum.1.saturating_add(sample.amount));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(starts: &[i64]) -> Vec<Sample> {
        starts.iter().map(|&start| Sample { start, amount: start % 1000 + 1 }).collect()
    }

    fn nothing() -> KnownState<'static> {
        KnownState { imported: &[], closed: &[], until: i64::MAX }
    }

    #[test]
    fn the_interval_is_the_most_frequent_distance() {
        assert_eq!(interval(&samples(&[0, 59, 120, 180, 240, 900])), 60);
        assert_eq!(interval(&samples(&[0, 3600, 7200])), 3600);
        assert_eq!(interval(&samples(&[5])), USUAL_INTERVAL_S);
        assert_eq!(interval(&samples(&[5, 5])), USUAL_INTERVAL_S);
    }

    #[test]
    fn samples_become_buckets_and_ranges() {
        let digest = digest(&samples(&[0, 60, 121, 300, 600, 660]), &nothing());
        let sums: Vec<_> = digest.buckets.iter().map(|bucket| (bucket.start, bucket.new_samples)).collect();
        assert_eq!(sums, [(0, (3, 1 + 61 + 122)), (300, (1, 301)), (600, (2, 601 + 661))]);
        assert_eq!(digest.imported, [(0, 121), (300, 300), (600, 660)]);
        assert_eq!(digest.end, Some(720));
    }

    #[test]
    fn imported_samples_are_separated_from_new_ones() {
        let already = KnownState { imported: &[(60, 180), (240, 240)], ..nothing() };
        let digest = digest(&samples(&[0, 60, 120, 180, 300]), &already);
        assert_eq!(digest.buckets[0].new_samples, (1, 1));
        assert_eq!(digest.buckets[0].known, (3, 61 + 121 + 181));
        assert_eq!(digest.buckets[1].new_samples, (1, 301));
        assert_eq!(digest.imported, [(0, 300)]);
        assert_eq!(digest.missing, [(240, 240)]);
    }

    #[test]
    fn a_sample_spanning_the_start_of_own_counting_is_skipped() {
        let until = |until| digest(&samples(&[0, 60, 120, 180]), &KnownState { until, ..nothing() });
        let at_a_start = until(120);
        assert_eq!((at_a_start.over_begin, at_a_start.after_until.0), (None, 2));
        assert_eq!(at_a_start.end, Some(120));
        let within = until(121);
        assert_eq!((within.over_begin.unwrap().start, within.after_until.0), (120, 1));
        assert_eq!(within.imported, [(0, 60)]);
        // The last sample has no successor that would show its end.
        assert_eq!(until(239).over_begin.unwrap().start, 180);
        assert_eq!(until(240).over_begin, None);
    }

    #[test]
    fn closed_periods_refuse_only_new_samples() {
        let already = KnownState { imported: &[(0, 60)], closed: &[(0, 150), (200, 250)], until: i64::MAX };
        let digest = digest(&samples(&[0, 60, 120, 180, 240, 300]), &already);
        assert_eq!(digest.closed[&0], (1, Sample { start: 120, amount: 121 }));
        assert_eq!(digest.closed[&1].0, 1);
        assert_eq!(digest.imported, [(0, 60), (180, 180), (300, 300)]);
    }

    #[test]
    fn a_repeated_time_counts_once() {
        let digest = digest(&samples(&[0, 60, 60, 120]), &nothing());
        assert_eq!((digest.duplicates.0, digest.buckets[0].new_samples), (1, (3, 1 + 61 + 121)));
    }
}
