//! Adds to a reading what devices in containers carried that have no end on this host: all of it passed uncounted.
//!
//! The kernel's statistics of the device are the size of the gap, from the moment when the device was made. A device
//! has no slot, so that the ledger knows it by a number and an index that no interface of the host can have.

use std::{collections::HashMap, io};

use jiff::Timestamp;
use traffic_common::{Direction, InterfaceStatistics, Tally};
use traffic_model::{ByDirection, ContainerId, InterfaceCounter, PassedCounter, Snapshot};

use crate::{
    net::{interface::NetInterface, netlink::Netlink},
    platform::inside::Inside,
    time,
};

/// What tells a device from others: its namespace, its index and its hardware address.
type Key = (i32, u32, Option<[u8; 6]>);

/// The kernel's indexes of interfaces are below this.
const NO_INDEX_OF_THE_HOST: u32 = 1 << 31;

/// A device, and what it carried by its last reading.
#[derive(Clone, Debug)]
struct Device {
    of: Inside,
    /// The container that had it last, also while that is unknown.
    owner: Option<ContainerId>,
    seen_first: Timestamp,
    /// How often its statistics began anew: it was made again with everything that tells it from others.
    lives: u32,
}

/// The devices that the last look at the containers found.
#[derive(Debug, Default)]
pub(super) struct InsideWatch {
    devices: HashMap<Key, Device>,
}

impl InsideWatch {
    /// Takes over what a look found. Those that it lacks are gone.
    pub(super) fn note(&mut self, found: &[Inside]) {
        let mut before = std::mem::take(&mut self.devices);
        for device in found {
            let key = (device.namespace, device.index, device.mac);
            let known = before.remove(&key);
            let owner = device.owner.as_ref().ok().map(|owner| owner.id.clone());
            let noted = match known {
                // The name by which it was first seen stays, because the ledger knows it by that.
                Some(known) if is_continued(&known, device) => Device {
                    owner: owner.or(known.owner),
                    of: Inside { label: known.of.label, statistics: known.of.statistics, ..device.clone() },
                    ..known
                },
                former => {
                    tracing::warn!("{}: {}", device.label, device.why());
                    let same_name = former.filter(|former| former.of.label == device.label);
                    let lives = same_name.map_or(0, |former| former.lives + 1);
                    Device { of: device.clone(), owner, seen_first: time::now_or_end(), lives }
                }
            };
            self.devices.insert(key, noted);
        }
    }

    /// Reads them all, and adds them to a reading of the counters. One that cannot be read is as it was.
    pub(super) fn add(&mut self, netlink: &Netlink, snapshot: &mut Snapshot) {
        self.add_as(|of| netlink.interface_in_namespace(of.namespace, of.index), snapshot);
    }

    fn add_as(&mut self, mut read: impl FnMut(&Inside) -> io::Result<NetInterface>, snapshot: &mut Snapshot) {
        // A kernel that does not answer is waited for once, not once for each device.
        let mut answers = true;
        for (key, device) in &mut self.devices {
            let read = if answers { read(&device.of) } else { Err(io::ErrorKind::TimedOut.into()) };
            answers = !read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
            let read = read.ok();
            let same = read.filter(|now| (now.mac, &now.kind) == (device.of.mac, &device.of.kind));
            if let Some(now) = same {
                device.lives += u32::from(fell(&device.of.statistics, &now.statistics));
                device.of.statistics = now.statistics;
            }
            snapshot.interfaces.push(counter(key, device));
        }
    }
}

/// Whether a device is the one that was seen before with everything that tells it from others. The kernel gives the
/// number of a namespace that ended to the next one, and a VLAN device or an ipvlan has the address of the interface
/// below it, so that those of two containers can be alike.
fn is_continued(before: &Device, now: &Inside) -> bool {
    let same_place = match (&before.owner, &now.owner) {
        (Some(before), Ok(now)) => *before == now.id,
        (None, Err(_)) => before.of.place() == now.place(),
        // Its container became known, or ended.
        _ => true,
    };
    same_place && before.of.kind == now.kind
}

fn fell(before: &InterfaceStatistics, now: &InterfaceStatistics) -> bool {
    let values = |of: &InterfaceStatistics| of.packets.into_iter().chain(of.bytes);
    values(before).zip(values(now)).any(|(before, now)| now < before)
}

