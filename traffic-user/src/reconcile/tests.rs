use jiff::Timestamp;
use traffic_common::{DROP_FAULTS, DropGroup, FAULTS, Family, InterfaceStatistics, PATH_HIDDEN, PATH_NODE};
use traffic_model::{
    ClassCounter, ClassTableInfo, ContainerId, DropCounter, FaultCounter, InterfaceCounter, PassedCounter,
};

use super::*;

fn tally(packets: u64) -> Tally {
    Tally { packets, bytes: packets * 100 }
}

fn both(incoming: u64, outgoing: u64) -> ByDirection<Tally> {
    ByDirection { incoming: tally(incoming), outgoing: tally(outgoing) }
}

fn counter(id: &str, tally: ByDirection<Tally>) -> ClassCounter {
    let (container, family) = (ContainerId::new(id).unwrap(), Family::Ipv4);
    ClassCounter { container, generation: 1, is_retired: false, class: 1, family, tally }
}

fn fault(interface: &str, fault: Fault, tally: ByDirection<Tally>) -> FaultCounter {
    FaultCounter { interface: interface.to_owned(), generation: 1, fault, tally }
}

fn interface(index: u32, name: &str, kind: &str, master: Option<u32>) -> NetInterface {
    NetInterface { index, name: name.to_owned(), kind: kind.to_owned(), master, ..NetInterface::default() }
}

fn counted(name: &str, ifindex: u32, wire: ByDirection<Tally>) -> InterfaceCounter {
    let passed = |wire| PassedCounter { wire, ..PassedCounter::default() };
    InterfaceCounter {
        interface: name.to_owned(),
        generation: 1,
        container: None,
        ifindex: Some(ifindex),
        attached: Timestamp::UNIX_EPOCH,
        passed: ByDirection { incoming: passed(wire.incoming), outgoing: passed(wire.outgoing) },
        accounted: ByDirection::default(),
    }
}

const UPLINK: u32 = 2;
const VLAN: u32 = 3;
const BRIDGE: u32 = 4;
const PORT: u32 = 5;
const TUNNEL: u32 = 6;
const MIXED: u32 = 7;
const UPLINK_PORT: u32 = 8;
const OTHER_PORT: u32 = 9;

/// A node with a bridge of containers, and another of which a VLAN on the second uplink is a port.
fn interfaces() -> Vec<NetInterface> {
    let lo = interface(1, "lo", "", None);
    let mut vlan = interface(UPLINK_PORT, "eth1.7", "vlan", Some(MIXED));
    vlan.peer = Some(11);
    let mut plain_vlan = interface(VLAN, "eth0.5", "vlan", None);
    plain_vlan.peer = Some(UPLINK);
    vec![
        lo,
        interface(UPLINK, "eth0", "", None),
        plain_vlan,
        interface(BRIDGE, "br0", "bridge", None),
        interface(PORT, "veth101.0", "veth", Some(BRIDGE)),
        interface(TUNNEL, "wg0", "wireguard", None),
        interface(MIXED, "br1", "bridge", None),
        vlan,
        interface(OTHER_PORT, "veth102.0", "veth", Some(MIXED)),
        interface(11, "eth1", "", None),
    ]
}

fn reading(boottime_ns: u64) -> Reading {
    let snapshot = Snapshot {
        node: "n7".to_owned(),
        boot_id: String::new(),
        epoch: 1,
        epoch_created: Timestamp::UNIX_EPOCH,
        time: Timestamp::UNIX_EPOCH,
        boottime_ns,
        class_table: ClassTableInfo { hash: [0; 32], loaded: Timestamp::UNIX_EPOCH, prefixes: 0 },
        counters: Vec::new(),
        faults: Vec::new(),
        interfaces: vec![
            counted("eth0", UPLINK, both(0, 0)),
            counted("veth101.0", PORT, both(0, 0)),
            counted("veth102.0", OTHER_PORT, both(0, 0)),
        ],
        former: ByDirection::default(),
        former_faults: [Tally::default(); FAULTS],
        former_estimated: Tally::default(),
        former_small_segments: Tally::default(),
        former_copies: Tally::default(),
        drops: None,
    };
    Reading { snapshot, drops: None, interfaces: interfaces(), took_ns: 5_000_000 }
}

