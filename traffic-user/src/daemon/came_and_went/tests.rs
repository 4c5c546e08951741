use traffic_common::Direction;
use traffic_ledger::{GapReason, GapSize};

use super::*;
use crate::{
    net::interface::InterfaceEvent,
    node::tests::{fake::FakeKernel, policy},
};

const THEN: Timestamp = Timestamp::constant(1_800_000_000, 0);
const NOW: Timestamp = Timestamp::constant(1_800_000_060, 0);

fn interface(index: u32, name: &str, kind: &str, address: u8) -> NetInterface {
    let (name, kind) = (name.to_owned(), kind.to_owned());
    NetInterface { index, name, kind, mac: Some([2, 0, 0, 0, 0, address]), ..NetInterface::default() }
}

fn with_packets(interface: NetInterface, incoming: u64, outgoing: u64) -> NetInterface {
    let mut statistics = InterfaceStatistics::default();
    let (at_in, at_out) = (Direction::In as usize, Direction::Out as usize);
    (statistics.packets[at_in], statistics.packets[at_out]) = (incoming, outgoing);
    (statistics.bytes[at_in], statistics.bytes[at_out]) = (incoming * 100, outgoing * 60);
    NetInterface { statistics, ..interface }
}

fn with_carrier(interface: NetInterface) -> NetInterface {
    NetInterface { has_carrier: true, ..interface }
}

fn seen(interface: NetInterface) -> InterfaceEvent {
    InterfaceEvent::Seen(interface)
}

fn gone(interface: NetInterface) -> InterfaceEvent {
    InterfaceEvent::Gone { index: interface.index, last: Some(Box::new(interface)), has_moved: false }
}

fn batch(events: impl IntoIterator<Item = InterfaceEvent>) -> Batch {
    let mut batch = Batch::default();
    events.into_iter().for_each(|event| batch.add(event));
    batch
}

/// A daemon that has looked at a node without interfaces, with the kernel of that node.
fn daemon() -> (CameAndWent, FakeKernel) {
    let kernel = FakeKernel::new(8, 12);
    let mut daemon = CameAndWent::default();
    daemon.remember(&Registry::read(&kernel).unwrap(), THEN);
    (daemon, kernel)
}

/// The gaps that a batch leads to: interface, container, size.
type Short<'a> = (&'a str, Option<&'a str>, Option<[u64; 4]>);

fn gaps(daemon: &mut CameAndWent, kernel: &FakeKernel, batch: &Batch) -> Vec<Gap> {
    daemon.take_events(batch, &policy());
    daemon.judge(&Registry::read(kernel).unwrap(), kernel).unwrap();
    daemon.take_gaps(NOW)
}

fn short(gaps: &[Gap]) -> Vec<Short<'_>> {
    let size = |size: GapSize| [size.in_skbs, size.in_skb_bytes, size.out_skbs, size.out_skb_bytes];
    gaps.iter()
        .map(|gap| (gap.interface.as_deref().unwrap_or("-"), gap.container.as_deref(), gap.size.map(size)))
        .collect()
}

#[test]
fn what_an_interface_carried_that_came_and_went_is_a_gap() {
    let (mut daemon, kernel) = daemon();
    let tap = interface(7, "veth101.0", "tun", 1);
    let events = [seen(tap.clone()), gone(with_packets(tap, 3, 5))];
    let found = gaps(&mut daemon, &kernel, &batch(events));
    assert_eq!(short(&found), [("veth101.0", Some("101"), Some([3, 300, 5, 300]))]);
    assert_eq!((found[0].reason, found[0].start, found[0].end), (GapReason::BeforeAttach, Some(THEN), NOW));
    assert_eq!(found[0].detail.as_deref(), Some("it came and went before it could be attached"));
    assert!(daemon.take_gaps(NOW).is_empty(), "taken");
}

#[test]
fn a_veth_has_lost_half_of_its_statistics_when_it_ends() {
    let (mut daemon, kernel) = daemon();
    let veth = interface(7, "veth101.0", "veth", 1);
    let events = [seen(with_carrier(veth.clone())), gone(with_packets(veth.clone(), 3, 0))];
    let found = gaps(&mut daemon, &kernel, &batch(events));
    assert_eq!(short(&found), [("veth101.0", Some("101"), None)]);
    assert!(found[0].detail.as_deref().unwrap().ends_with("; the kernel did not keep its statistics"));
    // The carrier may have shown in an earlier batch, after which the attach failed.
    assert!(gaps(&mut daemon, &kernel, &batch([seen(with_carrier(veth.clone()))])).is_empty());
    assert_eq!(gaps(&mut daemon, &kernel, &batch([seen(veth.clone()), gone(veth)])).len(), 1);
}

