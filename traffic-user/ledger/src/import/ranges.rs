//! Ranges of samples: sorted, disjoint pairs of the first and the last start, both inclusive. Pure.

/// First and last start of a range, in seconds since the Unix epoch.
pub type Range = (i64, i64);

/// Whether a start lies in one of the ranges.
pub fn contains(ranges: &[Range], start: i64) -> bool {
    let after = ranges.partition_point(|range| range.0 <= start);
    after > 0 && start <= ranges[after - 1].1
}

/// Unites ranges. Ranges at most `join` apart become one.
pub fn union(a: &[Range], b: &[Range], join: i64) -> Vec<Range> {
    let mut all: Vec<Range> = a.iter().chain(b).copied().collect();
    all.sort_unstable();
    let mut joined: Vec<Range> = Vec::with_capacity(all.len());
    for (first, last) in all {
        match joined.last_mut() {
            Some(open) if first <= open.1.saturating_add(join) => open.1 = open.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// The parts of `a` that are not in `b`.
pub fn subtract(a: &[Range], b: &[Range]) -> Vec<Range> {
    let mut left = Vec::new();
    for &(first, last) in a {
        let mut from = first;
        for &(b_first, b_last) in &b[b.partition_point(|range| range.1 < first)..] {
            if b_first > last {
                break;
            }
            if from < b_first {
                left.push((from, b_first - 1));
            }
            from = from.max(b_last + 1);
        }
        if from <= last {
            left.push((from, last));
        }
    }
    left
}

/// Whether any range overlaps `start..end`.
pub fn touches(ranges: &[Range], start: i64, end: i64) -> bool {
    let at = ranges.partition_point(|range| range.1 < start);
    ranges.get(at).is_some_and(|range| range.0 < end)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn points(ranges: &[Range]) -> BTreeSet<i64> {
        ranges.iter().flat_map(|&(first, last)| first..=last).collect()
    }

    fn any_ranges() -> impl Strategy<Value = Vec<Range>> {
        proptest::collection::vec((0_i64..60, 0_i64..6), 0..6).prop_map(|raw| {
            union(&raw.into_iter().map(|(at, length)| (at, at + length)).collect::<Vec<_>>(), &[], 1)
        })
    }

    proptest! {
        #[test]
        fn match_sets_of_points(a in any_ranges(), b in any_ranges(), at in 0_i64..70, length in 1_i64..9) {
            let (in_a, in_b) = (points(&a), points(&b));
            prop_assert_eq!(points(&union(&a, &b, 1)), &in_a | &in_b);
            prop_assert_eq!(points(&subtract(&a, &b)), &in_a - &in_b);
            prop_assert_eq!(contains(&a, at), in_a.contains(&at));
            prop_assert_eq!(touches(&a, at, at + length), in_a.range(at..at + length).next().is_some());
        }
    }

    #[test]
    fn near_ranges_are_joined() {
        assert_eq!(union(&[(0, 60)], &[(120, 180), (400, 460)], 90), [(0, 180), (400, 460)]);
    }
}