fn drops(rows: Vec<DropCounter>, hidden: u64) -> Drops {
    let mut faults = [Tally::default(); DROP_FAULTS];
    faults[DropFault::NoSender as usize] = tally(hidden);
    let since = Timestamp::UNIX_EPOCH;
    Drops { set: 9, since, lacks: 0, is_outdated: false, rows, former: ByDirection::default(), faults }
}

fn dropped(id: &str, tally: ByDirection<Tally>) -> DropCounter {
    let (container, group) = (ContainerId::new(id).unwrap(), DropGroup::Shaper);
    DropCounter { container, generation: 1, class: 1, family: Family::Ipv4, group, tally }
}

/// Unicast IP packets on a way.
fn way(from: u32, to: u32, packets: u64) -> (PathKey, PathTally) {
    let key = PathKey { from, to, flags: IP, reserved: 0 };
    let buffers = Tally { packets: 1, bytes: packets * 100 + 14 };
    (key, PathTally { on_wire: tally(packets), buffers })
}

/// What the interface on a way refused to send.
fn refused(from: u32, to: u32, packets: u64) -> (PathKey, PathTally) {
    let (key, tally) = way(from, to, packets);
    (PathKey { flags: IP | REFUSED, ..key }, tally)
}

fn uplinks() -> [String; 2] {
    ["eth0".to_owned(), "eth1".to_owned()]
}

fn ends(ways: &[Way]) -> Vec<(End, u64)> {
    ways.iter().map(|way| (way.end.clone(), way.packets)).collect()
}

fn uplink(name: &str) -> End {
    End::Uplink(name.to_owned())
}

fn other(name: &str) -> End {
    End::Other(name.to_owned())
}

#[test]
fn what_containers_sent_is_at_its_ends_dropped_or_the_difference() {
    let mut before = reading(1_000_000_000);
    before.snapshot.counters = vec![counter("101", both(1000, 2000)), counter("0", both(5, 6))];
    before.snapshot.faults = vec![fault("veth101.0", Fault::Malformed, both(0, 50))];
    before.drops = Some(drops(vec![dropped("101", both(0, 300))], 40));
    let mut after = reading(3_000_000_000);
    after.snapshot.counters = vec![counter("101", both(1000, 2997)), counter("0", both(500, 600))];
    after.snapshot.faults = vec![
        fault("veth101.0", Fault::Malformed, both(0, 53)),
        fault("veth101.0", Fault::NotIp, both(0, 71)),
        fault("eth0", Fault::Truncated, both(0, 73)),
        fault("eth0", Fault::NotTheNodes, both(0, 79)),
    ];
    after.drops = Some(drops(vec![dropped("101", both(0, 317)), dropped("0", both(0, 83))], 59));
    let to_many =
        (PathKey { to: PATH_TO_MANY, flags: IP | TO_MANY, ..way(PATH_CONTAINERS, 0, 1).0 }, way(0, 0, 23).1);
    let copies =
        (PathKey { flags: IP | TO_MANY, ..way(PATH_CONTAINERS, PATH_CONTAINERS, 1).0 }, way(0, 0, 89).1);
    let arp = (PathKey { flags: 0, ..way(PATH_CONTAINERS, PATH_CONTAINERS, 1).0 }, way(0, 0, 97).1);
    let ways = Ways {
        ways: vec![
            // Through a VLAN and a bridge, which pass on, to the uplink.
            way(PATH_CONTAINERS, BRIDGE, 101),
            way(PATH_CONTAINERS, VLAN, 103),
            way(PATH_CONTAINERS, UPLINK, 400),
            way(BRIDGE, UPLINK, 200),
            way(BRIDGE, PATH_CONTAINERS, 31),
            way(PATH_CONTAINERS, PATH_CONTAINERS, 60),
            way(PATH_CONTAINERS, PATH_NODE, 47),
            way(PATH_CONTAINERS, TUNNEL, 150),
            way(PATH_CONTAINERS, 1, 107),
            way(PATH_NODE, UPLINK, 109),
            // Of whom this is nobody knows: both an uplink and a container are ports.
            way(MIXED, UPLINK, 113),
            refused(PATH_CONTAINERS, UPLINK, 37),
            refused(PATH_NODE, UPLINK, 127),
            to_many,
            copies,
            arp,
        ],
        lost: 0,
    };
    let of = reconcile(&before, &after, &ways, &uplinks()).from_containers;
    assert_eq!(of.counted, Amount::from(tally(1000)));
    assert_eq!(
        ends(&of.ways),
        [(uplink("eth0"), 600), (End::Containers, 91), (End::Node, 47), (other("wg0"), 150)]
    );
    assert_eq!((of.to_many, of.dropped), (tally(23).into(), Some(tally(17).into())));
    assert_eq!(of.dropped_hidden, tally(19).into());
    assert_eq!(of.difference, Difference { packets: 16, bytes: 1600 });
    assert_eq!(of.refused, tally(37).into());
    // 10 ms of readings in 2 s.
    assert_eq!(of.read_meanwhile, 5);
}

