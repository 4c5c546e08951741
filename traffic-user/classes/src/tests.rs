//! Compares the compiled table and the explanation with a plain scan over the file, under each order.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use proptest::{prelude::*, sample::Index};

use crate::*;

const ORDERS: [ClassOrder; 3] = [ClassOrder::Virtuozzo, ClassOrder::LongestPrefix, ClassOrder::LastLine];

/// One line in the naive scan's form: the address in the high bits of a `u128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    is_v4: bool,
    high: u128,
    length: u8,
    class: u8,
}

impl Line {
    fn entry(self, line: usize) -> Entry {
        let prefix = IpNet::new(addr(self.is_v4, self.high), self.length).unwrap();
        Entry { line: u32::try_from(line).unwrap() + 1, class: self.class, prefix }
    }

    fn matches(&self, is_v4: bool, high: u128) -> bool {
        self.is_v4 == is_v4 && (high ^ self.high) & mask(self.length) == 0
    }

    fn same_prefix(&self, other: &Self) -> bool {
        (self.is_v4, self.high, self.length) == (other.is_v4, other.high, other.length)
    }
}

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

fn addr(is_v4: bool, high: u128) -> IpAddr {
    if is_v4 {
        Ipv4Addr::from(u32::try_from(high >> 96).unwrap()).into()
    } else {
        Ipv6Addr::from(high).into()
    }
}

/// The class of an address and the index of the line that decides, following the wording of the rule.
fn naive(lines: &[Line], order: ClassOrder, is_v4: bool, high: u128) -> (u8, Option<usize>) {
    let stands = |at: usize| !lines[at + 1..].iter().any(|later| later.same_prefix(&lines[at]));
    let mut decided: Option<usize> = None;
    for at in 0..lines.len() {
        if !lines[at].matches(is_v4, high) || !stands(at) {
            continue;
        }
        let Some(before) = decided else {
            decided = Some(at);
            continue;
        };
        let (new, old) = (lines[at], lines[before]);
        let wins = match order {
            ClassOrder::LastLine => true,
            ClassOrder::LongestPrefix => new.length > old.length,
            ClassOrder::Virtuozzo => match (new.class == 0, old.class == 0) {
                // All class-0 networks give the same class; the largest one is reported.
                (true, true) => new.length < old.length,
                (true, false) => true,
                (false, true) => false,
                (false, false) => new.length > old.length,
            },
        };
        if wins {
            decided = Some(at);
        }
    }
    (decided.map_or(0, |at| lines[at].class), decided)
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    let bases = prop_oneof![
        Just(0_u128),
        Just(u128::MAX),
        Just(0x0a00_0000_u128 << 96),
        Just(0x0a80_ff01_u128 << 96),
        Just(0x2001_0db8_u128 << 96 | 1),
    ];
    let lengths = prop_oneof![
        4 => 0_u8..=12,
        2 => prop::sample::select(vec![0, 1, 8, 23, 24, 25, 31, 32, 33, 63, 64, 65, 127, 128]),
        2 => 0_u8..=128,
    ];
    // A flipped bit makes neighbours; masking afterwards makes duplicates where the flip was in the host
    // part.
    let line = (any::<bool>(), bases, 0_u32..128, any::<bool>(), lengths, 0_u8..5);
    let line = line.prop_map(|(is_v4, base, bit, flip, length, class)| {
        let length = if is_v4 { length.min(32) } else { length };
        let high = (base ^ u128::from(flip) << (127 - bit)) & mask(length);
        Line { is_v4, high, length, class: if class == 4 { MAX_CLASS } else { class } }
    });
    prop::collection::vec(line, 0..40)
}

/// The first and last address of every prefix, their neighbours outside, and the given random addresses.
fn probes(lines: &[Line], random: &[u128]) -> BTreeSet<(bool, u128)> {
    let mut probes: BTreeSet<(bool, u128)> =
        random.iter().flat_map(|&high| [(true, high), (false, high)]).collect();
    for line in lines {
        let one = if line.is_v4 { 1 << 96 } else { 1 };
        let last = line.high | !mask(line.length);
        for high in [line.high, last, line.high.wrapping_sub(one), last.wrapping_add(one)] {
            probes.insert((line.is_v4, high));
        }
    }
    probes
}

