//! Compares compiled tables with a scan of all rows.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::{collection::vec, prelude::*, sample::select};
use traffic_common::{
    Entry, INDEX_V4_LINE, LINES_PER_ARRAY, MAX_COLUMNS, MAX_DEPTH_V6, NARROW_COLUMNS, ROOT_V6_BITS,
    entry_kind, lookup::Lines as _,
};

use super::*;

/// Sorts as a compiled class table is sorted. Of equal prefixes one is kept.
fn sorted<N: Copy + Ord>(mut rows: Vec<Row<N>>, key: impl Fn(&N) -> (u128, u8)) -> Vec<Row<N>> {
    rows.sort_by_key(|(prefix, _)| key(prefix));
    rows.dedup_by_key(|(prefix, _)| *prefix);
    rows
}

fn sorted_v4(rows: Vec<Row<Ipv4Net>>) -> Vec<Row<Ipv4Net>> {
    sorted(rows, |prefix| (prefix.network().to_bits().into(), prefix.prefix_len()))
}

fn sorted_v6(rows: Vec<Row<Ipv6Net>>) -> Vec<Row<Ipv6Net>> {
    sorted(rows, |prefix| (prefix.network().to_bits(), prefix.prefix_len()))
}

/// The rule: the longest of all prefixes that contain the address.
fn longest<N>(rows: &[Row<N>], contains: impl Fn(&N) -> bool, len: impl Fn(&N) -> u8) -> u32 {
    let matching = rows.iter().filter(|(prefix, _)| contains(prefix));
    matching.max_by_key(|(prefix, _)| len(prefix)).map_or(0, |(_, column)| u32::from(*column))
}

fn check_v4(rows: &[Row<Ipv4Net>], others: &[u32]) -> Result<CompiledTable, TestCaseError> {
    let table = CompiledTable::new(rows, &[]).expect("such a table fits");
    let most = rows.iter().map(|row| u32::from(row.1)).max().unwrap_or(0);
    prop_assert_eq!(table.is_wide, most >= NARROW_COLUMNS);
    let edges = rows.iter().flat_map(|(prefix, _)| {
        let (first, last) = (prefix.network().to_bits(), prefix.broadcast().to_bits());
        [first, last, first.wrapping_sub(1), last.wrapping_add(1), first ^ 0x100, last ^ 0x4000]
    });
    for address in edges.chain(others.iter().copied()).map(Ipv4Addr::from) {
        let expected = longest(rows, |prefix| prefix.contains(&address), Ipv4Net::prefix_len);
        prop_assert_eq!(table.column_v4(address), Some(expected), "{}", address);
    }
    Ok(table)
}

fn check_v6(rows: &[Row<Ipv6Net>], others: &[u128]) -> Result<CompiledTable, TestCaseError> {
    let table = CompiledTable::new(&[], rows).expect("such a table fits");
    let edges = rows.iter().flat_map(|(prefix, _)| {
        let (first, last) = (prefix.network().to_bits(), prefix.broadcast().to_bits());
        [first, last, first.wrapping_sub(1), last.wrapping_add(1), first ^ 1 << 63, last ^ 1 << 80]
    });
    for address in edges.chain(others.iter().copied()).map(Ipv6Addr::from) {
        let expected = longest(rows, |prefix| prefix.contains(&address), Ipv6Net::prefix_len);
        prop_assert_eq!(table.column_v6(address), Some(expected), "{}", address);
    }
    Ok(table)
}

