//! A packet of a tracepoint, as far as it is read: one that was dropped, or one on its way.
//!
//! The verifier knows the type of the tracepoint's argument, so most fields are plain loads. Their offsets come
//! from the running kernel's BTF. What lies behind untyped pointers is read by a helper.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use traffic_common::{Tally, drop_kind, wire};

use crate::{
    headers::{MAX_VLAN_TAGS, VLAN_TAG_LEN, is_vlan},
    kernel_layout::of_kernel,
    segments::{Buffer, forgotten, super_packet, unpack},
};

/// `PACKET_BROADCAST`
const BROADCAST: u8 = 1;
/// `PACKET_MULTICAST`
const MULTICAST: u8 = 2;
/// `PACKET_LOOPBACK`: a copy of the host's own.
const LOOPED_BACK: u8 = 5;
/// A header offset that was never set.
const UNSET: u16 = u16::MAX;
/// No super-packet is longer on the wire.
const LONGEST: u32 = 1 << 24;
/// No IP packet is shorter.
const SHORTEST: u32 = 20;
/// What a device may add to a packet after its length was noted: two VLAN tags.
const ADDED: u32 = 8;

/// A packet.
pub struct Frame {
    /// The typed `sk_buff`.
    skb: *const u8,
    /// Address of the network header.
    network: u64,
    /// Bytes from the network header on.
    len: u32,
    /// Bytes of those in the linear part.
    linear: u32,
    /// Bytes in front of the network header that the packet has at this moment.
    in_front: u32,
    /// Bytes of all of the buffer.
    pub skb_len: u32,
    /// Address of the `skb_shared_info`.
    shared: u64,
    /// Bytes of a super-packet's segments, or 0.
    gso_size: u32,
    /// The interface that the packet is at.
    pub device: u32,
    /// The interface that it came in on, or 0.
    pub came_from: u32,
}

/// Reads a field of a structure whose type the verifier knows.
#[inline(always)]
fn field<T: Copy>(structure: *const u8, offset: u32) -> T {
    // SAFETY: the verifier checks offset and size against the structure, and a fault reads as 0. Volatile, so
    // that the compiler keeps the width of the load.
    unsafe { structure.add(offset as usize).cast::<T>().read_volatile() }
}

/// Reads a `T` of plain bytes at an address that the verifier knows nothing of.
#[inline(always)]
fn read<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    #[expect(clippy::cast_possible_truncation, reason = "headers are short")]
    let len = size_of::<T>() as u32;
    // SAFETY: the helper checks the address and returns an error instead of faulting. Otherwise it has filled all
    // of the value, and every `T` here is plain bytes.
    unsafe {
        let result = bpf_probe_read_kernel(value.as_mut_ptr().cast(), len, address as *const _);
        (result == 0).then(|| value.assume_init())
    }
}

/// Whether a device is in the network namespace whose packets are looked at.
#[inline(always)]
pub fn is_here(device: *const u8) -> bool {
    let net: *const u8 = field(device, of_kernel!(net_device_net));
    field::<u32>(net, of_kernel!(net_inum)) == of_kernel!(namespace_inode)
}

/// Whether an address that begins with these four bytes is a broadcast or multicast address.
#[inline(always)]
pub fn is_to_many(begin: u32, is_ipv4: bool) -> bool {
    if is_ipv4 { begin >> 28 == 0xe || begin == u32::MAX } else { begin >> 24 == 0xff }
}

/// The address of the device that a packet is at.
#[inline(always)]
pub fn device_address(skb: *const u8) -> u64 {
    field::<*const u8>(skb, of_kernel!(skb_dev)) as u64
}

impl Frame {
    /// Reads a packet. `None` for one of another network namespace, and for one that reached the transport layer:
    /// it was delivered to the node itself.
    #[inline(always)]
    pub fn read(skb: *const u8) -> Option<Self> {
        Self::read_from(skb, false)
    }

    /// The same where a packet has just come in: its data begins at layer 3, and that is not yet noted.
    #[inline(always)]
    pub fn received(skb: *const u8) -> Option<Self> {
        Self::read_from(skb, true)
    }

    #[inline(always)]
    fn read_from(skb: *const u8, is_at_layer_3: bool) -> Option<Self> {
        let device: *const u8 = field(skb, of_kernel!(skb_dev));
        if device.is_null() || !is_here(device) {
            return None;
        }
        let head: u64 = field(skb, of_kernel!(skb_head));
        let data: u64 = field(skb, of_kernel!(skb_data));
        #[expect(clippy::cast_possible_truncation, reason = "a distance within one buffer")]
        let network: u16 = if is_at_layer_3 {
            data.wrapping_sub(head) as u16
        } else {
            field(skb, of_kernel!(skb_network_header))
        };
        let skb_len: u32 = field(skb, of_kernel!(skb_len));
        let data_len: u32 = field(skb, of_kernel!(skb_data_len));
        let end: u32 = field(skb, of_kernel!(skb_end));
        #[expect(clippy::cast_possible_truncation, reason = "a distance within one buffer")]
        let in_front = u32::from(network).wrapping_sub(data.wrapping_sub(head) as u32);
        // Behind the network header the difference wraps.
        if network == UNSET || in_front > skb_len {
            return None;
        }
        let shared = head + u64::from(end);
        let gso_size: u16 = read(shared + u64::from(of_kernel!(shared_gso_size))).unwrap_or(0);
        Some(Self {
            skb,
            network: head + u64::from(network),
            len: skb_len - in_front,
            linear: skb_len.wrapping_sub(data_len).saturating_sub(in_front),
            in_front,
            skb_len,
            shared,
            gso_size: gso_size.into(),
            device: field(device, of_kernel!(net_device_ifindex)),
            came_from: field(skb, of_kernel!(skb_iif)),
        })
    }

