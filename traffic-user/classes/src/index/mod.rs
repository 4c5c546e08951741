//! Builds the lines of a class table, in which the kernel program finds a peer's column.
//!
//! | file | owns |
//! |---|---|
//! | this one | the lines of both families, and the whole table |
//! | `v4` | the IPv4 index and its chunks |
//! | `v6` | the IPv6 root, nodes and tables of entries |
//!
//! Rows are (prefix, column), sorted by (network, prefix length) as in [`ClassTable`](crate::ClassTable), so
//! an enclosing prefix precedes those inside it. The longest prefix decides. The layout is defined in
//! `traffic_common::layout`, and `traffic_common::lookup` reads it.

#[cfg(test)]
mod tests;
mod v4;
mod v6;

use std::collections::HashMap;

use ipnet::{Ipv4Net, Ipv6Net};
use traffic_common::{
    ARRAYS_PER_TABLE, CLASS_ZERO_COLUMN, LINE_WORDS, LINES_PER_ARRAY, Line, NARROW_COLUMNS, lookup,
};

/// A prefix and the column of its class.
pub type Row<N> = (N, u8);

#[expect(clippy::cast_possible_truncation, reason = "zero")]
const NO_CLASS: u8 = CLASS_ZERO_COLUMN as u8;

/// Most lines of a table.
const MOST_LINES: usize = (ARRAYS_PER_TABLE * LINES_PER_ARRAY) as usize;

/// A class table needs more room than the kernel's maps have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the class table needs {lines} lines or more, and the kernel's maps hold {MOST_LINES}; use fewer long prefixes"
)]
pub struct TooLarge {
    /// Lines that the table would have, at least.
    pub lines: usize,
}

/// A class table as the kernel program reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledTable {
    /// Whether the IPv4 index has 8 bits for each /24, and not 4.
    pub is_wide: bool,
    /// All lines.
    pub lines: Vec<Line>,
}

impl CompiledTable {
    /// Builds the lines of a table.
    ///
    /// # Errors
    /// [`TooLarge`] for a table whose prefixes need more lines than the kernel's maps can hold.
    pub fn new(v4: &[Row<Ipv4Net>], v6: &[Row<Ipv6Net>]) -> Result<Self, TooLarge> {
        let columns = v4.iter().map(|row| row.1).chain(v6.iter().map(|row| row.1));
        let is_wide = u32::from(columns.max().unwrap_or(NO_CLASS)) >= NARROW_COLUMNS;
        let mut lines = LineBuffer::default();
        v4::build(&mut lines, v4, is_wide)?;
        v6::build(&mut lines, v6)?;
        Ok(Self { is_wide, lines: lines.lines })
    }

    /// The inner arrays of the table, the last one shorter than the others.
    pub fn arrays(&self) -> impl ExactSizeIterator<Item = &[Line]> {
        self.lines.chunks(LINES_PER_ARRAY as usize)
    }

    /// The arrays with different contents. Much of the address space is alike, and such arrays can share one
    /// map.
    pub fn distinct_arrays(&self) -> DistinctArrays<'_> {
        let mut known: HashMap<u64, Vec<usize>> = HashMap::new();
        let mut arrays: Vec<&[Line]> = Vec::new();
        let places = self
            .arrays()
            .map(|array| {
                let alike = known.entry(digest(array)).or_default();
                alike.iter().copied().find(|&number| arrays[number] == array).unwrap_or_else(|| {
                    arrays.push(array);
                    alike.push(arrays.len() - 1);
                    arrays.len() - 1
                })
            })
            .collect();
        DistinctArrays { arrays, places }
    }

    /// Looks up an IPv4 address as the kernel program does.
    pub fn column_v4(&self, peer: std::net::Ipv4Addr) -> Option<u32> {
        lookup::column_v4(self, self.is_wide, peer.to_bits())
    }

    /// Looks up an IPv6 address as the kernel program does.
    pub fn column_v6(&self, peer: std::net::Ipv6Addr) -> Option<u32> {
        lookup::column_v6(self, peer.octets())
    }
}

/// A number that is the same for equal arrays, and differs for nearly all others. The standard hash takes as long
/// as all else that is done with the lines.
fn digest(array: &[Line]) -> u64 {
    /// An odd number without a pattern: that of the golden ratio.
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    array.as_flattened().iter().fold(0, |sum: u64, word| (sum ^ word).wrapping_mul(MIX).rotate_left(23))
}

impl lookup::Lines for CompiledTable {
    fn line_of(&self, array: u32, within: u32) -> Option<&Line> {
        self.lines.get((array * LINES_PER_ARRAY + within) as usize)
    }
}

/// The inner arrays of a table without repetitions.
#[derive(Debug)]
pub struct DistinctArrays<'t> {
    /// Arrays that all differ.
    pub arrays: Vec<&'t [Line]>,
    /// For each inner array of the table, its number among them.
    pub places: Vec<usize>,
}

/// The lines built so far.
#[derive(Debug, Default)]
struct LineBuffer {
    lines: Vec<Line>,
}

impl LineBuffer {
    /// Adds lines of zeros, and returns the number of the first.
    fn add(&mut self, count: usize) -> Result<u32, TooLarge> {
        let first = self.lines.len();
        let lines = first + count;
        match u32::try_from(first) {
            Ok(first) if lines <= MOST_LINES => {
                self.lines.resize(lines, [0; LINE_WORDS]);
                Ok(first)
            }
            _ => Err(TooLarge { lines }),
        }
    }

    fn line(&mut self, number: u32) -> &mut Line {
        &mut self.lines[number as usize]
    }
}

/// Writes a field of some bits into consecutive words.
fn set_field(words: &mut [u64], bits: usize, field: usize, value: u8) {
    let per_word = 64 / bits;
    let shift = field % per_word * bits;
    let word = &mut words[field / per_word];
    *word &= !(((1 << bits) - 1) << shift);
    *word |= u64::from(value) << shift;
}
