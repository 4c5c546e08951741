//! Finds the column of a peer in the lines of a class table.
//!
//! The kernel program and the tests of the builder use the same functions. The layout is described in
//! [`crate::layout`].
//!
//! An IPv4 address needs one line of the index, which has a field for its /24. Where the field says so, the
//! /24 has a chunk of 256 columns. Chunks lie in the order of their /24s, so the number of the chunk is the
//! line's base plus the number of such fields before this one in the same line. No other line is read to find
//! it. An IPv6 address needs its entry in the root, which stays in the nearest caches, and usually two lines
//! more.

use crate::layout::{
    ENTRIES_PER_LINE, Entry, INDEX_V4_LINE, LINES_PER_ARRAY, Line, MAX_DEPTH_V6, NARROW_CHUNK,
    NARROW_CHUNK_LINES, NARROW_FIELDS, NARROW_NODE_BITS, NODE_ASK_ENTRY, ROOT_V6_BITS, ROOT_V6_LINE,
    WIDE_CHUNK, WIDE_CHUNK_LINES, WIDE_FIELDS, WIDE_NODE_BITS, entry_kind,
};

/// The lines of one class table.
pub trait Lines {
    /// The line of this number, or `None` if the table does not have it.
    #[inline(always)]
    fn line(&self, number: u32) -> Option<&Line> {
        let (array, within) = array_of(number);
        self.line_of(array, within)
    }

    /// The line of this number within this array, or `None` if the table does not have it.
    fn line_of(&self, array: u32, within: u32) -> Option<&Line>;
}

/// The inner array of a line, and the line's number within it.
#[inline(always)]
pub const fn array_of(line: u32) -> (u32, u32) {
    // BPF has no multiplication whose upper half is kept, so the compiler would divide.
    let array = low((line as u64 * RECIPROCAL_ARRAY) >> 32);
    (array, line - array * LINES_PER_ARRAY)
}

const RECIPROCAL_ARRAY: u64 = (1 << 32) / LINES_PER_ARRAY as u64 + 1;

/// A /24's line within the index, and its field within the line.
#[inline(always)]
const fn field_of(prefix: u32, fields: u32) -> (u32, u32) {
    let line = low((prefix as u64 * ((1 << 35) / fields as u64 + 1)) >> 35);
    (line, prefix - line * fields)
}

/// The line of a /24 in the index, as its inner array and its number there, and the field within the line.
///
/// The array is computed from the prefix, not from the line, because its address is what the processor waits
/// for next.
#[inline(always)]
const fn index_v4_of(prefix: u32, fields: u32) -> (u32, u32, u32) {
    let (line, field) = field_of(prefix, fields);
    let per_array = fields * LINES_PER_ARRAY;
    let array = low((prefix as u64 * ((1 << 40) / per_array as u64 + 1)) >> 40);
    (INDEX_V4_LINE / LINES_PER_ARRAY + array, line - array * LINES_PER_ARRAY, field)
}

/// The column of an IPv4 peer, given in host byte order. `None` if a line is missing.
#[inline(always)]
pub fn column_v4(lines: &impl Lines, is_wide: bool, peer: u32) -> Option<u32> {
    if is_wide { wide_v4(lines, peer) } else { narrow_v4(lines, peer) }
}

#[inline(always)]
fn narrow_v4(lines: &impl Lines, peer: u32) -> Option<u32> {
    let (array, within, field) = index_v4_of(peer >> 8, NARROW_FIELDS);
    let line = lines.line_of(array, within)?;
    let (word, shift) = ((field >> 4 & 7) as usize, (field & 15) * 4);
    let column = line[word] >> shift & NARROW_CHUNK;
    if column != NARROW_CHUNK {
        return Some(low(column));
    }
    // One bit for each field that has a chunk; those from this field on are cut off.
    let ones = |fields: u64| {
        let pairs = fields & fields >> 1;
        pairs & pairs >> 2 & 0x1111_1111_1111_1111
    };
    let mut before = ones(line[word]) & ((1 << shift) - 1);
    for (earlier, fields) in line.iter().enumerate().take(7) {
        before += ones(*fields) & mask_if(earlier < word);
    }
    let bytes = (before & LOW_FIELDS) + (before >> 4 & LOW_FIELDS);
    let rank = low(bytes.wrapping_mul(0x0101_0101_0101_0101) >> 56);
    let chunk = low(line[7] >> 32) + rank * NARROW_CHUNK_LINES;
    let line = lines.line(chunk + (peer >> 7 & 1))?;
    Some(low(line[(peer >> 4 & 7) as usize] >> ((peer & 15) * 4) & 0xf))
}

const LOW_FIELDS: u64 = 0x0f0f_0f0f_0f0f_0f0f;

