//! The order in which slots are freed, and how slots are found.

use super::*;

fn container(state: u32, id: &str) -> ContainerRecord {
    let mut record = ContainerRecord { state, generation: 1, since_unix_s: 5, ..EMPTY_CONTAINER };
    write_text(&mut record.id, id);
    record
}

fn interface(slot: u32, id: &str, ifindex: u32, gone_unix_s: u64) -> InterfaceRecord {
    let mut record = InterfaceRecord {
        state: slot_state::IN_USE,
        container_slot: slot,
        ifindex,
        gone_unix_s,
        ..EMPTY_INTERFACE
    };
    write_text(&mut record.container, id);
    record
}

#[test]
fn retired_containers_go_first_then_those_gone_longest_and_none_that_exists() {
    use slot_state::{IN_USE, RETIRED};

    let registry = Registry::of(
        vec![
            container(IN_USE, "there"),
            container(IN_USE, "late"),
            container(IN_USE, "early"),
            container(IN_USE, "routed"),
            container(RETIRED, "retired"),
            EMPTY_CONTAINER,
        ],
        vec![
            EMPTY_INTERFACE,
            interface(0, "there", 7, 0),
            interface(0, "there", 0, 10),
            interface(1, "late", 0, 300),
            interface(2, "early", 0, 100),
            // Another life of that slot says nothing about the present one.
            interface(2, "another", 0, 900),
            interface(4, "retired", 0, 800),
        ],
    );
    let wanted = |id: &str| id == "routed";
    let gone = registry.gone(&CountedIn::default(), wanted);
    assert_eq!(gone.containers, [4, 2, 1]);
    assert_eq!(gone.interfaces, [2, 4, 3, 6, 5]);
    // A slot that packets go to stays, whatever the records say: "early" has an interface without a slot.
    let counted_in = CountedIn { containers: [2, 4].into(), interfaces: [0, 3].into() };
    let gone = registry.gone(&counted_in, wanted);
    assert_eq!(gone.containers, [1]);
    assert_eq!(gone.interfaces, [2, 4, 6, 5]);
}

#[test]
fn a_retired_container_has_no_slot_and_its_id_is_found_again_in_the_next_one() {
    use slot_state::{IN_USE, RETIRED};

    let id = ContainerId::new("101").unwrap();
    let registry = Registry::of(vec![container(RETIRED, "101"), container(IN_USE, "101")], vec![]);
    assert_eq!(registry.container_slot(&id), Some(1));
    let registry = Registry::of(vec![container(RETIRED, "101")], vec![]);
    assert_eq!(registry.container_slot(&id), None);
}

#[test]
fn all_slots_of_an_index_are_found() {
    let registry = Registry::of(
        vec![],
        vec![EMPTY_INTERFACE, interface(0, "a", 7, 0), interface(1, "b", 7, 0), interface(2, "c", 8, 0)],
    );
    assert_eq!(registry.interface_of_index(7), Some(1));
    assert_eq!(registry.others_of_index(7, 1), [2]);
    assert_eq!(registry.others_of_index(8, 3), [0; 0]);
    assert_eq!(registry.interface_of_index(0), None);
}