#[test]
fn a_veth_whose_carrier_was_not_announced_in_time_is_a_gap() {
    let (mut daemon, kernel) = daemon();
    let veth = interface(7, "veth101.0", "veth", 1);
    let last = NetInterface { carrier_ups: 1, ..veth.clone() };
    let found = gaps(&mut daemon, &kernel, &batch([seen(veth), gone(last)]));
    assert_eq!(short(&found), [("veth101.0", Some("101"), None)]);
}

#[test]
fn an_interface_that_carried_nothing_is_no_gap() {
    let (mut daemon, kernel) = daemon();
    let events = [("veth101.0", "veth"), ("veth102.0", "tun"), ("veth103.0", "macvlan")]
        .into_iter()
        .flat_map(|(name, kind)| {
            let one = interface(7, name, kind, 1);
            [seen(one.clone()), gone(one)]
        });
    let mut events = batch(events);
    // Nobody watches this one, and this one only moved.
    let other = interface(8, "eth7", "tun", 2);
    let moved = interface(9, "veth104.0", "tun", 3);
    events.add(gone(with_packets(other, 3, 5)));
    let last = Some(Box::new(with_packets(moved, 3, 5)));
    events.add(InterfaceEvent::Gone { index: 9, last, has_moved: true });
    assert!(gaps(&mut daemon, &kernel, &events).is_empty());
}

#[test]
fn of_the_devices_of_one_index_only_the_attached_one_is_no_gap() {
    let device = |address| with_packets(interface(7, "veth101.0", "tun", address), u64::from(address), 0);
    let counted = |attached: u8, ends: &[u8], alive: Option<u8>| -> u64 {
        let (mut daemon, kernel) = daemon();
        daemon.attached(&device(attached));
        let mut events =
            batch(ends.iter().flat_map(|address| [seen(device(*address)), gone(device(*address))]));
        alive.into_iter().for_each(|address| events.add(seen(device(address))));
        let found = gaps(&mut daemon, &kernel, &events);
        assert!(found.len() <= 1, "one gap for all of a name: {found:?}");
        found.iter().map(|gap| gap.size.unwrap().in_skbs).sum()
    };
    assert_eq!(counted(1, &[1], None), 0);
    assert_eq!(counted(1, &[1], Some(2)), 0);
    assert_eq!(counted(1, &[1, 2], Some(3)), 2);
    assert_eq!(counted(1, &[1, 2, 4], None), 6);
    // The same address each time.
    assert_eq!(counted(1, &[1, 1], Some(1)), 1);
    // The event of the first one led to the second, which was attached.
    assert_eq!(counted(2, &[1], Some(2)), 1);
    assert_eq!(counted(2, &[1, 2], Some(3)), 1);
    // Its address was changed.
    assert_eq!(counted(9, &[1], Some(2)), 0);
}

#[test]
fn what_a_start_hook_attached_is_no_gap() {
    let tap = |index, address| interface(index, "veth101.0", "tun", address);
    for hook_is_first in [true, false] {
        let (mut daemon, mut kernel) = daemon();
        // The hook's process, by the time the daemon reads the events.
        let mut registry = Registry::read(&kernel).unwrap();
        let id = ContainerId::new("101").unwrap();
        let mut attach = |registry: &mut Registry, interface: &NetInterface, attached_unix_s| {
            let slot = registry.assign_container(&mut kernel, &id).unwrap();
            let slot = registry.assign_interface(&mut kernel, interface, Some(&id), slot).unwrap();
            let record = InterfaceRecord {
                ifindex: interface.index,
                attached_unix_s,
                device: interface.device(),
                ..*registry.interface(slot)
            };
            registry.write_interface(&mut kernel, slot, record).unwrap();
        };
        attach(&mut registry, &tap(7, 1), 100);
        if !hook_is_first {
            // This one was attached long ago; nobody attached the next one.
            daemon.remember(&registry, THEN);
            daemon.attached(&tap(7, 1));
        }
        let mut events = batch([seen(tap(7, 1)), gone(with_packets(tap(7, 1), 3, 5))]);
        events.add(gone(with_packets(tap(8, 2), 7, 9)));
        let found = gaps(&mut daemon, &kernel, &events);
        assert_eq!(short(&found), [("veth101.0", Some("101"), Some([7, 700, 9, 540]))], "{hook_is_first}");
    }
}