/// Columns of a table with this many: all of them occur, so that the width is known.
fn column(seed: u8, columns: u32) -> u8 {
    u8::try_from(u32::from(seed) % columns).unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ipv4_agrees_with_the_longest_prefix(
        // Most prefixes are close together: nested, adjacent, and several in one /24 or in one line.
        rows in vec((any::<u32>(), 0..=32_u8, any::<u8>(), 0..4_u8), 0..300),
        columns in select(vec![1, 2, 14, 15, 16, 17, 100, MAX_COLUMNS]),
        others in vec(any::<u32>(), 100),
    ) {
        let rows = rows.into_iter().map(|(bits, len, seed, near)| {
            let (bits, len) = match near {
                0 => (bits, len),
                1 => (0xc633_6400 | bits & 0x3ff, len.max(23)),
                _ => (0x0a00_0000 | bits & 0xffff, len.max(16)),
            };
            (Ipv4Net::new(bits.into(), len).unwrap().trunc(), column(seed, columns))
        });
        check_v4(&sorted_v4(rows.collect()), &others)?;
    }

    #[test]
    fn ipv6_agrees_with_the_longest_prefix(
        rows in vec((any::<u128>(), 0..=128_u8, any::<u8>(), 0..6_u8), 0..400),
        columns in select(vec![1, 2, 15, 16, MAX_COLUMNS]),
        others in vec(any::<u128>(), 100),
    ) {
        let rows = rows.into_iter().map(|(bits, len, seed, near)| {
            // The more bits are fixed, the more prefixes are longer than a step reaches.
            let (fixed, bits) = match near {
                0 => (0, bits),
                1 => (20, 0x2a01_u128 << 112 | bits >> 20),
                2 => (40, 0x2001_0db8_u128 << 96 | bits >> 40),
                3 => (56, 0x2001_0db8_0001_u128 << 80 | bits >> 56),
                4 => (112, 0xfd00_u128 << 112 | bits >> 112),
                _ => (64, 0x2001_0db8_0002_0003_u128 << 64 | bits >> 64),
            };
            let len = if seed % 3 == 0 { len } else { len.max(fixed) };
            (Ipv6Net::new(bits.into(), len).unwrap().trunc(), column(seed, columns))
        });
        check_v6(&sorted_v6(rows.collect()), &others)?;
    }

    #[test]
    fn both_families_share_a_table(
        v4 in vec((any::<u32>(), 20..=32_u8, 0..20_u8), 0..50),
        v6 in vec((any::<u128>(), 10..=128_u8, 0..20_u8), 0..50),
    ) {
        let v4 = sorted_v4(
            v4.into_iter().map(|(bits, len, column)| (Ipv4Net::new(bits.into(), len).unwrap().trunc(), column)).collect(),
        );
        let v6 = sorted_v6(
            v6.into_iter().map(|(bits, len, column)| (Ipv6Net::new(bits.into(), len).unwrap().trunc(), column)).collect(),
        );
        let table = CompiledTable::new(&v4, &v6).unwrap();
        for (prefix, _) in &v4 {
            let address = prefix.network();
            let expected = longest(&v4, |prefix| prefix.contains(&address), Ipv4Net::prefix_len);
            prop_assert_eq!(table.column_v4(address), Some(expected));
        }
        for (prefix, _) in &v6 {
            let address = prefix.network();
            let expected = longest(&v6, |prefix| prefix.contains(&address), Ipv6Net::prefix_len);
            prop_assert_eq!(table.column_v6(address), Some(expected));
        }
    }
}

/// Every /24 of three lines has longer prefixes, so that every place of a chunk within a line occurs.
#[test]
fn chunks_of_adjacent_networks_are_told_apart() {
    for columns in [15, 200] {
        let rows: Vec<Row<Ipv4Net>> = (0..400_u32)
            .flat_map(|number| (0..4_u32).map(move |quarter| (number, quarter)))
            .map(|(number, quarter)| {
                let network = 0x0a00_0000 + number * 256 + quarter * 64;
                let column = 1 + (number * 7 + quarter * 3) % (columns - 1);
                (Ipv4Net::new(network.into(), 26).unwrap(), u8::try_from(column).unwrap())
            })
            .collect();
        let table = CompiledTable::new(&rows, &[]).unwrap();
        for (prefix, column) in &rows {
            for address in [prefix.network(), prefix.broadcast()] {
                assert_eq!(table.column_v4(address), Some(u32::from(*column)), "{address} of {columns}");
            }
        }
    }
}

#[test]
fn every_address_of_a_crowded_network_is_right() {
    for highest in [14, 15, 254] {
        let rows: Vec<Row<Ipv4Net>> = (0..256_u32)
            .map(|host| {
                let column = u8::try_from(host * 5 % (highest + 1)).unwrap();
                (Ipv4Net::new((0xc000_0200 + host).into(), 32).unwrap(), column)
            })
            .collect();
        let table = check_v4(&rows, &[]).unwrap();
        assert_eq!(table.is_wide, highest > 14);
    }
}

#[test]
fn the_width_follows_the_highest_column_of_either_family() {
    let v4 = |column| (Ipv4Net::new([10, 0, 0, 0].into(), 8).unwrap(), column);
    let v6 = |column| ("2001:db8::/32".parse().unwrap(), column);
    for (v4_column, v6_column, is_wide) in [(14, 14, false), (15, 0, true), (0, 15, true), (254, 254, true)] {
        let table = CompiledTable::new(&[v4(v4_column)], &[v6(v6_column)]).unwrap();
        assert_eq!(table.is_wide, is_wide, "{v4_column} {v6_column}");
        assert_eq!(table.column_v4([10, 9, 8, 7].into()), Some(v4_column.into()));
        assert_eq!(table.column_v6("2001:db8::9".parse().unwrap()), Some(v6_column.into()));
    }
}

/// Longer prefixes that do not differ from their surroundings take no chunk, and no second line.
#[test]
fn a_network_of_one_column_has_no_chunk() {
    let rows = [("10.1.0.0/16", 3), ("10.1.2.128/25", 3), ("10.1.3.0/25", 4), ("10.1.3.128/25", 4)]
        .map(|(prefix, column)| (prefix.parse().unwrap(), column));
    let table = check_v4(&rows, &[]).unwrap();
    let without = CompiledTable::new(&rows[..1], &[]).unwrap();
    assert_eq!(table.lines.len(), without.lines.len());
}

