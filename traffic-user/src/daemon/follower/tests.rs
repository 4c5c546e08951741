//! The daemon's reactions to events, on a kernel made of plain data: what events alone achieve, without a
//! resync.

use proptest::prelude::*;

use super::*;
use crate::{
    net::interface::InterfaceEvent,
    node::tests::{
        NAMES, change,
        fake::{FakeKernel, as_interface},
        is_free, owner, policy, take_device,
    },
};

/// Something that happens to the node's devices, or to the daemon.
#[derive(Clone, Debug)]
enum Step {
    Add {
        index: u32,
        name: usize,
    },
    Remove {
        index: u32,
    },
    Rename {
        index: u32,
        name: usize,
    },
    MoveAway {
        index: u32,
    },
    MoveBack {
        index: u32,
    },
    Packets,
    /// The daemon gets the events that have come; the call of this number fails.
    Deliver {
        fails_in: Option<u32>,
    },
    /// The kernel drops the events that have come, and says so.
    Lose,
    /// An event that is older than what is there: of a name that the device of this index does not have.
    Stale {
        index: u32,
        name: usize,
    },
    /// The next listing lacks an interface that exists, as an interrupted dump does.
    Hide {
        index: u32,
    },
    /// A bridge reports the end of a membership as the end of the interface.
    FalseEnd {
        index: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let index = || 2..7_u32;
    let name = || 0..NAMES.len();
    prop_oneof![
        4 => (index(), name()).prop_map(|(index, name)| Step::Add { index, name }),
        2 => index().prop_map(|index| Step::Remove { index }),
        1 => (index(), name()).prop_map(|(index, name)| Step::Rename { index, name }),
        1 => index().prop_map(|index| Step::MoveAway { index }),
        1 => index().prop_map(|index| Step::MoveBack { index }),
        2 => Just(Step::Packets),
        4 => proptest::option::weighted(0.3, 0..60_u32).prop_map(|fails_in| Step::Deliver { fails_in }),
        1 => Just(Step::Lose),
        1 => index().prop_map(|index| Step::FalseEnd { index }),
        1 => (index(), name()).prop_map(|(index, name)| Step::Stale { index, name }),
        1 => index().prop_map(|index| Step::Hide { index }),
    ]
}

/// The daemon with the kernel it follows.
struct Daemon {
    kernel: FakeKernel,
    follower: Follower,
    policy: Policy,
    events: Batch,
    /// Something failed, so that the daemon compares everything soon.
    retries: bool,
    /// Packets in gaps of interfaces that came and went.
    in_gaps: u64,
}

impl Daemon {
    fn new() -> Self {
        Self {
            kernel: FakeKernel::new(8, 12),
            follower: Follower::default(),
            policy: policy(),
            events: Batch::default(),
            retries: false,
            in_gaps: 0,
        }
    }

    fn seen(&mut self, index: u32) {
        let state = self.kernel.state.borrow();
        if let Some(device) = state.devices.values().find(|device| device.index == index) {
            self.events.add(InterfaceEvent::Seen(as_interface(device)));
        }
    }

    fn take(mut self, step: &Step) -> Self {
        match *step {
            Step::Add { index, name } => {
                if is_free(&self.kernel, index, NAMES[name]) {
                    self.kernel.add_device(index, NAMES[name]);
                    self.seen(index);
                }
            }
            Step::Remove { index } => {
                if let Some((_, device)) = take_device(&self.kernel, index) {
                    let last = Some(Box::new(as_interface(&device)));
                    self.events.add(InterfaceEvent::Gone { index, last, has_moved: false });
                }
            }
            Step::Rename { index, name } => {
                if is_free(&self.kernel, 0, NAMES[name])
                    && let Some((id, mut device)) = take_device(&self.kernel, index)
                {
                    device.name = NAMES[name].to_owned();
                    self.kernel.state.borrow_mut().devices.insert(id, device);
                    self.seen(index);
                }
            }
            Step::MoveAway { index } => {
                if let Some((id, device)) = take_device(&self.kernel, index) {
                    let last = Some(Box::new(as_interface(&device)));
                    self.kernel.state.borrow_mut().elsewhere.insert(id, device);
                    self.events.add(InterfaceEvent::Gone { index, last, has_moved: true });
                }
            }
            Step::MoveBack { index } => {
                let first = self.kernel.state.borrow_mut().elsewhere.pop_first();
                if let Some((id, mut device)) = first {
                    let comes = is_free(&self.kernel, index, &device.name);
                    let mut state = self.kernel.state.borrow_mut();
                    if comes {
                        device.index = index;
                        state.devices.insert(id, device);
                    } else {
                        state.elsewhere.insert(id, device);
                    }
                    drop(state);
                    self.seen(index);
                }
            }
            Step::Packets => self.kernel.pass_packets(),
            Step::Deliver { fails_in } => {
                self.kernel.fails_in.set(fails_in);
                self = self.deliver();
                self.kernel.fails_in.set(None);
            }
            Step::Lose => self.events = Batch { lost: true, ..Batch::default() },
            Step::Stale { index, name } => self.events.add(InterfaceEvent::Seen(NetInterface {
                index,
                name: NAMES[name].to_owned(),
                ethernet: true,
                ..NetInterface::default()
            })),
            Step::Hide { index } => {
                self.kernel.hidden.set(Some(index));
                // Whom a listing hides, the next one shows.
                self.retries = true;
            }
            Step::FalseEnd { index } => {
                self.events.add(InterfaceEvent::Gone { index, last: None, has_moved: false });
            }
        }
        self
    }