#[inline(always)]
fn wide_v4(lines: &impl Lines, peer: u32) -> Option<u32> {
    let (array, within, field) = index_v4_of(peer >> 8, WIDE_FIELDS);
    let line = lines.line_of(array, within)?;
    let (word, shift) = ((field >> 3 & 7) as usize, (field & 7) * 8);
    let column = line[word] >> shift & WIDE_CHUNK;
    if column != WIDE_CHUNK {
        return Some(low(column));
    }
    let ones = |fields: u64| {
        let pairs = fields & fields >> 1;
        let fours = pairs & pairs >> 2;
        fours & fours >> 4 & 0x0101_0101_0101_0101
    };
    let mut before = ones(line[word]) & ((1 << shift) - 1);
    for (earlier, fields) in line.iter().enumerate().take(7) {
        before += ones(*fields) & mask_if(earlier < word);
    }
    let rank = low(before.wrapping_mul(0x0101_0101_0101_0101) >> 56);
    let chunk = low(line[7] >> 32) + rank * WIDE_CHUNK_LINES;
    let line = lines.line(chunk + (peer >> 6 & 3))?;
    Some(low(line[(peer >> 3 & 7) as usize] >> ((peer & 7) * 8) & 0xff))
}

/// The column of an IPv6 peer. `None` if a line is missing.
#[inline(always)]
pub fn column_v6(lines: &impl Lines, peer: [u8; 16]) -> Option<u32> {
    let [a, b, c, d, e, f, g, h, lower @ ..] = peer;
    let upper = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let mut rest = Rest { upper, lower: u64::from_be_bytes(lower) };
    let mut entry = entry_at(lines, ROOT_V6_LINE, low(rest.upper >> (64 - ROOT_V6_BITS)))?;
    rest.skip(ROOT_V6_BITS);
    for _ in 0..MAX_DEPTH_V6 {
        let kind = entry.kind();
        if kind == entry_kind::COLUMN {
            return Some(entry.0 & 0xff);
        }
        if kind == entry_kind::TABLE {
            let bits = entry.bits();
            entry = entry_at(lines, entry.line(), low(rest.upper >> ((64 - bits) & 63)))?;
            rest.skip(bits);
            continue;
        }
        let line = lines.line(entry.line())?;
        if kind == entry_kind::NARROW_NODE {
            let byte = 40 + narrow_child(line, rest.upper);
            return Some(low(line[(byte >> 3 & 7) as usize] >> ((byte & 7) * 8) & 0xff));
        }
        let child = wide_child(line, rest.upper);
        let column = line[6] >> ((child & 7) * 8) & 0xff;
        if column != NODE_ASK_ENTRY as u64 {
            return Some(low(column));
        }
        entry = entry_at(lines, low(line[7] >> 32), child)?;
        rest.skip(WIDE_NODE_BITS);
    }
    None
}

/// The bits of an address that were not used yet, the next one uppermost.
struct Rest {
    upper: u64,
    lower: u64,
}

impl Rest {
    /// Drops 1 to 63 bits.
    #[inline(always)]
    fn skip(&mut self, bits: u32) {
        self.upper = (self.upper << (bits & 63)) | (self.lower >> ((64 - bits) & 63));
        self.lower <<= bits & 63;
    }
}

#[inline(always)]
fn entry_at(lines: &impl Lines, first_line: u32, index: u32) -> Option<Entry> {
    let line = lines.line(first_line + index / ENTRIES_PER_LINE)?;
    Some(Entry(low(line[(index >> 1 & 7) as usize] >> ((index & 1) * 32) & 0xffff_ffff)))
}

/// The child of a narrow node for the next bits: the number of starts that are not above them. Four are
/// compared at once, each in 16 bits whose uppermost bit stays set if the start is not above.
#[inline(always)]
fn narrow_child(line: &Line, rest: u64) -> u32 {
    const UPPERMOST: u64 = 0x8000_8000_8000_8000;
    const ONES: u64 = 0x0001_0001_0001_0001;
    let key = (rest >> (64 - NARROW_NODE_BITS)).wrapping_mul(ONES) | UPPERMOST;
    let mut counts = 0;
    for starts in &line[..5] {
        counts += (key.wrapping_sub(*starts) & UPPERMOST) >> 15;
    }
    low(counts.wrapping_mul(ONES) >> 48)
}

/// The child of a wide node for the next bits.
#[inline(always)]
fn wide_child(line: &Line, rest: u64) -> u32 {
    let key = rest >> 1;
    let mut child = 6;
    for start in &line[..6] {
        // Both are below 2^63, so the sign of the difference is the comparison. A missing child's start is
        // 2^63, which leaves the sign of the difference set as well.
        child -= key.wrapping_sub(*start) >> 63;
    }
    low(child)
}

#[inline(always)]
const fn mask_if(condition: bool) -> u64 {
    (condition as u64).wrapping_neg()
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "callers pass 32 bits")]
const fn low(value: u64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::ARRAYS_PER_TABLE;

    #[test]
    fn multiplication_divides_every_line_number() {
        for line in 0..ARRAYS_PER_TABLE * LINES_PER_ARRAY {
            assert_eq!(array_of(line), (line / LINES_PER_ARRAY, line % LINES_PER_ARRAY));
        }
    }

    #[test]
    fn multiplication_divides_every_prefix() {
        for fields in [NARROW_FIELDS, WIDE_FIELDS] {
            for prefix in 0..1 << 24 {
                let (line, field) = (INDEX_V4_LINE + prefix / fields, prefix % fields);
                let expected = (line / LINES_PER_ARRAY, line % LINES_PER_ARRAY, field);
                assert_eq!(index_v4_of(prefix, fields), expected);
            }
        }
    }
}