/// A number for a device, below [`NO_INDEX_OF_THE_HOST`]. It is in the ledger, so it must never become another one:
/// FNV-1a.
fn number((namespace, index, mac): &Key, lives: u32) -> u32 {
    let numbers = [namespace.cast_unsigned(), *index, lives];
    let bytes = numbers.into_iter().flat_map(u32::to_le_bytes).chain(mac.unwrap_or_default());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash % NO_INDEX_OF_THE_HOST
}

fn counter(key: &Key, device: &Device) -> InterfaceCounter {
    let number = number(key, device.lives);
    let carried = |direction: Direction| {
        let at = direction as usize;
        Tally { packets: device.of.statistics.packets[at], bytes: device.of.statistics.bytes[at] }
    };
    let carried = ByDirection { incoming: carried(Direction::In), outgoing: carried(Direction::Out) };
    let passed = |carried: Tally| PassedCounter {
        missed_skbs: carried.packets,
        missed_skb_bytes: carried.bytes,
        bypassed: carried,
        ..PassedCounter::default()
    };
    InterfaceCounter {
        interface: device.of.label.clone(),
        generation: number,
        container: device.of.owner.as_ref().ok().map(|owner| owner.id.clone()),
        ifindex: Some(NO_INDEX_OF_THE_HOST | number),
        attached: device.seen_first,
        passed: ByDirection { incoming: passed(carried.incoming), outgoing: passed(carried.outgoing) },
        accounted: carried,
    }
}

#[cfg(test)]
mod tests {
    use traffic_model::{ContainerId, sample};

    use super::*;
    use crate::platform::{Owner, Platform};

    fn statistics(values: [u64; 4]) -> InterfaceStatistics {
        let mut of = InterfaceStatistics::default();
        let (at_in, at_out) = (Direction::In as usize, Direction::Out as usize);
        (of.packets[at_in], of.bytes[at_in]) = (values[0], values[1]);
        (of.packets[at_out], of.bytes[at_out]) = (values[2], values[3]);
        of
    }

    fn macvlan(label: &str) -> Inside {
        let id = ContainerId::new("mail").unwrap();
        Inside {
            label: label.to_owned(),
            owner: Ok(Owner { id, name: None, platform: Platform::Lxc }),
            namespace: 4,
            index: 7,
            mac: Some([2, 0, 0, 0, 0, 7]),
            kind: "macvlan".to_owned(),
            parent: Some("eno1".to_owned()),
            parent_is_also: Vec::new(),
            statistics: InterfaceStatistics::default(),
        }
    }

    fn now(values: [u64; 4]) -> NetInterface {
        NetInterface {
            mac: Some([2, 0, 0, 0, 0, 7]),
            kind: "macvlan".to_owned(),
            statistics: statistics(values),
            ..NetInterface::default()
        }
    }

    /// The last interface of a reading, if it was added.
    fn added(watch: &mut InsideWatch, read: Option<&NetInterface>) -> Option<InterfaceCounter> {
        let mut snapshot = sample::snapshot();
        let before = snapshot.interfaces.len();
        watch.add_as(|_| read.cloned().ok_or_else(|| io::ErrorKind::NotFound.into()), &mut snapshot);
        assert!(snapshot.interfaces.len() <= before + 1);
        snapshot.interfaces.get(before).cloned()
    }

