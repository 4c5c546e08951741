//! The IPv4 index, with a field for each /24, and the chunks of the /24s that have several columns.

use ipnet::Ipv4Net;
use traffic_common::{
    INDEX_V4_LINE, LINE_WORDS, NARROW_CHUNK, NARROW_CHUNK_LINES, NARROW_FIELDS, WIDE_CHUNK, WIDE_CHUNK_LINES,
    WIDE_FIELDS,
};

use super::{LineBuffer, NO_CLASS, Row, TooLarge, set_field};

const INDEXED_BITS: u8 = 24;
/// How many prefixes the index has.
const INDEXED: usize = 1 << INDEXED_BITS;
const CHUNK_COLUMNS: usize = 1 << (32 - INDEXED_BITS);
/// The column of each address in a /24.
type Chunk = [u8; CHUNK_COLUMNS];

/// Adds the index and the chunks. The lines before the index stay zero.
pub(super) fn build(lines: &mut LineBuffer, rows: &[Row<Ipv4Net>], is_wide: bool) -> Result<(), TooLarge> {
    let (fields, bits, chunk_lines) = match is_wide {
        true => (WIDE_FIELDS as usize, 8, WIDE_CHUNK_LINES),
        false => (NARROW_FIELDS as usize, 4, NARROW_CHUNK_LINES),
    };
    #[expect(clippy::cast_possible_truncation, reason = "4 or 8 bits")]
    let in_chunk = if is_wide { WIDE_CHUNK } else { NARROW_CHUNK } as u8;

    lines.add(INDEX_V4_LINE as usize)?;
    let first = lines.add(INDEXED.div_ceil(fields))?;
    let next = lines.lines.len();
    let mut columns = vec![NO_CLASS; INDEXED];
    let with_chunk = paint(rows, &mut columns, |columns| {
        let chunk = lines.add(chunk_lines as usize)?;
        pack(columns, bits, lines.lines[chunk as usize..].as_flattened_mut());
        Ok(())
    })?;
    let mut chunk = u32::try_from(next).map_err(|_| TooLarge { lines: next })?;
    let mut with_chunk = with_chunk.into_iter().peekable();
    let (mut before, mut packed): (&[u8], _) = (&[], [0; LINE_WORDS]);
    for ((number, of_line), at) in (first..).zip(columns.chunks(fields)).zip((0..).step_by(fields)) {
        // Much of the address space is alike.
        if before != of_line {
            packed = [0; LINE_WORDS];
            pack(of_line, bits, &mut packed);
            before = of_line;
        }
        let line = lines.line(number);
        *line = packed;
        if with_chunk.peek().is_some_and(|prefix| *prefix < at + fields) {
            line[7] |= u64::from(chunk) << 32;
        }
        while let Some(prefix) = with_chunk.next_if(|prefix| *prefix < at + fields) {
            set_field(line, bits, prefix - at, in_chunk);
            chunk += chunk_lines;
        }
    }
    Ok(())
}

/// Writes the column of each /24 that has one, and passes on the columns of the addresses in each that has
/// several, in order. Returns the numbers of the latter.
///
/// An enclosing prefix comes before those inside it, so each row overwrites what it decides, and the rows
/// inside a /24 are neighbours.
fn paint(
    rows: &[Row<Ipv4Net>],
    columns: &mut [u8],
    mut add: impl FnMut(&Chunk) -> Result<(), TooLarge>,
) -> Result<Vec<usize>, TooLarge> {
    let mut with_chunk = Vec::new();
    let mut end = |number: usize, chunk: Chunk, columns: &mut [u8]| {
        columns[number] = chunk[0];
        // Longer prefixes of one class need no chunk.
        if chunk.iter().any(|column| *column != chunk[0]) {
            with_chunk.push(number);
            add(&chunk)?;
        }
        Ok(())
    };
    let mut open: Option<(usize, Chunk)> = None;
    for &(prefix, column) in rows {
        let network = prefix.network().to_bits() as usize;
        let first = network / CHUNK_COLUMNS;
        if let Some((number, chunk)) = open.take_if(|(number, _)| *number != first) {
            end(number, chunk, columns)?;
        }
        if let Some(free) = INDEXED_BITS.checked_sub(prefix.prefix_len()) {
            columns[first..first + (1 << free)].fill(column);
        } else {
            let (_, chunk) = open.get_or_insert_with(|| (first, [columns[first]; CHUNK_COLUMNS]));
            let free = prefix.max_prefix_len() - prefix.prefix_len();
            chunk[network % CHUNK_COLUMNS..][..1 << free].fill(column);
        }
    }
    if let Some((number, chunk)) = open {
        end(number, chunk, columns)?;
    }
    Ok(with_chunk)
}

/// Writes columns of some bits each into consecutive words.
fn pack(columns: &[u8], bits: usize, words: &mut [u64]) {
    for (word, columns) in words.iter_mut().zip(columns.chunks(64 / bits)) {
        *word = columns.iter().rev().fold(0, |word, column| word << bits | u64::from(*column));
    }
}
