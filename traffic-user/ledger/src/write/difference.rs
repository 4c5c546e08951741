//! Computes the traffic between two readings of counters that only grow. Pure: no database, no clock.
//!
//! A counter lives as long as its epoch (one set of maps in one boot) and its slot's generation. Within one
//! life it only grows, so the traffic is the difference to the last reading. The first reading of a life
//! counts from zero, because nothing of it has been written yet. The pair (owner, generation) therefore names
//! one life within an epoch, and the kernel side must never reuse it.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use traffic_common::{Direction, DropGroup, Family, Fault, Tally, tally};
use traffic_model::{ByDirection, DropReading, Snapshot};

/// Values of a class or fault counter: packets in, bytes in, packets out, bytes out.
pub const TALLY_VALUES: usize = 4;
/// Values of an interface counter. Per direction: packets and bytes on the wire, buffers and their bytes,
/// packets and bytes of estimated size.
pub const PASSED_VALUES: usize = 12;

/// Identifies a class counter within an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassKey {
    /// The container's id.
    pub container: String,
    /// Generation of its slot.
    pub generation: u32,
    /// The class.
    pub class: u8,
    /// IPv4 or IPv6.
    pub family: Family,
}

/// Identifies a counter of drops within an epoch and a set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DroppedKey {
    /// The container's id.
    pub container: String,
    /// Generation of its slot.
    pub generation: u32,
    /// The class.
    pub class: u8,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Why.
    pub group: DropGroup,
}

/// Identifies a fault counter within an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaultKey {
    /// The interface's name.
    pub interface: String,
    /// Generation of its slot.
    pub generation: u32,
    /// The reason.
    pub fault: Fault,
}

/// Identifies an interface counter within an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceKey {
    /// The interface's name.
    pub interface: String,
    /// Generation of its slot.
    pub generation: u32,
}

/// How one counter changed since its last reading. The first half of the `N` values is incoming, the second
/// outgoing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<const N: usize> {
    /// The new reading.
    pub reading: [u64; N],
    /// What passed since the last reading; zero in a direction whose counter fell.
    pub passed: [u64; N],
    /// The last reading of each direction whose counter fell. What passed there is unknown.
    pub fell_from: ByDirection<Option<[u64; N]>>,
}

impl<const N: usize> Change<N> {
    /// Whether there is traffic to write.
    pub fn is_traffic(&self) -> bool {
        self.passed.iter().any(|&value| value != 0)
    }

    /// Whether the counter fell in at least one direction.
    pub fn is_loss(&self) -> bool {
        self.fell_from.incoming.is_some() || self.fell_from.outgoing.is_some()
    }
}

/// Computes the traffic between two readings of a counter; `previous` is `None` for the first reading of its
/// life.
///
/// A direction yields nothing if any of its values fell, or grew by more than the ledger can hold (9.2
/// exabytes): the counter was lost or tampered with, and its growth is unknown.
pub fn difference<const N: usize>(previous: Option<&[u64; N]>, now: &[u64; N]) -> Change<N> {
    let before = previous.copied().unwrap_or([0; N]);
    let mut change = Change { reading: *now, passed: [0; N], fell_from: ByDirection::default() };
    for (half, fell_from) in
        [(0..N / 2, &mut change.fell_from.incoming), (N / 2..N, &mut change.fell_from.outgoing)]
    {
        let sound =
            half.clone().all(|at| now[at] >= before[at] && i64::try_from(now[at] - before[at]).is_ok());
        if sound {
            for at in half {
                change.passed[at] = now[at] - before[at];
            }
        } else {
            *fell_from = Some(before);
        }
    }
    change
}

