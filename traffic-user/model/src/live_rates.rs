//! What passed between two readings, for the live view: the busiest containers first.

use std::{cmp::Reverse, collections::BTreeMap};

use jiff::Timestamp;
use traffic_common::{Family, Tally};

use crate::{ByDirection, ClassCounter, ContainerId, Snapshot, Wanted};

/// What passed between two readings.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveRates {
    /// The node's name.
    pub node: String,
    /// When the later reading began.
    pub time: Timestamp,
    /// Seconds between the beginnings of the two, by a clock that does not step.
    pub seconds: f64,
    /// Containers, or their classes, in the order asked for. Those that were still are left out.
    pub rows: Vec<Row>,
    /// All containers together, those included that no row shows.
    pub classes: ByDirection<Tally>,
    /// What is in no class, on all interfaces.
    pub faults: ByDirection<Tally>,
}

/// One container's traffic, or that of one of its classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Whose.
    pub container: ContainerId,
    /// The class, where each is a row.
    pub class: Option<u8>,
    /// What passed.
    pub passed: ByDirection<Tally>,
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The most bytes in and out together.
    #[default]
    Total,
    /// The most bytes in.
    In,
    /// The most bytes out.
    Out,
    /// The most packets in and out together.
    Packets,
}

impl Order {
    fn weight(self, passed: &ByDirection<Tally>) -> u64 {
        match self {
            Self::Total => passed.total().bytes,
            Self::In => passed.incoming.bytes,
            Self::Out => passed.outgoing.bytes,
            Self::Packets => passed.total().packets,
        }
    }
}

/// What of two readings is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Whose traffic, and which.
    pub wanted: Wanted,
    /// A row for each class instead of one for each container.
    pub by_class: bool,
    /// What comes first.
    pub order: Order,
}

