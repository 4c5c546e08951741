//! The indexes in front of the kernel's tries. They answer for most addresses with one load or a few.
//!
//! They are built from the same rows as the tries and are exact. Where prefixes are longer than an index can
//! represent, the entry is [`INDEX_ASK_TRIE`]. Rows are (prefix, column), sorted by (network, prefix length)
//! as in [`ClassTable`](crate::ClassTable), so an enclosing prefix precedes those inside it. The layout is
//! defined in `traffic_common`; the kernel program reads it in `traffic-ebpf/src/classify.rs`.

use std::net::Ipv6Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use traffic_common::{
    CLASS_ZERO_COLUMN, INDEX_ASK_TRIE, INDEX_V6_BITS, INDEX_V6_ENTRY_BITS, INDEX_V6_HEIGHT_SHIFT,
    INDEX_V6_MAX_HEIGHT, INDEX_V6_SPACE, RANGE_NODE_CHILDREN, RangeNode,
};

/// A prefix and the column of its class. Columns are below [`INDEX_ASK_TRIE`], because their number is
/// limited to that.
pub type Row<N> = (N, u8);

#[expect(clippy::cast_possible_truncation, reason = "zero")]
const NO_CLASS: u8 = CLASS_ZERO_COLUMN as u8;

/// Builds the IPv4 index: the column of each /24, or [`INDEX_ASK_TRIE`].
pub fn v4(rows: &[Row<Ipv4Net>]) -> Vec<u8> {
    const INDEXED_BITS: u8 = 24;
    let mut index = vec![0; 1 << INDEXED_BITS];
    for &(prefix, column) in rows {
        let first = (u32::from(prefix.network()) >> (32 - INDEXED_BITS)) as usize;
        match INDEXED_BITS.checked_sub(prefix.prefix_len()) {
            Some(free) => index[first..first + (1 << free)].fill(column),
            None => index[first] = INDEX_ASK_TRIE,
        }
    }
    index
}

/// The IPv6 index: an entry for each /25 in 2000::/3, and a search tree for each /25 that contains several
/// ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexV6 {
    /// Each a column, [`INDEX_ASK_TRIE`], or height and root of a tree.
    pub entries: Vec<u32>,
    /// The nodes of all trees.
    pub nodes: Vec<RangeNode>,
}

/// Builds the IPv6 index.
pub fn v6(rows: &[Row<Ipv6Net>]) -> IndexV6 {
    const WITHIN_BITS: u32 = INDEX_V6_BITS - INDEX_V6_ENTRY_BITS;
    const ENTRIES: usize = 1 << INDEX_V6_ENTRY_BITS;
    let entry_of = |range: &Range| (range.first >> WITHIN_BITS) as usize;

    let ranges = ranges(rows);
    let mut index = IndexV6 { entries: vec![u32::from(NO_CLASS); ENTRIES], nodes: Vec::new() };
    let mut before = NO_CLASS;
    let mut within = Vec::new();
    let mut rest = ranges.as_slice();
    // Takes the ranges that begin in one entry. The entries up to the next such entry have the last range's
    // column.
    while let Some(first) = rest.first() {
        let entry = entry_of(first);
        let (here, later) = rest.split_at(rest.partition_point(|range| entry_of(range) == entry));
        let begin = (entry as u64) << WITHIN_BITS;
        within.clear();
        if first.first > begin {
            within.push(Range { first: begin, column: before });
        }
        within.extend_from_slice(here);
        before = within[within.len() - 1].column;
        index.entries[entry] = index_entry(&within, &mut index.nodes);
        index.entries[entry + 1..later.first().map_or(ENTRIES, entry_of)].fill(u32::from(before));
        rest = later;
    }
    index
}

/// The addresses from `first` up to the next range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u64,
    column: u8,
}