/// The index of one family does not reach into the lines of the other.
#[test]
fn an_empty_table_puts_everything_into_class_0() {
    let table = CompiledTable::new(&[], &[]).unwrap();
    for address in [0, u32::MAX, 0x7f00_0001] {
        assert_eq!(table.column_v4(address.into()), Some(0));
    }
    for address in [0, u128::MAX, 1] {
        assert_eq!(table.column_v6(address.into()), Some(0));
    }
    assert_eq!(table.arrays().len(), table.lines.len().div_ceil(LINES_PER_ARRAY as usize));
}

/// Prefixes of every length at one address, each of another column than those around it.
#[test]
fn a_chain_of_all_lengths_stays_within_the_steps_of_the_program() {
    for bits in [0, u128::MAX, 0x2001_0db8 << 96 | 0x5555, 0xaaaa_aaaa << 64] {
        let rows: Vec<Row<Ipv6Net>> = (0..=128_u8)
            .map(|len| (Ipv6Net::new(bits.into(), len).unwrap().trunc(), len % 200 + 1))
            .collect();
        check_v6(&sorted_v6(rows), &[0, 1, u128::MAX / 3]).unwrap();
    }
}

/// Dense prefixes, as in the blocks of the registries: 20,000 /56 in one /32.
#[test]
fn a_dense_block_takes_few_lines_below_the_root() {
    let network = |n: u128| Ipv6Addr::from(0x2001_0db8_u128 << 96 | n << 72);
    let rows: Vec<Row<Ipv6Net>> =
        (0..20_000).map(|n| (Ipv6Net::new(network(n), 56).unwrap(), (n % 7) as u8 + 1)).collect();
    let table = CompiledTable::new(&[], &rows).unwrap();
    for (prefix, column) in &rows {
        for address in [prefix.network(), prefix.broadcast()] {
            assert_eq!(table.column_v6(address), Some(u32::from(*column)), "{address}");
            let steps = steps(&table, address);
            assert!(steps <= 4, "{address}: {steps} lines");
        }
    }
    assert_eq!(table.column_v6(network(20_000)), Some(0));
}

/// Lines that are read below the root.
fn steps(table: &CompiledTable, address: Ipv6Addr) -> u32 {
    let counting = Counting { table, read: std::cell::Cell::new(0) };
    lookup::column_v6(&counting, address.octets());
    counting.read.get() - 1
}

struct Counting<'t> {
    table: &'t CompiledTable,
    read: std::cell::Cell<u32>,
}

impl lookup::Lines for Counting<'_> {
    fn line_of(&self, array: u32, within: u32) -> Option<&Line> {
        self.read.set(self.read.get() + 1);
        self.table.line_of(array, within)
    }
}

/// Every entry leads to a column within the steps that the program takes.
#[test]
fn random_tables_stay_within_the_steps_of_the_program() {
    let mut state = 0x5eed_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let rows: Vec<Row<Ipv6Net>> = (0..30_000)
        .map(|_| {
            // Few different bits in each group of 16, so that prefixes meet at every length.
            let mut bits = 0_u128;
            for _ in 0..8 {
                bits = bits << 16 | u128::from(next() & next() & next() & next() & 0xffff);
            }
            let len = u8::try_from(next() % 129).unwrap();
            (Ipv6Net::new(bits.into(), len).unwrap().trunc(), u8::try_from(next() % 255).unwrap())
        })
        .collect();
    let table = CompiledTable::new(&[], &sorted_v6(rows)).unwrap();
    for group in 0..1 << ROOT_V6_BITS {
        let entry = table.lines[group / 16][group % 16 / 2] >> (group % 2 * 32);
        let depth = depth(&table, Entry(u32::try_from(entry & 0xffff_ffff).unwrap()));
        assert!(depth <= MAX_DEPTH_V6, "{group:x}: {depth}");
    }
    assert!(table.lines.len() > INDEX_V4_LINE as usize);
}

/// Steps of the loop in [`lookup::column_v6`] to the farthest column.
fn depth(table: &CompiledTable, entry: Entry) -> u32 {
    let entry_at = |first: u32, number: u32| {
        let line = table.line(first + number / 16).unwrap();
        Entry(u32::try_from(line[number as usize % 16 / 2] >> (number % 2 * 32) & 0xffff_ffff).unwrap())
    };
    let line = |entry: Entry| table.line(entry.line()).unwrap();
    let below = |first: u32, count: u32| {
        (0..count).map(|number| depth(table, entry_at(first, number))).max().unwrap_or(0)
    };
    match entry.kind() {
        entry_kind::COLUMN => 1,
        entry_kind::TABLE => 1 + below(entry.line(), 1 << entry.bits()),
        entry_kind::NARROW_NODE => 1,
        _ => match u32::try_from(line(entry)[7] >> 32).unwrap() {
            0 => 1,
            first => 1 + below(first, 16),
        },
    }
}
