//! Random tables that are hard for an index: nested and adjacent prefixes, with and without a default route,
//! longer than the index reaches. The expected answer comes from a scan of all lines: the longest match wins,
//! or the last.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::Result;
use traffic_tests::Counters;

use crate::question::{Columns, Family, Kernel, lab, load};

/// A pseudo-random generator that is the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bits(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

/// A line of the class file. An IPv4 address is in the upper 32 bits, so that both families compare alike.
#[derive(Clone, Copy, Debug)]
struct Line {
    class: u8,
    bits: u128,
    len: u32,
}

const fn mask(len: u32) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - len) }
}

fn line(class: u64, bits: u128, len: u32) -> Line {
    Line { class: u8::try_from(class % 10).unwrap_or(0), bits: bits & mask(len), len }
}

/// Tables of one family, each with its difficulty.
fn tables(family: Family, random: &mut Random) -> Vec<(&'static str, Vec<Line>)> {
    let width = family.width();
    let base = match family {
        Family::V4 => 0,
        // The region of allocated addresses, so that prefixes are nested as in real tables.
        Family::V6 => 0x2001_0db8_u128 << 96,
    };
    let keep = match family {
        Family::V4 => 0,
        Family::V6 => 24,
    };
    let near = |random: &mut Random| base & mask(keep) | random.bits() & !mask(keep);
    let mut scattered: Vec<Line> = (0..300)
        .map(|_| {
            let len = u32::try_from(random.below(u64::from(width) + 1)).unwrap_or(width);
            line(random.next(), near(random), len)
        })
        .collect();
    // Prefixes inside others, and more inside those.
    for parent in scattered.clone().into_iter().take(60) {
        let len = (parent.len + 1 + u32::try_from(random.below(12)).unwrap_or(0)).min(width);
        scattered.push(line(random.next(), parent.bits | random.bits() & !mask(parent.len), len));
    }
    let chain_at = near(random);
    let chain = (0..=width).map(|len| line(u64::from(len) * 7 + 1, chain_at, len)).collect();
    let long_at = near(random);
    let long = (width * 3 / 4 - 8..=width)
        .flat_map(|len| (0..4_u64).map(move |n| (len, n)))
        .map(|(len, n)| line(u64::from(len) + n, long_at.wrapping_add(u128::from(n) << (128 - len)), len))
        .collect();
    let step = 128 - 8;
    let whole = (0..256_u64).map(|n| line(n * 3 + 1, u128::from(n) << step, 8)).collect();
    let from = 128 - (width - 8);
    let adjacent =
        (0..600_u64).map(|n| line(n + 1, base.wrapping_add(u128::from(n) << from), width - 8)).collect();
    let edges = vec![line(1, 0, width), line(2, u128::MAX, width), line(3, 0, 1), line(4, 1 << 127, 1)];
    vec![
        ("scattered and nested, no default", scattered),
        ("a chain of every length", chain),
        ("longer than the index reaches", long),
        ("the whole space covered", whole),
        ("adjacent ranges", adjacent),
        ("the first and the last addresses", edges),
        ("an empty table", Vec::new()),
    ]
}

/// First and last address of every prefix, their neighbours, and random addresses; at least `least` in total.
fn addresses(family: Family, lines: &[Line], random: &mut Random, least: usize) -> Vec<u128> {
    let unit = 1_u128 << (128 - family.width());
    let mut all = Vec::new();
    for line in lines {
        let (first, last) = (line.bits, line.bits | !mask(line.len));
        let inside = first | random.bits() & !mask(line.len);
        all.extend([first, last, first.wrapping_sub(unit), last.wrapping_add(unit), inside]);
    }
    while all.len() < least {
        let bits = random.bits();
        // Half of them in the region of the table.
        all.push(match lines.get(usize::try_from(bits % 1000).unwrap_or(0)) {
            Some(line) => line.bits | bits & !mask(line.len.saturating_sub(3)),
            None => bits,
        });
    }
    all.iter().map(|bits| bits & mask(family.width())).collect()
}

/// The line that decides, in both orders of the configuration. Class-0 lines have no privilege in either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    LongestPrefix,
    LastLine,
}

/// The class of the line that decides, the last one among equal lines; 0 if none matches.
fn naive(lines: &[Line], order: Order, address: u128) -> u8 {
    let mut best: Option<&Line> = None;
    for line in lines {
        let wins = |best: &Line| order == Order::LastLine || line.len >= best.len;
        if address & mask(line.len) == line.bits && best.is_none_or(wins) {
            best = Some(line);
        }
    }
    best.map_or(0, |line| line.class)
}

fn check(family: Family, order: Order, seed: u64, (least, is_wide): (usize, bool)) -> Result<()> {
    let mut random = Random(seed);
    let (lab, container) = lab("lookup")?;
    if order == Order::LastLine {
        lab.configure("class_order = \"last-line\"\n[limits]\nclasses = 32\n")?;
    }
    let kernel = Kernel::new(&lab, &container)?;
    let mut asked = 0;
    for (what, mut lines) in tables(family, &mut random) {
        // More than 15 columns take an index of 8 bits for each /24 instead of 4.
        let second_ten = lines.iter_mut().skip(1).step_by(2);
        second_ten.for_each(|line| line.class += if is_wide { 10 } else { 0 });
        let mut file = String::new();
        for line in &lines {
            writeln!(file, "{} {}/{}", line.class, family.address(line.bits), line.len)?;
        }
        load(&lab, &file)?;
        let columns = Columns::read(&lab)?;
        let mut questions: BTreeMap<u8, Vec<u128>> = BTreeMap::new();
        for address in addresses(family, &lines, &mut random, least) {
            questions.entry(naive(&lines, order, address)).or_default().push(address);
            asked += 1;
        }
        lab.host()
            .enter(|| {
                questions
                    .iter()
                    .try_for_each(|(&class, addresses)| kernel.expect(&columns, family, class, addresses))
            })
            .map_err(|error| error.context(what))?;
    }
    // Each packet was in its class, and none was anywhere else.
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.interface(container.interface()).amounts.out_packets, asked);
    assert_eq!(counters.container("101").out_packets, asked);
    Ok(())
}

#[test]
fn ipv4_answers_equal_those_of_a_scan() -> Result<()> {
    check(Family::V4, Order::LongestPrefix, 0x5eed_0004, (15_000, false))?;
    check(Family::V4, Order::LongestPrefix, 0x5eed_0008, (15_000, true))
}

#[test]
fn ipv6_answers_equal_those_of_a_scan() -> Result<()> {
    check(Family::V6, Order::LongestPrefix, 0x5eed_0006, (15_000, true))
}

#[test]
fn in_the_last_line_order_the_last_line_decides() -> Result<()> {
    check(Family::V4, Order::LastLine, 0x5eed_0014, (2_000, false))?;
    check(Family::V6, Order::LastLine, 0x5eed_0016, (2_000, true))
}