/// The rows within 2000::/3 as consecutive ranges of upper halves. Neighbours differ in their column.
fn ranges(rows: &[Row<Ipv6Net>]) -> Vec<Range> {
    const SPACE_END: u64 = 1 << INDEX_V6_BITS;
    const SPACE_LEN: u8 = 3;
    const SPACE_FIRST: Ipv6Addr = Ipv6Addr::from_bits((INDEX_V6_SPACE as u128) << (64 + INDEX_V6_BITS));

    let mut ranges = Vec::with_capacity(rows.len() * 2);
    // The prefixes around the current position, each with its end.
    let mut around = vec![(SPACE_END, NO_CLASS)];
    push(&mut ranges, Range { first: 0, column: NO_CLASS });
    for &(prefix, column) in rows {
        let upper = (u128::from(prefix.network()) >> 64) as u64;
        let (first, end, column) = match prefix.prefix_len() {
            // Such a prefix contains all of the space, or none of it.
            len if len <= SPACE_LEN => {
                if !prefix.contains(&SPACE_FIRST) {
                    continue;
                }
                (0, SPACE_END, column)
            }
            _ if upper >> INDEX_V6_BITS != INDEX_V6_SPACE => continue,
            len => {
                let first = upper & (SPACE_END - 1);
                let size = 1_u64 << (64 - len.min(64));
                (first, first + size, if len > 64 { INDEX_ASK_TRIE } else { column })
            }
        };
        close_until(&mut around, &mut ranges, first);
        push(&mut ranges, Range { first, column });
        around.push((end, column));
    }
    close_until(&mut around, &mut ranges, SPACE_END - 1);
    ranges
}

