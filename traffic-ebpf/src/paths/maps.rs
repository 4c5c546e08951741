//! The maps of the path programs. None is pinned: they are gone with the process that loaded them.

use aya_ebpf::{
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use traffic_common::{PATH_ENTRIES, PathControl, PathKey, PathTally};

/// What took which way.
///
/// Key: a [`PathKey`]; value: counted packets and bytes, added to atomically. Writer: these programs. Reader:
/// userspace. Full: the packet is in `PathControl::lost`.
#[btf_map]
pub static PATHS: HashMap<PathKey, PathTally, { PATH_ENTRIES as usize }> = HashMap::new();

/// Whether to count. Key: 0. Writer: userspace, and these programs for `lost`. Full: impossible.
#[btf_map]
pub static PATH_CONTROL: Array<PathControl, 1> = Array::new();

/// Packets that devices were handed on this CPU and have not yet answered for. A device on top of another passes its
/// packet on before it answers, and nothing else interrupts: transmission runs with bottom halves disabled.
///
/// Key: any place; value: a packet, its way and size, or zeros. Writer and reader: these programs. Full: the packet is
/// in `PathControl::lost`.
#[btf_map]
pub static HANDED_OVER: PerCpuArray<Handed, { PLACES as usize }> = PerCpuArray::new();

/// More than the kernel lets devices lie on top of each other.
pub const PLACES: u32 = 16;

/// Where a packet came in that `skb_iif` will show under another interface: the port of a bridge, the interface in a VRF.
///
/// Key: the address of the buffer; value: the interface that will be shown, and one end of a way. Writer and reader:
/// these programs. Full: the oldest go, and what they were about comes from the interface that is shown.
#[btf_map]
pub static CAME_THROUGH: LruHashMap<u64, [u32; 2], 8192> = LruHashMap::new();

/// Under which interface the kernel shows what comes in on another one.
///
/// Key: index of a port of a VRF, or of a VLAN on a bridge; value: the VRF, or the bridge. Writer: userspace, before
/// anything is counted. Reader: these programs. Full: the rest is from the interface that is shown.
#[btf_map]
pub static SHOWN_AS: HashMap<u32, u32, 4096> = HashMap::new();

/// Packets that an ifb has: it sends them again.
///
/// Key: the address of the buffer; value: nothing. Writer and reader: these programs. Full: the oldest go.
#[btf_map]
pub static SENT_AGAIN: LruHashMap<u64, u32, 4096> = LruHashMap::new();

/// Packets that a busy device gave back, which is asked again. The packet may have left its way by then.
///
/// Key: the address of the buffer; value: the packet. Writer and reader: these programs. Full: the oldest go.
#[btf_map]
pub static GIVEN_BACK: LruHashMap<u64, Handed, 1024> = LruHashMap::new();

/// A packet, and its way.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Handed {
    /// Addresses of buffer and device; 0 for an empty place.
    pub buffer: u64,
    pub device: u64,
    /// Whether the kernel dropped the packet while it was at this device.
    pub is_dropped: u64,
    pub key: PathKey,
    pub tally: PathTally,
}