    #[test]
    fn all_that_the_device_carried_passed_uncounted() {
        let mut watch = InsideWatch::default();
        assert_eq!(added(&mut watch, Some(&now([3, 300, 5, 500]))), None);
        watch.note(&[macvlan("mail/eth0")]);
        let first = added(&mut watch, Some(&now([3, 300, 5, 500]))).unwrap();
        assert_eq!(
            (first.interface.as_str(), first.container.as_ref().unwrap().as_str()),
            ("mail/eth0", "mail")
        );
        let passed = first.passed;
        assert_eq!((passed.incoming.missed_skbs, passed.incoming.missed_skb_bytes), (3, 300));
        assert_eq!(passed.outgoing.bypassed, Tally { packets: 5, bytes: 500 });
        assert_eq!(first.accounted.outgoing, Tally { packets: 5, bytes: 500 });
        assert!(first.ifindex.unwrap() >= 1 << 31);
        // Renamed by the container, and not readable for a moment: the same device with what it had.
        watch.note(&[macvlan("mail/other")]);
        assert_eq!(added(&mut watch, None).unwrap(), first);
        // Another device took the index.
        assert_eq!(
            added(&mut watch, Some(&NetInterface { mac: None, ..now([9, 900, 9, 900]) })).unwrap(),
            first
        );
        // Made again with the same address: what the former one carried stays.
        let again = added(&mut watch, Some(&now([1, 100, 0, 0]))).unwrap();
        assert_ne!(again.generation, first.generation);
        assert_eq!(again.passed.incoming.missed_skbs, 1);
        watch.note(&[]);
        assert_eq!(added(&mut watch, Some(&now([1, 100, 0, 0]))), None);
    }

    #[test]
    fn the_next_container_with_an_equal_device_is_another_one() {
        let vlan = |label: &str, owner: Option<&str>| {
            let known =
                |id: &str| Owner { id: ContainerId::new(id).unwrap(), name: None, platform: Platform::Lxc };
            Inside {
                owner: owner.map(known).ok_or_else(String::new),
                kind: "vlan".to_owned(),
                ..macvlan(label)
            }
        };
        let read = |values| NetInterface { kind: "vlan".to_owned(), ..now(values) };
        let mut watch = InsideWatch::default();
        let mut next = |device: &Inside, values| {
            watch.note(std::slice::from_ref(device));
            let row = added(&mut watch, Some(&read(values))).unwrap();
            (
                row.interface,
                row.container.map(|id| id.to_string()),
                row.generation,
                row.passed.incoming.missed_skbs,
            )
        };
        let (label, _, number, _) = next(&vlan("one/eth0", None), [3, 300, 5, 500]);
        assert_eq!(label, "one/eth0");
        // Its container becomes known: the same device under the name that the ledger knows.
        let mail = next(&vlan("mail/eth0", Some("mail")), [4, 400, 5, 500]);
        assert_eq!(mail, ("one/eth0".to_owned(), Some("mail".to_owned()), number, 4));
        // Another container, whose device has carried more since.
        let shop = next(&vlan("shop/eth0", Some("shop")), [9, 900, 7, 700]);
        assert_eq!(shop, ("shop/eth0".to_owned(), Some("shop".to_owned()), number, 9));
        // The same, with a look in between that could not tell whose it is.
        assert_eq!(next(&vlan("ns4/eth0", None), [9, 900, 7, 700]).0, "shop/eth0");
        let web = next(&vlan("web/eth0", Some("web")), [12, 1200, 7, 700]);
        assert_eq!(web, ("web/eth0".to_owned(), Some("web".to_owned()), number, 12));
        let shop = next(&vlan("shop/eth0", Some("shop")), [13, 1300, 7, 700]);
        assert_eq!((shop.0.as_str(), shop.3), ("shop/eth0", 13));
        // Another kind under one name, which the ledger tells apart by the number.
        let ipvlan = Inside { kind: "ipvlan".to_owned(), ..vlan("shop/eth0", Some("shop")) };
        assert_ne!(next(&ipvlan, [9, 900, 7, 700]).2, number);
    }

    #[test]
    fn a_kernel_that_does_not_answer_is_waited_for_once() {
        let mut watch = InsideWatch::default();
        let device = |index: u32| Inside { index, ..macvlan(&format!("mail/eth{index}")) };
        watch.note(&[device(7), device(8), device(9)]);
        let mut asked = 0;
        let mut snapshot = sample::snapshot();
        let before = snapshot.interfaces.len();
        let mut silent = |_: &Inside| {
            asked += 1;
            Err(io::ErrorKind::TimedOut.into())
        };
        watch.add_as(&mut silent, &mut snapshot);
        // They are in the reading as they were.
        assert_eq!((asked, snapshot.interfaces.len() - before), (1, 3));
        let mut asked = 0;
        watch.add_as(
            |_| {
                asked += 1;
                Err(io::ErrorKind::NotFound.into())
            },
            &mut snapshot,
        );
        assert_eq!(asked, 3);
    }
}
