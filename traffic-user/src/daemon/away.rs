//! Attached devices that moved to another network namespace: their links go along, so that one which comes back
//! and ends before the daemon looks was counted. No sockets, no threads.

use std::collections::VecDeque;

use crate::net::interface::NetInterface;

/// Devices that are remembered. Most never come back; beyond this the longest away are forgotten.
const MOST: usize = 1024;

/// How a device was attached that moved away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AwayAs {
    /// All that passes it is counted.
    Attached,
    /// An attach to it failed, maybe halfway: its record says how much of it was counted.
    Tried(RecordOf),
}

/// Where the record of an interface is, if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordOf {
    /// In the slot that holds this index. The end of the interface takes the index from it.
    Index(u32),
    /// In this slot.
    Slot(u32),
}

/// The devices that are away, each as it was when it left.
#[derive(Debug, Default)]
pub(super) struct Away(VecDeque<(NetInterface, AwayAs)>);

impl Away {
    /// Takes over a device that moved away.
    pub fn leave(&mut self, device: &NetInterface, how: AwayAs) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back((device.clone(), how));
    }

    /// How this one left, as it was at its end or is now, if it came back. It is then no longer away.
    pub fn come_back(&mut self, device: &NetInterface, former_names: &[String]) -> Option<AwayAs> {
        let at = self.0.iter().position(|(left, _)| is_same(left, device, former_names))?;
        self.0.remove(at).map(|(_, how)| how)
    }

    /// Looks up the slots of those that are known by their former index, before they are released.
    pub fn find_slots(&mut self, slot_of: impl Fn(u32) -> Option<u32>) {
        for (_, how) in &mut self.0 {
            if let AwayAs::Tried(record) = how
                && let Some(slot) = record.slot(&slot_of)
            {
                *record = RecordOf::Slot(slot);
            }
        }
    }
}

impl RecordOf {
    /// The slot of the record, if one holds the index.
    pub fn slot(self, slot_of: impl Fn(u32) -> Option<u32>) -> Option<u32> {
        match self {
            Self::Index(index) => slot_of(index),
            Self::Slot(slot) => Some(slot),
        }
    }
}

/// A new device can have the address of one that left, or neither has any. But it begins at zero, with its
/// statistics and with its carrier.
fn is_same(left: &NetInterface, now: &NetInterface, former_names: &[String]) -> bool {
    let is_named_alike = match left.mac {
        Some(_) => left.mac == now.mac,
        None => now.mac.is_none() && (left.name == now.name || former_names.contains(&left.name)),
    };
    let counts_on = |at: usize| {
        now.statistics.packets[at] >= left.statistics.packets[at]
            && now.statistics.bytes[at] >= left.statistics.bytes[at]
    };
    let has_gone_on = if now.is_counted_on_the_other_end() {
        // Each move takes the carrier. Half of the statistics are gone by the end.
        now.carrier_ups > left.carrier_ups || now.carrier_ups == 0
    } else {
        counts_on(0) && counts_on(1)
    };
    is_named_alike && left.kind == now.kind && has_gone_on
}

#[cfg(test)]
mod tests {
    use traffic_common::InterfaceStatistics;

    use super::*;

    fn device(name: &str, kind: &str, mac: Option<u8>, passed: u64) -> NetInterface {
        NetInterface {
            name: name.to_owned(),
            kind: kind.to_owned(),
            mac: mac.map(|last| [2, 0, 0, 0, 0, last]),
            statistics: InterfaceStatistics {
                packets: [passed, passed + 1],
                bytes: [passed * 50, passed * 60],
            },
            ..NetInterface::default()
        }
    }

    fn comes_back(left: &NetInterface, now: &NetInterface) -> bool {
        let mut away = Away::default();
        away.leave(left, AwayAs::Attached);
        let comes_back = away.come_back(now, &[]).is_some();
        assert!(!(comes_back && away.come_back(now, &[]).is_some()), "once");
        comes_back
    }

    #[test]
    fn a_device_that_comes_back_has_gone_on_counting() {
        let tap = |passed| device("veth101.0", "tun", Some(1), passed);
        assert!(comes_back(&tap(10), &tap(10)));
        assert!(comes_back(&tap(10), &NetInterface { index: 9, name: "x".to_owned(), ..tap(12) }));
        assert!(!comes_back(&tap(10), &tap(9)), "made again");
        assert!(!comes_back(&tap(10), &device("veth101.0", "tun", Some(2), 12)));
        assert!(!comes_back(&tap(10), &device("veth101.0", "macvlan", Some(1), 12)));
        // Without an address the name decides.
        let tun = |name, passed| device(name, "tun", None, passed);
        assert!(comes_back(&tun("veth101.0", 10), &tun("veth101.0", 11)));
        assert!(!comes_back(&tun("veth101.0", 10), &tun("veth102.0", 11)));
        let mut away = Away::default();
        away.leave(&tun("veth101.0", 10), AwayAs::Attached);
        assert!(away.come_back(&tun("veth102.0", 11), &["veth101.0".to_owned()]).is_some(), "renamed since");
    }

    #[test]
    fn a_veth_made_again_with_the_same_address_is_not_the_one_that_left() {
        let veth = |carrier_ups| NetInterface { carrier_ups, ..device("veth101.0", "veth", Some(1), 10) };
        assert!(!comes_back(&veth(1), &veth(1)));
        assert!(comes_back(&veth(1), &veth(2)));
    }

    #[test]
    fn those_that_never_come_back_are_forgotten_in_the_end() {
        let mut away = Away::default();
        let named = |number: usize| device(&format!("veth{number}.0"), "tun", None, 10);
        (0..MOST + 5).for_each(|number| away.leave(&named(number), AwayAs::Attached));
        assert_eq!(away.0.len(), MOST);
        assert_eq!(
            (away.come_back(&named(4), &[]), away.come_back(&named(5), &[])),
            (None, Some(AwayAs::Attached))
        );
    }

    #[test]
    fn the_record_of_one_that_left_is_found_after_its_index_was_taken_from_it() {
        let mut away = Away::default();
        let named = |number: u32| device(&format!("veth{number}.0"), "tun", None, 10);
        away.leave(&named(3), AwayAs::Tried(RecordOf::Index(3)));
        away.leave(&named(4), AwayAs::Tried(RecordOf::Index(4)));
        away.find_slots(|index| (index == 3).then_some(17));
        away.find_slots(|index| (index == 3).then_some(99));
        let records = [3, 4].map(|number| away.come_back(&named(number), &[]));
        assert_eq!(
            records,
            [RecordOf::Slot(17), RecordOf::Index(4)].map(|record| Some(AwayAs::Tried(record)))
        );
    }
}
