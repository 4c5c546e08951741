//! Two tables laid over each other: for each address, the class that it has in both.
//!
//! The overlay is a class table whose columns are numbers of *pairs*: the class in force, and the class in the other
//! table. The kernel program finds a packet's pair by one lookup, as it finds a class.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use traffic_common::MOST_PAIRS;

use crate::{
    ClassTable, Entry, UNCLASSIFIED,
    index::{self, Row},
    stored_rows::Rows,
};

/// The class in force, and the class in the other table.
pub type Pair = (u8, u8);

/// Two tables laid over each other. The longest prefix decides, as in a class table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// IPv4 prefixes with the numbers of their pairs, sorted as in a class table.
    pub v4: Vec<Row<Ipv4Net>>,
    /// IPv6 prefixes, likewise.
    pub v6: Vec<Row<Ipv6Net>>,
    /// The pairs by number. The first one is (0, 0), that of an address in no prefix.
    pub pairs: Vec<Pair>,
}

/// Two tables have more pairs of classes than a table has columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the table in force and this file have {pairs} pairs of classes (class in force, class in the file), and there is \
     room for {MOST_PAIRS}; use fewer classes in the file, or change it in several steps"
)]
pub struct TooManyPairs {
    /// The pairs that some address has.
    pub pairs: usize,
}

impl Overlay {
    /// Lays a table over the prefixes in force, which are sorted by (network, prefix length) in each family.
    ///
    /// # Errors
    /// [`TooManyPairs`] when the pairs of classes do not fit a table.
    pub fn new(in_force: &[(IpNet, u8)], table: &ClassTable) -> Result<Self, TooManyPairs> {
        let (before_v4, before_v6) = by_family(in_force);
        let (after_v4, after_v6) = (rows(&table.v4), rows(&table.v6));
        let v4: Vec<_> = walk(&before_v4, &after_v4).map(as_pair).collect();
        let v6: Vec<_> = walk(&before_v6, &after_v6).map(as_pair).collect();
        let mut all = BTreeSet::from([(UNCLASSIFIED, UNCLASSIFIED)]);
        all.extend(v4.iter().map(|part| part.1).chain(v6.iter().map(|part| part.1)));
        if all.len() > MOST_PAIRS as usize {
            return Err(TooManyPairs { pairs: all.len() });
        }
        let numbers: BTreeMap<Pair, u8> = all.iter().copied().zip(0..).collect();
        Ok(Self { v4: numbered(v4, &numbers), v6: numbered(v6, &numbers), pairs: all.into_iter().collect() })
    }

    /// The overlay as the kernel program reads it.
    ///
    /// # Errors
    /// [`index::TooLarge`] when it needs more lines than the kernel's maps can hold.
    pub fn compiled(&self) -> Result<index::CompiledTable, index::TooLarge> {
        index::CompiledTable::new(&self.v4, &self.v6)
    }
}

/// What makes addresses go from one class to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedLines {
    /// Lines of the other table's file that decide, and are not in force like that.
    pub added: Vec<Entry>,
    /// Prefixes in force that decide, and are not in the other table like that.
    pub removed: Vec<(IpNet, u8)>,
}

/// Lines of the file by number, and prefixes in force.
type Found = (BTreeMap<u32, Entry>, BTreeSet<(IpNet, u8)>);

/// By pair of different classes: the lines that make the difference. Lines that only confirm what a prefix around them
/// says in both tables are not among them.
pub fn changed_lines(in_force: &[(IpNet, u8)], table: &ClassTable) -> BTreeMap<Pair, ChangedLines> {
    let known: BTreeMap<IpNet, u8> = in_force.iter().copied().collect();
    let lines: BTreeMap<IpNet, Entry> = table.entries().map(|entry| (entry.prefix, entry)).collect();
    let (before_v4, before_v6) = by_family(in_force);
    let (after_v4, after_v6) = (rows(&table.v4), rows(&table.v6));
    let parts =
        walk(&before_v4, &after_v4).map(Part::general).chain(walk(&before_v6, &after_v6).map(Part::general));
    let mut changed: BTreeMap<Pair, Found> = BTreeMap::new();
    for part in parts {
        let pair = (class_of(part.before), class_of(part.after));
        if pair.0 == pair.1 {
            continue;
        }
        let (added, removed) = changed.entry(pair).or_default();
        match (part.before, part.after) {
            // The same line decides no less than before, so what vanished is inside it.
            (Some((prefix, class)), Some(after)) if known.get(&after.0) == Some(&after.1) => {
                removed.insert((prefix, class));
            }
            (_, Some((prefix, _))) => {
                let entry = lines.get(&prefix).copied();
                added.extend(entry.map(|entry| (entry.line, entry)));
            }
            (Some(before), None) => {
                removed.insert(before);
            }
            (None, None) => {}
        }
    }
    let lines = |(added, removed): Found| ChangedLines {
        added: added.into_values().collect(),
        removed: removed.into_iter().collect(),
    };
    changed.into_iter().map(|(pair, found)| (pair, lines(found))).collect()
}

