//! Finds the start of layer 3 and the IP header in a buffer.
//!
//! Headers in the buffer's linear part are read in place. If a sender arranged that they are elsewhere, a
//! helper copies them. Lengths claimed by headers are never used for counting.

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use traffic_common::Fault;

pub use crate::headers::*;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_HEADER_LEN: u32 = 14;
/// In place of an EtherType: the frame ends within the link-layer header.
const CUT_SHORT: u32 = 0x1_0000;

/// The start of layer 3 and its protocol.
pub struct LinkLayer {
    /// Bytes from the start of the buffer. Valid for frames without IP too, so that faults are measured in
    /// the same bytes.
    pub l3_offset: u32,
    /// The EtherType. That of a VLAN if there are more tags than are looked through; above 16 bits if there
    /// is none.
    pub ethertype: u32,
}

/// A pointer to the `T` at `offset`: into the buffer's linear part, or to `copy`, which is filled for that.
/// `None` if the packet is too short.
#[inline(always)]
pub fn header<T>(skb: *mut __sk_buff, offset: u32, copy: &mut MaybeUninit<T>) -> Option<*const T> {
    // SAFETY: the context of a classifier is a valid `__sk_buff`.
    let (data, data_end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    let start = data + offset as usize;
    if start + size_of::<T>() <= data_end {
        return Some(start as *const T);
    }
    load_into(skb, offset, copy.as_mut_ptr()).then_some(copy.as_ptr())
}

/// Copies a `T` from `offset`, wherever in the buffer it lies. `None` if the packet is too short.
#[inline(always)]
pub fn load<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper has filled all of it, and every `T` here is plain bytes.
    load_into(skb, offset, value.as_mut_ptr()).then(|| unsafe { value.assume_init() })
}

#[inline(always)]
fn load_into<T>(skb: *mut __sk_buff, offset: u32, to: *mut T) -> bool {
    #[expect(clippy::cast_possible_truncation, reason = "headers are short")]
    let len = size_of::<T>() as u32;
    // SAFETY: `to` has room for `len` bytes; the helper checks the offset against the packet.
    unsafe { bpf_skb_load_bytes(skb.cast_const().cast(), offset, to.cast(), len) == 0 }
}

/// Finds layer 3 behind `link_header_len` bytes (14 for Ethernet, 0 for a layer-3 device). Behind a header of
/// any other kind, the kernel knows the protocol.
#[inline(always)]
pub fn link_layer(skb: *mut __sk_buff, link_header_len: u32) -> LinkLayer {
    if link_header_len != ETHERNET_HEADER_LEN {
        // SAFETY: the context of a classifier is a valid `__sk_buff`.
        let protocol = unsafe { (*skb).protocol };
        #[expect(clippy::cast_possible_truncation, reason = "a be16 in a wider field")]
        let ethertype = u32::from(u16::from_be(protocol as u16));
        // The mask is for the verifier: no header is longer.
        return LinkLayer { l3_offset: link_header_len & 0xff, ethertype };
    }
    let Some(ethertype) = ethertype_at(skb, ETHERNET_HEADER_LEN - 2) else {
        return LinkLayer { l3_offset: ETHERNET_HEADER_LEN, ethertype: CUT_SHORT };
    };
    if !is_vlan(ethertype) {
        return LinkLayer { l3_offset: ETHERNET_HEADER_LEN, ethertype };
    }
    behind_tags(skb, ethertype)
}

/// Looks through tags within the frame. They are rare, because the kernel keeps one tag outside the frame.
#[inline(always)]
fn behind_tags(skb: *mut __sk_buff, mut ethertype: u32) -> LinkLayer {
    let mut l3_offset = ETHERNET_HEADER_LEN;
    for _ in 0..MAX_VLAN_TAGS {
        if !is_vlan(ethertype) {
            break;
        }
        // A truncated tag still belongs to the link layer: the frame has no layer 3.
        ethertype = match load::<[u8; 2]>(skb, l3_offset + 2) {
            Some(next) => u32::from(u16::from_be_bytes(next)),
            None => CUT_SHORT,
        };
        l3_offset += VLAN_TAG_LEN;
    }
    LinkLayer { l3_offset, ethertype }
}

#[inline(always)]
fn ethertype_at(skb: *mut __sk_buff, offset: u32) -> Option<u32> {
    let mut copy = MaybeUninit::<u16>::uninit();
    let field = header(skb, offset, &mut copy)?;
    // SAFETY: `header` checked the bounds, which the verifier checks again; packets have no alignment.
    Some(u32::from(u16::from_be(unsafe { ptr::read_unaligned(field) })))
}

/// The fault of a frame whose EtherType is not IP.
#[inline(always)]
pub fn link_layer_fault(ethertype: u32) -> Fault {
    if ethertype == CUT_SHORT {
        Fault::Truncated
    } else if is_vlan(ethertype) {
        Fault::VlanDepth
    } else {
        Fault::NotIp
    }
}

/// Whether an IPv4 packet may be the outside of an IPsec packet: by its protocol, or by the port of IPsec in
/// UDP or TCP. `ports` are the first bytes behind the header.
#[inline(always)]
pub fn may_be_ipsec(protocol: u8, ports: [u8; 4]) -> bool {
    matches!(protocol, ESP | AUTHENTICATION | COMPRESSION) || ports[2..] == IPSEC_PORT.to_be_bytes()
}

/// The same of an IPv6 packet. Behind extension headers it may be anything.
#[inline(always)]
pub fn may_be_ipsec_v6(next_header: u8, ports: [u8; 4]) -> bool {
    may_be_ipsec(next_header, ports) || matches!(next_header, 0 | 43 | 44 | 60)
}

/// A header and the ports behind it.
#[repr(C)]
pub struct WithPorts<H> {
    /// The network header.
    pub header: H,
    /// The ports of UDP and TCP, or anything else.
    pub ports: [u8; 4],
}

const ESP: u8 = 50;
const AUTHENTICATION: u8 = 51;
const COMPRESSION: u8 = 108;
const IPSEC_PORT: u16 = 4500;

/// Whether the packet whose header begins at `offset` may be the outside of an IPsec packet.
#[inline(always)]
pub fn is_maybe_ipsec(skb: *mut __sk_buff, offset: u32, ethertype: u32) -> bool {
    match ethertype {
        ETHERTYPE_IPV4 => {
            let mut copy = MaybeUninit::<WithPorts<Ipv4Header>>::uninit();
            // SAFETY: `header` checked the bounds, which the verifier checks again; packets have no
            // alignment.
            header(skb, offset, &mut copy)
                .is_some_and(|start| unsafe { may_be_ipsec((*start).header.protocol, (*start).ports) })
        }
        ETHERTYPE_IPV6 => {
            let mut copy = MaybeUninit::<WithPorts<Ipv6Header>>::uninit();
            // SAFETY: as above.
            header(skb, offset, &mut copy)
                .is_some_and(|start| unsafe { may_be_ipsec_v6((*start).header.next_header, (*start).ports) })
        }
        _ => false,
    }
}
