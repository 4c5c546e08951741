//! What the name of a kernel's function says about a packet that was dropped in it without a reason.
//!
//! Names are compared by their first eight bytes, which is enough to tell them apart.

use crate::{DropGroup, drop_kind};

const OTHER: u8 = DropGroup::Other as u8;
const SHAPER: u8 = DropGroup::Shaper as u8;
const NO_ROUTE: u8 = DropGroup::NoRoute as u8;
const TOO_BIG: u8 = DropGroup::TooBig as u8;
const NEIGHBOUR: u8 = DropGroup::Neighbour as u8;
const QUEUE_FULL: u8 = DropGroup::QueueFull as u8;

/// The beginning of a name as a number.
const fn word(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut word = 0;
    let mut at = 0;
    while at < bytes.len() && at < 8 {
        word |= (bytes[at] as u64) << (8 * at);
        at += 1;
    }
    word
}

/// The bits of a beginning that is shorter than eight bytes.
const fn mask(name: &str) -> u64 {
    if name.len() >= 8 { u64::MAX } else { (1 << (8 * name.len())) - 1 }
}

/// Defines [`kind`] by beginnings of names, in the order in which they are compared. Comparisons in a row, because
/// a table would be copied to the stack of the kernel program.
macro_rules! places {
    ($($name:literal => $kind:expr,)*) => {
        /// The kind of a place, by the first eight bytes of its function's name.
        #[inline(always)]
        pub const fn kind(name: u64) -> u8 {
            $(
                if name & const { mask($name) } == const { word($name) } {
                    return $kind;
                }
            )*
            OTHER
        }
    };
}

places! {
    // A sniffer whose buffer is full discards a copy.
    "packet_r" => drop_kind::NO_LOSS,
    "tpacket_" => drop_kind::NO_LOSS,
    // Segments and fragments were dropped before the whole is freed.
    "tbf_enqu" => drop_kind::CUTS | SHAPER,
    "tbf_segm" => drop_kind::CUTS | SHAPER,
    "ip_do_fr" => drop_kind::CUTS | TOO_BIG,
    "ip6_frag" => drop_kind::CUTS | TOO_BIG,
    // Queueing disciplines that discard what they hold.
    "codel_" => SHAPER,
    "fq_codel" => SHAPER,
    "fq_pie_" => SHAPER,
    "pie_" => SHAPER,
    "cake_" => SHAPER,
    "netem_" => SHAPER,
    "sfq_" => SHAPER,
    "sfb_" => SHAPER,
    "red_" => SHAPER,
    "tbf_" => SHAPER,
    "htb_" => SHAPER,
    "hfsc_" => SHAPER,
    "drop_fun" => SHAPER,
    "pfifo_" => SHAPER,
    "fq_" => SHAPER,
    // Routes that refuse: blackhole, unreachable, prohibit, or none at all.
    "ip_error" => NO_ROUTE,
    "dst_disc" => NO_ROUTE,
    "ip6_pkt_" => NO_ROUTE,
    "ip6_rout" => NO_ROUTE,
    "ip6_forw" => NO_ROUTE,
    // Larger than the MTU, and not to be cut.
    "ip_fragm" => TOO_BIG,
    // The next hop did not answer.
    "ndisc_er" => NEIGHBOUR,
    "arp_erro" => NEIGHBOUR,
    "neigh_" => NEIGHBOUR,
    "__neigh_" => NEIGHBOUR,
    // The MTU of a port or a pair.
    "br_dev_q" => TOO_BIG,
    "veth_xmi" => TOO_BIG,
    "__dev_fo" => TOO_BIG,
    "dev_forw" => TOO_BIG,
    // Nobody reads from the device.
    "tun_net_" => QUEUE_FULL,
    "tun_queu" => QUEUE_FULL,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_known_by_the_beginning_of_its_name() {
        for (name, expected) in [
            ("tbf_enqueue [sch_tbf]", drop_kind::CUTS | SHAPER),
            ("tbf_reset", SHAPER),
            ("ip_do_fragment", drop_kind::CUTS | TOO_BIG),
            ("ip6_fragment", drop_kind::CUTS | TOO_BIG),
            ("packet_rcv", drop_kind::NO_LOSS),
            ("packet_rcv_spkt", drop_kind::NO_LOSS),
            ("tpacket_rcv", drop_kind::NO_LOSS),
            ("codel_qdisc_dequeue", SHAPER),
            ("fq_codel_dequeue", SHAPER),
            ("ip_error", NO_ROUTE),
            ("ip6_pkt_drop", NO_ROUTE),
            ("tun_net_xmit", QUEUE_FULL),
            ("ndisc_error_report", NEIGHBOUR),
            ("ip_forward", OTHER),
            ("__rtnl_unlock", OTHER),
            ("pi", OTHER),
            ("", OTHER),
        ] {
            assert_eq!(kind(word(name)), expected, "{name}");
        }
    }
}