/// Ends the prefixes that lie wholly before `position`. The enclosing prefix's range continues there.
fn close_until(around: &mut Vec<(u64, u8)>, ranges: &mut Vec<Range>, position: u64) {
    while around.len() > 1
        && let Some(&(end, _)) = around.last()
        && end <= position
    {
        around.pop();
        if let Some(&(_, column)) = around.last() {
            push(ranges, Range { first: end, column });
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

/// The entry of a /25 with these ranges. The first range begins where the /25 does.
fn index_entry(ranges: &[Range], nodes: &mut Vec<RangeNode>) -> u32 {
    let ask_trie = u32::from(INDEX_ASK_TRIE);
    if let [only] = ranges {
        return u32::from(only.column);
    }
    // Leaves first, then the nodes above them, level by level, up to a single root. `level` holds the first
    // address of each node of the current level; the level's first node has the number `begin`.
    let mut begin = nodes.len();
    let mut level: Vec<u64> = Vec::with_capacity(ranges.len().div_ceil(RANGE_NODE_CHILDREN));
    for leaf in ranges.chunks(RANGE_NODE_CHILDREN) {
        let columns = leaf.iter().rev().fold(0, |columns, range| columns << 8 | u64::from(range.column));
        nodes.push(node(leaf.iter().map(|range| range.first), columns));
        level.push(leaf[0].first);
    }
    let mut height = 1;
    while level.len() > 1 {
        let children_begin = begin;
        begin = nodes.len();
        let mut above = Vec::with_capacity(level.len().div_ceil(RANGE_NODE_CHILDREN));
        for (nth, children) in level.chunks(RANGE_NODE_CHILDREN).enumerate() {
            let first_child = children_begin + nth * RANGE_NODE_CHILDREN;
            nodes.push(node(children.iter().copied(), first_child as u64));
            above.push(children[0]);
        }
        level = above;
        height += 1;
    }
    match u32::try_from(begin) {
        Ok(root) if height <= INDEX_V6_MAX_HEIGHT && root < 1 << INDEX_V6_HEIGHT_SHIFT => {
            height << INDEX_V6_HEIGHT_SHIFT | root
        }
        _ => ask_trie,
    }
}

fn node(firsts: impl Iterator<Item = u64>, children: u64) -> RangeNode {
    let mut starts = [RangeNode::NO_CHILD; RANGE_NODE_CHILDREN - 1];
    for (start, first) in starts.iter_mut().zip(firsts.skip(1)) {
        *start = first;
    }
    RangeNode { starts, children }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    impl IndexV6 {
        /// Looks up an address as the kernel program does.
        fn column(&self, address: Ipv6Addr) -> Option<u32> {
            let upper = (u128::from(address) >> 64) as u64;
            if upper >> 61 != 1 {
                return None;
            }
            let address = upper & ((1 << 61) - 1);
            let entry = self.entries[(address >> (61 - 22)) as usize];
            let mut column = entry & 0xff;
            let height = entry >> 28;
            if height > 0 {
                let mut number = u64::from(entry & 0x0fff_ffff);
                for _ in 1..height {
                    let node = &self.nodes[usize::try_from(number).unwrap_or(usize::MAX)];
                    number = node.children + u64::from(node.child(address));
                }
                let leaf = &self.nodes[usize::try_from(number).unwrap_or(usize::MAX)];
                column = leaf.column(leaf.child(address));
            }
            (column != 255).then_some(column)
        }
    }

    fn sorted(mut rows: Vec<(Ipv6Net, u8)>) -> Vec<(Ipv6Net, u8)> {
        rows.iter_mut().for_each(|(prefix, _)| *prefix = prefix.trunc());
        rows.sort_unstable_by_key(|(prefix, _)| (prefix.network(), prefix.prefix_len()));
        rows.dedup_by_key(|(prefix, _)| *prefix);
        rows
    }

    fn naive(rows: &[(Ipv6Net, u8)], address: Ipv6Addr) -> u32 {
        let matching = rows.iter().filter(|(prefix, _)| prefix.contains(&address));
        matching.max_by_key(|(prefix, _)| prefix.prefix_len()).map_or(0, |(_, column)| u32::from(*column))
    }

    /// The index is right or asks the trie. It asks only outside its space, or near a prefix longer than 64
    /// bits.
    fn check(rows: &[(Ipv6Net, u8)], others: &[u128]) -> Result<(), TestCaseError> {
        let index = v6(rows);
        let edges = rows.iter().flat_map(|(prefix, _)| {
            let (first, last) = (u128::from(prefix.network()), u128::from(prefix.broadcast()));
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
        });
        for address in edges.chain(others.iter().copied()).map(Ipv6Addr::from) {
            match index.column(address) {
                Some(column) => prop_assert_eq!(column, naive(rows, address), "{}", address),
                None => {
                    let half = Ipv6Net::new(address, 64).unwrap();
                    let longer =
                        rows.iter().any(|(prefix, _)| prefix.prefix_len() > 64 && half.contains(prefix));
                    prop_assert!(longer || address.segments()[0] >> 13 != 1, "{} went to the trie", address);
                }
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_a_naive_scan(
            rows in vec((any::<u128>(), 0..=128_u8, 0..9_u8, 0..4_u8), 0..400),
            others in vec(any::<u128>(), 200),
        ) {
            let rows = rows.into_iter().map(|(bits, len, column, near)| {
                // Most prefixes lie within few /25, so that trees have several levels.
                let bits = match near {
                    0 => bits,
                    near => (0x2001_0db0_u128 + u128::from(near)) << 96 | bits >> 36,
                };
                (Ipv6Net::new(bits.into(), len).unwrap(), column)
            });
            check(&sorted(rows.collect()), &others)?;
        }
    }

    #[test]
    fn a_full_entry_has_a_tree_of_five_levels() {
        let network = |n: u128| Ipv6Addr::from(0x2001_0db8_u128 << 96 | n << 72);
        let rows: Vec<_> =
            (0..20_000).map(|n| (Ipv6Net::new(network(n), 56).unwrap(), (n % 7) as u8 + 1)).collect();
        let index = v6(&rows);
        let entry = index.entries[(0x2001_0db8_u32 << 3 >> 10) as usize];
        assert_eq!(entry >> 28, 5);
        for (prefix, column) in rows {
            for address in [prefix.network(), prefix.broadcast()] {
                assert_eq!(index.column(address), Some(column.into()), "{address}");
            }
        }
        assert_eq!(index.column(network(20_000)), Some(0));
    }

    #[test]
    fn short_prefixes_contain_all_of_the_space_or_none() {
        for (prefix, column) in
            [("::/0", 5), ("::/1", 5), ("::/2", 5), ("2000::/3", 5), ("8000::/1", 0), ("4000::/2", 0)]
        {
            let rows = [(prefix.parse().unwrap(), 5)];
            let index = v6(&rows);
            assert_eq!(index.column("2001:db8::1".parse().unwrap()), Some(column), "{prefix}");
            assert_eq!(index.column("2000::".parse().unwrap()), Some(column), "{prefix}");
            assert_eq!(index.column("3fff:ffff::".parse().unwrap()), Some(column), "{prefix}");
            assert_eq!(index.nodes, []);
        }
    }

    #[test]
    fn ipv4_index_asks_only_where_prefixes_are_longer_than_24_bits() {
        let rows = [("10.0.0.0/8", 3), ("10.1.0.0/16", 4), ("10.1.2.128/25", 5), ("255.255.255.0/24", 6)]
            .map(|(prefix, column)| (prefix.parse().unwrap(), column));
        let index = v4(&rows);
        let at =
            |address: &str| index[(u32::from(address.parse::<std::net::Ipv4Addr>().unwrap()) >> 8) as usize];
        assert_eq!(at("9.255.255.255"), 0);
        assert_eq!(at("10.0.0.0"), 3);
        assert_eq!(at("10.1.255.0"), 4);
        assert_eq!(at("10.1.2.1"), INDEX_ASK_TRIE);
        assert_eq!(at("10.255.255.1"), 3);
        assert_eq!(at("11.0.0.0"), 0);
        assert_eq!(at("255.255.255.1"), 6);
    }
}
