//! Fields of the kernel's own `sk_buff` that the context, `__sk_buff`, does not have.
//!
//! They are read by a helper, at offsets from BTF ([`maps::SKB_LAYOUT`](crate::maps::SKB_LAYOUT)). Each call
//! of the helper costs about 25 ns, so only rare packets come here. Where the kernel does not offer the
//! helper, or the offsets are unknown, every function returns `None` and the verifier removes the calls.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_probe_read_kernel};
use traffic_common::gso::XFRM_GRO;

use crate::maps::of_kernel;

/// A header offset that was never set.
const UNSET: u16 = u16::MAX;

/// `skb_shared_info::gso_type`
#[inline(always)]
pub fn gso_type(skb: *mut __sk_buff) -> Option<u32> {
    let head: u64 = read(skb as u64, of_kernel!(head))?;
    let end: u32 = read(skb as u64, of_kernel!(end))?;
    read(head + u64::from(end), of_kernel!(gso_type))
}

/// Offset of the inner transport header from the start of the buffer.
#[inline(always)]
pub fn inner_transport(skb: *mut __sk_buff) -> Option<u32> {
    position(skb, of_kernel!(inner_transport_header))
}

/// Offset of the transport header from the start of the buffer. The sender's claim for a buffer from a tap or
/// a packet socket.
#[inline(always)]
pub fn transport(skb: *mut __sk_buff) -> Option<u32> {
    position(skb, of_kernel!(transport_header))
}

/// Offset of the network header from the start of the buffer.
#[inline(always)]
pub fn network(skb: *mut __sk_buff) -> Option<u32> {
    position(skb, of_kernel!(network_header))
}

/// Whether an ifb sends this packet again. `None` where the kernel cannot be asked.
#[inline(always)]
pub fn is_sent_again(skb: *mut __sk_buff) -> Option<bool> {
    let byte: u8 = read(skb as u64, of_kernel!(tc_skip_classify))?;
    Some(u32::from(byte) & of_kernel!(tc_skip_classify_mask) != 0)
}

/// Whether the host has decrypted this packet after it came in, so that it comes in a second time on its
/// device.
///
/// A packet that comes in encrypted after a device decrypted it has a record as well, which still counts as
/// the device's (`olen`). What is decrypted while packets are merged (GRO) comes in only once, as the inner
/// packet.
#[inline(always)]
pub fn is_decrypted(skb: *mut __sk_buff) -> Option<bool> {
    let mask = of_kernel!(sec_path_mask);
    if mask == 0 {
        return None;
    }
    let active: u8 = read(skb as u64, of_kernel!(active_extensions))?;
    if u32::from(active) & mask == 0 {
        return Some(false);
    }
    let extensions: u64 = read(skb as u64, of_kernel!(extensions))?;
    let at: u8 = read(extensions, of_kernel!(sec_path_at))?;
    let sec_path = extensions + u64::from(at) * 8;
    let len: i32 = read(sec_path, of_kernel!(sec_path_len))?;
    let by_device: i32 = read(sec_path, of_kernel!(sec_path_olen))?;
    let first: u32 = read(sec_path, of_kernel!(sec_path_flags))?;
    Some(len > 0 && by_device == 0 && first & XFRM_GRO == 0)
}

/// Offset from the start of the buffer of a header, whose position is in the field at `field`.
#[inline(always)]
fn position(skb: *mut __sk_buff, field: u32) -> Option<u32> {
    let head: u64 = read(skb as u64, of_kernel!(head))?;
    let data: u64 = read(skb as u64, of_kernel!(data))?;
    let header: u16 = read(skb as u64, field)?;
    // SAFETY: the context of a classifier is a valid `__sk_buff`.
    let len = unsafe { (*skb).len };
    // Both are positions relative to the same `head`. The difference is a small offset, or garbage that is
    // refused.
    let offset = head.wrapping_add(u64::from(header)).wrapping_sub(data);
    #[expect(clippy::cast_possible_truncation, reason = "compared with a 32-bit length first")]
    (header != UNSET && offset < u64::from(len)).then_some(offset as u32)
}

#[inline(always)]
fn read<T>(base: u64, offset: u32) -> Option<T> {
    if of_kernel!(known) == 0 {
        return None;
    }
    // SAFETY: the helper checks the address and returns an error instead of faulting. At run time the context
    // of a classifier *is* the kernel's `sk_buff`; the fields of `__sk_buff` are a view that the verifier
    // rewrites.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T).ok() }
}
