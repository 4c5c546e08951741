//! One PVA counter: sums its samples into five minutes, separating new samples from those imported before.
//! Pure.

use std::collections::BTreeMap;

use traffic_model::calendar::{FIVE_MINUTES_S, five_minutes_of};

use crate::{
    import::ranges::{self, Range},
    time::bucket_assignment::GRACE_S,
};

/// The growth of a counter in the interval that begins at `start` (seconds since the Unix epoch), in parts of
/// [`ONE`](super::source::ONE).
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
    /// The usual distance between samples of the owner's other counters, in seconds. A counter that is mostly
    /// idle may have samples further apart.
    pub interval: Option<i64>,
    /// How samples are split; `None` if earlier imports did not split them.
    pub split: Option<Splitting<'a>>,
}

/// How samples are split.
#[derive(Clone, Copy, Debug)]
pub struct Splitting<'a> {
    /// Starts of the billing months, in order.
    pub months: &'a [i64],
    /// Before this, five-minute rows will not be kept, and an hour is fine enough.
    pub fine_from: i64,
}

/// The sums of one five-minute bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketSum {
    pub start: i64,
    /// Number and sum of the new samples.
    pub new_samples: (u64, i64),
    /// Number and sum of the samples imported before.
    pub known: (u64, i64),
    /// Whether a part of it is a share of a longer sample.
    pub split: bool,
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
    let own = interval(samples);
    let interval = already.interval.map_or(own, |usual| usual.min(own));
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
        let closed =
            already.closed.iter().map(|period| period.0).find(|&from| sample.start < from && from < end);
        digest.add_over(sample, closed.unwrap_or(end), known, already.split);
    }
    digest.missing = ranges::subtract(already.imported, &taken);
    digest.imported = ranges::union(already.imported, &taken, near);
    digest
}

impl Digest {
    /// Adds a sample that ends at `end`. One that is longer than a bucket, or lies over the border of a month,
    /// is shared evenly among the buckets that it covers.
    fn add_over(&mut self, sample: Sample, end: i64, known: bool, split: Option<Splitting<'_>>) {
        let Some(Splitting { months, fine_from }) = split else {
            self.add(five_minutes_of(sample.start), (1, sample.amount), known, false);
            return;
        };
        let length = end - sample.start;
        let step = if sample.start < fine_from { 3600 } else { FIVE_MINUTES_S };
        let next_border = |at: i64| {
            let month = months.get(months.partition_point(|&month| month <= at));
            month.map_or(i64::MAX, |&month| month).min(at - at.rem_euclid(step) + step)
        };
        let next_month = months.get(months.partition_point(|&month| month <= sample.start + GRACE_S));
        let over_month = next_month.is_some_and(|&month| month < end - GRACE_S);
        if length <= FIVE_MINUTES_S + GRACE_S && !over_month || end <= next_border(sample.start) {
            self.add(five_minutes_of(sample.start), (1, sample.amount), known, false);
            return;
        }
        let until = |time: i64| {
            let passed = i128::from((time - sample.start).clamp(0, length));
            i64::try_from(i128::from(sample.amount) * passed / i128::from(length)).unwrap_or(i64::MAX)
        };
        let (mut at, mut number) = (sample.start, 1);
        while at < end {
            let next = next_border(at);
            self.add(five_minutes_of(at), (number, until(next) - until(at)), known, true);
            (at, number) = (next, 0);
        }
    }

