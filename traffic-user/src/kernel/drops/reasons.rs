//! The group of each reason of the kernel, by its name. Numbers differ between kernels, so they come from BTF.

use traffic_common::{CORE_REASONS, DropGroup, DropReasons, QDISC_REASONS, drop_kind};

use crate::kernel::btf::Btf;

/// What the names of the core enumeration begin with.
const CORE: &str = "SKB_DROP_REASON_";
/// The same of the qdiscs' own enumeration (from 7.0), a subsystem of reasons.
const QDISC: &str = "QDISC_DROP_";
/// The members of the core enumeration that are no reasons.
const NO_REASONS: [&str; 2] = ["SKB_NOT_DROPPED_YET", "SKB_CONSUMED"];
/// The reason that states none. With it, the kernel has reasons.
pub(super) const NOT_SPECIFIED: &str = "SKB_DROP_REASON_NOT_SPECIFIED";

/// The kind of a reason of the core enumeration, by its name without the prefix.
fn kind(name: &str) -> u8 {
    use DropGroup::{Firewall, Neighbour, NoRoute, Other, QueueFull, Shaper, TooBig};
    use drop_kind::{BEFORE_EGRESS, BEFORE_INGRESS, NO_LOSS, UNSPECIFIED};

    match name {
        "NOT_SPECIFIED" => UNSPECIFIED | Other as u8,
        // A copy that a sniffer had no room for, and what a promiscuous interface received for others.
        "PACKET_SOCK_ERROR" | "OTHERHOST" => NO_LOSS,
        // Delivered to the node, which has no use for it or no room in a socket.
        "NO_SOCKET"
        | "PROTO_MEM"
        | "IP_NOPROTO"
        | "ICMP_CSUM"
        | "UDP_CSUM"
        | "SKB_UCOPY_FAULT"
        | "UNICAST_IN_L2_MULTICAST" => NO_LOSS,
        name if ["SOCKET_", "TCP_", "UNIX_", "IPV6_NDISC_"].iter().any(|prefix| name.starts_with(prefix)) => {
            NO_LOSS
        }
        "QDISC_DROP" | "QDISC_OVERLIMIT" | "QDISC_CONGESTED" | "CAKE_FLOOD" | "DUALPI2_STEP_DROP" => {
            Shaper as u8
        }
        name if name.starts_with("FQ_") => Shaper as u8,
        // All hooks of netfilter, also the one on egress, come before the hook of tc.
        "NETFILTER_DROP" | "BPF_CGROUP_EGRESS" => Firewall as u8 | BEFORE_EGRESS,
        "XDP" => Firewall as u8 | BEFORE_INGRESS,
        "TC_INGRESS" | "TC_EGRESS" | "TC_CHAIN_NOTFOUND" | "TC_RECLASSIFY_LOOP" | "TC_COOKIE_ERROR"
        | "XFRM_POLICY" | "SECURITY_HOOK" => Firewall as u8,
        "IP_INNOROUTES" | "IP_OUTNOROUTES" | "IP_RPFILTER" | "IP_INHDR" | "IP_INADDRERRORS"
        | "IP_LOCALNET" | "IP_INVALID_DEST" | "IP_INVALID_SOURCE" | "IP_LOCAL_SOURCE" | "IPV6DISABLED"
        | "UNHANDLED_PROTO" => NoRoute as u8,
        "CPU_BACKLOG" | "PFMEMALLOC" => QueueFull as u8 | BEFORE_INGRESS,
        "FULL_RING" | "DEV_READY" => QueueFull as u8,
        "PKT_TOO_BIG" => TooBig as u8,
        name if name.starts_with("NEIGH_") => Neighbour as u8 | BEFORE_EGRESS,
        _ => Other as u8,
    }
}

/// The kinds of all reasons, and the number of the qdiscs' subsystem, or 0.
pub(super) fn of(btf: &Btf<'_>) -> (DropReasons, u32) {
    const OTHER: u8 = DropGroup::Other as u8;
    let mut reasons =
        DropReasons { core: [OTHER; CORE_REASONS], qdisc: [DropGroup::Shaper as u8; QDISC_REASONS] };
    let mut subsystem = 0;
    for (name, &number) in &btf.enumerators {
        if let Some(name) = name.strip_prefix(CORE) {
            // Of the enumeration of subsystems, and marks of the end.
            if name.starts_with("SUBSYS_") || name == "MAX" {
                continue;
            }
            if let Some(place) = reasons.core.get_mut(number as usize) {
                *place = kind(name);
            }
        } else if NO_REASONS.contains(name) {
            if let Some(place) = reasons.core.get_mut(number as usize) {
                *place = drop_kind::NO_LOSS;
            }
        } else if name.starts_with(QDISC) && number >> 16 != 0 {
            subsystem = number >> 16;
        }
    }
    (reasons, subsystem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_has_its_reasons() {
        for (name, expected) in [
            ("QDISC_DROP", DropGroup::Shaper),
            ("FQ_FLOW_LIMIT", DropGroup::Shaper),
            ("NETFILTER_DROP", DropGroup::Firewall),
            ("TC_INGRESS", DropGroup::Firewall),
            ("IP_RPFILTER", DropGroup::NoRoute),
            ("FULL_RING", DropGroup::QueueFull),
            ("PKT_TOO_BIG", DropGroup::TooBig),
            ("NEIGH_QUEUEFULL", DropGroup::Neighbour),
            ("NOMEM", DropGroup::Other),
            ("A_REASON_OF_A_LATER_KERNEL", DropGroup::Other),
        ] {
            assert_eq!(kind(name) & drop_kind::GROUP, expected as u8, "{name}");
            assert_eq!(kind(name) & drop_kind::NO_LOSS, 0, "{name}");
        }
        for name in ["NO_SOCKET", "SOCKET_RCVBUFF", "TCP_CSUM", "PACKET_SOCK_ERROR", "OTHERHOST"] {
            assert_ne!(kind(name) & drop_kind::NO_LOSS, 0, "{name}");
        }
        assert_ne!(kind("NETFILTER_DROP") & drop_kind::BEFORE_EGRESS, 0);
        assert_ne!(kind("NOT_SPECIFIED") & drop_kind::UNSPECIFIED, 0);
        // What a shaper drops was counted before.
        assert_eq!(kind("QDISC_DROP") & !drop_kind::GROUP, 0);
    }
}
