//! The plan without any kernel: what is decided, in which order, and that one pass settles an interface.

use proptest::prelude::*;

use super::*;
use crate::node::tests::fake::FakeKernel;

const INDEX: u32 = 7;

/// What the registry holds of the interface at hand, in the terms of one test case.
#[derive(Clone, Copy, Debug)]
struct Recorded {
    /// Whether it has slots.
    has_slots: bool,
    /// Index in the record of its slot.
    index: u32,
    /// Index in the record of another interface's slot.
    other_index: u32,
    /// Whether that one has a pending owner.
    is_pending: bool,
}

fn id(id: &str) -> ContainerId {
    ContainerId::new(id).unwrap()
}

fn registry(recorded: Recorded, container: Option<&ContainerId>) -> (FakeKernel, Registry) {
    let mut kernel = FakeKernel::new(3, 4);
    let mut registry = Registry::read(&kernel).unwrap();
    let mut record = |name: &str, owner: Option<&ContainerId>, ifindex| {
        let slot = owner.and_then(|id| registry.assign_container(&mut kernel, id).unwrap());
        let named = NetInterface { name: name.to_owned(), ..interface() };
        let slot = registry.assign_interface(&mut kernel, &named, owner, slot).unwrap();
        let record = traffic_common::InterfaceRecord { ifindex, ..*registry.interface(slot) };
        registry.write_interface(&mut kernel, slot, record).unwrap();
    };
    let other = if recorded.is_pending { "pending:veth900.0:7:x" } else { "900" };
    record("veth900.0", Some(&id(other)), recorded.other_index);
    if recorded.has_slots {
        record("veth101.0", container, recorded.index);
    }
    (kernel, registry)
}

fn interface() -> NetInterface {
    NetInterface { index: INDEX, name: "veth101.0".to_owned(), ethernet: true, ..NetInterface::default() }
}

fn hook() -> impl Strategy<Value = HookSeen> {
    let ours = prop_oneof![Just(OnHook::Nothing), Just(OnHook::Other), Just(OnHook::Current)];
    (ours, any::<bool>(), any::<Option<bool>>()).prop_map(|(ours, other_kind, pin)| HookSeen {
        ours,
        other_kind,
        pin,
        before: Vec::new(),
    })
}

fn seen() -> impl Strategy<Value = (Seen, Recorded)> {
    let wanted = prop_oneof![
        4 => Just(Wanted::Container(id("101"))),
        1 => Just(Wanted::Shared),
        1 => Just(Wanted::Nothing),
    ];
    let index = || prop_oneof![Just(0), Just(INDEX), Just(9)];
    let recorded =
        (any::<[bool; 2]>(), index(), index()).prop_map(|([has_slots, is_pending], index, other_index)| {
            Recorded { has_slots, index, other_index, is_pending }
        });
    let entry = (0..4_u32, 0..4_u32).prop_map(|(interface_slot, container_slot)| InterfaceEntry {
        flags: interface_flags::PRESENT,
        interface_slot,
        container_slot,
        link_header_len: 14,
    });
    let hooks = [hook(), hook()];
    (wanted, hooks, any::<[bool; 2]>(), proptest::option::of(entry), recorded).prop_map(
        |(wanted, hooks, starved, entry, recorded)| {
            let seen = Seen {
                interface: interface(),
                wanted,
                hooks,
                starved,
                entry: entry.unwrap_or_default(),
                without_room: WithoutRoom::default(),
            };
            (seen, recorded)
        },
    )
}

/// What the kernel shows after a step.
fn apply(step: Step, seen: &mut Seen, kernel: &mut FakeKernel, registry: &mut Registry) {
    let mut set_index = |slot, ifindex| {
        let record = traffic_common::InterfaceRecord { ifindex, ..*registry.interface(slot) };
        registry.write_interface(kernel, slot, record).unwrap();
    };
    match step {
        Step::Attribute => {
            let (pending, owner) = (attributable(seen, registry).unwrap(), seen.wanted.container().unwrap());
            registry.attribute(kernel, &pending, owner).unwrap();
        }
        Step::AssignSlots => {
            let container = seen.wanted.container().cloned();
            let slot = container.as_ref().and_then(|id| registry.assign_container(kernel, id).unwrap());
            registry.assign_interface(kernel, &seen.interface, container.as_ref(), slot).unwrap();
        }
        Step::LeaveLaterPlace(direction) => {
            seen.starved[direction as usize] = false;
            seen.hooks[direction as usize].ours = OnHook::Nothing;
        }
        Step::EndFormer { slot, .. } | Step::NoteGone { slot } => set_index(slot, 0),
        Step::RecordAttach { slot, .. } => set_index(slot, INDEX),
        Step::SetEntry(entry) => seen.entry = entry,
        Step::DetachOtherKind(direction) => seen.hooks[direction as usize].other_kind = false,
        Step::Attach(direction) => seen.hooks[direction as usize].ours = OnHook::Current,
        Step::Settle { .. } | Step::Compare { .. } => {}
        Step::ReleaseUplink { slot } | Step::ReleaseFormer { slot } => {
            set_index(slot, 0);
            seen.entry = InterfaceEntry::default();
        }
    }
}

