//! How a compiled class table lies in the kernel: as a sequence of cache lines.
//!
//! The lines of a table have consecutive numbers, and 504 of them form the value of one inner array of
//! `CLASS_LINES`. Such an array is just below 32 KiB. The kernel allocates that from its direct map; larger
//! arrays are in pages of 4 KiB, and each packet would pay for the translation.
//!
//! | lines | content |
//! |---|---|
//! | from [`ROOT_V6_LINE`] | IPv6: an [`Entry`] for each /16 |
//! | from [`INDEX_V4_LINE`] | IPv4: the column of each /24, in 4 or 8 bits, and in each line a base |
//! | all others | IPv4 chunks, and IPv6 nodes and tables of entries |
//!
//! `traffic-classes` builds the lines; [`crate::lookup`] reads them, in the kernel program and in tests.

use core::mem::size_of;

/// Most columns that a set of counters can have: classes 0 to 254.
pub const MAX_COLUMNS: u32 = 255;
/// The column of class 0, which exists in every table: a peer that matches no prefix is in class 0.
pub const CLASS_ZERO_COLUMN: u32 = 0;

/// A line, in words.
pub type Line = [u64; LINE_WORDS];
/// Words of a line.
pub const LINE_WORDS: usize = 8;
/// Bytes of a line: a cache line of every supported processor.
pub const LINE_BYTES: usize = 64;
/// Lines of an inner array.
pub const LINES_PER_ARRAY: u32 = 504;
/// Words of an inner array: its lines, and room to begin at the start of a cache line.
pub const ARRAY_WORDS: usize = (LINES_PER_ARRAY as usize + 1) * LINE_WORDS;
/// Most inner arrays of one class table, about 1 GiB.
pub const ARRAYS_PER_TABLE: u32 = 32_768;

/// The first line of the IPv6 root.
pub const ROOT_V6_LINE: u32 = 0;
/// Bits of an IPv6 address that select its entry in the root.
pub const ROOT_V6_BITS: u32 = 16;
/// Entries of a line.
pub const ENTRIES_PER_LINE: u32 = 16;
/// The first line of the IPv4 index. It begins an inner array.
pub const INDEX_V4_LINE: u32 = 9 * LINES_PER_ARRAY;

/// Fields of a line of the narrow IPv4 index, of 4 bits each. The upper half of the last word is the base.
pub const NARROW_FIELDS: u32 = 120;
/// Most columns of a narrow table. The fifteenth value of a field is [`NARROW_CHUNK`].
pub const NARROW_COLUMNS: u32 = 15;
/// A narrow field of this value says that the /24 has several columns, which are in a chunk.
pub const NARROW_CHUNK: u64 = 0xf;
/// Lines of a chunk in a narrow table: 256 columns of 4 bits.
pub const NARROW_CHUNK_LINES: u32 = 2;
/// Fields of a line of the wide IPv4 index, of 8 bits each. The upper half of the last word is the base.
pub const WIDE_FIELDS: u32 = 60;
/// A wide field of this value says that the /24 has several columns, which are in a chunk.
pub const WIDE_CHUNK: u64 = 0xff;
/// Lines of a chunk in a wide table: 256 columns of 8 bits.
pub const WIDE_CHUNK_LINES: u32 = 4;

/// Which of the two class tables is in force. Read once per packet, so that a packet never sees parts of
/// both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// A [`TableWord`].
    pub active_table: u32,
    /// Number of columns that a container has in the counter map.
    pub columns: u32,
}

/// The place of a class table and how to read it, in one word: all of it changes together with the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableWord(pub u32);

impl TableWord {
    const WIDE: u32 = 1;
    const OFFSET_SHIFT: u32 = 1;
    const OFFSET_MASK: u32 = 7;
    const SHADOW: u32 = 1 << 4;
    const PLACE_MASK: u32 = !(ARRAYS_PER_TABLE - 1);

    /// The word for a table in place 0 or 1. The first line of each of its arrays begins at this word of the
    /// array's value, below [`LINE_WORDS`].
    pub const fn new(place: u32, is_wide: bool, offset_words: u32) -> Self {
        let width = if is_wide { Self::WIDE } else { 0 };
        let offset = (offset_words & Self::OFFSET_MASK) << Self::OFFSET_SHIFT;
        Self(((place & 1) * ARRAYS_PER_TABLE) | offset | width)
    }

    /// The place: 0 or 1.
    pub const fn place(self) -> u32 {
        self.0 / ARRAYS_PER_TABLE
    }

    /// The index of the table's first inner array.
    #[inline(always)]
    pub const fn first_array(self) -> u32 {
        self.0 & Self::PLACE_MASK
    }

    /// The word at which the lines of an array begin.
    ///
    /// The kernel's header of an array ends at an address that is no multiple of 64. Without this offset, a
    /// line would be in two cache lines.
    #[inline(always)]
    pub const fn offset_words(self) -> u32 {
        self.0 >> Self::OFFSET_SHIFT & Self::OFFSET_MASK
    }

    /// The same word, with or without a shadow table beside the table.
    ///
    /// In this word, so that a shadow never outlives the table that it was made for: whoever puts another table in
    /// force writes a word without it.
    #[must_use]
    pub const fn with_shadow(self, has_shadow: bool) -> Self {
        Self(if has_shadow { self.0 | Self::SHADOW } else { self.0 & !Self::SHADOW })
    }

    /// Whether packets are also counted under a shadow table.
    #[inline(always)]
    pub const fn has_shadow(self) -> bool {
        self.0 & Self::SHADOW != 0
    }