/// Computes the changes of a set of counters and omits those that did not move. Counters with the same key
/// are added before they are compared.
pub fn differences<K: Clone + Eq + Hash + Ord, const N: usize>(
    previous: &HashMap<K, [u64; N]>,
    now: impl IntoIterator<Item = (K, [u64; N])>,
) -> BTreeMap<K, Change<N>> {
    let mut sums: BTreeMap<K, [u64; N]> = BTreeMap::new();
    for (key, values) in now {
        tally::add_each(sums.entry(key).or_insert([0; N]), &values);
    }
    sums.into_iter()
        .filter_map(|(key, values)| {
            let before = previous.get(&key);
            let moved = before.copied().unwrap_or([0; N]) != values;
            moved.then(|| (key, difference(before, &values)))
        })
        .collect()
}

/// The four values of a tally in the ledger's order.
pub const fn tally_values(tally: &ByDirection<Tally>) -> [u64; TALLY_VALUES] {
    [tally.incoming.packets, tally.incoming.bytes, tally.outgoing.packets, tally.outgoing.bytes]
}

/// The class counters of a reading.
pub fn class_readings(snapshot: &Snapshot) -> impl Iterator<Item = (ClassKey, [u64; TALLY_VALUES])> {
    snapshot.counters.iter().map(|counter| {
        let key = ClassKey {
            container: counter.container.as_str().to_owned(),
            generation: counter.generation,
            class: counter.class,
            family: counter.family,
        };
        (key, tally_values(&counter.tally))
    })
}

/// The counters of drops of a reading.
pub fn drop_readings(drops: &DropReading) -> impl Iterator<Item = (DroppedKey, [u64; TALLY_VALUES])> {
    drops.counters.iter().map(|counter| {
        let key = DroppedKey {
            container: counter.container.as_str().to_owned(),
            generation: counter.generation,
            class: counter.class,
            family: counter.family,
            group: counter.group,
        };
        (key, tally_values(&counter.tally))
    })
}

/// The fault counters of a reading.
pub fn fault_readings(snapshot: &Snapshot) -> impl Iterator<Item = (FaultKey, [u64; TALLY_VALUES])> {
    snapshot.faults.iter().map(|counter| {
        let key = FaultKey {
            interface: counter.interface.clone(),
            generation: counter.generation,
            fault: counter.fault,
        };
        (key, tally_values(&counter.tally))
    })
}

