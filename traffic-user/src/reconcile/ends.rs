//! What an interface is as an end of a way: an uplink, a container's, one that only passes packets on, or another.

use std::collections::{BTreeMap, BTreeSet};

use traffic_common::{PATH_CONTAINERS, PATH_HIDDEN, PATH_NODE, PATH_TO_MANY, PathKey};

use super::{End, Reading};
use crate::net::interface::NetInterface;

/// Kinds of devices that hand what they send to another device, which is the end of the way.
const PASS_ON: [&str; 9] =
    ["bridge", "vlan", "bond", "team", "macvlan", "ipvlan", "vrf", "ifb", "openvswitch"];
/// Most devices on top of each other. The kernel allows eight.
const MOST_BELOW: usize = 8;

/// The interfaces of a reading, by what they are.
pub(super) struct Ends<'r> {
    by_index: BTreeMap<u32, &'r NetInterface>,
    /// Names as configured, of those that exist.
    uplinks: BTreeMap<u32, &'r str>,
    /// Bridges of which some container's interface is a port, and whether an uplink is one as well.
    bridges: BTreeMap<u32, bool>,
}

impl<'r> Ends<'r> {
    pub(super) fn new(reading: &'r Reading, uplinks: &'r [String]) -> Self {
        let by_index: BTreeMap<u32, &NetInterface> =
            reading.interfaces.iter().map(|interface| (interface.index, interface)).collect();
        let uplinks: BTreeMap<u32, &str> = uplinks
            .iter()
            .filter_map(|name| {
                let found = reading.interfaces.iter().find(|interface| interface.is_called(name))?;
                Some((found.index, name.as_str()))
            })
            .collect();
        let of_containers: BTreeSet<u32> = reading
            .snapshot
            .interfaces
            .iter()
            .filter_map(|interface| interface.ifindex)
            .filter(|index| !uplinks.contains_key(index))
            .collect();
        let mut ends = Self { by_index, uplinks, bridges: BTreeMap::new() };
        let ports = |indexes: &mut dyn Iterator<Item = u32>| -> BTreeSet<u32> {
            indexes.filter_map(|index| ends.by_index.get(&index)?.master).collect()
        };
        let with_containers = ports(&mut of_containers.into_iter());
        let above_uplinks = &mut ends.by_index.keys().copied().filter(|&index| ends.uplink(index).is_some());
        let with_uplinks = ports(above_uplinks);
        ends.bridges =
            with_containers.into_iter().map(|bridge| (bridge, with_uplinks.contains(&bridge))).collect();
        ends
    }

    /// The names of the uplinks that exist.
    pub(super) fn uplinks(&self) -> impl Iterator<Item = &'r str> {
        let names: BTreeSet<&str> = self.uplinks.values().copied().collect();
        names.into_iter()
    }

    /// Whether an interface of the counters is an uplink.
    pub(super) fn is_uplink(&self, name: &str) -> bool {
        self.uplinks.keys().any(|index| self.by_index[index].is_called(name))
    }

    /// Bridges that have both containers and uplinks as ports.
    pub(super) fn mixed_bridges(&self) -> impl Iterator<Item = &'r str> {
        let mixed = self.bridges.iter().filter(|&(_, &is_mixed)| is_mixed);
        mixed.filter_map(|(index, _)| Some(self.by_index.get(index)?.name.as_str()))
    }

    /// The uplink that an interface is, or lies on top of.
    fn uplink(&self, mut index: u32) -> Option<&'r str> {
        for _ in 0..=MOST_BELOW {
            if let Some(name) = self.uplinks.get(&index) {
                return Some(name);
            }
            let interface = self.by_index.get(&index).filter(|interface| interface.kind == "vlan")?;
            index = interface.peer?;
        }
        None
    }

    /// Where a packet came from.
    pub(super) fn origin(&self, key: &PathKey) -> End {
        match key.from {
            PATH_NODE => return End::Node,
            PATH_CONTAINERS => return End::Containers,
            PATH_HIDDEN => return End::Hidden,
            _ => {}
        }
        if let Some(uplink) = self.uplink(key.from) {
            return End::Uplink(uplink.to_owned());
        }
        match self.bridges.get(&key.from) {
            Some(false) => End::Containers,
            _ => self.other(key.from),
        }
    }

    /// Where it went. `None` where another device is the end of its way, and for the node's talk with itself.
    pub(super) fn target(&self, key: &PathKey) -> Option<End> {
        match key.to {
            PATH_NODE => return Some(End::Node),
            PATH_CONTAINERS => return Some(End::Containers),
            PATH_TO_MANY => return None,
            _ => {}
        }
        if let Some(uplink) = self.uplinks.get(&key.to) {
            return Some(End::Uplink((*uplink).to_owned()));
        }
        let Some(interface) = self.by_index.get(&key.to) else { return Some(self.other(key.to)) };
        let is_below_uplink = interface.master.is_some_and(|master| self.uplinks.contains_key(&master));
        let passes_on = PASS_ON.contains(&interface.kind.as_str());
        (!passes_on && !is_below_uplink && interface.name != "lo").then(|| self.other(key.to))
    }

    fn other(&self, index: u32) -> End {
        let known = self.by_index.get(&index).map(|interface| interface.name.clone());
        End::Other(known.unwrap_or_else(|| format!("interface {index}, which is gone")))
    }
}
