//! Interfaces whose owner becomes known late, or never: whose their packets are.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;
use traffic_model::is_pending;

use super::{change, fake::FakeKernel, policy, take_device};
use crate::{
    node::{Policy, Selection, kernel_access::InterfaceList as _},
    ownership::identity_command::Answers,
};

/// Named like a container's interface, without a container in the name.
const NAMES: [&str; 3] = ["veth00aabb01", "veth00aabb02", "veth00aabb03"];

#[derive(Clone, Debug)]
enum Event {
    /// A device appears, if neither its name nor its index is taken.
    Add { index: u32, name: usize },
    /// The device of this index disappears.
    Remove { index: u32 },
    /// It gets another name.
    Rename { index: u32, name: usize },
    /// Packets pass.
    Packets,
    /// From now on, the container of the device of this index can be found out.
    Identify { index: u32 },
    /// Nothing names any container any more, as when the command fails.
    Forget,
    /// The daemon compares everything; the call of this number fails.
    Resync { fails_in: Option<u32> },
}

fn event() -> impl Strategy<Value = Event> {
    let index = || 2..5_u32;
    let name = || 0..NAMES.len();
    prop_oneof![
        4 => (index(), name()).prop_map(|(index, name)| Event::Add { index, name }),
        2 => index().prop_map(|index| Event::Remove { index }),
        1 => (index(), name()).prop_map(|(index, name)| Event::Rename { index, name }),
        3 => Just(Event::Packets),
        3 => index().prop_map(|index| Event::Identify { index }),
        1 => Just(Event::Forget),
        5 => proptest::option::of(0..60_u32).prop_map(|fails_in| Event::Resync { fails_in }),
    ]
}

/// Two devices of three belong to containers that others belong to as well.
fn owner(device: u64) -> String {
    format!("20{}", device % 3)
}

/// A node, and whose devices are known.
struct Node {
    kernel: FakeKernel,
    policy: Policy,
    identified: BTreeSet<u64>,
}

impl Node {
    fn new(containers: usize, interfaces: usize) -> Self {
        let kernel = FakeKernel::new(containers, interfaces);
        Self { kernel, policy: policy(), identified: BTreeSet::new() }
    }

    fn device(&self, index: u32) -> Option<u64> {
        let state = self.kernel.state.borrow();
        state.devices.iter().find(|(_, device)| device.index == index).map(|(id, _)| *id)
    }