#[test]
fn dropped_events_leave_one_gap_if_an_index_was_used_that_nobody_saw() {
    let listing = |indexes: &[u32]| -> Vec<NetInterface> {
        indexes.iter().map(|index| interface(*index, &format!("d{index}"), "dummy", 1)).collect()
    };
    let lost = |events: Vec<InterfaceEvent>| Batch { lost: true, ..batch(events) };
    let look = |daemon: &mut CameAndWent, indexes: &[u32]| {
        daemon.listed(&listing(indexes), |_| false);
        daemon.take_gaps(NOW).len()
    };
    let (mut daemon, kernel) = daemon();
    assert_eq!(look(&mut daemon, &[1, 2, 9]), 0);
    // Without lost events, a jump of the index means nothing: somebody chose it.
    assert_eq!(gaps(&mut daemon, &kernel, &batch([seen(interface(12, "x", "dummy", 1))])).len(), 0);
    // All that came is in the listing or in events, or is the other end of one that is.
    let came = [seen(interface(13, "y", "dummy", 1)), gone(interface(13, "y", "dummy", 1))];
    assert_eq!(gaps(&mut daemon, &kernel, &lost(came.into())).len(), 0);
    let mut interfaces = listing(&[1, 2, 9, 12, 15]);
    interfaces[4].peer = Some(14);
    interfaces[4].peer_is_elsewhere = true;
    daemon.listed(&interfaces, |_| false);
    assert_eq!(daemon.take_gaps(NOW).len(), 0);
    // 16 came and went unseen.
    assert_eq!(gaps(&mut daemon, &kernel, &lost(Vec::new())).len(), 0);
    assert_eq!(look(&mut daemon, &[1, 2, 9, 12, 15, 17]), 1);
    assert_eq!(look(&mut daemon, &[1, 2, 9, 12, 15, 20]), 0, "once");
    // The last index is the unseen one: the next one shows it.
    assert_eq!(gaps(&mut daemon, &kernel, &lost(Vec::new())).len(), 0);
    let found = gaps(&mut daemon, &kernel, &batch([seen(interface(22, "z", "dummy", 1))]));
    assert_eq!(short(&found), [("-", None, None)]);
    assert!(found[0].detail.as_deref().unwrap().starts_with("the kernel dropped events of interfaces"));
}

#[test]
fn an_interface_in_the_events_around_a_drop_that_is_gone_is_one_gap() {
    let (mut daemon, kernel) = daemon();
    let veth = |index, name| with_carrier(interface(index, name, "veth", 1));
    daemon.listed(&[veth(6, "eth6")], |_| false);
    let events =
        [veth(7, "veth101.0"), veth(8, "veth102.0"), veth(9, "veth103.0"), veth(10, "eth9")].map(seen);
    let lost = Batch { lost: true, ..batch(events) };
    assert!(gaps(&mut daemon, &kernel, &lost).is_empty(), "a listing shows what became of them");
    // One is there; one was attached and ended before the listing.
    daemon.attached(&veth(9, "veth103.0"));
    daemon.listed(&[veth(8, "veth102.0")], |_| true);
    assert_eq!(short(&daemon.take_gaps(NOW)), [("veth101.0", Some("101"), None)]);
    // Its end comes after all.
    assert!(gaps(&mut daemon, &kernel, &batch([gone(veth(7, "veth101.0"))])).is_empty());
}

/// What a start hook's process does: the record of an attached interface.
fn attach_by_hook(kernel: &mut FakeKernel, interface: &NetInterface, attached_unix_s: u64) -> Registry {
    let mut registry = Registry::read(kernel).unwrap();
    let id = ContainerId::new("101").unwrap();
    let slot = registry.assign_container(kernel, &id).unwrap();
    let slot = registry.assign_interface(kernel, interface, Some(&id), slot).unwrap();
    let (ifindex, device) = (interface.index, interface.device());
    let record = InterfaceRecord { ifindex, attached_unix_s, device, ..*registry.interface(slot) };
    registry.write_interface(kernel, slot, record).unwrap();
    registry
}

#[test]
fn a_device_that_moved_away_hides_no_other() {
    let (mut daemon, kernel) = daemon();
    let tun = |index, name| NetInterface { mac: None, ..interface(index, name, "tun", 0) };
    daemon.attached(&tun(7, "veth101.0"));
    let last = Some(Box::new(with_packets(tun(7, "veth101.0"), 10, 11)));
    let moves = InterfaceEvent::Gone { index: 7, last, has_moved: true };
    assert!(gaps(&mut daemon, &kernel, &batch([moves])).is_empty());
    let other = tun(8, "veth102.0");
    let found = gaps(&mut daemon, &kernel, &batch([seen(other.clone()), gone(with_packets(other, 40, 30))]));
    assert_eq!(short(&found), [("veth102.0", Some("102"), Some([40, 4000, 30, 1800]))]);
    // The first one comes back and ends.
    let back = with_packets(tun(9, "veth101.0"), 12, 11);
    assert!(gaps(&mut daemon, &kernel, &batch([seen(back.clone()), gone(back)])).is_empty());
}

