//! The short way, for the packets that nearly all are.
//!
//! They are single packets, not super-packets. They are IP behind an Ethernet header, without tags in the
//! frame and without IPv4 options, and their headers are in the buffer's linear part. Their interface belongs
//! to one container. No copies are among them. All steps of [`crate::every_step`] then come down to a few
//! tests and two additions.
//!
//! All or nothing: nothing is counted before every test has passed. Any other packet, and one for which a
//! lookup fails, takes the long way from its start. So faults, notes and rare cases are decided in one place.
//!
//! The class table is read first, because a new peer's line is in no cache. The processor does everything
//! else while it waits for that line.

use aya_ebpf::bindings::__sk_buff;
use traffic_common::{Direction, Family, interface_flags, wire};

use crate::{
    Parts,
    classify::{self, Place},
    copies, count,
    maps::of_kernel,
    parse::{
        self, ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_HEADER_LEN, IPV6_HEADER_LEN,
        Ipv4Header, Ipv6Header, WithPorts,
    },
    shadow,
};

/// Bytes of the two ports of UDP and TCP. A packet without them is not usual.
const PORTS_LEN: u32 = 4;
/// First byte of an IPv4 header without options.
const VERSION_4_WITHOUT_OPTIONS: u8 = 0x45;

/// Counts a usual packet. `None` if it is not one: nothing was counted then.
#[inline(always)]
pub fn counted<P: Parts>(skb: *mut __sk_buff, direction: Direction) -> Option<()> {
    // Atomic additions are needed where two of these programs can interleave. There, the verifier removes all
    // that follows.
    if of_kernel!(interleaves) != 0 {
        return None;
    }
    // SAFETY: the context of a classifier is a valid `__sk_buff`.
    let (data, data_end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    let network = data + ETHERNET_HEADER_LEN as usize;
    if network + (IPV4_HEADER_LEN + PORTS_LEN) as usize > data_end {
        return None;
    }
    // What comes in encrypted must be noted, and it may come in again decrypted.
    let comes_in = copies::comes_in(direction, interface_flags::PRESENT);
    let ethertype = (data + ETHERNET_HEADER_LEN as usize - 2) as *const u16;
    // SAFETY: within the packet, as checked above and again by the verifier; packets have no alignment.
    let ethertype = u32::from(u16::from_be(unsafe { ethertype.read_unaligned() }));
    let control = classify::control().ok()?;
    let (family, column) = if ethertype == ETHERTYPE_IPV4 {
        let header = network as *const Ipv4Header;
        // SAFETY: as above; the fields are bytes.
        let (version_ihl, source, destination) =
            unsafe { ((*header).version_ihl, (*header).source, (*header).destination) };
        if version_ihl != VERSION_4_WITHOUT_OPTIONS {
            return None;
        }
        if comes_in
            // SAFETY: as above.
            && unsafe {
                parse::may_be_ipsec((*header).protocol, (*(network as *const WithPorts<Ipv4Header>)).ports)
            }
        {
            return None;
        }
        let peer = match direction {
            Direction::In => source,
            Direction::Out => destination,
        };
        (Family::Ipv4, P::column_v4(control, peer).ok()?)
    } else if ethertype == ETHERTYPE_IPV6 && network + (IPV6_HEADER_LEN + PORTS_LEN) as usize <= data_end {
        let header = network as *const Ipv6Header;
        // SAFETY: as above.
        if unsafe { (*header).version_class_flow[0] >> 4 } != 6 {
            return None;
        }
        if comes_in
            // SAFETY: as above.
            && unsafe {
                parse::may_be_ipsec_v6(
                    (*header).next_header,
                    (*(network as *const WithPorts<Ipv6Header>)).ports,
                )
            }
        {
            return None;
        }
        // SAFETY: as above.
        let peer = unsafe {
            match direction {
                Direction::In => (*header).source,
                Direction::Out => (*header).destination,
            }
        };
        (Family::Ipv6, P::column_v6(control, peer).ok()?)
    } else {
        return None;
    };

    // SAFETY: the context of a classifier is a valid `__sk_buff`.
    let (ifindex, len, gso_size) = unsafe { ((*skb).ifindex, (*skb).len, (*skb).gso_size) };
    let entry = P::interface(ifindex)?;
    if entry.flags != interface_flags::PRESENT
        || entry.link_header_len != ETHERNET_HEADER_LEN
        || gso_size != 0
        || copies::is_copy(skb, direction, interface_flags::PRESENT)
    {
        return None;
    }
    let tally = wire::unsegmented(len - ETHERNET_HEADER_LEN);
    let place = Place { slot: entry.container_slot, column, columns: control.columns };
    let passed = count::passed_of(entry.interface_slot, direction)?;
    let counter = P::counter(place, family, direction)?;
    passed.wire.count(tally.packets, tally.bytes);
    passed.skbs = passed.skbs.wrapping_add(1);
    passed.skb_bytes = passed.skb_bytes.wrapping_add(u64::from(len));
    counter.count(tally.packets, tally.bytes);
    P::counted(skb, place);
    shadow::counted(control, skb, (ETHERNET_HEADER_LEN, direction), place.slot, &tally);
    Some(())
}