/// What passed between two readings. A counter that the earlier one has not, or has of another set of counters or of
/// another life of the container, began at zero since.
pub fn between(earlier: &Snapshot, later: &Snapshot, selection: &Selection) -> LiveRates {
    type Key<'a> = (&'a ContainerId, u32, u8, Family);
    fn key(counter: &ClassCounter) -> Key<'_> {
        (&counter.container, counter.generation, counter.class, counter.family)
    }
    let same_set = (&earlier.boot_id, earlier.epoch) == (&later.boot_id, later.epoch);
    let before: BTreeMap<Key<'_>, ByDirection<Tally>> =
        earlier.counters.iter().filter(|_| same_set).map(|counter| (key(counter), counter.tally)).collect();
    let mut rows: BTreeMap<(&ContainerId, Option<u8>), ByDirection<Tally>> = BTreeMap::new();
    let mut classes = ByDirection::default();
    for counter in later.counters.iter().filter(|counter| selection.wanted.takes(counter)) {
        let passed = counter.tally.since(&before.get(&key(counter)).copied().unwrap_or_default());
        let class = selection.by_class.then_some(counter.class);
        *rows.entry((&counter.container, class)).or_default() += passed;
        classes += passed;
    }
    let mut rows: Vec<Row> = rows
        .into_iter()
        .filter(|(_, passed)| *passed != ByDirection::default())
        .map(|((container, class), passed)| Row { container: container.clone(), class, passed })
        .collect();
    // Those that are alike stay in the order of their ids, so that they don't change places with every reading.
    rows.sort_by_key(|row| Reverse(selection.order.weight(&row.passed)));
    let faults = |snapshot: &Snapshot| {
        let balance = snapshot.balance();
        ByDirection { incoming: balance.incoming.faults, outgoing: balance.outgoing.faults }
    };
    let faults_before = if same_set { faults(earlier) } else { ByDirection::default() };
    #[expect(clippy::cast_precision_loss, reason = "a nanosecond is lost after a hundred days")]
    let seconds = later.boottime_ns.saturating_sub(earlier.boottime_ns) as f64 / 1e9;
    LiveRates {
        node: later.node.clone(),
        time: later.time,
        seconds,
        rows,
        classes,
        faults: faults(later).since(&faults_before),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    /// The sample, with other figures in each counter.
    fn first() -> Snapshot {
        let mut snapshot = sample::snapshot();
        for (number, counter) in (1..).zip(&mut snapshot.counters) {
            let tally = |more: u64| Tally { packets: number * 10 + more, bytes: number * 1000 + more };
            counter.tally = ByDirection { incoming: tally(1), outgoing: tally(2) };
        }
        snapshot
    }

    /// A later reading, with more in one counter: bytes in, packets in, bytes out, packets out.
    fn later(earlier: &Snapshot, at: usize, more: [u64; 4]) -> Snapshot {
        let mut later = earlier.clone();
        later.boottime_ns += 2_000_000_000;
        let tally = &mut later.counters[at].tally;
        tally.incoming.bytes += more[0];
        tally.incoming.packets += more[1];
        tally.outgoing.bytes += more[2];
        tally.outgoing.packets += more[3];
        later
    }

    fn amounts(passed: &ByDirection<Tally>) -> [u64; 4] {
        let ByDirection { incoming, outgoing } = passed;
        [incoming.bytes, incoming.packets, outgoing.bytes, outgoing.packets]
    }

    #[test]
    fn only_what_moved_is_shown() {
        let earlier = first();
        let later = later(&earlier, 1, [1000, 10, 70, 3]);
        let throughput = between(&earlier, &later, &Selection::default());
        assert_eq!(throughput.rows.len(), 1);
        assert_eq!(throughput.rows[0].container, earlier.counters[1].container);
        assert_eq!(amounts(&throughput.rows[0].passed), [1000, 10, 70, 3]);
        assert_eq!(amounts(&throughput.classes), [1000, 10, 70, 3]);
        assert_eq!(amounts(&throughput.faults), [0; 4]);
        assert!((throughput.seconds - 2.0).abs() < 1e-9);
    }

    #[test]
    fn the_order_is_what_was_asked_for() {
        let earlier = first();
        let other = earlier
            .counters
            .iter()
            .position(|counter| counter.container != earlier.counters[0].container)
            .unwrap();
        let middle = later(&earlier, 0, [1000, 1, 0, 0]);
        let later = later(&middle, other, [10, 5, 2000, 9]);
        let first = |order| {
            let selection = Selection { order, ..Selection::default() };
            between(&earlier, &later, &selection).rows[0].container.clone()
        };
        assert_eq!(first(Order::In), earlier.counters[0].container);
        for order in [Order::Total, Order::Out, Order::Packets] {
            assert_eq!(first(order), earlier.counters[other].container, "{order:?}");
        }
    }

    #[test]
    fn classes_are_rows_where_asked_for_and_families_one() {
        let earlier = first();
        let mut later = earlier.clone();
        for (number, counter) in (1..).zip(&mut later.counters) {
            counter.tally.outgoing.bytes += number;
        }
        let by_class = between(&earlier, &later, &Selection { by_class: true, ..Selection::default() });
        let kinds: std::collections::BTreeSet<_> =
            earlier.counters.iter().map(|counter| (&counter.container, counter.class)).collect();
        assert_eq!(by_class.rows.len(), kinds.len());
        let only = Selection {
            wanted: Wanted {
                containers: vec![earlier.counters[0].container.clone()],
                classes: vec![earlier.counters[0].class],
                family: Some(earlier.counters[0].family),
            },
            ..Selection::default()
        };
        assert_eq!(amounts(&between(&earlier, &later, &only).classes), [0, 0, 1, 0]);
    }

    #[test]
    fn what_began_anew_began_at_zero() {
        let earlier = first();
        let held = amounts(&earlier.counters[0].tally);
        let mut retired = earlier.clone();
        retired.counters[0].generation += 1;
        let mut made_anew = earlier.clone();
        made_anew.epoch += 1;
        made_anew.counters.truncate(1);
        for later in [retired, made_anew] {
            assert_eq!(amounts(&between(&earlier, &later, &Selection::default()).classes), held);
        }
    }
}