    /// Whether a place that cuts packets into pieces has cut this one: what it frees is the whole.
    #[inline(always)]
    pub fn is_cut_by(&self, place: u8) -> bool {
        // A qdisc cuts only super-packets. What the IP layer frees while it makes fragments is always the whole.
        self.gso_size != 0 || place & drop_kind::GROUP != traffic_common::DropGroup::Shaper as u8
    }

    /// Whether the packet went to many, by its link-layer address, or is a copy of the host's own.
    #[inline(always)]
    pub fn is_multicast(&self) -> bool {
        let byte: u8 = field(self.skb, of_kernel!(skb_pkt_type));
        matches!(byte >> of_kernel!(skb_pkt_type_shift) & 7, BROADCAST | MULTICAST | LOOPED_BACK)
    }

    #[inline(always)]
    fn bit(&self, at: u32, mask: u32) -> bool {
        u32::from(field::<u8>(self.skb, at)) & mask != 0
    }

    /// Whether an interface's egress hook redirected the packet, to an ifb.
    #[inline(always)]
    pub fn is_redirected_on_egress(&self) -> bool {
        self.bit(of_kernel!(skb_redirected), of_kernel!(skb_redirected_mask))
            && !self.bit(of_kernel!(skb_from_ingress), of_kernel!(skb_from_ingress_mask))
    }

    /// Whether the packet has entered the transmission of its device, whose link-layer header has so many bytes.
    #[inline(always)]
    pub fn is_in_transmission(&self, link_header_len: u32) -> bool {
        if self.bit(of_kernel!(skb_tc_at_ingress), of_kernel!(skb_tc_at_ingress_mask)) {
            return false;
        }
        let noted: u32 = field(self.skb, of_kernel!(skb_pkt_len));
        let is_length = (SHORTEST..LONGEST).contains(&noted) && noted + ADDED >= self.skb_len;
        // Without a link-layer header, the packet may still be in the IP layer, which keeps there the index of
        // the interface that the packet came from.
        is_length && self.in_front >= link_header_len && (link_header_len != 0 || noted != self.came_from)
    }

    /// Offset of layer 3 from the network header, and its EtherType. The network header of a bridged frame may be
    /// a VLAN tag. The verifier knows nothing of the result.
    #[inline(always)]
    pub fn layer_3(&self) -> (u32, u32) {
        let (mut ethertype, mut offset) = (u32::from(u16::from_be(self.protocol())), 0);
        for _ in 0..MAX_VLAN_TAGS {
            if !is_vlan(ethertype) {
                break;
            }
            let Some(next) = self.load::<[u8; 2]>(offset + 2) else { break };
            ethertype = u32::from(u16::from_be_bytes(next));
            offset += VLAN_TAG_LEN;
        }
        (forgotten(offset), forgotten(ethertype))
    }

    #[inline(always)]
    fn protocol(&self) -> u16 {
        field(self.skb, of_kernel!(skb_protocol))
    }

    /// Bytes of layer 3 behind `offset`.
    #[inline(always)]
    pub fn len_behind(&self, offset: u32) -> u32 {
        self.len.saturating_sub(offset)
    }

    /// Packets and layer-3 bytes on the wire, with what [`Self::layer_3`] returned, and whether they are estimated.
    #[inline(always)]
    pub fn on_wire(&self, (offset, ethertype): (u32, u32)) -> (Tally, bool) {
        if self.gso_size == 0 {
            return (wire::unsegmented(self.len_behind(offset)), false);
        }
        unpack(super_packet(self, offset, ethertype))
    }

    /// Position of a header behind the network header, from the field at this offset.
    #[inline(always)]
    fn position(&self, at: u32) -> Option<u32> {
        let header: u16 = field(self.skb, at);
        let network: u16 = field(self.skb, of_kernel!(skb_network_header));
        let offset = u32::from(header).wrapping_sub(network.into());
        (header != UNSET && offset < self.len).then_some(offset)
    }
}

impl Buffer for &Frame {
    #[inline(always)]
    fn sizes(self) -> (u32, u32, u32) {
        let segments: u16 = read(self.shared + u64::from(of_kernel!(shared_gso_segs))).unwrap_or(0);
        (self.len, self.gso_size, segments.into())
    }

    #[inline(always)]
    fn protocol_and_linear(self) -> (u32, u32) {
        (u16::from_be(self.protocol()).into(), self.linear)
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> Option<T> {
        #[expect(clippy::cast_possible_truncation, reason = "headers are short")]
        let end = offset.wrapping_add(size_of::<T>() as u32);
        if end > self.linear {
            return None;
        }
        read(self.network + u64::from(offset))
    }

    #[inline(always)]
    fn gso_type(self) -> Option<u32> {
        read(self.shared + u64::from(of_kernel!(shared_gso_type)))
    }

    #[inline(always)]
    fn transport(self) -> Option<u32> {
        self.position(of_kernel!(skb_transport_header))
    }

    #[inline(always)]
    fn inner_transport(self) -> Option<u32> {
        self.position(of_kernel!(skb_inner_transport_header))
    }

    #[inline(always)]
    fn jumbo_is_removed(self) -> bool {
        of_kernel!(jumbo_is_removed) != 0
    }
}
