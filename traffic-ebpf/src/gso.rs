//! What a buffer will be on the wire.
//!
//! Nearly every buffer is one packet and leaves by the first line. For a super-packet the kernel's own `sk_buff` tells
//! the kind of segmentation; its place is known from BTF (`traffic_common::gso`). The arithmetic is in
//! `traffic_common::wire`.

use aya_ebpf::{helpers::bpf_probe_read_kernel, programs::TcContext};
use traffic_common::{Direction, Tally, gso, wire};

use crate::{
    count,
    maps::SKB_LAYOUT,
    parse::{Addresses, IPV6_HEADER_LEN, Parsed, load},
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const UDP_HEADER_LEN: u32 = 8;
const SCTP_HEADER_LEN: u32 = 12;
/// Fragment header that each IPv6 fragment gains.
const FRAGMENT_HEADER_LEN: u32 = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
/// Extension headers that are walked; more than the kernel's own segmentation meets in practice.
const MAX_EXTENSION_HEADERS: u32 = 8;

/// Above this the kernel's IPv6 super-packets carry a hop-by-hop header (`GRO_LEGACY_MAX_SIZE`).
const LEGACY_MAX_LEN: u32 = 65_536;
/// That header's length; segmentation removes it.
const JUMBO_HEADER_LEN: u32 = 8;
/// Option type of a jumbo payload.
const JUMBO_OPTION: u8 = 0xc2;

/// `gso_size` of a buffer whose segments differ in size (`GSO_BY_FRAGS`).
const BY_FRAGMENTS: u32 = 0xffff;

/// Packets and layer-3 bytes of this buffer on the wire.
#[inline(always)]
pub fn on_wire(ctx: &TcContext, parsed: &Parsed, direction: Direction, interface_slot: u32) -> Tally {
    let l3_len = ctx.len().saturating_sub(parsed.l3_offset);
    // SAFETY: the context of a classifier is a valid `__sk_buff`.
    let gso_size = unsafe { (*ctx.skb.skb).gso_size };
    if gso_size == 0 {
        return wire::unsegmented(l3_len);
    }
    let network = match &parsed.addresses {
        Ok(Addresses::V4 { header_len, protocol, .. }) => {
            Network { transport: parsed.l3_offset + header_len, protocol: *protocol, ipv6: false, jumbo: 0 }
        }
        Ok(Addresses::V6 { payload_length, next_header, .. }) => {
            let jumbo = jumbo_header(ctx, parsed.l3_offset, *payload_length, *next_header);
            let (transport, protocol) =
                skip_extension_headers(ctx, parsed.l3_offset + IPV6_HEADER_LEN, *next_header);
            Network { transport, protocol, ipv6: true, jumbo }
        }
        // Nothing can be known of its headers: the payload alone is cut.
        Err(_) => {
            let tally = wire::segmented(l3_len, 0, gso_size);
            count::estimated(interface_slot, direction, &tally);
            return tally;
        }
    };
    let Some(tally) = exact(ctx, parsed.l3_offset, l3_len, gso_size, &network) else {
        let tally = plain(ctx, parsed.l3_offset, l3_len, gso_size, &network);
        count::estimated(interface_slot, direction, &tally);
        return tally;
    };
    tally
}

/// What the outermost network header told.
struct Network {
    /// Offset of the outermost transport header from the start of the buffer.
    transport: u32,
    protocol: u8,
    ipv6: bool,
    /// Bytes of a jumbo header that the wire will not carry: 0 or 8.
    jumbo: u32,
}

/// The kernel's kind of segmentation, applied. `None` where it can't be read or is not one of those known.
#[inline(always)]
fn exact(ctx: &TcContext, l3_offset: u32, l3_len: u32, gso_size: u32, network: &Network) -> Option<Tally> {
    let layout = SKB_LAYOUT.load();
    if layout.known == 0 {
        return None;
    }
    let skb: *const u8 = ctx.skb.skb.cast::<u8>().cast_const();
    let head: u64 = kernel_read(skb, layout.head)?;
    let end: u32 = kernel_read(skb, layout.end)?;
    let shared_info = (head + u64::from(end)) as *const u8;
    let kind: u32 = kernel_read(shared_info, layout.gso_type)?;

    let transport = if kind & gso::TUNNELS != 0 {
        let data: u64 = kernel_read(skb, layout.data)?;
        let inner: u16 = kernel_read(skb, layout.inner_transport_header)?;
        // Both are positions from the same `head`, so the difference is a small offset, or nonsense that is refused.
        let offset = u32::try_from((head + u64::from(inner)).checked_sub(data)?).ok()?;
        if offset < network.transport || offset > ctx.len() {
            return None;
        }
        offset
    } else {
        network.transport
    };
    let before_transport = transport.checked_sub(l3_offset)?.checked_sub(network.jumbo)?;
    let l3_len = l3_len.checked_sub(network.jumbo)?;
    if kind & (gso::TCPV4 | gso::TCPV6) != 0 {
        let headers = before_transport + tcp_header_len(ctx, transport)?;
        Some(wire::segmented(l3_len, headers, gso_size))
    } else if kind & gso::UDP_L4 != 0 {
        Some(wire::segmented(l3_len, before_transport + UDP_HEADER_LEN, gso_size))
    } else if kind & gso::UDP != 0 {
        let fragment_header = if network.ipv6 { FRAGMENT_HEADER_LEN } else { 0 };
        Some(wire::fragmented(l3_len, before_transport, gso_size, fragment_header))
    } else if kind & gso::SCTP != 0 {
        // SAFETY: the context of a classifier is a valid `__sk_buff`.
        let segments = unsafe { (*ctx.skb.skb).gso_segs };
        Some(wire::counted(l3_len, before_transport + SCTP_HEADER_LEN, segments))
    } else {
        None
    }
}

/// Without the kernel's word: the outermost transport header decides.
#[inline(always)]
fn plain(ctx: &TcContext, l3_offset: u32, l3_len: u32, gso_size: u32, network: &Network) -> Tally {
    let l3_len = l3_len.saturating_sub(network.jumbo);
    let before_transport = network.transport.saturating_sub(l3_offset).saturating_sub(network.jumbo);
    match network.protocol {
        TCP => {
            let headers = before_transport + tcp_header_len(ctx, network.transport).unwrap_or(0);
            wire::segmented(l3_len, headers, gso_size)
        }
        SCTP if gso_size == BY_FRAGMENTS => {
            // SAFETY: the context of a classifier is a valid `__sk_buff`.
            let segments = unsafe { (*ctx.skb.skb).gso_segs };
            wire::counted(l3_len, before_transport + SCTP_HEADER_LEN, segments)
        }
        UDP => wire::segmented(l3_len, before_transport + UDP_HEADER_LEN, gso_size),
        _ => wire::segmented(l3_len, before_transport, gso_size),
    }
}

#[inline(always)]
fn kernel_read<T>(base: *const u8, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address and fails rather than faults. At run time the context of a classifier *is*
    // the kernel's `sk_buff`; the fields of `__sk_buff` are a view that the verifier rewrites.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()).ok() }
}

/// Length of the TCP header at `offset`, options included.
#[inline(always)]
fn tcp_header_len(ctx: &TcContext, offset: u32) -> Option<u32> {
    let data_offset: u8 = ctx.load(offset as usize + 12).ok()?;
    Some(u32::from(data_offset >> 4) * 4)
}

/// Length of the hop-by-hop header that carries the true length of an IPv6 BIG TCP buffer, as the kernel tests for it.
#[inline(always)]
fn jumbo_header(ctx: &TcContext, l3_offset: u32, payload_length: u16, next_header: u8) -> u32 {
    if payload_length != 0 || next_header != HOP_BY_HOP || ctx.len() <= LEGACY_MAX_LEN {
        return 0;
    }
    // next header, length in units of 8 bytes after the first, option type, option length
    match ctx.load::<[u8; 4]>((l3_offset + IPV6_HEADER_LEN) as usize) {
        Ok([TCP, 0, JUMBO_OPTION, 4]) => JUMBO_HEADER_LEN,
        _ => 0,
    }
}

/// Offset and protocol of the transport header behind IPv6 extension headers.
#[inline(always)]
fn skip_extension_headers(ctx: &TcContext, mut offset: u32, mut next_header: u8) -> (u32, u8) {
    for _ in 0..MAX_EXTENSION_HEADERS {
        let (unit, extra) = match next_header {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY => (8, 1),
            AUTHENTICATION => (4, 2),
            FRAGMENT => (0, 0),
            _ => break,
        };
        let Some([next, length]) = load::<[u8; 2]>(ctx, offset) else { break };
        next_header = next;
        offset += if unit == 0 { FRAGMENT_HEADER_LEN } else { (u32::from(length) + extra) * unit };
    }
    (offset, next_header)
}
