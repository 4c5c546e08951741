//! The node as a state machine, on a kernel that changes and fails at will.

pub(crate) mod fake;
mod pending;

use std::path::Path;

use proptest::prelude::*;

use super::{Pass, Policy, Selection, Session, registry::Registry};
use crate::{config::Config, kernel::load::LoadOutcome, ownership::Ownership};
use fake::FakeKernel;

pub(crate) fn policy() -> Policy {
    policy_of("[host]\npreset = 'virtuozzo'\n")
}

/// A host without Virtuozzo's files, with this configuration.
pub(crate) fn policy_of(text: &str) -> Policy {
    let text = format!("vz_conf_dir = '/nonexistent'\n{text}");
    let config = Config::parse(&text, Path::new("t.toml")).unwrap();
    let ownership = Ownership::read(&config, Path::new("/nonexistent"), None).unwrap();
    Policy::new(config, ownership)
}

/// `veth101.0` belongs to container 101.
pub(crate) fn owner(name: &str) -> Option<String> {
    let digits = name.strip_prefix("veth")?;
    digits.split_once('.').map(|(id, _)| id.to_owned())
}

/// What the daemon does at each resync, but for its log.
fn resync(session: &mut Session<FakeKernel>, policy: &Policy) -> anyhow::Result<()> {
    use super::kernel_access::InterfaceList as _;
    let interfaces = session.kernel.interfaces()?;
    session.release_gone(&interfaces, std::time::Instant::now() + std::time::Duration::from_secs(60))?;
    let report = session.attach(policy, &interfaces, &Selection::Matching)?;
    session.sync_addresses(policy)?;
    anyhow::ensure!(report.failed.is_empty(), "{:?}", report.failed);
    Ok(())
}

/// Runs a change in a session of its own, as every command and every reaction of the daemon does.
pub(crate) fn change(
    kernel: FakeKernel,
    change: impl FnOnce(&mut Session<FakeKernel>) -> anyhow::Result<()>,
) -> (FakeKernel, anyhow::Result<()>) {
    match Registry::read(&kernel) {
        Ok(registry) => {
            let mut session = Session { kernel, registry, outcome: LoadOutcome::Found };
            let result = change(&mut session);
            (session.kernel, result)
        }
        Err(error) => (kernel, Err(error)),
    }
}

/// Something that happens on the node.
#[derive(Clone, Debug)]
enum Event {
    /// A device appears, if neither its name nor its index is taken.
    Add { index: u32, name: usize },
    /// The device of this index disappears.
    Remove { index: u32 },
    /// The device of this index gets another name.
    Rename { index: u32, name: usize },
    /// The device of this index moves to another network namespace.
    MoveAway { index: u32 },
    /// A device comes back from there, under this index.
    MoveBack { index: u32 },
    /// Packets pass.
    Packets,
    /// The daemon compares everything; the call of this number fails.
    Resync { fails_in: Option<u32> },
    /// A start hook attaches one interface; the call of this number fails.
    Attach { index: u32, fails_in: Option<u32> },
    /// The next listing lacks the interface of this index.
    Hide { index: u32 },
    /// The kernel acknowledges an attach that has no effect.
    LoseAttach,
    /// Another version of the program takes over; the call of this number fails.
    Upgrade { fails_in: Option<u32> },
}

impl Event {
    /// The same without a failure.
    fn undisturbed(self) -> Self {
        match self {
            Self::Resync { .. } => Self::Resync { fails_in: None },
            Self::Attach { index, .. } => Self::Attach { index, fails_in: None },
            Self::Upgrade { .. } => Self::Upgrade { fails_in: None },
            other => other,
        }
    }
}

pub(crate) const NAMES: [&str; 6] = ["veth101.0", "veth101.1", "veth102.0", "veth103.0", "veth104.0", "eth0"];