#[test]
fn what_containers_received_has_an_origin() {
    let (before, mut after) = (reading(0), reading(1_000_000_000));
    after.snapshot.counters = vec![counter("101", both(700, 0))];
    after.snapshot.former.incoming.classes = tally(13);
    after.drops = Some(drops(vec![dropped("101", both(11, 0))], 0));
    let ways = Ways {
        ways: vec![
            way(UPLINK, PATH_CONTAINERS, 100),
            way(VLAN, PATH_CONTAINERS, 200),
            way(UPLINK_PORT, PATH_CONTAINERS, 150),
            way(BRIDGE, PATH_CONTAINERS, 40),
            way(MIXED, PATH_CONTAINERS, 50),
            way(PATH_NODE, PATH_CONTAINERS, 60),
            way(PATH_HIDDEN, PATH_CONTAINERS, 70),
            way(99, PATH_CONTAINERS, 43),
            way(UPLINK, BRIDGE, 1000),
            refused(UPLINK, PATH_CONTAINERS, 5),
        ],
        lost: 2,
    };
    let found = reconcile(&before, &after, &ways, &uplinks());
    let of = &found.to_containers;
    assert_eq!(
        ends(&of.ways),
        [
            (uplink("eth0"), 300),
            (uplink("eth1"), 150),
            (End::Containers, 40),
            (End::Node, 60),
            (other("br1"), 50),
            (other("interface 99, which is gone"), 43),
            (End::Hidden, 70),
        ]
    );
    // Without drop counters before, it is not known what was dropped.
    assert_eq!((of.counted.packets, of.dropped, of.difference.packets), (713, None, -5));
    assert_eq!(of.refused, tally(5).into());
    assert!(!found.complete);
    assert_eq!(found.notes.len(), 3, "drops, lost packets, and the bridge: {:?}", found.notes);
}

