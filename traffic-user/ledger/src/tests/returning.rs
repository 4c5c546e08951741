//! A set of counters whose pins were out of sight, while another set was drained.

use crate::{
    Ledger,
    testing::{NOON, Node, Sums, add, ledger, sums},
};

/// Two sets of counters of one node. What passes is counted by those that are attached.
struct Sets {
    first: Node,
    second: Node,
    /// Buffers that passed the interface in all.
    passed: u64,
    counted: [u64; 2],
    /// Buffers that passed before each set was attached.
    before: [u64; 2],
}

impl Sets {
    fn new() -> Self {
        let (first, mut second) = (Node::new(NOON), Node::new(NOON));
        second.epoch += 1;
        Self { first, second, passed: 0, counted: [0; 2], before: [0; 2] }
    }

    /// Lets packets into container 101 pass, of two classes.
    fn pass(&mut self, [one, two]: [u64; 2], attached: [bool; 2]) {
        self.passed += one + two;
        for (at, node) in [&mut self.first, &mut self.second].into_iter().enumerate() {
            if attached[at] {
                node.traffic("101", 1, [one, one * 100, 0, 0]).traffic("101", 2, [two, two * 100, 0, 0]);
                self.counted[at] += one + two;
            }
            node.interface("veth101.0", Some("101"), self.counted[at], self.before[at]);
            node.pass(60);
        }
    }

    /// What the second set finds that passed before it.
    fn attach_second(&mut self) {
        self.before[1] = self.passed;
        self.second.epoch_created = self.second.wall;
        self.second.interface("veth101.0", Some("101"), 0, self.before[1]);
    }
}

fn booked(ledger: &Ledger) -> Sums {
    let mut all = [0; 4];
    sums(ledger, "traffic_5min").values().for_each(|sums| add(&mut all, *sums));
    all
}

fn of_class(ledger: &Ledger, class: u8) -> u64 {
    sums(ledger, "traffic_5min")[&("101".to_owned(), class)][0]
}

#[test]
fn a_returning_set_records_only_what_is_not_accounted_for() {
    let mut file = ledger();
    let mut sets = Sets::new();
    sets.pass([60, 40], [true, false]);
    sets.first.drain(&mut file.ledger);
    sets.attach_second();
    // Both count, and the second set is drained.
    sets.pass([31, 20], [true, true]);
    sets.second.drain(&mut file.ledger);
    assert_eq!(booked(&file.ledger)[0], 151);
    // Then the first one returns, with what nobody has recorded yet.
    sets.pass([5, 2], [true, true]);
    sets.first.drain(&mut file.ledger);
    assert_eq!(booked(&file.ledger), [158, 15_800, 0, 0]);
    assert_eq!((of_class(&file.ledger, 1), of_class(&file.ledger, 2)), (96, 62));
    // From here on it is as if nothing had been.
    sets.pass([3, 0], [true, false]);
    sets.first.drain(&mut file.ledger);
    assert_eq!(booked(&file.ledger)[0], 161);
    assert_eq!(file.ledger.gaps(None, None).unwrap().iter().filter(|gap| gap.size.is_some()).count(), 0);
}

#[test]
fn two_sets_that_take_turns_record_everything_once() {
    let mut file = ledger();
    let mut sets = Sets::new();
    sets.pass([10, 0], [true, false]);
    sets.first.drain(&mut file.ledger);
    sets.attach_second();
    for round in 1..4 {
        sets.pass([7 * round, 3], [true, true]);
        sets.second.drain(&mut file.ledger);
        assert_eq!(booked(&file.ledger)[0], sets.passed);
        sets.pass([11, 2 * round], [true, true]);
        sets.first.drain(&mut file.ledger);
        assert_eq!(booked(&file.ledger)[0], sets.passed);
    }
}

#[test]
fn what_only_the_returning_set_counted_is_recorded() {
    let mut file = ledger();
    let mut sets = Sets::new();
    sets.pass([10, 4], [true, false]);
    sets.first.drain(&mut file.ledger);
    // The second set is drained once and never counts anything.
    sets.attach_second();
    sets.second.pass(1).drain(&mut file.ledger);
    sets.first.pass(1);
    sets.pass([20, 8], [true, false]);
    sets.first.drain(&mut file.ledger);
    assert_eq!(booked(&file.ledger)[0], 42);
}
