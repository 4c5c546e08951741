//! The IPv6 root, and below it the nodes and tables of entries.
//!
//! A node holds a few ranges in one line. Where there are more ranges, a table of entries divides them by the
//! next bits of the address, as many bits as make nearly all parts fit into one line each. Tables are wide
//! where prefixes are dense, as in the blocks of the registries, so that few steps suffice.

use std::iter;

use ipnet::Ipv6Net;
use traffic_common::{
    ENTRIES_PER_LINE, Entry, NARROW_NO_CHILD, NARROW_NODE_BITS, NARROW_NODE_CHILDREN, NODE_ASK_ENTRY,
    ROOT_V6_BITS, ROOT_V6_LINE, WIDE_NO_CHILD, WIDE_NODE_BITS, WIDE_NODE_CHILDREN, entry_kind,
};

use super::{LineBuffer, NO_CLASS, Row, TooLarge, set_field};

const ADDRESS_BITS: u32 = u128::BITS;
/// Fewest bits of a table if a part of it needs more than one line. This limits the number of steps.
const LEAST_DIVIDING_BITS: u32 = 5;
/// A table has at most this many entries for each range in it.
const ENTRIES_PER_RANGE: usize = 8;

/// The addresses from `first` up to the next range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u128,
    column: u8,
}

/// The ranges that begin in an aligned block of addresses.
#[derive(Clone, Copy)]
struct Part<'r> {
    /// The first address.
    begin: u128,
    /// How many leading bits all addresses have in common.
    len: u32,
    /// The column at `begin`.
    column: u8,
    /// The ranges that begin later.
    later: &'r [Range],
}

/// Fills the root, and adds what it leads to.
pub(super) fn build(lines: &mut LineBuffer, rows: &[Row<Ipv6Net>]) -> Result<(), TooLarge> {
    let ranges = ranges(rows);
    let whole = Part { begin: 0, len: 0, column: ranges[0].column, later: &ranges[1..] };
    fill_table(lines, ROOT_V6_LINE, whole, ROOT_V6_BITS)
}

/// The rows as consecutive ranges of all addresses. Neighbours differ in their column.
fn ranges(rows: &[Row<Ipv6Net>]) -> Vec<Range> {
    let mut ranges = Vec::with_capacity(rows.len() * 2 + 1);
    // The prefixes around the current position, each with its last address.
    let mut around: Vec<(u128, u8)> = Vec::new();
    push(&mut ranges, Range { first: 0, column: NO_CLASS });
    for &(prefix, column) in rows {
        let first = prefix.network().to_bits();
        close_before(&mut around, &mut ranges, Some(first));
        push(&mut ranges, Range { first, column });
        around.push((prefix.broadcast().to_bits(), column));
    }
    close_before(&mut around, &mut ranges, None);
    ranges
}

/// Ends the prefixes that lie wholly before `position`; `None` is behind the last address. The enclosing
/// prefix's range continues there.
fn close_before(around: &mut Vec<(u128, u8)>, ranges: &mut Vec<Range>, position: Option<u128>) {
    while let Some(&(last, _)) = around.last()
        && position.is_none_or(|position| last < position)
    {
        around.pop();
        let column = around.last().map_or(NO_CLASS, |&(_, column)| column);
        if let Some(first) = last.checked_add(1) {
            push(ranges, Range { first, column });
        }
    }
}

fn push(ranges: &mut Vec<Range>, range: Range) {
    // A range that begins at the same address replaces the last one. One with the same column extends it.
    while ranges.last().is_some_and(|last| last.first == range.first) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|last| last.column != range.column) {
        ranges.push(range);
    }
}

impl<'r> Part<'r> {
    /// The parts into which the next bits divide this one.
    fn divided(self, bits: u32) -> impl Iterator<Item = Self> {
        let Self { begin, len, mut column, later: mut rest } = self;
        let len = len + bits;
        (0..1_u128 << bits).map(move |number| {
            let begin = begin | number << (ADDRESS_BITS - len);
            let last = begin | suffix(len);
            let (here, later) = rest.split_at(rest.partition_point(|range| range.first <= last));
            let (first, within) = match here.split_first() {
                Some((first, within)) if first.first == begin => (first.column, within),
                _ => (column, here),
            };
            column = here.last().map_or(first, |range| range.column);
            rest = later;
            Self { begin, len, column: first, later: within }
        })
    }

