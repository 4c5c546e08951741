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
    /// The devices below the uplinks: they send what an uplink has sent already.
    below: BTreeSet<u32>,
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
        let below = below(&by_index, uplinks.keys().copied());
        let mut ends = Self { by_index, uplinks, below, bridges: BTreeMap::new() };
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
        let passes_on = PASS_ON.contains(&interface.kind.as_str());
        (!passes_on && !self.below.contains(&key.to) && interface.name != "lo").then(|| self.other(key.to))
    }

    fn other(&self, index: u32) -> End {
        let known = self.by_index.get(&index).map(|interface| interface.name.clone());
        End::Other(known.unwrap_or_else(|| format!("interface {index}, which is gone")))
    }
}

/// The devices that lie below these: the device of a VLAN, the ports of a bond.
fn below(by_index: &BTreeMap<u32, &NetInterface>, of: impl Iterator<Item = u32>) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut waiting: Vec<u32> = of.collect();
    while let Some(index) = waiting.pop() {
        let Some(upper) = by_index.get(&index) else { continue };
        let lower = upper.peer.filter(|_| upper.kind == "vlan").into_iter();
        let ports = by_index.values().filter(|port| port.master == Some(index) && upper.kind != "bridge");
        for next in lower.chain(ports.map(|port| port.index)) {
            if found.insert(next) {
                waiting.push(next);
            }
        }
    }
    found
}

/// Under which interface the kernel shows what comes in on another one: a VRF's ports as the VRF, a VLAN on a bridge
/// by the bridge's own index where the packet came to the bridge.
pub fn shown_as(interfaces: &[NetInterface]) -> Vec<(u32, u32)> {
    let kind = |index: u32| interfaces.iter().find(|one| one.index == index).map(|one| one.kind.as_str());
    let shown = |one: &NetInterface| {
        let vrf = one.master.filter(|&master| kind(master) == Some("vrf"));
        let bridge = one.peer.filter(|&lower| one.kind == "vlan" && kind(lower) == Some("bridge"));
        Some((one.index, vrf.or(bridge)?))
    };
    interfaces.iter().filter_map(shown).collect()
}

/// Why packets cannot be followed to an uplink of this name, if so, and what to do.
pub fn unfit(name: &str, interfaces: &[NetInterface]) -> Option<String> {
    let Some(uplink) = interfaces.iter().find(|one| one.is_called(name)) else {
        return Some(format!(
            "the uplink {name} does not exist on this node; correct `uplinks` under [node]"
        ));
    };
    let master = interfaces.iter().find(|one| Some(one.index) == uplink.master);
    match (uplink.kind.as_str(), master) {
        ("bridge", _) => Some(format!(
            "the uplink {name} is a bridge, and packets that it passes on do not go through it; name the port that \
             leads outside, in `uplinks` under [node]"
        )),
        (_, Some(bond)) if matches!(bond.kind.as_str(), "bond" | "team") => Some(format!(
            "the uplink {name} is a port of {0}, which packets come in by; name {0} in `uplinks` under [node]",
            bond.name
        )),
        _ => None,
    }
}