    fn is_free(&self, index: u32, name: &str) -> bool {
        let state = self.kernel.state.borrow();
        state.devices.values().all(|device| device.index != index && device.name != name)
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Add { index, name } if self.is_free(index, NAMES[name]) => {
                self.kernel.add_device(index, NAMES[name]);
            }
            Event::Rename { index, name } if self.is_free(0, NAMES[name]) => {
                if let Some((id, mut device)) = take_device(&self.kernel, index) {
                    device.name = NAMES[name].to_owned();
                    self.kernel.state.borrow_mut().devices.insert(id, device);
                }
            }
            Event::Add { .. } | Event::Rename { .. } => {}
            Event::Remove { index } => drop(take_device(&self.kernel, index)),
            Event::Packets => self.kernel.pass_packets(),
            Event::Identify { index } => self.identified.extend(self.device(index)),
            Event::Forget => self.identified.clear(),
            Event::Resync { fails_in } => {
                self.kernel.fails_in.set(fails_in);
                let _failed = self.resync();
                self.kernel.fails_in.set(None);
            }
        }
    }

    fn resync(&mut self) -> anyhow::Result<()> {
        let devices = self.kernel.state.borrow().devices.clone();
        let known: HashMap<String, u32> =
            devices.values().map(|device| (device.name.clone(), device.index)).collect();
        let named = devices.iter().filter(|(id, _)| self.identified.contains(id));
        let text: String = named.map(|(id, device)| format!("{} {}\n", device.name, owner(*id))).collect();
        self.policy.take_answers(Answers::parse(&text, &known, &known));
        let kernel = std::mem::replace(&mut self.kernel, FakeKernel::new(1, 1));
        let policy = &self.policy;
        let (kernel, result) = change(kernel, |session| {
            let interfaces = session.kernel.interfaces()?;
            session
                .release_gone(&interfaces, std::time::Instant::now() + std::time::Duration::from_secs(60))?;
            let report = session.attach(policy, &interfaces, &Selection::Matching)?;
            anyhow::ensure!(report.failed.is_empty(), "{:?}", report.failed);
            Ok(())
        });
        self.kernel = kernel;
        result
    }

    /// What is wrong with the owners of counted packets.
    fn wrong_owners(&self) -> Vec<String> {
        let state = self.kernel.state.borrow();
        let mut wrong = state.violations.clone();
        let mut of_pending: HashMap<&str, u64> = HashMap::new();
        for ((slot, device), packets) in &state.counted_of {
            let found = state.owner(*slot);
            if is_pending(found) {
                if let Some(other) = of_pending.insert(found, *device).filter(|other| other != device) {
                    wrong.push(format!("{found} has packets of the devices {device} and {other}"));
                }
                let is_there = state.devices.contains_key(device);
                if is_there && self.identified.contains(device) {
                    wrong.push(format!("{packets} packets of {} stay {found}", owner(*device)));
                }
            } else if found != owner(*device) {
                wrong.push(format!("{packets} packets of {} are {found}'s", owner(*device)));
            }
        }
        wrong
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens and fails: no packet is another container's, and none of a device that is known and
    /// there stays pending.
    #[test]
    fn every_packet_is_its_containers_or_pending(
        events in proptest::collection::vec(event(), 0..50),
        traffic_every in 0..9_u32,
    ) {
        let mut node = Node::new(64, 64);
        node.kernel.traffic_every.set(traffic_every);
        for event in &events {
            node.happen(event);
        }
        node.kernel.traffic_every.set(0);
        for _ in 0..2 {
            prop_assert!(node.resync().is_ok());
        }
        node.kernel.pass_packets();
        prop_assert_eq!(node.wrong_owners(), Vec::<String>::new());
        let attached = {
            let state = node.kernel.state.borrow();
            let counted: BTreeSet<u64> = state.counted_of.keys().map(|(_, device)| *device).collect();
            state.devices.keys().all(|device| counted.contains(device))
        };
        prop_assert!(attached, "every device is counted, known or not");
    }

    /// The same with so few slots that they pass on.
    #[test]
    fn nor_where_slots_run_short(
        events in proptest::collection::vec(event(), 0..50),
        traffic_every in 0..9_u32,
    ) {
        let mut node = Node::new(4, 5);
        node.kernel.traffic_every.set(traffic_every);
        for event in &events {
            node.happen(event);
        }
        node.kernel.traffic_every.set(0);
        for _ in 0..2 {
            prop_assert!(node.resync().is_ok());
        }
        prop_assert_eq!(node.wrong_owners(), Vec::<String>::new());
    }
}

#[test]
fn what_was_counted_before_the_owner_was_known_is_the_owners() {
    let mut node = Node::new(8, 12);
    let first = node.kernel.add_device(2, NAMES[0]);
    node.resync().unwrap();
    node.kernel.pass_packets();
    let slot_of = |node: &Node, owner: &str| {
        let state = node.kernel.state.borrow();
        (0..8).filter(|slot| state.owner(*slot) == owner).collect::<Vec<_>>()
    };
    assert_eq!(node.kernel.state.borrow().counted_of, [((0, first), 2)].into());
    let pending = node.kernel.state.borrow().owner(0).to_owned();
    assert!(pending.starts_with("pending:veth00aabb01:2:"), "{pending}");
    node.identified.insert(first);
    node.resync().unwrap();
    assert_eq!(slot_of(&node, &owner(first)), [0]);
    // It goes on while nothing names it, also after a restart of the daemon.
    node.happen(&Event::Forget);
    node.resync().unwrap();
    node.kernel.pass_packets();
    assert_eq!(node.kernel.state.borrow().counted_of, [((0, first), 4)].into());
    // Another device of the same container: after it is known, it counts in the container's own slot.
    let mut other = node.kernel.add_device(3, NAMES[1]);
    while owner(other) != owner(first) {
        take_device(&node.kernel, 3).unwrap();
        other = node.kernel.add_device(3, NAMES[1]);
    }
    node.resync().unwrap();
    node.kernel.pass_packets();
    node.identified.extend([first, other]);
    node.resync().unwrap();
    node.kernel.pass_packets();
    assert_eq!(slot_of(&node, &owner(first)), [0, 1], "both are the container's");
    let counted = node.kernel.state.borrow().counted_of.clone();
    assert_eq!(counted, [((0, first), 8), ((0, other), 2), ((1, other), 2)].into());
    // Retired, neither of them goes on.
    let (kernel, result) = change(node.kernel, |session| {
        let id = traffic_model::ContainerId::new(&owner(first))?;
        session.registry.retire_container(&mut session.kernel, &id)
    });
    result.unwrap();
    node.kernel = kernel;
    assert_eq!(slot_of(&node, &owner(first)), [0_u32; 0]);
}
