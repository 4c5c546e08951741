//! A reading for tests, with a different value in every field.
#![allow(clippy::unwrap_used, missing_docs, reason = "test support, compiled into tests only")]

use jiff::Timestamp;
use traffic_common::{FAULTS, Family, Tally};

use crate::{
    ByDirection, ClassCounter, ClassTableInfo, ContainerId, InterfaceCounter, PassedCounter, Snapshot,
};

/// The id of the sample's virtual machine.
pub const UUID: &str = "6d1e1c39-63e6-4a2b-8ef4-1b7a1d2f3c4d";

/// Containers 101 and 102 and a virtual machine, with classes 0 to 3 and both families.
pub fn snapshot() -> Snapshot {
    let id = |text: &str| ContainerId::new(text).unwrap();
    let counter =
        |container: &str, class, family, [in_bytes, in_packets, out_bytes, out_packets]: [u64; 4]| {
            ClassCounter {
                container: id(container),
                generation: 3,
                is_retired: false,
                class,
                family,
                tally: ByDirection {
                    incoming: Tally { packets: in_packets, bytes: in_bytes },
                    outgoing: Tally { packets: out_packets, bytes: out_bytes },
                },
            }
        };
    let interface = |name: &str, container: Option<&str>| InterfaceCounter {
        interface: name.to_owned(),
        generation: 1,
        container: container.map(id),
        ifindex: Some(7),
        attached: Timestamp::UNIX_EPOCH,
        passed: ByDirection { incoming: PassedCounter::default(), outgoing: PassedCounter::default() },
        accounted: ByDirection::default(),
    };
    Snapshot {
        node: "node".to_owned(),
        boot_id: "3f1c2d4e-0000-4000-8000-000000000001".to_owned(),
        epoch: 0xfeed_0000_0000_0001,
        epoch_created: Timestamp::UNIX_EPOCH,
        time: Timestamp::from_second(1_790_000_000).unwrap(),
        boottime_ns: 1,
        class_table: ClassTableInfo { hash: [0xab; 32], loaded: Timestamp::UNIX_EPOCH, prefixes: 3 },
        counters: vec![
            counter("101", 0, Family::Ipv4, [1, 2, 3, 4]),
            counter("101", 0, Family::Ipv6, [0; 4]),
            counter("101", 1, Family::Ipv4, [1023, 10, 1024, 20]),
            counter("101", 1, Family::Ipv6, [2_097_151, 30, 40_000, 50]),
            counter("101", 2, Family::Ipv4, [5_368_709_119, 3_580_000, 734_003_200, 990_000]),
            counter("101", 2, Family::Ipv6, [600, 7, 800, 9]),
            counter("101", 3, Family::Ipv4, [44, 1, 55, 2]),
            counter("102", 1, Family::Ipv4, [0, 0, 71, 1]),
            counter("102", 1, Family::Ipv6, [80, 1, 0, 0]),
            counter(
                UUID,
                1,
                Family::Ipv4,
                [u64::MAX - 7, 5_000_000_000, 12_345_678_901_234_567, 6_000_000_000],
            ),
            counter(UUID, 2, Family::Ipv6, [9, 8, 7, 6]),
        ],
        faults: Vec::new(),
        interfaces: vec![
            interface("venet0", None),
            interface("veth101.0", Some("101")),
            interface("vmea1b2c3d4e5f6", Some(UUID)),
        ],
        former: ByDirection::default(),
        former_faults: [Tally::default(); FAULTS],
        former_estimated: Tally::default(),
        former_small_segments: Tally::default(),
        former_copies: Tally::default(),
        drops: None,
    }
}