    /// Adds to a bucket. Buckets come in order, except that the last ones of a long sample may be reached
    /// again.
    fn add(&mut self, start: i64, (number, amount): (u64, i64), known: bool, split: bool) {
        let at = self.buckets.iter().rposition(|bucket| bucket.start <= start);
        let at = match at {
            Some(at) if self.buckets[at].start == start => at,
            _ => {
                let at = at.map_or(0, |before| before + 1);
                self.buckets.insert(at, BucketSum { start, ..BucketSum::default() });
                at
            }
        };
        let bucket = &mut self.buckets[at];
        let sum = if known { &mut bucket.known } else { &mut bucket.new_samples };
        *sum = (sum.0 + number, sum.1.saturating_add(amount));
        bucket.split |= split;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(starts: &[i64]) -> Vec<Sample> {
        starts.iter().map(|&start| Sample { start, amount: start % 1000 + 1 }).collect()
    }

    const FINE: Splitting<'static> = Splitting { months: &[], fine_from: i64::MIN };

    fn nothing() -> KnownState<'static> {
        KnownState { imported: &[], closed: &[], until: i64::MAX, interval: None, split: Some(FINE) }
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
        let already = KnownState { imported: &[(0, 60)], closed: &[(0, 150), (200, 250)], ..nothing() };
        let digest = digest(&samples(&[0, 60, 120, 180, 240, 300]), &already);
        assert_eq!(digest.closed[&0], (1, Sample { start: 120, amount: 121 }));
        assert_eq!(digest.closed[&1].0, 1);
        assert_eq!(digest.imported, [(0, 60), (180, 180), (300, 300)]);
    }

    #[test]
    fn long_samples_are_shared_among_their_buckets() {
        let hourly = [Sample { start: 150, amount: 12_000 }, Sample { start: 3750, amount: 24_000 }];
        let shared = digest(&hourly, &nothing());
        assert_eq!(shared.buckets.len(), 25);
        assert!(shared.buckets.iter().all(|bucket| bucket.split));
        assert_eq!(shared.buckets.iter().map(|bucket| bucket.new_samples.1).sum::<i64>(), 36_000);
        assert_eq!(shared.buckets.iter().map(|bucket| bucket.new_samples.0).sum::<u64>(), 2);
        assert_eq!([0, 1, 12, 13].map(|at| shared.buckets[at].new_samples.1), [500, 1000, 1500, 2000]);
        // Earlier imports left such samples in one bucket, and are compared with what they wrote.
        let former = digest(&hourly, &KnownState { split: None, ..nothing() });
        assert_eq!(
            former.buckets.iter().map(|bucket| bucket.new_samples.1).collect::<Vec<_>>(),
            [12_000, 24_000]
        );
    }

    #[test]
    fn old_samples_are_shared_among_hours() {
        let coarse = Splitting { months: &[9000], fine_from: i64::MAX };
        let samples = [Sample { start: 3600, amount: 1000 }, Sample { start: 7200, amount: 3600 }];
        let digest = digest(&samples, &KnownState { split: Some(coarse), ..nothing() });
        let sums: Vec<_> = digest.buckets.iter().map(|bucket| (bucket.start, bucket.new_samples.1)).collect();
        assert_eq!(sums, [(3600, 1000), (7200, 1800), (9000, 1800)]);
    }

    #[test]
    fn an_idle_counter_has_the_interval_of_its_owner() {
        let sparse = [Sample { start: 0, amount: 10 }, Sample { start: 3600, amount: 20 }];
        let digest = digest(&sparse, &KnownState { interval: Some(300), ..nothing() });
        assert_eq!(digest.buckets.iter().map(|bucket| bucket.new_samples.1).collect::<Vec<_>>(), [10, 20]);
        assert_eq!((digest.interval, digest.end), (300, Some(3900)));
    }

    #[test]
    fn a_short_sample_is_split_only_over_the_border_of_a_month() {
        let samples = [Sample { start: 450, amount: 900 }, Sample { start: 750, amount: 600 }];
        let months = [0, 600];
        let split =
            digest(&samples, &KnownState { split: Some(Splitting { months: &months, ..FINE }), ..nothing() });
        let sums: Vec<_> = split.buckets.iter().map(|bucket| (bucket.start, bucket.new_samples.1)).collect();
        assert_eq!(sums, [(300, 450), (600, 1050)]);
        assert_eq!(digest(&samples, &nothing()).buckets[0].new_samples.1, 900);
        // The open month before a closed one keeps all of it.
        let closed = KnownState {
            split: Some(Splitting { months: &months, ..FINE }),
            closed: &[(600, 700)],
            ..nothing()
        };
        assert_eq!(digest(&samples, &closed).buckets[0].new_samples.1, 900);
    }

    #[test]
    fn a_repeated_time_counts_once() {
        let digest = digest(&samples(&[0, 60, 60, 120]), &nothing());
        assert_eq!((digest.duplicates.0, digest.buckets[0].new_samples), (1, (3, 1 + 61 + 121)));
    }
}