    /// As the worker does it: events that were lost, and failures, lead to a comparison of everything.
    fn deliver(mut self) -> Self {
        let batch = std::mem::take(&mut self.events);
        let Self { kernel, mut follower, policy, .. } = self;
        let plan = if batch.lost {
            follower.came_and_went.take_events(&batch, &policy);
            None
        } else {
            Some(follower.plan(batch, &policy))
        };
        let (kernel, result) = match plan {
            Some(plan) if plan.is_idle() && !follower.came_and_went.is_waiting() => (kernel, Ok(())),
            // One batch after another, each as small as possible.
            Some(mut plan) => change(kernel, |session| {
                while !plan.is_idle() || follower.came_and_went.is_waiting() {
                    all_attached(&follower.follow(session, &policy, &mut plan, Instant::now())?.report)?;
                }
                Ok(())
            }),
            None => change(kernel, |session| {
                follower.came_and_went.judge(&session.registry, &session.kernel)?;
                let mut pass = Pass::new(Selection::Matching);
                pass.list(&session.kernel)?;
                while !pass.batch(session, &policy, Instant::now())? {
                    pass.list(&session.kernel)?;
                }
                all_attached(&follower.compared(pass, &session.registry))
            }),
        };
        self.retries |= result.is_err();
        let gaps = follower.came_and_went.take_gaps(jiff::Timestamp::UNIX_EPOCH);
        let sizes = gaps.iter().filter_map(|gap| gap.size);
        self.in_gaps += sizes.map(|size| size.in_skbs + size.out_skbs).sum::<u64>();
        Self { kernel, follower, policy, ..self }
    }
}

fn all_attached(report: &AttachReport) -> anyhow::Result<()> {
    anyhow::ensure!(report.failed.is_empty(), "{:?}", report.failed);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Events alone bring the node to what is wanted, as long as none of them fails or is lost; after those,
    /// one comparison does. An end that is none costs nothing.
    #[test]
    fn events_alone_reach_what_is_wanted(steps in proptest::collection::vec(step(), 0..40)) {
        let mut daemon = Daemon::new();
        for step in &steps {
            daemon = daemon.take(step);
        }
        daemon = daemon.deliver();
        if daemon.retries {
            daemon.kernel.hidden.set(None);
            daemon.events.lost = true;
            daemon = daemon.deliver();
        }
        daemon.kernel.pass_packets();
        prop_assert_eq!(daemon.kernel.unsettled(owner), Vec::<String>::new());
        prop_assert!(daemon.in_gaps <= daemon.kernel.missed(), "a gap of packets that were counted");
    }
}

#[test]
fn what_passed_a_device_that_came_and_went_is_a_gap() {
    let mut daemon = Daemon::new().take(&Step::Add { index: 2, name: 0 }).deliver();
    daemon.kernel.pass_packets();
    // Within one batch: the attached one ends, and another comes and goes under its name and index.
    daemon = daemon.take(&Step::Remove { index: 2 }).take(&Step::Add { index: 2, name: 0 });
    daemon.kernel.pass_packets();
    daemon = daemon.take(&Step::Remove { index: 2 }).take(&Step::Add { index: 3, name: 2 });
    daemon.kernel.pass_packets();
    daemon = daemon.take(&Step::Remove { index: 3 }).deliver();
    assert_eq!((daemon.in_gaps, daemon.kernel.missed()), (4, 4));
    assert_eq!(daemon.kernel.unsettled(owner), Vec::<String>::new());
}

/// Its packets are counted from the moment a program is on its hooks, even if the attach fails after that.
#[test]
fn a_device_that_was_attached_halfway_and_moved_is_no_gap_of_what_was_counted() {
    for (is_told_between, fails_in) in (0..40).flat_map(|call| [(false, call), (true, call)]) {
        let add = Daemon::new().take(&Step::Add { index: 3, name: 0 });
        let tried = add.take(&Step::Deliver { fails_in: Some(fails_in) }).take(&Step::Packets);
        let mut daemon = tried.take(&Step::MoveAway { index: 3 });
        if is_told_between {
            daemon = daemon.deliver();
        }
        daemon = daemon.take(&Step::MoveBack { index: 2 }).take(&Step::Remove { index: 2 }).deliver();
        // As after each failure, everything is compared soon.
        daemon = daemon.take(&Step::Lose).deliver();
        let counted = 2 - daemon.kernel.missed();
        assert_eq!(daemon.in_gaps, 2 - counted, "told between: {is_told_between}, failure at {fails_in}");
        assert_eq!(daemon.kernel.unsettled(owner), Vec::<String>::new());
    }
}

#[test]
fn an_interface_that_is_attached_needs_no_second_look() {
    let mut daemon = Daemon::new().take(&Step::Add { index: 2, name: 0 }).deliver();
    daemon.seen(2);
    let calls = daemon.kernel.calls.get();
    let daemon = daemon.deliver();
    assert_eq!(daemon.kernel.calls.get(), calls, "an event without news reached the kernel");
}

#[test]
fn a_device_made_again_under_its_name_and_index_is_attached_again() {
    let mut daemon = Daemon::new().take(&Step::Add { index: 2, name: 0 }).deliver();
    daemon = daemon.take(&Step::Remove { index: 2 }).take(&Step::Add { index: 2, name: 0 });
    daemon.kernel.pass_packets();
    let daemon = daemon.deliver();
    assert_eq!(daemon.kernel.unsettled(owner), Vec::<String>::new());
    assert_eq!(daemon.kernel.recorded_missed(), 2, "what passed before the second attach");
}

#[test]
fn an_end_that_the_kernel_does_not_confirm_releases_nothing() {
    let mut daemon = Daemon::new().take(&Step::Add { index: 2, name: 0 }).deliver();
    daemon.kernel.pass_packets();
    daemon = daemon.take(&Step::FalseEnd { index: 2 }).deliver();
    daemon.kernel.pass_packets();
    assert_eq!(daemon.kernel.unsettled(owner), Vec::<String>::new());
    assert_eq!((daemon.kernel.recorded_missed(), daemon.kernel.missed()), (0, 0));
}

#[test]
fn an_event_only_says_where_to_look() {
    let mut daemon = Daemon::new().take(&Step::Add { index: 2, name: 2 });
    // The name it had before: the event of the renaming was lost.
    daemon = daemon.take(&Step::Stale { index: 2, name: 0 }).deliver();
    daemon.kernel.pass_packets();
    assert_eq!(daemon.kernel.unsettled(owner), Vec::<String>::new());
}

#[test]
fn an_older_name_after_a_newer_one_hides_no_renaming() {
    let mut daemon = Daemon::new().take(&Step::Add { index: 5, name: 4 }).deliver();
    daemon =
        daemon.take(&Step::Rename { index: 5, name: 0 }).take(&Step::Stale { index: 5, name: 4 }).deliver();
    assert_eq!(daemon.kernel.unsettled(owner), Vec::<String>::new());
}

#[test]
fn what_passed_a_device_whose_move_was_lost_is_no_gap_of_what_was_counted() {
    // The event of the move is lost alone, or together with that of the end; or a listing shows it before the end.
    for (is_lost_early, is_listed) in [(true, false), (false, false), (true, true)] {
        let mut daemon = Daemon::new().take(&Step::Add { index: 4, name: 0 }).deliver();
        daemon = daemon.take(&Step::Packets).take(&Step::MoveAway { index: 4 });
        if is_lost_early {
            daemon = daemon.take(&Step::Lose);
        }
        if is_listed {
            daemon = daemon.deliver();
        }
        daemon = daemon.take(&Step::MoveBack { index: 3 });
        if !is_lost_early {
            daemon = daemon.take(&Step::Lose);
        }
        let daemon = daemon.take(&Step::Remove { index: 3 }).deliver();
        assert_eq!((daemon.in_gaps, daemon.kernel.missed()), (0, 0), "{is_lost_early} {is_listed}");
        assert_eq!(daemon.kernel.unsettled(owner), Vec::<String>::new());
    }
}

#[test]
fn what_a_listing_lacks_is_not_released() {
    let mut daemon = Daemon::new().take(&Step::Add { index: 2, name: 0 }).deliver();
    daemon.kernel.pass_packets();
    daemon = daemon.take(&Step::Hide { index: 2 }).take(&Step::Lose).deliver();
    daemon.kernel.pass_packets();
    assert_eq!(daemon.kernel.unsettled(owner), Vec::<String>::new());
    assert_eq!((daemon.kernel.recorded_missed(), daemon.kernel.missed()), (0, 0));
}

#[test]
fn a_device_made_again_with_the_same_address_has_its_own_statistics() {
    let with_mac = |daemon: Daemon| {
        let mut state = daemon.kernel.state.borrow_mut();
        state.devices.values_mut().for_each(|device| device.mac = Some([0, 0x18, 0x51, 0, 0, 1]));
        drop(state);
        daemon
    };
    let add = |daemon: Daemon| with_mac(daemon.take(&Step::Add { index: 2, name: 0 }));
    let mut daemon = add(Daemon::new());
    daemon.events = Batch::default();
    daemon.seen(2);
    daemon = daemon.deliver();
    daemon.kernel.pass_packets();
    let mut daemon = add(daemon.take(&Step::Remove { index: 2 }));
    // More than the first one had: its statistics alone would not tell.
    (0..3).for_each(|_| daemon.kernel.pass_packets());
    daemon.seen(2);
    let daemon = daemon.deliver();
    daemon.kernel.pass_packets();
    assert_eq!((daemon.kernel.recorded_missed(), daemon.in_gaps), (6, 0));
    assert_eq!(daemon.kernel.unsettled(owner), Vec::<String>::new());
}