fn event() -> impl Strategy<Value = Event> {
    let index = || 2..7_u32;
    let name = || 0..NAMES.len();
    let fails_in = || proptest::option::of(0..60_u32);
    prop_oneof![
        4 => (index(), name()).prop_map(|(index, name)| Event::Add { index, name }),
        2 => index().prop_map(|index| Event::Remove { index }),
        1 => (index(), name()).prop_map(|(index, name)| Event::Rename { index, name }),
        1 => index().prop_map(|index| Event::MoveAway { index }),
        1 => index().prop_map(|index| Event::MoveBack { index }),
        3 => Just(Event::Packets),
        3 => fails_in().prop_map(|fails_in| Event::Resync { fails_in }),
        2 => (index(), fails_in()).prop_map(|(index, fails_in)| Event::Attach { index, fails_in }),
        1 => fails_in().prop_map(|fails_in| Event::Upgrade { fails_in }),
        1 => index().prop_map(|index| Event::Hide { index }),
        1 => Just(Event::LoseAttach),
    ]
}

/// Whether a device can get this index and name. The name of one that is elsewhere stays reserved: two
/// devices that take turns under one name cannot be told apart.
pub(crate) fn is_free(kernel: &FakeKernel, index: u32, name: &str) -> bool {
    let state = kernel.state.borrow();
    state.devices.values().all(|device| device.index != index && device.name != name)
        && state.elsewhere.values().all(|device| device.name != name)
}

pub(crate) fn take_device(kernel: &FakeKernel, index: u32) -> Option<(u64, fake::Device)> {
    let mut state = kernel.state.borrow_mut();
    let id = state.devices.iter().find(|(_, device)| device.index == index).map(|(id, _)| *id)?;
    state.devices.remove(&id).map(|device| (id, device))
}

fn happen(kernel: FakeKernel, event: &Event, policy: &Policy) -> FakeKernel {
    match event {
        Event::Add { index, name } => {
            if is_free(&kernel, *index, NAMES[*name]) {
                kernel.add_device(*index, NAMES[*name]);
            }
        }
        Event::Remove { index } => drop(take_device(&kernel, *index)),
        Event::Rename { index, name } => {
            if is_free(&kernel, 0, NAMES[*name])
                && let Some((id, mut device)) = take_device(&kernel, *index)
            {
                device.name = NAMES[*name].to_owned();
                kernel.state.borrow_mut().devices.insert(id, device);
            }
        }
        Event::MoveAway { index } => {
            if let Some((id, device)) = take_device(&kernel, *index) {
                kernel.state.borrow_mut().elsewhere.insert(id, device);
            }
        }
        Event::MoveBack { index } => {
            let first = kernel.state.borrow_mut().elsewhere.pop_first();
            if let Some((id, mut device)) = first {
                if is_free(&kernel, *index, &device.name) {
                    device.index = *index;
                    kernel.state.borrow_mut().devices.insert(id, device);
                } else {
                    kernel.state.borrow_mut().elsewhere.insert(id, device);
                }
            }
        }
        Event::Packets => kernel.pass_packets(),
        Event::Hide { index } => kernel.hidden.set(Some(*index)),
        Event::LoseAttach => kernel.lost_attaches.set(1),
        Event::Resync { fails_in } => {
            kernel.fails_in.set(*fails_in);
            let (kernel, _failed) = change(kernel, |session| resync(session, policy));
            kernel.fails_in.set(None);
            return kernel;
        }
        Event::Attach { index, fails_in } => {
            let name = kernel.state.borrow().devices.values().find(|device| device.index == *index).cloned();
            let Some(device) = name else { return kernel };
            kernel.fails_in.set(*fails_in);
            let (kernel, _failed) = change(kernel, |session| {
                use super::kernel_access::InterfaceList as _;
                let interfaces = session.kernel.interfaces()?;
                session.attach(policy, &interfaces, &Selection::Named(vec![device.name])).map(drop)
            });
            kernel.fails_in.set(None);
            return kernel;
        }
        Event::Upgrade { fails_in } => {
            kernel.change_program();
            kernel.fails_in.set(*fails_in);
            let (kernel, _failed) = change(kernel, Session::move_hooks);
            kernel.fails_in.set(None);
            return kernel;
        }
    }
    kernel
}