    /// The bits after `len` that decide among the ranges.
    fn deciding_bits(self) -> u32 {
        let longest = self.later.iter().map(|range| ADDRESS_BITS - range.first.trailing_zeros()).max();
        longest.unwrap_or(0).saturating_sub(self.len)
    }

    /// Whether a single node decides.
    fn fits_node(self) -> bool {
        let fits = |bits: u32, children: usize| self.later.len() < children && self.deciding_bits() <= bits;
        fits(NARROW_NODE_BITS, NARROW_NODE_CHILDREN) || fits(WIDE_NODE_BITS, WIDE_NODE_CHILDREN)
    }

    /// The number of bits by which a table divides this part, and how many ranges then need more than a node.
    fn dividing_bits(self) -> (u32, usize) {
        let most = (ADDRESS_BITS - self.len).min(Entry::MAX_BITS);
        let least = LEAST_DIVIDING_BITS.min(most);
        let dense = (self.later.len() * ENTRIES_PER_RANGE).ilog2().clamp(least, most);
        let mut best = (most, usize::MAX);
        for bits in 1..=dense {
            let unfit = self.unfit(bits);
            // A part that needs more steps is tolerable where it is rare.
            if unfit * 8 <= self.later.len() && (unfit == 0 || bits >= least) {
                return (bits, unfit);
            }
            // If all ranges have these bits in common, a larger table gets farther.
            let cheap = 1 << bits <= self.later.len();
            if bits >= least && (unfit < best.1 || unfit == best.1 && cheap) {
                best = (bits, unfit);
            }
        }
        best
    }

    /// The number of ranges in those parts that would need more than a node.
    fn unfit(self, bits: u32) -> usize {
        let len = self.len + bits;
        let same_part = |a: &Range, b: &Range| (a.first ^ b.first) >> (ADDRESS_BITS - len) == 0;
        let parts = self.later.chunk_by(same_part).map(|ranges| {
            let begin = ranges[0].first & !suffix(len);
            let later = if ranges[0].first == begin { &ranges[1..] } else { ranges };
            Part { begin, len, column: NO_CLASS, later }
        });
        parts.filter(|part| !part.fits_node()).map(|part| part.later.len()).sum()
    }
}

/// The addresses that a prefix of this length leaves open.
const fn suffix(len: u32) -> u128 {
    if len >= ADDRESS_BITS { 0 } else { u128::MAX >> len }
}

/// Adds what decides a part, and returns the entry that leads there.
fn add_part(lines: &mut LineBuffer, part: Part<'_>) -> Result<Entry, TooLarge> {
    if part.later.is_empty() {
        return Ok(Entry::column(part.column));
    }
    if let Some(node) = Node::narrow(part) {
        return node.add(lines);
    }
    let (bits, unfit) = part.dividing_bits();
    // A few ranges that are far down, such as those of single hosts, would take a long way through tables.
    if (part.fits_node() || unfit > 0)
        && let Some(node) = Node::wide(part)
    {
        return node.add(lines);
    }
    let table = lines.add((1_usize << bits).div_ceil(ENTRIES_PER_LINE as usize))?;
    fill_table(lines, table, part, bits)?;
    Ok(Entry::table(bits, table))
}

fn fill_table(lines: &mut LineBuffer, table: u32, part: Part<'_>, bits: u32) -> Result<(), TooLarge> {
    for (number, part) in (0..).zip(part.divided(bits)) {
        let entry = add_part(lines, part)?;
        set_entry(lines, table, number, entry);
    }
    Ok(())
}

fn set_entry(lines: &mut LineBuffer, first_line: u32, number: u32, entry: Entry) {
    let line = lines.line(first_line + number / ENTRIES_PER_LINE);
    line[(number % ENTRIES_PER_LINE / 2) as usize] |= u64::from(entry.0) << (number % 2 * 32);
}