#[test]
fn an_uplinks_own_figures_agree_with_packets_or_with_buffers() {
    let device = |packets: [u64; 2], bytes: [u64; 2]| InterfaceStatistics { packets, bytes };
    let ways = Ways { ways: vec![way(PATH_NODE, UPLINK, 40), way(PATH_CONTAINERS, UPLINK, 2)], lost: 0 };
    let sent = |packets: u64, bytes: u64| {
        let (before, mut after) = (reading(0), reading(1));
        after.interfaces[1].statistics = device([packets, 9], [bytes, 900]);
        after.snapshot.interfaces[0] = counted("eth0", UPLINK, both(8, 7));
        let found = reconcile(&before, &after, &ways, &uplinks());
        let uplink = &found.uplinks[0];
        assert_eq!(ends(&uplink.sent.ways), [(End::Containers, 2), (End::Node, 40)]);
        assert_eq!(uplink.sent.device, Amount { packets, bytes });
        assert_eq!(
            (uplink.sent.counted, uplink.received.counted),
            (Some(tally(7).into()), Some(tally(8).into()))
        );
        assert_eq!((uplink.received.device.packets, uplink.received.rest_packets), (9, 9));
        assert_eq!(found.uplinks[1].sent.counted, None, "eth1 has no hooks");
        uplink.sent.difference
    };
    // As buffers, as packets, and with tags and checksums.
    assert_eq!(sent(2, 4228), Difference::default());
    assert_eq!(sent(2, 4228 + 16), Difference::default());
    assert_eq!(sent(42, 4200 + 42 * 14), Difference::default());
    assert_eq!(sent(42, 4200 + 42 * 22), Difference::default());
    assert_eq!(sent(43, 4200 + 42 * 22 + 1), Difference { packets: 1, bytes: 1 });
    assert_eq!(sent(1, 4227), Difference { packets: -1, bytes: -1 });
    // In the middle it is neither.
    assert_eq!(sent(30, 4700), Difference { packets: -12, bytes: -88 });
}

#[test]
fn devices_below_an_uplink_send_nothing_of_their_own() {
    let (before, mut after) = (reading(0), reading(1));
    // A VLAN on a bond of two is the uplink.
    let mut vlan = interface(20, "bond0.9", "vlan", None);
    vlan.peer = Some(21);
    after.interfaces = vec![
        vlan,
        interface(21, "bond0", "bond", None),
        interface(22, "eno1", "", Some(21)),
        interface(23, "eno2", "", Some(21)),
        interface(24, "eno3", "", None),
    ];
    after.snapshot.counters = vec![counter("101", both(0, 31))];
    let to = |index, packets| way(PATH_CONTAINERS, index, packets);
    let ways = Ways { ways: vec![to(20, 17), to(21, 17), to(22, 9), to(23, 8), to(24, 14)], lost: 0 };
    let found = reconcile(&before, &after, &ways, &["bond0.9".to_owned()]);
    assert_eq!(ends(&found.from_containers.ways), [(uplink("bond0.9"), 17), (other("eno3"), 14)]);
    assert_eq!(found.from_containers.difference.packets, 0);
}

#[test]
fn an_uplink_that_packets_do_not_go_through_is_refused() {
    let listed = [
        interface(1, "vmbr0", "bridge", None),
        interface(2, "eno1", "", Some(1)),
        interface(3, "bond0", "bond", Some(1)),
        interface(4, "eno2", "", Some(3)),
    ];
    let reason = |name| unfit(name, &listed).unwrap_or_default();
    assert_eq!([reason("eno1"), reason("bond0")], ["", ""]);
    assert!(reason("vmbr0").contains("name the port that leads outside"), "{}", reason("vmbr0"));
    assert!(reason("eno2").contains("name bond0 in"), "{}", reason("eno2"));
    assert!(reason("eno7").contains("does not exist"), "{}", reason("eno7"));
}

#[test]
fn a_vrf_and_a_vlan_on_a_bridge_are_known_in_advance() {
    let mut on_bridge = interface(4, "vmbr0.10", "vlan", None);
    on_bridge.peer = Some(3);
    let mut on_card = interface(5, "eth0.10", "vlan", None);
    on_card.peer = Some(6);
    let listed = [
        interface(1, "blue", "vrf", None),
        interface(2, "veth7", "veth", Some(1)),
        interface(3, "vmbr0", "bridge", None),
        on_bridge,
        on_card,
        interface(6, "eth0", "", None),
        interface(7, "veth8", "veth", Some(3)),
    ];
    assert_eq!(shown_as(&listed), [(2, 1), (4, 3)]);
}