/// Lets all of it happen on a node with enough slots. A move and a rename are noticed one by one: a device
/// that comes back under another name and another index has left nothing to know it by. (So no listing lacks it
/// in between: the daemon also follows events, which this test has not.)
fn all_happen(events: &[Event], policy: &Policy) -> FakeKernel {
    let mut kernel = FakeKernel::new(8, 12);
    for event in events {
        if matches!(event, Event::MoveAway { .. } | Event::Rename { .. }) {
            kernel.hidden.set(None);
            kernel = happen(kernel, &Event::Resync { fails_in: None }, policy);
        }
        kernel = happen(kernel, event, policy);
    }
    settle(kernel, policy)
}

/// Lets the daemon have its next undisturbed resyncs.
fn settle(mut kernel: FakeKernel, policy: &Policy) -> FakeKernel {
    kernel.fails_in.set(None);
    kernel.traffic_every.set(0);
    kernel.hidden.set(None);
    kernel.lost_attaches.set(0);
    for _ in 0..2 {
        let (next, result) = change(kernel, |session| resync(session, policy));
        kernel = next;
        result.unwrap();
    }
    kernel
}

/// Reads the owners of this many addresses, one container each.
fn policy_with_addresses(count: u32) -> Policy {
    let directory = tempfile::tempdir().unwrap();
    for id in 0..count {
        let text = format!("IP_ADDRESS=\"10.{}.{}.1\"\n", id / 256, id % 256);
        std::fs::write(directory.path().join(format!("{}.conf", 1000 + id)), text).unwrap();
    }
    let text = format!("vz_conf_dir = '{}'\n", directory.path().display());
    Policy::read(Config::parse(&text, Path::new("t.toml")).unwrap(), directory.path()).unwrap()
}

