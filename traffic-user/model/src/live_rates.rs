//! The traffic between two readings, for the live view (`trafctl top`): the busiest containers first.
//!
//! Rendering turns amounts and seconds into rates. Percentiles over buckets are the ledger's
//! `percentile_report`.

use std::{cmp::Reverse, collections::BTreeMap};

use jiff::Timestamp;
use traffic_common::{Family, Tally};

use crate::{ByDirection, ClassCounter, ContainerId, DropReading, Snapshot, Wanted};

/// The traffic between two readings.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveRates {
    /// The node's name.
    pub node: String,
    /// When the later reading began.
    pub time: Timestamp,
    /// Seconds between the starts of the two readings, by a clock that does not step.
    pub seconds: f64,
    /// Containers, or their classes, in the requested order. Idle ones are omitted.
    pub rows: Vec<Row>,
    /// The sum over all selected containers.
    pub classes: ByDirection<Tally>,
    /// The traffic in no class, on all interfaces.
    pub faults: ByDirection<Tally>,
    /// What was dropped of all selected containers behind the hooks; `None` if drops are not counted or were not
    /// asked for.
    pub dropped: Option<ByDirection<Tally>>,
}

/// One container's traffic, or that of one of its classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The container.
    pub container: ContainerId,
    /// The class, if each class has a row.
    pub class: Option<u8>,
    /// Its traffic.
    pub passed: ByDirection<Tally>,
    /// What was dropped of it.
    pub dropped: ByDirection<Tally>,
}

/// The sort order of rows, largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Bytes in and out.
    #[default]
    Total,
    /// Bytes in.
    In,
    /// Bytes out.
    Out,
    /// Packets in and out.
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

/// Which traffic of two readings is wanted, and how it is divided into rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Which counters.
    pub wanted: Wanted,
    /// One row for each class instead of one for each container.
    pub by_class: bool,
    /// The sort order.
    pub order: Order,
}

/// What passed one counter between two readings: the finest there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterRow {
    /// The container.
    pub container: ContainerId,
    /// The class.
    pub class: u8,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Its traffic.
    pub passed: ByDirection<Tally>,
    /// What was dropped of it, for whatever reason.
    pub dropped: ByDirection<Tally>,
}

/// The traffic of each wanted counter between two readings, as [`between`] sums it.
pub fn by_counter(earlier: &Snapshot, later: &Snapshot, wanted: &Wanted) -> Vec<CounterRow> {
    let dropped = drops_between(earlier, later, wanted).unwrap_or_default();
    let row = |(counter, passed): (&ClassCounter, _)| CounterRow {
        container: counter.container.clone(),
        class: counter.class,
        family: counter.family,
        passed,
        dropped: dropped.get(&key(counter)).copied().unwrap_or_default(),
    };
    differences(earlier, later, wanted).map(row).collect()
}

/// Whether two readings are of the same counters.
fn is_same_set(earlier: &Snapshot, later: &Snapshot) -> bool {
    (&earlier.boot_id, earlier.epoch) == (&later.boot_id, later.epoch)
}

/// Container, generation, class and family.
type Key<'a> = (&'a ContainerId, u32, u8, Family);

const fn key(counter: &ClassCounter) -> Key<'_> {
    (&counter.container, counter.generation, counter.class, counter.family)
}

/// What was dropped between two readings, for all reasons; `None` unless both have the same set of drop counters.
fn drops_between<'a>(
    earlier: &'a Snapshot,
    later: &'a Snapshot,
    wanted: &Wanted,
) -> Option<BTreeMap<Key<'a>, ByDirection<Tally>>> {
    let (before, now) = (earlier.drops.as_ref()?, later.drops.as_ref()?);
    if !is_same_set(earlier, later) || before.set != now.set {
        return None;
    }
    let sums = |reading: &'a DropReading| {
        let mut sums: BTreeMap<Key<'a>, ByDirection<Tally>> = BTreeMap::new();
        for counter in &reading.counters {
            let key = (&counter.container, counter.generation, counter.class, counter.family);
            *sums.entry(key).or_default() += counter.tally;
        }
        sums
    };
    let (before, mut now) = (sums(before), sums(now));
    now.retain(|&(container, _, class, family), _| {
        wanted.takes_container(container)
            && wanted.family.is_none_or(|only| only == family)
            && (wanted.classes.is_empty() || wanted.classes.contains(&class))
    });
    for (key, dropped) in &mut now {
        *dropped = dropped.since(&before.get(key).copied().unwrap_or_default());
    }
    Some(now)
}

