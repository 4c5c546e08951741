//! How the kernel program finds the column of a peer: the active table, the indexes in front of the tries,
//! and the search trees behind the IPv6 index.
//!
//! `traffic-classes` builds the indexes; the kernel program's `classify` module reads them.

use core::mem::{offset_of, size_of};

/// Most columns that a set of counters can have: classes 0 to 254.
pub const MAX_COLUMNS: u32 = 255;
/// The column of class 0, which exists in every table: a peer that matches no prefix is in class 0.
pub const CLASS_ZERO_COLUMN: u32 = 0;
/// An index entry of this value sends the packet to the trie, because longer prefixes lie there. Other values
/// are columns.
pub const INDEX_ASK_TRIE: u8 = u8::MAX;

/// Blocks of the IPv4 index. A block has 64 bytes, because the kernel pads a smaller element to 8 bytes.
pub const INDEX_V4_BLOCKS: u32 = 1 << 18;
/// Bytes of a block of the IPv4 index, one for each /24.
pub const INDEX_V4_BLOCK_BYTES: usize = 64;
/// Bits of a /24 that select the byte within its block.
pub const INDEX_V4_BLOCK_BITS: u32 = 6;

/// The first three bits of 2000::/3, the space that the IPv6 index covers. Other addresses go to the trie.
pub const INDEX_V6_SPACE: u64 = 0b001;
/// Bits of an address that the IPv6 index knows: the upper 64 less the first three.
pub const INDEX_V6_BITS: u32 = 61;
/// The upper part of these bits, which selects an entry: one entry for each /25.
pub const INDEX_V6_ENTRY_BITS: u32 = 22;
/// Blocks of the IPv6 index.
pub const INDEX_V6_BLOCKS: u32 = 1 << 18;
/// Entries of a block of the IPv6 index, which fills a cache line.
pub const INDEX_V6_BLOCK_ENTRIES: usize = 16;
/// From this bit on, an entry of the IPv6 index holds the height of a search tree; the lower bits number its
/// root. With height 0 there is no tree, and the entry is a column or [`INDEX_ASK_TRIE`].
pub const INDEX_V6_HEIGHT_SHIFT: u32 = 28;
/// Greatest height of a search tree. Eight levels of eight children hold more ranges than fit into memory.
pub const INDEX_V6_MAX_HEIGHT: u32 = 8;
/// Children of a node of a search tree. The children of a leaf are ranges.
pub const RANGE_NODE_CHILDREN: usize = 8;

/// Which of the two class tables is in force. Read once per packet, so that a packet never sees parts of
/// both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// 0 or 1: the index into each map of class tables.
    pub active_table: u32,
    /// Number of columns that a container has in the counter map.
    pub columns: u32,
}

/// A node of the search trees behind the IPv6 index, one cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RangeNode {
    /// First address of every child but the first, ascending, in [`INDEX_V6_BITS`] bits.
    /// [`RangeNode::NO_CHILD`] where there are fewer children.
    pub starts: [u64; RANGE_NODE_CHILDREN - 1],
    /// In a leaf: the column of each child (or [`INDEX_ASK_TRIE`]), one byte each, the first in the lowest
    /// byte. In an inner node: the number of the first child; the others follow it.
    pub children: u64,
}

impl RangeNode {
    /// A start above every address: there is no such child.
    pub const NO_CHILD: u64 = 1 << 62;

    /// The number of the child that an address of [`INDEX_V6_BITS`] bits belongs to.
    #[inline(always)]
    pub fn child(&self, address: u64) -> u32 {
        // Both numbers are below 2^63, so the sign of the difference is the comparison, without a branch.
        let mut child = RANGE_NODE_CHILDREN as u64 - 1;
        for start in self.starts {
            child -= address.wrapping_sub(start) >> 63;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most seven")]
        return child as u32;
    }

    /// The value of a leaf's child: a column or [`INDEX_ASK_TRIE`].
    #[inline(always)]
    pub fn column(&self, child: u32) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "one byte of it")]
        return (self.children >> (child * 8)) as u32 & 0xff;
    }
}

const _: () = {
    assert!(size_of::<Control>() == 8);
    assert!(size_of::<RangeNode>() == 64);
    assert!(offset_of!(RangeNode, children) == 56);
    assert!(INDEX_V4_BLOCK_BYTES == 1 << INDEX_V4_BLOCK_BITS);
    assert!(INDEX_V4_BLOCKS as usize * INDEX_V4_BLOCK_BYTES == 1 << 24);
    assert!(INDEX_V6_BLOCKS as usize * INDEX_V6_BLOCK_ENTRIES == 1 << INDEX_V6_ENTRY_BITS);
    assert!(MAX_COLUMNS <= INDEX_ASK_TRIE as u32);
};