/// A child of a node: the keys from `key` up to the next child.
struct Child<'r> {
    key: u64,
    column: u8,
    /// The part of this one key, if it has several columns.
    inside: Option<Part<'r>>,
}

/// A node before it has a line.
struct Node<'r> {
    kind: u32,
    children: Vec<Child<'r>>,
}

impl<'r> Node<'r> {
    /// A node that compares few bits. `None` if it would not decide the part alone.
    fn narrow(part: Part<'r>) -> Option<Self> {
        let children = children(part, NARROW_NODE_BITS, NARROW_NODE_CHILDREN)?;
        let decides = children.iter().all(|child| child.inside.is_none());
        decides.then_some(Self { kind: entry_kind::NARROW_NODE, children })
    }

    /// A node that compares many bits. It may lead to further parts of one key each. `None` if it would have
    /// too many children.
    fn wide(part: Part<'r>) -> Option<Self> {
        let children = children(part, WIDE_NODE_BITS, WIDE_NODE_CHILDREN)?;
        Some(Self { kind: entry_kind::WIDE_NODE, children })
    }

    fn add(self, lines: &mut LineBuffer) -> Result<Entry, TooLarge> {
        let Self { kind, children } = self;
        let number = lines.add(1)?;
        let starts = children.iter().skip(1).map(|child| child.key);
        if kind == entry_kind::NARROW_NODE {
            let line = lines.line(number);
            let all = starts.chain(iter::repeat(NARROW_NO_CHILD.into()));
            for (place, start) in all.take(NARROW_NODE_CHILDREN - 1).enumerate() {
                line[place / 4] |= start << (place % 4 * 16);
            }
            for (place, child) in children.iter().enumerate() {
                set_field(&mut line[5..], 8, place, child.column);
            }
            return Ok(Entry::node(kind, number));
        }
        let mut entries = None;
        for (place, child) in (0..).zip(&children) {
            if let Some(part) = child.inside {
                let entries = match entries {
                    Some(entries) => entries,
                    None => *entries.insert(lines.add(1)?),
                };
                let entry = add_part(lines, part)?;
                set_entry(lines, entries, place, entry);
            }
        }
        let line = lines.line(number);
        let all = starts.chain(iter::repeat(WIDE_NO_CHILD));
        for (place, start) in all.take(WIDE_NODE_CHILDREN - 1).enumerate() {
            line[place] = start;
        }
        for (place, child) in children.iter().enumerate() {
            let column = if child.inside.is_some() { NODE_ASK_ENTRY } else { child.column };
            set_field(&mut line[6..], 8, place, column);
        }
        line[7] = u64::from(entries.unwrap_or(0)) << 32;
        Ok(Entry::node(kind, number))
    }
}

/// The children of a node that compares this many bits. `None` if there are more than `most`.
fn children(part: Part<'_>, bits: u32, most: usize) -> Option<Vec<Child<'_>>> {
    // Keys may reach beyond the end of an address, where all bits are zero.
    let key_of = |range: &Range| {
        #[expect(clippy::cast_possible_truncation, reason = "at most 63 bits are left")]
        return (range.first << part.len >> (ADDRESS_BITS - bits)) as u64;
    };
    let within_key = suffix(part.len + bits);
    let mut children = vec![Child { key: 0, column: part.column, inside: None }];
    let mut column = part.column;
    for ranges in part.later.chunk_by(|a, b| key_of(a) == key_of(b)) {
        let (first, key) = (ranges[0], key_of(&ranges[0]));
        let begin = first.first & !within_key;
        let mut later = ranges;
        if first.first == begin {
            column = first.column;
            later = &ranges[1..];
        }
        let inside = Part { begin, len: part.len + bits, column, later };
        // The range before ended with its key, and continued to here.
        children.pop_if(|last| last.key == key);
        children.push(Child { key, column, inside: (!later.is_empty()).then_some(inside) });
        if let Some(last) = later.last() {
            column = last.column;
            // The last range continues behind the key.
            if key + 1 < 1 << bits {
                children.push(Child { key: key + 1, column, inside: None });
            }
        }
        // The next range may replace the last child.
        if children.len() > most + 1 {
            return None;
        }
    }
    (children.len() <= most).then_some(children)
}
