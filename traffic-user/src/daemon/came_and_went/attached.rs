//! The devices that the daemon attached, by index. No sockets, no threads.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use super::Mac;
use crate::net::{events::Ended, interface::NetInterface};

/// How many listings in a row may lack a device before its end is no longer waited for.
const LISTINGS: u8 = 2;

/// A device that the daemon attached.
#[derive(Clone, Debug)]
struct Device {
    mac: Mac,
    /// When it was attached.
    name: String,
    /// Listings in a row that lacked it.
    absent: u8,
}

/// The devices whose ends are not known yet.
#[derive(Debug, Default)]
pub(super) struct AttachedDevices(HashMap<u32, Device>);

impl AttachedDevices {
    /// Notes one that is attached now.
    pub fn insert(&mut self, interface: &NetInterface) {
        let name = interface.name.clone();
        self.0.insert(interface.index, Device { mac: interface.mac, name, absent: 0 });
    }

    /// Notes one if none of its index is known, and says whether it did.
    pub fn insert_new(&mut self, index: u32, mac: Mac, name: &str) -> bool {
        let Entry::Vacant(place) = self.0.entry(index) else { return false };
        place.insert(Device { mac, name: name.to_owned(), absent: 0 });
        true
    }

    /// Forgets one, at its end.
    pub fn remove(&mut self, index: u32) {
        self.0.remove(&index);
    }

    /// Whether a device was attached under this index.
    pub fn contains(&self, index: u32) -> bool {
        self.0.contains_key(&index)
    }

    /// The hardware address of the one that was attached under this index.
    pub fn mac(&self, index: u32) -> Option<Mac> {
        self.0.get(&index).map(|device| device.mac)
    }

    /// Takes over a listing. The end of one that it lacks may still be announced.
    pub fn listed(&mut self, indexes: &HashSet<u32>) {
        self.0.retain(|index, device| {
            device.absent = if indexes.contains(index) { 0 } else { device.absent + 1 };
            device.absent <= LISTINGS
        });
    }

    /// Which of them may have moved without an event that says so: all of them when events were `lost`, else those
    /// that the last listing lacked.
    pub fn may_have_moved(&self, lost: bool) -> MayHaveMoved<'_> {
        let devices = self.0.iter().filter(|(_, device)| lost || device.absent > 0);
        MayHaveMoved(devices.map(|(index, device)| (*index, device)).collect())
    }
}

/// Devices that may be elsewhere, or back under another index, with what counts them.
pub(super) struct MayHaveMoved<'d>(Vec<(u32, &'d Device)>);

impl MayHaveMoved<'_> {
    /// Whether one of them may be the device of this end.
    pub fn may_be(&self, end: &Ended) -> bool {
        self.0.iter().any(|(index, device)| {
            *index != end.last.index
                && device.mac == end.last.mac
                && (device.mac.is_some() || end.names().any(|name| *name == device.name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(index: u32, name: &str, mac: Option<u8>) -> Ended {
        let mac = mac.map(|last| [2, 0, 0, 0, 0, last]);
        let last = NetInterface { index, name: name.to_owned(), mac, ..NetInterface::default() };
        Ended { last, former_names: vec!["before".to_owned()], had_carrier: false, has_moved: false }
    }

    fn devices() -> AttachedDevices {
        let mut devices = AttachedDevices::default();
        devices.insert(&end(3, "veth3", Some(3)).last);
        devices.insert(&end(4, "tun4", None).last);
        devices.insert(&end(5, "before", None).last);
        devices
    }

    #[test]
    fn only_a_device_that_may_have_moved_unseen_may_be_one_under_another_index() {
        let mut devices = devices();
        let same_address = end(9, "other", Some(3));
        assert!(!devices.may_have_moved(false).may_be(&same_address));
        assert!(devices.may_have_moved(true).may_be(&same_address));
        devices.listed(&HashSet::from([4, 5]));
        assert!(devices.may_have_moved(false).may_be(&same_address), "the listing lacks it");
        assert!(!devices.may_have_moved(false).may_be(&end(9, "tun4", None)), "the listing has it");
    }

    #[test]
    fn it_has_the_address_or_without_any_one_of_the_names() {
        let devices = devices();
        let moved = devices.may_have_moved(true);
        assert!(moved.may_be(&end(9, "tun4", None)));
        assert!(moved.may_be(&end(9, "renamed", None)), "a former name");
        assert!(!moved.may_be(&end(9, "tun4", Some(7))));
        assert!(!moved.may_be(&end(3, "veth3", Some(3))), "the same index");
    }

    #[test]
    fn the_end_of_one_that_listings_lack_is_waited_for_for_a_while() {
        let mut devices = devices();
        for _ in 0..LISTINGS {
            devices.listed(&HashSet::from([4]));
            assert!(devices.contains(3));
        }
        devices.listed(&HashSet::from([4]));
        assert!(!devices.contains(3) && devices.contains(4));
    }
}
