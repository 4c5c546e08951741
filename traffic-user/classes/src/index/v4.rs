//! The IPv4 index, with a field for each /24, and the chunks of the /24s that have several columns.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use traffic_common::{
    INDEX_V4_LINE, LINE_WORDS, NARROW_CHUNK, NARROW_CHUNK_LINES, NARROW_FIELDS, WIDE_CHUNK, WIDE_CHUNK_LINES,
    WIDE_FIELDS,
};

use super::{LineBuffer, NO_CLASS, Row, TooLarge, set_field};

const INDEXED_BITS: u8 = 24;
const CHUNK_COLUMNS: usize = 1 << (32 - INDEXED_BITS);

/// Adds the index and the chunks. The lines before the index stay zero.
pub(super) fn build(lines: &mut LineBuffer, rows: &[Row<Ipv4Net>], is_wide: bool) -> Result<(), TooLarge> {
    let Painted { columns, chunks } = Painted::new(rows);
    let (fields, bits, chunk_lines) = match is_wide {
        true => (WIDE_FIELDS as usize, 8, WIDE_CHUNK_LINES as usize),
        false => (NARROW_FIELDS as usize, 4, NARROW_CHUNK_LINES as usize),
    };
    #[expect(clippy::cast_possible_truncation, reason = "4 or 8 bits")]
    let in_chunk = if is_wide { WIDE_CHUNK } else { NARROW_CHUNK } as u8;

    lines.add(INDEX_V4_LINE as usize)?;
    let first = lines.add(columns.len().div_ceil(fields))?;
    let mut chunk = lines.add(chunks.len() * chunk_lines)?;
    let mut chunks = chunks.iter().peekable();
    let (mut before, mut packed): (&[u8], _) = (&[], [0; LINE_WORDS]);
    for ((number, of_line), at) in (first..).zip(columns.chunks(fields)).zip((0..).step_by(fields)) {
        // Much of the address space is alike.
        if before != of_line {
            packed = [0; LINE_WORDS];
            for (field, column) in of_line.iter().enumerate() {
                set_field(&mut packed, bits, field, *column);
            }
            before = of_line;
        }
        *lines.line(number) = packed;
        if chunks.peek().is_some_and(|(prefix, _)| **prefix < at + fields) {
            lines.line(number)[7] |= u64::from(chunk) << 32;
        }
        while let Some((&prefix, columns)) = chunks.next_if(|(prefix, _)| **prefix < at + fields) {
            set_field(lines.line(number), bits, prefix - at, in_chunk);
            let words = lines.lines[chunk as usize..][..chunk_lines].as_flattened_mut();
            for (field, column) in columns.iter().enumerate() {
                set_field(words, bits, field, *column);
            }
            chunk += if is_wide { WIDE_CHUNK_LINES } else { NARROW_CHUNK_LINES };
        }
    }
    Ok(())
}

/// The column of each /24, and of each address in those /24s that have several.
struct Painted {
    columns: Vec<u8>,
    chunks: BTreeMap<usize, [u8; CHUNK_COLUMNS]>,
}

impl Painted {
    /// An enclosing prefix comes before those inside it, so each row overwrites what it decides.
    fn new(rows: &[Row<Ipv4Net>]) -> Self {
        let mut columns = vec![NO_CLASS; 1 << INDEXED_BITS];
        let mut chunks = BTreeMap::new();
        for &(prefix, column) in rows {
            let network = prefix.network().to_bits() as usize;
            let first = network / CHUNK_COLUMNS;
            if let Some(free) = INDEXED_BITS.checked_sub(prefix.prefix_len()) {
                columns[first..first + (1 << free)].fill(column);
            } else {
                let chunk = chunks.entry(first).or_insert_with(|| [columns[first]; CHUNK_COLUMNS]);
                let free = prefix.max_prefix_len() - prefix.prefix_len();
                chunk[network % CHUNK_COLUMNS..][..1 << free].fill(column);
            }
        }
        // Longer prefixes of one class need no chunk.
        chunks.retain(|&first, chunk| {
            columns[first] = chunk[0];
            chunk.iter().any(|column| *column != chunk[0])
        });
        Self { columns, chunks }
    }
}