/// The interface counters of a reading.
pub fn interface_readings(snapshot: &Snapshot) -> impl Iterator<Item = (InterfaceKey, [u64; PASSED_VALUES])> {
    snapshot.interfaces.iter().map(|counter| {
        let mut values = [0; PASSED_VALUES];
        for (direction, passed) in
            [(Direction::In, &counter.passed.incoming), (Direction::Out, &counter.passed.outgoing)]
        {
            values[direction as usize * PASSED_VALUES / 2..][..PASSED_VALUES / 2].copy_from_slice(&[
                passed.wire.packets,
                passed.wire.bytes,
                passed.skbs,
                passed.skb_bytes,
                passed.estimated.packets,
                passed.estimated.bytes,
            ]);
        }
        (InterfaceKey { interface: counter.interface.clone(), generation: counter.generation }, values)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_first_reading_counts_from_zero() {
        let change = difference(None, &[1, 100, 2, 300]);
        assert_eq!(change.passed, [1, 100, 2, 300]);
        assert!(!change.is_loss());
    }

    #[test]
    fn a_falling_direction_is_a_loss_and_the_other_direction_still_counts() {
        let change = difference(Some(&[10, 1000, 20, 2000]), &[11, 900, 25, 2600]);
        assert_eq!(change.passed, [0, 0, 5, 600]);
        assert_eq!(change.fell_from.incoming, Some([10, 1000, 20, 2000]));
        assert_eq!(change.fell_from.outgoing, None);
        assert_eq!(change.reading, [11, 900, 25, 2600]);
    }

    #[test]
    fn implausible_growth_is_a_loss() {
        assert!(difference(Some(&[0, 0, 0, 0]), &[0, u64::MAX, 0, 0]).is_loss());
    }

    #[test]
    fn counters_that_did_not_move_are_omitted() {
        let previous = HashMap::from([("a", [1, 2, 3, 4])]);
        let changes = differences(&previous, [("a", [1, 2, 3, 4]), ("b", [0; 4]), ("c", [0, 0, 1, 60])]);
        assert_eq!(changes.into_keys().collect::<Vec<_>>(), ["c"]);
    }

    /// An event between two readings of a node.
    #[derive(Clone, Debug)]
    enum Event {
        Traffic {
            owner: u8,
            packets: u32,
            bytes: u32,
            incoming: bool,
        },
        /// The daemon stops. The last readings stay in the ledger, so nothing changes.
        Restart,
        /// A new epoch: every counter starts at zero. Unread traffic is lost, and the model drops it too.
        Epoch,
        /// The owner gives up its slot after a final reading and gets another one.
        Generation {
            owner: u8,
        },
        Read,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            5 => (0_u8..4, 1..1000_u32, 1..2_000_000_u32, any::<bool>())
                .prop_map(|(owner, packets, bytes, incoming)| Event::Traffic { owner, packets, bytes, incoming }),
            1 => Just(Event::Restart),
            1 => Just(Event::Epoch),
            1 => (0_u8..4).prop_map(|owner| Event::Generation { owner }),
            3 => Just(Event::Read),
        ];
        proptest::collection::vec(event, 0..200)
    }

    #[derive(Default)]
    struct Node {
        live: HashMap<u8, (u32, [u64; 4])>,
        previous: HashMap<(u8, u32), [u64; 4]>,
        written: HashMap<u8, [u64; 4]>,
        expected: HashMap<u8, [u64; 4]>,
        unread: HashMap<u8, [u64; 4]>,
    }

    impl Node {
        fn read(&mut self) {
            let now = self.live.iter().map(|(&owner, &(generation, values))| ((owner, generation), values));
            for (key, change) in differences(&self.previous, now) {
                assert!(!change.is_loss());
                let written = self.written.entry(key.0).or_default();
                written.iter_mut().zip(change.passed).for_each(|(total, value)| *total += value);
                self.previous.insert(key, change.reading);
            }
            for (owner, values) in self.unread.drain() {
                let expected = self.expected.entry(owner).or_default();
                expected.iter_mut().zip(values).for_each(|(total, value)| *total += value);
            }
        }

        fn apply(&mut self, event: &Event) {
            match *event {
                Event::Traffic { owner, packets, bytes, incoming } => {
                    let at = if incoming { 0 } else { 2 };
                    let live = &mut self.live.entry(owner).or_default().1;
                    let unread = self.unread.entry(owner).or_default();
                    for values in [live, unread] {
                        values[at] += u64::from(packets);
                        values[at + 1] += u64::from(bytes);
                    }
                }
                Event::Restart => {}
                Event::Epoch => {
                    self.live.clear();
                    self.previous.clear();
                    self.unread.clear();
                }
                Event::Generation { owner } => {
                    self.read();
                    let slot = self.live.entry(owner).or_default();
                    *slot = (slot.0 + 1, [0; 4]);
                }
                Event::Read => self.read(),
            }
        }
    }

    proptest! {
        #[test]
        fn any_sequence_sums_correctly(events in events()) {
            let mut node = Node::default();
            for event in &events {
                node.apply(event);
            }
            node.read();
            node.written.retain(|_, values| *values != [0; 4]);
            prop_assert_eq!(node.written, node.expected);
        }

        #[test]
        fn differences_never_exceed_the_reading(
            previous in proptest::array::uniform4(any::<u64>()),
            now in proptest::array::uniform4(any::<u64>()),
        ) {
            let change = difference(Some(&previous), &now);
            for (passed, now) in change.passed.into_iter().zip(now) {
                prop_assert!(passed <= now);
                prop_assert!(i64::try_from(passed).is_ok());
            }
            let fell = (0..4).any(|at| now[at] < previous[at]);
            prop_assert!(!fell || change.is_loss());
        }
    }
}