/// The wanted counters of the later reading, with what passed since the earlier one. A counter counts from zero if the earlier reading does not have
/// it, or has it under another epoch or generation. One whose owner was pending goes on: no other slot has had
/// its generation.
fn differences<'a>(
    earlier: &'a Snapshot,
    later: &'a Snapshot,
    wanted: &'a Wanted,
) -> impl Iterator<Item = (&'a ClassCounter, ByDirection<Tally>)> {
    let same_set = is_same_set(earlier, later);
    let earlier_counters = || earlier.counters.iter().filter(move |_| same_set);
    let before: BTreeMap<Key<'_>, ByDirection<Tally>> =
        earlier_counters().map(|counter| (key(counter), counter.tally)).collect();
    let pending: BTreeMap<(u32, u8, Family), ByDirection<Tally>> = earlier_counters()
        .filter(|counter| counter.container.is_pending())
        .map(|counter| ((counter.generation, counter.class, counter.family), counter.tally))
        .collect();
    later.counters.iter().filter(|counter| wanted.takes(counter)).map(move |counter| {
        let was_pending = || pending.get(&(counter.generation, counter.class, counter.family));
        let before = before.get(&key(counter)).or_else(was_pending).copied().unwrap_or_default();
        (counter, counter.tally.since(&before))
    })
}

/// Computes the traffic between two readings. Containers without any are omitted.
pub fn between(earlier: &Snapshot, later: &Snapshot, selection: &Selection) -> LiveRates {
    let same_set = is_same_set(earlier, later);
    let drops = drops_between(earlier, later, &selection.wanted);
    let mut dropped: BTreeMap<(&ContainerId, Option<u8>), ByDirection<Tally>> = BTreeMap::new();
    for (&(container, _, class, _), &of) in drops.iter().flatten() {
        *dropped.entry((container, selection.by_class.then_some(class))).or_default() += of;
    }
    let mut rows: BTreeMap<(&ContainerId, Option<u8>), ByDirection<Tally>> = BTreeMap::new();
    let mut classes = ByDirection::default();
    for (counter, passed) in differences(earlier, later, &selection.wanted) {
        let class = selection.by_class.then_some(counter.class);
        *rows.entry((&counter.container, class)).or_default() += passed;
        classes += passed;
    }
    let mut rows: Vec<Row> = rows
        .into_iter()
        .filter(|(key, passed)| {
            // A packet may have been counted before the earlier reading, and dropped after it.
            let is_idle = *passed == ByDirection::default();
            !is_idle || dropped.get(key).is_some_and(|dropped| *dropped != ByDirection::default())
        })
        .map(|((container, class), passed)| {
            let dropped = dropped.get(&(container, class)).copied().unwrap_or_default();
            Row { container: container.clone(), class, passed, dropped }
        })
        .collect();
    // A stable sort: equal rows stay in the order of their ids, so they do not swap places with every
    // reading.
    rows.sort_by_key(|row| Reverse(selection.order.weight(&row.passed)));
    let faults = |snapshot: &Snapshot| {
        let balance = snapshot.balance();
        ByDirection { incoming: balance.incoming.faults, outgoing: balance.outgoing.faults }
    };
    let faults_before = if same_set { faults(earlier) } else { ByDirection::default() };
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds are exact up to a hundred days")]
    let seconds = later.boottime_ns.saturating_sub(earlier.boottime_ns) as f64 / 1e9;
    LiveRates {
        node: later.node.clone(),
        time: later.time,
        seconds,
        rows,
        classes,
        faults: faults(later).since(&faults_before),
        dropped: drops.map(|drops| {
            let mut sum = ByDirection::default();
            drops.into_values().for_each(|of| sum += of);
            sum
        }),
    }
}