    /// Whether the fields of the IPv4 index have 8 bits.
    #[inline(always)]
    pub const fn is_wide(self) -> bool {
        self.0 & Self::WIDE != 0
    }
}

/// Where the lookup of an IPv6 address continues, in 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(pub u32);

/// What an [`Entry`] leads to.
pub mod entry_kind {
    /// The column, in the lowest byte.
    pub const COLUMN: u32 = 0;
    /// A table of entries, selected by the next bits of the address.
    pub const TABLE: u32 = 1;
    /// A node that compares the next [`NARROW_NODE_BITS`](super::NARROW_NODE_BITS) bits.
    pub const NARROW_NODE: u32 = 2;
    /// A node that compares the next [`WIDE_NODE_BITS`](super::WIDE_NODE_BITS) bits.
    pub const WIDE_NODE: u32 = 3;
}

/// Bits of the address that a narrow node compares. Its line has 20 starts of 16 bits each, then 21 columns.
pub const NARROW_NODE_BITS: u32 = 15;
/// Children of a narrow node.
pub const NARROW_NODE_CHILDREN: usize = 21;
/// The start of a child that a narrow node does not have.
pub const NARROW_NO_CHILD: u16 = 0x8000;
/// Bits of the address that a wide node compares. Its line has six starts, seven columns, and a line number
/// in the upper half of the last word.
pub const WIDE_NODE_BITS: u32 = 63;
/// Children of a wide node.
pub const WIDE_NODE_CHILDREN: usize = 7;
/// The start of a child that a wide node does not have.
pub const WIDE_NO_CHILD: u64 = 1 << 63;
/// In place of the column of a wide node's child: there are longer prefixes. The child's entry is in the line
/// whose number the node has.
pub const NODE_ASK_ENTRY: u8 = 0xff;
/// Most steps from the root to a column.
pub const MAX_DEPTH_V6: u32 = 24;

impl Entry {
    const KIND_SHIFT: u32 = 28;
    const BITS_SHIFT: u32 = 24;
    /// Most bits that select an entry of a table.
    pub const MAX_BITS: u32 = 15;
    /// Entries hold line numbers below this.
    pub const LINES: u32 = 1 << Self::BITS_SHIFT;

    /// The entry of a single column.
    pub const fn column(column: u8) -> Self {
        Self(column as u32)
    }

    /// The entry of a table that the next `bits` bits index.
    pub const fn table(bits: u32, line: u32) -> Self {
        Self(entry_kind::TABLE << Self::KIND_SHIFT | bits << Self::BITS_SHIFT | line)
    }

    /// The entry of a node.
    pub const fn node(kind: u32, line: u32) -> Self {
        Self(kind << Self::KIND_SHIFT | line)
    }

    /// One of [`entry_kind`].
    #[inline(always)]
    pub const fn kind(self) -> u32 {
        self.0 >> Self::KIND_SHIFT
    }

    /// The number of bits that index a table.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0 >> Self::BITS_SHIFT & Self::MAX_BITS
    }

    /// The number of a line.
    #[inline(always)]
    pub const fn line(self) -> u32 {
        self.0 & (Self::LINES - 1)
    }
}

const _: () = {
    assert!(size_of::<Control>() == 8);
    assert!(TableWord::OFFSET_MASK as usize == LINE_WORDS - 1);
    assert!(TableWord::SHADOW > TableWord::OFFSET_MASK << TableWord::OFFSET_SHIFT);
    assert!(TableWord::SHADOW & TableWord::PLACE_MASK == 0);
    assert!(size_of::<Line>() == LINE_BYTES);
    // With the kernel's header of about 320 bytes, an inner array fits into 32 KiB.
    assert!(ARRAY_WORDS * 8 + 448 <= 32 << 10);
    assert!(ARRAYS_PER_TABLE.is_power_of_two());
    assert!(ARRAYS_PER_TABLE * LINES_PER_ARRAY <= Entry::LINES);
    assert!(ROOT_V6_LINE + (1 << ROOT_V6_BITS) / ENTRIES_PER_LINE <= INDEX_V4_LINE);
    assert!(INDEX_V4_LINE.is_multiple_of(LINES_PER_ARRAY));
    assert!(MAX_COLUMNS <= NODE_ASK_ENTRY as u32);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_word_keeps_its_parts_apart() {
        for place in [0, 1] {
            for is_wide in [false, true] {
                for offset in 0..8 {
                    let word = TableWord::new(place, is_wide, offset);
                    assert_eq!((word.place(), word.is_wide(), word.offset_words()), (place, is_wide, offset));
                    assert_eq!(word.first_array(), place * ARRAYS_PER_TABLE);
                    let shadowed = word.with_shadow(true);
                    assert!(shadowed.has_shadow() && !word.has_shadow());
                    assert_eq!(shadowed.with_shadow(false), word);
                    let parts = (shadowed.place(), shadowed.is_wide(), shadowed.offset_words());
                    assert_eq!(parts, (place, is_wide, offset));
                    assert_eq!(shadowed.first_array(), word.first_array());
                }
            }
        }
    }

    #[test]
    fn an_entry_keeps_its_parts_apart() {
        let last = Entry::LINES - 1;
        let table = Entry::table(13, last);
        assert_eq!((table.kind(), table.bits(), table.line()), (entry_kind::TABLE, 13, last));
        let node = Entry::node(entry_kind::WIDE_NODE, last);
        assert_eq!((node.kind(), node.line()), (entry_kind::WIDE_NODE, last));
        assert_eq!(Entry::column(254).kind(), entry_kind::COLUMN);
    }
}