#[test]
fn a_life_after_the_one_that_a_hook_attached_is_a_gap() {
    let tap = |index| interface(index, "veth101.0", "tun", u8::try_from(index).unwrap());
    let lives = |recorded: u32| {
        let (mut daemon, mut kernel) = daemon();
        attach_by_hook(&mut kernel, &tap(recorded), 100);
        let events = [7, 8, 9].map(|index| gone(with_packets(tap(index), u64::from(index), 1)));
        let found = gaps(&mut daemon, &kernel, &batch(events));
        found.iter().map(|gap| gap.size.unwrap().in_skbs).sum::<u64>()
    };
    assert_eq!(lives(7), 8 + 9);
    assert_eq!(lives(8), 9);
    assert_eq!(lives(9), 0);
    // The hook's work is ahead of the events.
    assert_eq!(lives(10), 0);
}

#[test]
fn what_a_hook_attached_is_no_gap_although_the_daemon_has_seen_its_record() {
    for kind in ["tun", "veth"] {
        let (mut daemon, mut kernel) = daemon();
        let one = with_carrier(interface(7, "veth101.0", kind, 1));
        let registry = attach_by_hook(&mut kernel, &one, 100);
        daemon.remember(&registry, THEN);
        let events = [seen(one.clone()), gone(with_packets(one.clone(), 3, 5))];
        assert!(gaps(&mut daemon, &kernel, &batch(events)).is_empty(), "{kind}");
        // Another device got its index, and was not attached.
        daemon.remember(&registry, THEN);
        let other = NetInterface { mac: Some([2, 0, 0, 0, 0, 2]), ..one };
        let events = [seen(other.clone()), gone(with_packets(other, 3, 5))];
        assert_eq!(gaps(&mut daemon, &kernel, &batch(events)).len(), 1, "{kind}");
    }
}

#[test]
fn what_ended_under_a_name_that_no_rule_matches_is_a_gap_of_the_name_before() {
    let (mut daemon, kernel) = daemon();
    let named = |name| interface(7, name, "tun", 1);
    let mut events =
        batch([seen(named("veth102.0")), seen(named("old102")), gone(with_packets(named("old102"), 3, 5))]);
    events.append(batch([seen(named("eth7")), gone(with_packets(named("eth7"), 7, 9))]));
    let found = gaps(&mut daemon, &kernel, &events);
    assert_eq!(short(&found), [("veth102.0", Some("102"), Some([3, 300, 5, 300]))]);
    // The name may be of an earlier batch.
    let mut events = batch([seen(named("veth103.0"))]);
    events.append(batch([seen(named("old103"))]));
    events.append(batch([gone(with_packets(named("old103"), 3, 5))]));
    assert_eq!(gaps(&mut daemon, &kernel, &events)[0].interface.as_deref(), Some("veth103.0"));
}

#[test]
fn dropped_events_that_no_later_index_explains_are_a_gap_that_may_have_lost() {
    let (mut daemon, kernel) = daemon();
    let listing = [interface(9, "d9", "dummy", 1)];
    daemon.listed(&listing, |_| false);
    let lost = Batch { lost: true, ..Batch::default() };
    assert!(gaps(&mut daemon, &kernel, &lost).is_empty());
    daemon.listed(&listing, |_| false);
    let found = daemon.take_gaps(NOW);
    assert_eq!(short(&found), [("-", None, None)]);
    let detail = found[0].detail.as_deref().unwrap();
    assert!(detail.ends_with("an interface may have come and gone unseen"), "{detail}");
    daemon.listed(&listing, |_| false);
    let later = batch([seen(interface(11, "x", "dummy", 1))]);
    assert!(gaps(&mut daemon, &kernel, &later).is_empty(), "once");
}