#[cfg(test)]
mod tests {
    use traffic_common::DropGroup;

    use super::*;
    use crate::{DropCounter, sample};

    /// The sample, with different figures in each counter.
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
    fn idle_containers_are_omitted() {
        let earlier = first();
        let later = later(&earlier, 1, [1000, 10, 70, 3]);
        let rates = between(&earlier, &later, &Selection::default());
        assert_eq!(rates.rows.len(), 1);
        assert_eq!(rates.rows[0].container, earlier.counters[1].container);
        assert_eq!(amounts(&rates.rows[0].passed), [1000, 10, 70, 3]);
        assert_eq!(amounts(&rates.classes), [1000, 10, 70, 3]);
        assert_eq!(amounts(&rates.faults), [0; 4]);
        assert!((rates.seconds - 2.0).abs() < 1e-9);
    }

    #[test]
    fn rows_follow_the_requested_order() {
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
    fn classes_have_rows_on_request_and_families_are_summed() {
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
    fn a_new_epoch_or_generation_counts_from_zero() {
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

    #[test]
    fn a_pending_owner_that_became_known_goes_on() {
        let later = first();
        let mut earlier = later.clone();
        earlier.counters[0].container = ContainerId::pending("veth7", 7, 0);
        let mut later = later;
        later.counters[0].tally.outgoing.bytes += 5;
        let rates = between(&earlier, &later, &Selection::default());
        assert_eq!(amounts(&rates.classes), [0, 0, 5, 0]);
        assert_eq!(rates.rows[0].container, later.counters[0].container);
    }

    #[test]
    fn drops_are_of_one_set_and_of_what_is_wanted() {
        let mut earlier = first();
        let one = earlier.counters[0].clone();
        let other = earlier.counters.iter().find(|other| other.container != one.container).unwrap().clone();
        let counter = |of: &ClassCounter, group, packets| DropCounter {
            container: of.container.clone(),
            generation: of.generation,
            class: of.class,
            family: of.family,
            group,
            tally: ByDirection {
                incoming: Tally { packets, bytes: packets * 100 },
                outgoing: Tally::default(),
            },
        };
        let reading = |set, counters| Some(DropReading { set, since: Timestamp::UNIX_EPOCH, counters });
        earlier.drops = reading(1, vec![counter(&one, DropGroup::Shaper, 5)]);
        let mut later = later(&earlier, 0, [1000, 10, 0, 0]);
        let now = vec![
            counter(&one, DropGroup::Shaper, 7),
            counter(&one, DropGroup::Other, 1),
            counter(&other, DropGroup::Other, 4),
        ];
        later.drops = reading(1, now.clone());
        let rates = between(&earlier, &later, &Selection { by_class: true, ..Selection::default() });
        assert_eq!(amounts(&rates.dropped.unwrap()), [700, 7, 0, 0]);
        let dropped: Vec<u64> = rates.rows.iter().map(|row| row.dropped.incoming.packets).collect();
        assert_eq!(dropped, [3, 4], "the second one had only drops");
        let wanted =
            Wanted { containers: vec![one.container.clone()], classes: vec![one.class], family: None };
        let of_one = by_counter(&earlier, &later, &wanted);
        assert_eq!(of_one.iter().map(|row| row.dropped.incoming.packets).sum::<u64>(), 3);
        let selection = Selection { wanted, ..Selection::default() };
        assert_eq!(between(&earlier, &later, &selection).dropped.unwrap().incoming.packets, 3);
        later.drops = reading(2, now);
        assert_eq!(between(&earlier, &later, &Selection::default()).dropped, None);
    }
}
