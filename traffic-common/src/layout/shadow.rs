//! The shadow class table: what counts beside the table in force, and the description of it.
//!
//! A shadow is not a second class table but an overlay of two: its columns are *pairs*, of the class in force and the
//! class that a packet would have. So one lookup and one counter say both.

use core::mem::{offset_of, size_of};

/// Version of [`ShadowRecord`] and of the maps that it describes. A shadow of another version begins anew.
pub const SHADOW_VERSION: u32 = 1;
/// Most pairs of classes that a shadow has: as many as a table has columns.
pub const MOST_PAIRS: u32 = super::MAX_COLUMNS;
/// Blocks of an inner array of counters. All are of one size, because the verifier may inline a lookup with the size
/// that it knows.
pub const SHADOW_BLOCKS: u32 = 64;
/// Most inner arrays of counters.
pub const SHADOW_ARRAYS: u32 = 16_384;

/// How the program finds a packet's pair and its counter. Written before [`TableWord::has_shadow`] is set, and not
/// changed before every program has ended that saw it set.
///
/// [`TableWord::has_shadow`]: super::TableWord::has_shadow
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ShadowControl {
    /// A [`TableWord`](super::TableWord) in place 0: how to read the lines.
    pub table: u32,
    /// Pairs that a container has counters for.
    pub pairs: u32,
}

/// What the shadow that is counted in the maps is. Written and read by userspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ShadowRecord {
    /// [`SHADOW_VERSION`] of the writer. First, so that every version can read it.
    pub version: u32,
    /// Number of pairs.
    pub pairs: u32,
    /// Container slots that have counters.
    pub container_slots: u32,
    /// Zero.
    pub reserved: u32,
    /// The set of counters beside which it counts.
    pub epoch: u64,
    /// When it began, in seconds since the Unix epoch.
    pub since_unix_s: u64,
    /// SHA-256 that names the class table in force.
    pub table_hash: [u8; 32],
    /// SHA-256 that names the class table in the shadow.
    pub shadow_hash: [u8; 32],
    /// SHA-256 of the class file in the shadow.
    pub file_hash: [u8; 32],
    /// Of each pair, the class in force and the class in the shadow. Only the first [`ShadowRecord::pairs`] are
    /// valid.
    pub classes: [[u8; 2]; 256],
}

const _: () = {
    assert!(size_of::<ShadowControl>() == 8);
    assert!(size_of::<ShadowRecord>() == 640);
    assert!(offset_of!(ShadowRecord, epoch) == 16);
    assert!(offset_of!(ShadowRecord, classes) == 128);
    assert!(MOST_PAIRS <= 256);
};
