//! The audit compares the last readings with the live counters.

use traffic_common::Fault;
use traffic_model::Snapshot;

use crate::{closing::audit::Audit, testing::*};

fn drained() -> (File, Node) {
    let (mut file, mut node) = (ledger(), Node::balanced(NOON));
    node.interface("veth1", Some("101"), 5, 0).fault("veth1", Fault::NotIp, 3);
    node.traffic("101", 1, [1, 100, 2, 250]).pass(60).drain(&mut file.ledger);
    (file, node)
}

fn audit(file: &File, live: &Snapshot) -> Audit {
    file.ledger.audit_with_counters(|| Ok(live.clone())).unwrap()
}

#[test]
fn counters_that_grew_are_in_order() {
    let (file, mut node) = drained();
    let at_the_drain = audit(&file, &node.snapshot());
    assert_eq!((at_the_drain.problems.len(), at_the_drain.live_counters_skipped), (0, None));
    // The classes that carried something, the interface and its fault.
    assert!(at_the_drain.live_counters >= 3, "{}", at_the_drain.live_counters);

    node.traffic("101", 1, [1, 100, 0, 0]).traffic("102", 2, [7, 70, 0, 0]).fault("veth1", Fault::NotIp, 1);
    let later = audit(&file, &node.snapshot());
    assert_eq!((later.problems.len(), later.live_counters), (0, at_the_drain.live_counters));
}

#[test]
fn a_reading_above_its_live_counter_is_a_problem_of_each_kind() {
    let (file, node) = drained();
    let found = |change: fn(&mut Snapshot)| {
        let mut live = node.snapshot();
        change(&mut live);
        audit(&file, &live).problems.join("\n")
    };
    let lowered = found(|live| {
        let counter = live.counters.iter_mut().find(|counter| counter.tally.outgoing.bytes == 250).unwrap();
        counter.tally.outgoing.bytes = 249;
    });
    assert!(lowered.starts_with("live counters: container 101 class 1 ipv4: out is below"), "{lowered}");
    let lowered = found(|live| {
        let interface = live.interfaces.iter_mut().find(|counter| counter.interface == "veth1").unwrap();
        interface.passed.incoming.skbs = 0;
    });
    assert!(lowered.starts_with("live counters: interface veth1: in is below"), "{lowered}");
    // A fault at zero is not in a snapshot.
    let lowered = found(|live| live.faults.clear());
    assert!(lowered.contains("interface veth1 fault not_ip: "), "{lowered}");
}

#[test]
fn counters_of_other_lives_and_other_sets_are_not_compared() {
    let (file, mut node) = drained();
    // The slot went to a new customer, whose counters begin at zero.
    node.give_away("101");
    assert_eq!(audit(&file, &node.snapshot()).problems, [""; 0]);
    node.renew_maps();
    let other = audit(&file, &node.snapshot());
    assert_eq!((other.live_counters, other.problems.len()), (0, 0));
    assert_eq!(other.live_counters_skipped.as_deref(), Some("they were never drained into this ledger"));
}

#[test]
fn counters_that_cannot_be_read_keep_nothing_else_from_being_checked() {
    let (file, _) = drained();
    let audit = file.ledger.audit_with_counters(|| Err("no permission".to_owned())).unwrap();
    assert_eq!(audit.live_counters_skipped.as_deref(), Some("no permission"));
    assert!(audit.rows > 0 && audit.problems.is_empty());
}

#[test]
fn a_drain_during_the_audit_is_no_problem() {
    let (file, mut node) = drained();
    let mut other = crate::Ledger::open(file.ledger.path(), crate::LedgerConfig::default()).unwrap();
    let audit = file.ledger.audit_with_counters(|| {
        let live = node.snapshot();
        node.traffic("101", 1, [9, 900, 9, 900]).pass(60).drain(&mut other);
        Ok(live)
    });
    assert_eq!(audit.unwrap().problems, [""; 0]);
}
