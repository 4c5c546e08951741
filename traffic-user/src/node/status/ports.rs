//! Ports that nothing watches, beside ports that are watched. Pure.
//!
//! Whoever may change the host's network can add a port to a bridge: a container that runs as root without a
//! user namespace does it through `IFLA_TARGET_NETNSID`. What passes such a port is counted nowhere.

use std::collections::HashMap;

use crate::net::interface::NetInterface;

/// Kinds that lead to a wire or to other hosts, and dummies, that lead nowhere. A physical port has none.
const UPLINK_KINDS: [&str; 14] = [
    "",
    "bond",
    "team",
    "vlan",
    "vxlan",
    "geneve",
    "gretap",
    "ip6gretap",
    "erspan",
    "ip6erspan",
    "l2tpeth",
    "batadv",
    "hsr",
    "dummy",
];

/// An interface of the node.
#[derive(Clone, Copy, Debug)]
pub struct Port<'i> {
    /// The interface.
    pub interface: &'i NetInterface,
    /// Whether it is attached to, or should be.
    pub is_watched: bool,
    /// Whether the configuration says to ignore it.
    pub is_ignored: bool,
}

/// A problem for each unwatched port of a bridge (or OVS, bond, vrf) that has a watched port as well.
pub fn problems(all: &[Port<'_>]) -> Vec<String> {
    let watched = all.iter().filter(|port| port.is_watched);
    let beside: HashMap<u32, &str> =
        watched.filter_map(|port| Some((port.interface.master?, port.interface.name.as_str()))).collect();
    let name_of = |index| {
        let found = all.iter().find(|port| port.interface.index == index);
        found.map_or("an unknown interface", |port| port.interface.name.as_str())
    };
    let unwatched =
        all.iter().filter(|port| !port.is_watched && !port.is_ignored && is_suspicious(port.interface));
    unwatched
        .filter_map(|port| {
            let (name, master) = (&port.interface.name, port.interface.master?);
            let beside = beside.get(&master)?;
            Some(format!(
                "{name}: a port of {} that nothing watches, beside {beside}: what passes it is not counted; assign it \
                 under [[container]], or add a rule of kind \"ignore\" for it under [interfaces]",
                name_of(master)
            ))
        })
        .collect()
}

/// Whether a port may lead to a container or a virtual machine. A veth whose other end is in this network
/// namespace only joins two bridges.
fn is_suspicious(interface: &NetInterface) -> bool {
    match interface.kind.as_str() {
        "veth" | "netkit" => interface.peer_is_elsewhere,
        kind => !UPLINK_KINDS.contains(&kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, name: &str, kind: &str, master: Option<u32>) -> NetInterface {
        let (name, kind) = (name.to_owned(), kind.to_owned());
        let peer_is_elsewhere = kind == "veth";
        NetInterface { index, name, kind, master, peer_is_elsewhere, ..NetInterface::default() }
    }

    #[test]
    fn only_a_port_that_may_lead_to_a_container_is_a_problem() {
        let here = NetInterface { peer_is_elsewhere: false, ..interface(20, "fwln101i0", "veth", Some(1)) };
        let interfaces = [
            (interface(1, "br0", "bridge", None), false, false),
            (interface(2, "br1", "bridge", None), false, false),
            (interface(3, "veth101.0", "veth", Some(1)), true, false),
            // Uplinks, whatever they are.
            (interface(4, "eno1", "", Some(1)), false, false),
            (interface(5, "eno1.7", "vlan", Some(1)), false, false),
            (interface(6, "bond0", "bond", Some(1)), false, false),
            (interface(7, "vxlan9", "vxlan", Some(1)), false, false),
            // Another bridge, and none at all.
            (interface(8, "evil1", "veth", Some(2)), false, false),
            (interface(9, "evil2", "veth", None), false, false),
            (interface(10, "known", "veth", Some(1)), false, true),
            (here, false, false),
            (interface(11, "evil3", "veth", Some(1)), false, false),
            (interface(12, "evil4", "tun", Some(1)), false, false),
        ];
        let ports: Vec<_> = interfaces
            .iter()
            .map(|(interface, is_watched, is_ignored)| Port {
                interface,
                is_watched: *is_watched,
                is_ignored: *is_ignored,
            })
            .collect();
        let problems = problems(&ports);
        assert_eq!(problems.len(), 2, "{problems:#?}");
        assert!(problems[0].starts_with("evil3: a port of br0 that nothing watches, beside veth101.0"));
        assert!(problems[1].starts_with("evil4: a port of br0"));
    }
}
