//! The values that the kernel program adds to, and their bases.

use core::mem::{offset_of, size_of};

use crate::{DIRECTIONS, FAMILIES, FAULT_PLACES, Tally};

/// Columns of a [`ClassBlock`].
pub const BLOCK_COLUMNS: u32 = 16;

/// One container's traffic of [`BLOCK_COLUMNS`] classes: the element of the counter map.
///
/// The classes of a family and direction lie together, so few cache lines hold what a container sends or
/// receives. A container's first block is found without its packet's class, which is known late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ClassBlock {
    /// Indexed by [`Family`](crate::Family), then by [`Direction`](crate::Direction), then by column.
    pub tallies: [[[Tally; BLOCK_COLUMNS as usize]; DIRECTIONS]; FAMILIES],
}

/// Blocks of a container that has this many columns.
#[inline(always)]
pub const fn blocks_of(columns: u32) -> u32 {
    columns.div_ceil(BLOCK_COLUMNS)
}

/// One container's traffic of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ClassCounters {
    /// Indexed by [`Family`](crate::Family), then by [`Direction`](crate::Direction).
    pub tallies: [[Tally; DIRECTIONS]; FAMILIES],
}

/// Everything that passed an interface in one direction, whether it is in a class or a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Passed {
    /// As on the wire; equals the sum of class and fault counters.
    pub wire: Tally,
    /// Socket buffers. Comparable with the kernel's packet statistics of the interface.
    pub skbs: u64,
    /// Bytes of these buffers with the link-layer header. Comparable with the kernel's byte statistics of the
    /// interface.
    pub skb_bytes: u64,
}

/// Everything that passed one interface, one cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct InterfaceCounters {
    /// Indexed by [`Direction`](crate::Direction).
    pub passed: [Passed; DIRECTIONS],
}

/// The counters of one interface that are rarely touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FaultCounters {
    /// Indexed by [`Direction`](crate::Direction), then by [`Fault`](crate::Fault).
    pub faults: [[Tally; FAULT_PLACES]; DIRECTIONS],
    /// Indexed by [`Direction`](crate::Direction): packets whose size on the wire came from the plain rule,
    /// because the kernel's segmentation type is unknown or could not be read. They *are* in a class or fault
    /// counter as well.
    pub estimated: [Tally; DIRECTIONS],
}

const _: () = {
    assert!(size_of::<Tally>() == 16);
    assert!(size_of::<ClassCounters>() == 64);
    assert!(size_of::<ClassBlock>() == BLOCK_COLUMNS as usize * size_of::<ClassCounters>());
    assert!(size_of::<Passed>() == 32);
    assert!(offset_of!(Passed, skbs) == 16);
    assert!(offset_of!(Passed, skb_bytes) == 24);
    assert!(size_of::<InterfaceCounters>() == 64);
    assert!(size_of::<FaultCounters>() == 2 * 16 * 16 + 2 * 16);
    assert!(offset_of!(FaultCounters, estimated) == 512);
};