#[test]
fn containers_beyond_the_limit_are_named_and_cost_no_attempt_each() {
    let calls = |count| {
        let policy = policy_with_addresses(count);
        let (kernel, result) = change(FakeKernel::new(20, 20), |session| {
            session.sync_addresses(&policy)?;
            let problem = policy.without_slot(|id| session.registry.container_slot(id).is_some());
            let problem = problem.expect("not all have a slot");
            let wanted = format!("{} containers have no counter slot (1020, 1021, ", count - 20);
            anyhow::ensure!(problem.starts_with(&wanted), "{problem}");
            Ok(())
        });
        result.unwrap();
        kernel.calls.get()
    };
    let (few, many) = (calls(60), calls(600));
    assert!(many <= few + 2, "{few} calls for 60 containers, {many} for 600");
    let policy = policy_with_addresses(3);
    assert_eq!(policy.without_slot(|_| true), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens and fails, two resyncs later everything that should be attached is, for its owner,
    /// and nothing is left of what is gone. No packet of an attached interface was ever without an entry or
    /// in a slot of nobody, and no slot was given away before its final reading.
    #[test]
    fn the_node_reaches_what_is_wanted(
        events in proptest::collection::vec(event(), 0..40),
        traffic_every in 0..9_u32,
    ) {
        let policy = policy();
        let mut kernel = FakeKernel::new(3, 4);
        kernel.traffic_every.set(traffic_every);
        for event in &events {
            kernel = happen(kernel, event, &policy);
        }
        let kernel = settle(kernel, &policy);
        kernel.pass_packets();
        prop_assert_eq!(kernel.unsettled(owner), Vec::<String>::new(), "{:?}", fake::shown(&kernel));
    }

    /// Every packet that passed uncounted is recorded as missed once the interface is attached, and no other
    /// is. (A device that is elsewhere may be taken for the one that has its name now, and its packets for
    /// counted ones.)
    #[test]
    fn what_is_recorded_as_missed_is_what_was_missed(
        events in proptest::collection::vec(event().prop_map(Event::undisturbed), 0..40),
    ) {
        let kernel = all_happen(&events, &policy());
        // Strays were counted, but not in the slot of their interface, which cannot know that.
        let most = kernel.expected_missed() + kernel.strays();
        let recorded = kernel.recorded_missed();
        let is_certain = !events.iter().any(|event| matches!(event, Event::MoveAway { .. }));
        let least = if is_certain { kernel.expected_missed() } else { 0 };
        prop_assert!((least..=most).contains(&recorded), "{recorded}, not {least} to {most}");
    }

    /// Interrupted anywhere, nothing is recorded as missed that was not. (Less can be: a failure can lose the
    /// proof that a device is another one than before.)
    #[test]
    fn no_failure_makes_up_missed_packets(events in proptest::collection::vec(event(), 0..40)) {
        let kernel = all_happen(&events, &policy());
        let most = kernel.missed() + kernel.strays();
        prop_assert!(kernel.recorded_missed() <= most, "{}, not up to {most}", kernel.recorded_missed());
    }
}

#[test]
fn an_attach_counts_only_if_the_kernel_shows_it() {
    let policy = policy();
    let attached = |lost| {
        let kernel = FakeKernel::new(3, 4);
        kernel.add_device(2, "veth101.0");
        kernel.lost_attaches.set(lost);
        let (kernel, result) = change(kernel, |session| resync(session, &policy));
        (kernel.unsettled(owner).is_empty(), result.map_err(|error| error.to_string()))
    };
    assert_eq!(attached(1), (true, Ok(())));
    let (is_settled, result) = attached(u32::MAX);
    assert!(!is_settled && result.unwrap_err().contains("something else keeps changing it"));
}

#[test]
fn a_node_at_rest_is_looked_at_and_not_changed() {
    let policy = policy();
    let kernel = FakeKernel::new(8, 12);
    for (index, name) in (2..).zip(NAMES) {
        kernel.add_device(index, name);
    }
    let kernel = settle(kernel, &policy);
    let before = kernel.calls.get();
    let (kernel, result) = change(kernel, |session| resync(session, &policy));
    result.unwrap();
    let calls = kernel.calls.get() - before;
    // For each interface one look at its hooks and one at its counters, and a few for what all share.
    assert!(calls <= 2 * 5 + 12, "{calls} calls");
}

/// A listing waits for whoever holds the kernel's lock on interfaces, and start hooks would wait for ours.
#[test]
fn a_batch_lists_nothing_under_the_lock_and_looks_again_at_what_it_acts_on() {
    let kernel = FakeKernel::new(8, 12);
    kernel.add_device(2, NAMES[0]);
    kernel.add_device(3, NAMES[2]);
    let mut pass = Pass::new(Selection::Matching);
    pass.list(&kernel).unwrap();
    // Since the listing, one ended, one has another name, and a hook has attached a new one.
    take_device(&kernel, 2).unwrap();
    let (id, mut device) = take_device(&kernel, 3).unwrap();
    device.name = "eth7".to_owned();
    kernel.state.borrow_mut().devices.insert(id, device);
    kernel.add_device(4, NAMES[3]);
    let (kernel, hook) = change(kernel, |session| resync(session, &policy()));
    hook.unwrap();
    let listings = kernel.listings.get();
    let (kernel, done) = change(kernel, |session| {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        anyhow::ensure!(pass.batch(session, &policy(), until)?, "one batch is enough");
        anyhow::ensure!(pass.report.failed.is_empty(), "{:?}", pass.report.failed);
        Ok(())
    });
    done.unwrap();
    assert_eq!(kernel.listings.get(), listings);
    kernel.pass_packets();
    assert_eq!(kernel.unsettled(owner), Vec::<String>::new());
}