/// A network of one family.
trait Network: Copy + Ord + Into<IpNet> {
    fn encloses(&self, other: &Self) -> bool;
}

impl Network for Ipv4Net {
    fn encloses(&self, other: &Self) -> bool {
        self.contains(other)
    }
}

impl Network for Ipv6Net {
    fn encloses(&self, other: &Self) -> bool {
        self.contains(other)
    }
}

/// A prefix of either table, and the row of each that decides its addresses, except where a longer prefix does.
#[derive(Clone, Copy, Debug)]
struct Part<N> {
    prefix: N,
    before: Option<(N, u8)>,
    after: Option<(N, u8)>,
}

impl<N: Copy + Into<IpNet>> Part<N> {
    fn general(self) -> Part<IpNet> {
        let row = |row: Option<(N, u8)>| row.map(|(prefix, class)| (prefix.into(), class));
        Part { prefix: self.prefix.into(), before: row(self.before), after: row(self.after) }
    }
}

fn class_of<N>(row: Option<(N, u8)>) -> u8 {
    row.map_or(UNCLASSIFIED, |(_, class)| class)
}

fn as_pair<N>(part: Part<N>) -> (N, Pair) {
    (part.prefix, (class_of(part.before), class_of(part.after)))
}

fn by_family(rows: &[(IpNet, u8)]) -> Rows {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for &(prefix, class) in rows {
        match prefix {
            IpNet::V4(prefix) => v4.push((prefix, class)),
            IpNet::V6(prefix) => v6.push((prefix, class)),
        }
    }
    (v4, v6)
}

fn rows<N: Copy>(rows: &[crate::CompiledPrefix<N>]) -> Vec<(N, u8)> {
    rows.iter().map(|row| (row.prefix, row.class)).collect()
}

/// The prefixes of both tables in order, each once.
///
/// Sorted prefixes come in the order of a depth-first walk. So those around the current one are a stack for each
/// table, whose top decides. A prefix that one table lacks is decided there by the longest one around it.
fn walk<'r, N: Network>(
    before: &'r [(N, u8)],
    after: &'r [(N, u8)],
) -> impl Iterator<Item = Part<N>> + use<'r, N> {
    let (mut rest, mut stacks) = ([before, after], [Vec::new(), Vec::new()]);
    std::iter::from_fn(move || {
        let prefix = rest.iter().filter_map(|rows| rows.first()).map(|row| row.0).min()?;
        for (rows, stack) in rest.iter_mut().zip(&mut stacks) {
            while stack.last().is_some_and(|(around, _): &(N, u8)| !around.encloses(&prefix)) {
                stack.pop();
            }
            if let Some((row, others)) = rows.split_first().filter(|(row, _)| row.0 == prefix) {
                stack.push(*row);
                *rows = others;
            }
        }
        let [before, after] = [&stacks[0], &stacks[1]].map(|stack| stack.last().copied());
        Some(Part { prefix, before, after })
    })
}

/// Rows with the numbers of their pairs, without those that say what the prefix around them says.
fn numbered<N: Network>(parts: Vec<(N, Pair)>, numbers: &BTreeMap<Pair, u8>) -> Vec<Row<N>> {
    let mut around: Vec<(N, u8)> = Vec::new();
    let mut rows = Vec::with_capacity(parts.len());
    for (prefix, pair) in parts {
        while around.last().is_some_and(|(outer, _)| !outer.encloses(&prefix)) {
            around.pop();
        }
        let number = numbers.get(&pair).copied().unwrap_or_default();
        if around.last().map_or(0, |(_, outer)| *outer) != number {
            rows.push((prefix, number));
            around.push((prefix, number));
        }
    }
    rows
}

#[cfg(test)]
mod tests;