#[test]
fn what_an_attach_recorded_that_failed_because_the_device_ended_is_not_in_a_second_gap() {
    let lost = |kind: &str| {
        let (mut daemon, mut kernel) = daemon();
        let one = with_carrier(interface(7, "veth101.0", kind, 1));
        let mut registry = attach_by_hook(&mut kernel, &one, 100);
        // It was this daemon's own work, and got as far as the record.
        let slot = registry.interface_of_index(7).unwrap();
        let kernel_before = with_packets(one.clone(), 2, 4).statistics;
        let record = InterfaceRecord { kernel_before, ..*registry.interface(slot) };
        registry.write_interface(&mut kernel, slot, record).unwrap();
        daemon.not_attached(7);
        daemon.remember(&registry, THEN);
        let found = gaps(&mut daemon, &kernel, &batch([gone(with_packets(one, 3, 7))]));
        found.iter().map(|gap| gap.size.map(|size| (size.in_skbs, size.out_skbs))).collect::<Vec<_>>()
    };
    assert_eq!(lost("tun"), [Some((1, 3))]);
    // How much it carried after that, nobody knows.
    assert_eq!(lost("veth"), [None]);
}

#[test]
fn a_veth_that_led_elsewhere_is_a_gap_although_its_other_end_ends_first() {
    let auto = crate::node::tests::policy_of("[host]\npreset = 'auto'\n");
    let at = |peer, namespace: Option<i32>| NetInterface {
        peer: Some(peer),
        peer_is_elsewhere: namespace.is_some(),
        peer_namespace: namespace,
        carrier_ups: 1,
        ..interface(7, "vnet1", "veth", 1)
    };
    let lost = |batches: &[Vec<InterfaceEvent>]| {
        let (mut daemon, kernel) = daemon();
        let mut found = Vec::new();
        for events in batches {
            daemon.take_events(&batch(events.clone()), &auto);
            daemon.judge(&Registry::read(&kernel).unwrap(), &kernel).unwrap();
            found.extend(daemon.take_gaps(NOW));
        }
        found.len()
    };
    let (both_here, elsewhere, ending) = (at(6, None), at(6, Some(3)), at(0, None));
    let events =
        [seen(both_here.clone()), seen(elsewhere.clone()), seen(ending.clone()), gone(ending.clone())];
    // However the events come in batches.
    for cut in 0..events.len() {
        for other in cut..events.len() {
            let batches = [&events[..cut], &events[cut..other], &events[other..]].map(<[_]>::to_vec);
            assert_eq!(lost(&batches), 1, "{cut} {other}");
        }
    }
    // A listing that was made after its end, while that is still to be announced, lacks it.
    let (mut daemon, kernel) = daemon();
    let until_end = |daemon: &mut CameAndWent, listings: usize| {
        daemon.take_events(&batch([seen(elsewhere.clone())]), &auto);
        (0..listings).for_each(|_| daemon.listed(&[], |_| false));
        daemon.take_events(&batch([gone(ending.clone())]), &auto);
        daemon.judge(&Registry::read(&kernel).unwrap(), &kernel).unwrap();
        daemon.take_gaps(NOW).len()
    };
    assert_eq!([0, 1, 2].map(|listings| until_end(&mut daemon, listings)), [1, 1, 0]);

    let here = [seen(both_here.clone()), seen(ending.clone()), gone(ending.clone())];
    assert_eq!(lost(&[here.to_vec()]), 0, "both its ends were here all the time");
    let came_back = [seen(elsewhere.clone()), seen(both_here), seen(ending.clone()), gone(ending.clone())];
    assert_eq!(lost(&[came_back.to_vec()]), 0, "what it carried elsewhere was counted before it came back");
    let other = NetInterface { mac: Some([2, 0, 0, 0, 0, 9]), ..ending };
    let reused = [seen(elsewhere), seen(other.clone()), gone(other)];
    assert_eq!(lost(&[reused.to_vec()]), 0, "another device has the index");
}

#[test]
fn the_other_end_of_a_veth_may_have_had_the_index_that_nobody_saw() {
    let doubt = |other_end: u32, index: u32, is_elsewhere: bool| {
        let (mut daemon, kernel) = daemon();
        daemon.listed(&[interface(9, "d9", "dummy", 1)], |_| false);
        gaps(&mut daemon, &kernel, &Batch { lost: true, ..Batch::default() });
        let veth = NetInterface {
            peer: Some(other_end),
            peer_is_elsewhere: is_elsewhere,
            ..interface(index, "veth101.0", "veth", 2)
        };
        daemon.listed(&[veth], |_| false);
        daemon.take_gaps(NOW).first().map(|gap| gap.detail.as_deref().unwrap().contains("may have come"))
    };
    assert_eq!(doubt(10, 11, true), None);
    // It was 10, got another index where it moved, or was made there while 10 came and went.
    assert_eq!(doubt(3, 11, true), Some(true));
    assert_eq!(doubt(3, 12, true), Some(false), "10 is nobody's");
    assert_eq!(doubt(3, 11, false), Some(false));
}