/// The place of a step in the order that makes it safe to be interrupted.
fn rank(step: &Step) -> u32 {
    match step {
        Step::Attribute | Step::AssignSlots => 0,
        Step::LeaveLaterPlace(_) => 1,
        Step::EndFormer { .. } => 2,
        Step::RecordAttach { .. } => 3,
        Step::SetEntry(_) => 4,
        Step::NoteGone { .. } | Step::ReleaseUplink { .. } | Step::ReleaseFormer { .. } => 5,
        Step::DetachOtherKind(Direction::In) => 6,
        Step::Attach(Direction::In) => 7,
        Step::DetachOtherKind(Direction::Out) => 8,
        Step::Attach(Direction::Out) => 9,
        Step::Settle { .. } | Step::Compare { .. } => 10,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The record comes before the entry, the entry before the hooks, and the end of a former owner after
    /// the entry. Each hook is changed only if it is not what is wanted, and nothing is attached for nobody.
    #[test]
    fn steps_come_in_the_order_that_may_be_interrupted((seen, recorded) in seen()) {
        let (_, registry) = registry(recorded, seen.wanted.container());
        let steps = steps(&seen, &registry);
        prop_assert!(steps.is_sorted_by_key(rank), "{steps:?}");
        // What comes next depends on these.
        for alone in [Step::Attribute, Step::AssignSlots] {
            if steps.contains(&alone) {
                prop_assert_eq!(steps, [alone]);
                return Ok(());
            }
        }
        for direction in Direction::BOTH {
            let at = direction as usize;
            let as_wanted = seen.hooks[at].ours == OnHook::Current && !seen.starved[at];
            let attaches = steps.contains(&Step::Attach(direction));
            prop_assert_eq!(attaches, !as_wanted && seen.wanted != Wanted::Nothing);
        }
        let begins = steps.iter().any(|step| matches!(step, Step::RecordAttach { .. }));
        let attaches = steps.iter().any(|step| matches!(step, Step::Attach(_)));
        prop_assert!(begins || !attaches, "nothing is attached without a record of what passed: {steps:?}");
    }

    /// Whatever was seen: once its steps are carried out, nothing is left to change.
    #[test]
    fn one_pass_leaves_nothing_to_change((mut seen, recorded) in seen()) {
        let (mut kernel, mut registry) = registry(recorded, seen.wanted.container());
        for _ in 0..3 {
            let planned = steps(&seen, &registry);
            for step in &planned {
                apply(*step, &mut seen, &mut kernel, &mut registry);
            }
            if planned != [Step::AssignSlots] && planned != [Step::Attribute] {
                break;
            }
        }
        let left = steps(&seen, &registry);
        prop_assert!(!left.iter().any(|step| step.is_change()), "{left:?}");
        if seen.wanted != Wanted::Nothing {
            let slot = registry.interface_of_index(INDEX).unwrap();
            prop_assert_eq!(seen.entry.interface_slot, slot);
            prop_assert!(registry.others_of_index(INDEX, slot).is_empty());
        }
    }
}

#[test]
fn counting_begins_where_the_program_was_not_attached_or_the_slot_is_another() {
    use CountedSoFar::{Elsewhere, ElsewhereWithGap, Here};

    let start = |ours, index, other_index| {
        let container = id("101");
        let (_, registry) =
            registry(Recorded { has_slots: true, index, other_index, is_pending: false }, Some(&container));
        let hook = HookSeen { ours, ..HookSeen::default() };
        let seen = Seen {
            interface: interface(),
            wanted: Wanted::Container(container),
            hooks: [hook.clone(), hook],
            starved: [false; 2],
            entry: InterfaceEntry::default(),
            without_room: WithoutRoom::default(),
        };
        steps(&seen, &registry).into_iter().find_map(|step| match step {
            Step::RecordAttach { counted_so_far, .. } => Some(counted_so_far),
            _ => None,
        })
    };
    assert_eq!(start(OnHook::Current, INDEX, 0), None);
    assert_eq!(start(OnHook::Nothing, INDEX, 0), Some(Here));
    assert_eq!(start(OnHook::Other, INDEX, 0), Some(Here));
    assert_eq!(start(OnHook::Nothing, 0, 0), Some(Here));
    assert_eq!(start(OnHook::Current, 0, 0), Some(Elsewhere));
    assert_eq!(start(OnHook::Current, 0, INDEX), Some(Elsewhere));
    assert_eq!(start(OnHook::Nothing, 0, INDEX), Some(ElsewhereWithGap { slot: 1 }));
    // An attach that was interrupted has recorded where it was counted before.
    assert_eq!(start(OnHook::Nothing, INDEX, INDEX), Some(Here));
}

#[test]
fn only_a_device_that_was_attached_keeps_what_a_foreign_interface_has_under_its_index() {
    let (_, registry) =
        registry(Recorded { has_slots: false, index: 0, other_index: INDEX, is_pending: false }, None);
    let leaves = |ours, pin| {
        let hook = HookSeen { ours, pin, ..HookSeen::default() };
        let seen = Seen {
            interface: NetInterface { name: "eth0".to_owned(), ..interface() },
            wanted: Wanted::Nothing,
            hooks: [hook.clone(), hook],
            starved: [false; 2],
            entry: InterfaceEntry::default(),
            without_room: WithoutRoom::default(),
        };
        steps(&seen, &registry)
    };
    // It was only renamed.
    assert_eq!(leaves(OnHook::Current, Some(true)), []);
    assert_eq!(leaves(OnHook::Current, None), []);
    // A filter of an older version is on it.
    assert_eq!(leaves(OnHook::Other, None), []);
    assert_eq!(leaves(OnHook::Nothing, Some(false)), [Step::ReleaseFormer { slot: 1 }]);
    assert_eq!(leaves(OnHook::Nothing, None), [Step::ReleaseFormer { slot: 1 }]);
}
