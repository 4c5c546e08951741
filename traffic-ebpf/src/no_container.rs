//! Interfaces that belong to no container: the node's uplinks, and those without an entry.
//!
//! Their entries lack [`interface_flags::PRESENT`], which the short way ([`crate::usual`]) requires anyway.
//! So containers pay nothing for them.

use aya_ebpf::bindings::__sk_buff;
use traffic_common::{Direction, Fault, interface_flags};

use crate::{
    maps::NODE_ADDRESSES,
    parse::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    sk_buff,
};

/// Offsets of the addresses in the headers.
const IPV4_SOURCE: u32 = 12;
const IPV4_DESTINATION: u32 = 16;
const IPV6_SOURCE: u32 = 8;
const IPV6_DESTINATION: u32 = 24;

/// Bytes before the network header on an interface without an entry. The kernel knows it of each packet.
#[inline(never)]
pub fn link_header_len(skb: *mut __sk_buff) -> u32 {
    // Where it cannot be asked: Ethernet is by far the most common.
    sk_buff::network(skb).unwrap_or(parse::ETHERNET_HEADER_LEN)
}

/// The flags by which a packet on an uplink is classified, or why it is not. The node's own are in the container of
/// the entry. Others may be of a container with a device on the uplink, and then the local address decides.
#[inline(always)]
pub fn classified_by(
    skb: *mut __sk_buff,
    l3_offset: u32,
    ethertype: u32,
    direction: Direction,
    flags: u32,
) -> Result<u32, Fault> {
    if flags & interface_flags::UPLINK == 0 {
        return Err(Fault::UnknownInterface);
    }
    if is_of_node(skb, l3_offset, ethertype, direction as u32) {
        return Ok(flags & !interface_flags::SHARED);
    }
    // Where containers have no such devices, forwarded packets pay for no second lookup.
    if flags & interface_flags::SHARED != 0 { Ok(flags) } else { Err(Fault::NotTheNodes) }
}

/// Whether the local address is the node's. True also for a packet without an address, or whose version
/// contradicts its protocol: the classification then names the fault.
#[inline(never)]
fn is_of_node(skb: *mut __sk_buff, l3_offset: u32, ethertype: u32, direction: u32) -> bool {
    let version = match ethertype {
        ETHERTYPE_IPV4 => 4,
        ETHERTYPE_IPV6 => 6,
        _ => return true,
    };
    if parse::load::<u8>(skb, l3_offset).is_none_or(|first| first >> 4 != version) {
        return true;
    }
    let is_in = direction == Direction::In as u32;
    // In words of 8 bytes, because the verifier requires an aligned key on the stack.
    let key = if version == 4 {
        let at = if is_in { IPV4_DESTINATION } else { IPV4_SOURCE };
        let Some(local) = parse::load::<u32>(skb, l3_offset + at) else { return true };
        let [a, b, c, d] = local.to_ne_bytes();
        [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])]
    } else {
        let at = if is_in { IPV6_DESTINATION } else { IPV6_SOURCE };
        let Some(local) = parse::load::<[u64; 2]>(skb, l3_offset + at) else { return true };
        local
    };
    // SAFETY: the value is not read.
    unsafe { NODE_ADDRESSES.get(&key) }.is_some()
}