fn entries(lines: &[Line]) -> Vec<Entry> {
    lines.iter().enumerate().map(|(at, line)| line.entry(at)).collect()
}

fn file(lines: &[Line]) -> ClassFile {
    ClassFile { entries: entries(lines), ..ClassFile::default() }
}

/// What the hash must depend on, and nothing else, under an order that drops no network.
fn standing(lines: &[Line]) -> BTreeMap<(bool, u128, u8), u8> {
    lines.iter().map(|line| ((line.is_v4, line.high, line.length), line.class)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn table_and_explanation_agree_with_a_scan(
        lines in lines(), random in prop::collection::vec(any::<u128>(), 8),
    ) {
        let file = file(&lines);
        for order in ORDERS {
            let table = compile(&file.entries, order);
            for (is_v4, high) in probes(&lines, &random) {
                let addr = addr(is_v4, high);
                let (class, decided) = naive(&lines, order, is_v4, high);
                let decided = decided.map(|at| lines[at].entry(at));
                prop_assert_eq!(table.class_of(addr), class, "{} under {}", addr, order);
                prop_assert_eq!(table.lookup(addr), decided, "{} under {}", addr, order);

                let explanation = explain(&file, order, addr);
                prop_assert_eq!(explanation.class, class);
                prop_assert_eq!(explanation.decided_by, decided);
                let matching = lines.iter().filter(|line| line.matches(is_v4, high)).count();
                prop_assert_eq!(explanation.shadows.len() + usize::from(decided.is_some()), matching);
            }
        }
    }

    #[test]
    fn the_parts_of_a_prefix_agree_with_its_addresses(
        lines in lines(), high in any::<u128>(), is_v4: bool, length in 0_u8..=128,
        offsets in prop::collection::vec(any::<u128>(), 8),
    ) {
        let file = file(&lines);
        let length = if is_v4 { length.min(32) } else { length };
        let prefix = IpNet::new(addr(is_v4, high), length).unwrap().trunc();
        for order in ORDERS {
            let explanation = explain_prefix(&file, order, prefix);
            let sum: f64 = explanation.parts.iter().map(|part| part.share).sum();
            prop_assert!((sum - 1.0).abs() < 1e-9, "{} of {} under {}", sum, prefix, order);
            prop_assert_eq!(explanation.parts_total, explanation.parts.len());
            for offset in &offsets {
                let within = high & mask(length) | offset & !mask(length);
                let (class, decided) = naive(&lines, order, is_v4, within);
                let decided = decided.map(|at| lines[at].entry(at));
                let part = explanation.parts.iter().find(|part| part.decided_by == decided);
                // A part below 2^-52 may be lost in a part that encloses it.
                let found = part.is_some_and(|part| part.class == class);
                prop_assert!(found, "{} of {} under {}", within, prefix, order);
            }
        }
    }

    #[test]
    fn rows_are_sorted_and_unique(lines in lines()) {
        for order in ORDERS {
            let table = compile(&entries(&lines), order);
            prop_assert!(table.v4.is_sorted_by(|a, b| a.prefix < b.prefix));
            prop_assert!(table.v6.is_sorted_by(|a, b| a.prefix < b.prefix));
            let classes: BTreeSet<u8> =
                table.v4.iter().map(|r| r.class).chain(table.v6.iter().map(|r| r.class)).chain([0]).collect();
            prop_assert_eq!(table.classes_in_use(), classes);
        }
    }

    #[test]
    fn differences_are_the_rows_that_virtuozzo_drops(lines in lines()) {
        let file = file(&lines);
        let lines_of = |order| {
            let table = compile(&file.entries, order);
            let v4 = table.v4.iter().map(|row| (row.line, row.class)).collect::<Vec<_>>();
            v4.into_iter().chain(table.v6.iter().map(|row| (row.line, row.class))).collect::<BTreeSet<_>>()
        };
        let (all, kept) = (lines_of(ClassOrder::LongestPrefix), lines_of(ClassOrder::Virtuozzo));
        let left_out: Vec<u32> =
            all.difference(&kept).filter(|(_, class)| *class != 0).map(|(line, _)| *line).collect();
        let differences = differences(&file);
        prop_assert_eq!(differences.iter().map(|d| d.entry.line).collect::<Vec<_>>(), left_out);
        for difference in differences {
            prop_assert_eq!(difference.covered_by.class, 0);
            prop_assert!(difference.covered_by.prefix.contains(&difference.entry.prefix));
            let table = compile(&file.entries, ClassOrder::Virtuozzo);
            let by_table = table.lookup(difference.entry.prefix.network());
            prop_assert_eq!(by_table, Some(difference.covered_by));
        }
    }

    #[test]
    fn the_hash_distinguishes_tables(lines in lines(), other in lines()) {
        let hash = |lines: &[Line]| compile(&entries(lines), ClassOrder::LongestPrefix).hash();
        prop_assert_eq!(hash(&lines) == hash(&other), standing(&lines) == standing(&other));
    }

    #[test]
    fn the_hash_depends_on_every_class_and_prefix(lines in lines(), at in any::<Index>()) {
        prop_assume!(!lines.is_empty());
        let hash = |lines: &[Line]| compile(&entries(lines), ClassOrder::LongestPrefix).hash();
        let at = at.index(lines.len());

        let mut class_changed = lines.clone();
        class_changed[at].class ^= 1;
        prop_assert_eq!(hash(&lines) == hash(&class_changed), standing(&lines) == standing(&class_changed));

        let mut prefix_changed = lines.clone();
        prefix_changed[at].length ^= 1;
        prefix_changed[at].length = prefix_changed[at].length.min(if lines[at].is_v4 { 32 } else { 128 });
        prefix_changed[at].high &= mask(prefix_changed[at].length);
        prop_assert_eq!(hash(&lines) == hash(&prefix_changed), standing(&lines) == standing(&prefix_changed));
    }

    #[test]
    fn the_hash_does_not_depend_on_the_order_of_lines(
        (lines, shuffled) in lines().prop_flat_map(|lines| {
            let distinct: Vec<Line> = standing(&lines)
                .into_iter()
                .map(|((is_v4, high, length), class)| Line { is_v4, high, length, class })
                .collect();
            (Just(distinct.clone()), Just(distinct).prop_shuffle())
        })
    ) {
        let hash = |lines: &[Line], order| compile(&entries(lines), order).hash();
        for order in [ClassOrder::LongestPrefix, ClassOrder::Virtuozzo] {
            prop_assert_eq!(hash(&lines, order), hash(&shuffled, order));
        }
    }

    #[test]
    fn parse_accepts_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let file = parse(&bytes);
        let report = CheckReport::new(&file, CheckContext::default());
        prop_assert_eq!(report.is_acceptable(), file.is_acceptable());
        prop_assert!(!report.to_string().is_empty());
    }

    #[test]
    fn parse_accepts_almost_valid_bytes(text in r"([0-9a-f:./# \t\r\n+-]|1 10\.0\.0\.0/8|\n0 ::/){0,60}") {
        let file = parse(text.as_bytes());
        let lines = text.split('\n').count();
        prop_assert!(file.entries.len() + file.refused().count() <= lines);
        for entry in &file.entries {
            prop_assert!(entry.class <= MAX_CLASS);
            prop_assert_eq!(entry.prefix, entry.prefix.trunc());
        }
    }

    #[test]
    fn parse_reads_entries_as_they_are_written(lines in lines()) {
        let written: String = entries(&lines).iter().map(|entry| format!("{entry}\n")).collect();
        let read = parse(written.as_bytes());
        prop_assert!(read.is_acceptable());
        prop_assert_eq!(read.entries, entries(&lines));
    }
}
