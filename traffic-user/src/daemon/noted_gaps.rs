//! Gaps that no counter shows, kept until a drain has stored them.
//!
//! While the ledger cannot be written, containers come and go, and each may leave a gap. The list is bounded:
//! beyond the limit, gaps of one reason and one container become one gap that holds their sizes, and beyond it
//! again, those of one reason.

use std::collections::HashMap;

use traffic_ledger::Gap;

/// Most gaps that are kept one by one.
const KEPT: usize = 10_000;

/// The explanation of a gap that holds others.
const UNITED: &str = "many gaps in one, because the ledger could not be written for long";

/// Gaps that wait for a drain.
#[derive(Debug, Default)]
pub(super) struct NotedGaps {
    gaps: Vec<Gap>,
}

impl NotedGaps {
    /// The gaps, in the order in which they were noted.
    pub(super) fn all(&self) -> &[Gap] {
        &self.gaps
    }

    /// Adds gaps.
    pub(super) fn extend(&mut self, gaps: Vec<Gap>) {
        self.gaps.extend(gaps);
        if self.gaps.len() > KEPT {
            self.unite(|gap| gap.container.clone());
            // Half of the limit, so that not each further gap leads here again.
            if self.gaps.len() > KEPT / 2 {
                self.unite(|_| None);
            }
        }
    }

    /// Forgets all: they are stored.
    pub(super) fn clear(&mut self) {
        self.gaps.clear();
    }

    /// Makes one gap of all that share a reason and the container that `container` returns.
    fn unite(&mut self, container: impl Fn(&Gap) -> Option<String>) {
        let mut places = HashMap::new();
        let mut united: Vec<Gap> = Vec::new();
        for gap in self.gaps.drain(..) {
            let container = container(&gap);
            let place = *places.entry((gap.reason.name(), container.clone())).or_insert(united.len());
            match united.get_mut(place) {
                Some(sum) => {
                    add(sum, &gap);
                    sum.container = container;
                }
                None => united.push(gap),
            }
        }
        self.gaps = united;
    }
}

/// Adds a gap to another one. The size of the sum is known only if both are.
fn add(sum: &mut Gap, gap: &Gap) {
    sum.start = sum.start.zip(gap.start).map(|(a, b)| a.min(b));
    sum.end = sum.end.max(gap.end);
    sum.interface = sum.interface.take().filter(|interface| gap.interface.as_ref() == Some(interface));
    sum.size = sum.size.zip(gap.size).map(|(a, b)| a.plus(&b));
    sum.detail = Some(UNITED.to_owned());
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use traffic_ledger::{GapReason, GapSize};

    use super::*;

    fn gap(number: i64, container: &str, reason: GapReason) -> Gap {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let size = GapSize { in_skbs: 1, in_skb_bytes: 100, out_skbs: 2, out_skb_bytes: 200 };
        Gap {
            node: None,
            start: Some(at(1_000 + number)),
            end: at(1_001 + number),
            reason,
            interface: Some(format!("veth{number}")),
            container: Some(container.to_owned()),
            size: Some(size),
            detail: None,
        }
    }

    fn note(gaps: impl Iterator<Item = Gap>) -> NotedGaps {
        let mut noted = NotedGaps::default();
        gaps.for_each(|gap| noted.extend(vec![gap]));
        noted
    }

    fn total(noted: &NotedGaps) -> GapSize {
        noted.all().iter().fold(GapSize::default(), |sum, gap| sum.plus(&gap.size.unwrap()))
    }

    #[test]
    fn few_gaps_are_kept_as_they_are() {
        let gaps: Vec<_> = (0..10_000).map(|n| gap(n, "101", GapReason::BeforeAttach)).collect();
        assert_eq!(note(gaps.iter().cloned()).all(), gaps);
    }

    #[test]
    fn many_gaps_of_few_containers_keep_container_span_and_size() {
        let reasons = [GapReason::BeforeAttach, GapReason::CountedTwice];
        let all = (0..10_001)
            .map(|n| gap(n, ["101", "102"][usize::from(n % 2 != 0)], reasons[usize::from(n / 2 % 2 != 0)]));
        let noted = note(all);
        assert_eq!(noted.all().len(), 4);
        let first = &noted.all()[0];
        assert_eq!((first.container.as_deref(), first.reason), (Some("101"), GapReason::BeforeAttach));
        assert_eq!((first.start.unwrap().as_second(), first.end.as_second()), (1_000, 11_001));
        assert_eq!((first.interface.as_deref(), first.size.unwrap().in_skb_bytes), (None, 250_100));
        assert!(first.detail.as_deref() == Some(UNITED), "{first:?}");
        assert_eq!(total(&noted).out_skbs, 20_002);
    }

    #[test]
    fn gaps_of_any_number_of_containers_are_bounded_and_lose_no_size() {
        let noted = note((0..50_000).map(|n| gap(n, &n.to_string(), GapReason::BeforeAttach)));
        assert!(noted.all().len() <= 10_000, "{}", noted.all().len());
        assert_eq!(total(&noted).in_skbs, 50_000);
        assert_eq!(noted.all()[0].container, None);
    }

    #[test]
    fn an_unknown_size_or_start_stays_unknown() {
        let unknown = Gap { size: None, start: None, ..gap(5, "101", GapReason::BeforeAttach) };
        let known = (0..10_000).map(|n| gap(n, "101", GapReason::BeforeAttach));
        let noted = note(known.chain([unknown]));
        assert_eq!((noted.all().len(), noted.all()[0].size, noted.all()[0].start), (1, None, None));
    }
}
