//! Class tables like those of a hosting node, and a simple reference for the class of an address.
//!
//! IPv4 prefixes have about the lengths of the Internet's routing table, and two percent are longer than the
//! 24 bits that are routed. IPv6 prefixes are in the blocks of the regional registries, with longer prefixes
//! inside shorter ones.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
    net::IpAddr,
};

use traffic_common::{Family, bench::Address};

use crate::random::Random;

/// The highest class of a prefix. Class 0 means no match.
pub const CLASSES: u8 = 15;

/// IPv4 prefix lengths and their frequency in thousandths.
const LENGTHS_V4: [(u32, usize); 16] = [
    (16, 14),
    (17, 8),
    (18, 13),
    (19, 25),
    (20, 43),
    (21, 52),
    (22, 110),
    (23, 100),
    (24, 615),
    (25, 4),
    (26, 3),
    (27, 3),
    (28, 3),
    (29, 3),
    (30, 2),
    (32, 2),
];

/// The same for IPv6. Lengths up to 32 bits are allocations of the registries; longer ones are inside these.
const LENGTHS_V6: [(u32, usize); 11] = [
    (29, 20),
    (32, 120),
    (36, 40),
    (40, 80),
    (44, 80),
    (46, 20),
    (47, 20),
    (48, 560),
    (56, 25),
    (64, 30),
    (128, 5),
];

/// The upper 12 bits of the registries' blocks.
const BLOCKS_V6: [u128; 6] = [0x200, 0x240, 0x260, 0x280, 0x2a0, 0x2c0];

/// One line of a class table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The network, with its first bit uppermost in both families.
    pub network: u128,
    /// Length of the prefix in bits.
    pub len: u32,
    /// The class.
    pub class: u8,
}

/// Whether prefixes may be nested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nesting {
    /// They may.
    Allowed,
    /// They may not, as nftables maps and sets require.
    Avoided,
}

/// A class table of one family.
#[derive(Debug)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// The lines, each with a different prefix.
    pub lines: Vec<Line>,
}

impl Table {
    /// Creates a table with this many prefixes.
    pub fn new(family: Family, prefixes: usize, nesting: Nesting, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let lengths: &[(u32, usize)] = match family {
            Family::Ipv4 => &LENGTHS_V4,
            Family::Ipv6 => &LENGTHS_V6,
        };
        let mut known: HashSet<(u32, u128)> = HashSet::with_capacity(prefixes);
        let mut lines = Vec::with_capacity(prefixes);
        let mut parents = 0;
        for (number, &(len, share)) in lengths.iter().enumerate() {
            // The last length also gets the prefixes that rounding left over.
            let wanted = match number + 1 == lengths.len() {
                true => prefixes,
                false => (lines.len() + prefixes * share / 1000).min(prefixes),
            };
            while lines.len() < wanted {
                let network = match (family, len) {
                    (Family::Ipv4, _) => unicast_v4(&mut random),
                    (Family::Ipv6, ..=32) => {
                        BLOCKS_V6[random.below(BLOCKS_V6.len())] << 116 | random.bits() >> 12
                    }
                    (Family::Ipv6, _) => {
                        let parent: &Line = &lines[random.below(parents)];
                        parent.network | random.bits() & !mask(parent.len)
                    }
                } & mask(len);
                let taken = match nesting {
                    Nesting::Allowed => known.contains(&(len, network)),
                    // Lengths ascend, so only shorter prefixes can overlap.
                    Nesting::Avoided => (1..=len).any(|len| known.contains(&(len, network & mask(len)))),
                };
                if !taken {
                    known.insert((len, network));
                    let class = u8::try_from(1 + random.below(CLASSES.into())).unwrap_or(1);
                    lines.push(Line { network, len, class });
                }
            }
            if len <= 32 {
                parents = lines.len();
            }
        }
        Self { family, lines }
    }

    /// The same prefixes in fewer classes.
    pub fn in_classes(mut self, classes: u8) -> Self {
        self.lines.iter_mut().for_each(|line| line.class = 1 + line.class % classes);
        self
    }

    /// A random address in one of the prefixes.
    pub fn address(&self, random: &mut Random) -> u128 {
        self.address_in(random.below(self.lines.len()), random)
    }

    /// A random address in a prefix.
    pub fn address_in(&self, line: usize, random: &mut Random) -> u128 {
        let line = &self.lines[line];
        let width = mask(width(self.family));
        (line.network | random.bits() & !mask(line.len)) & width
    }

    /// The table as a class file.
    pub fn class_file(&self) -> String {
        let mut text = String::with_capacity(self.lines.len() * 24);
        for line in &self.lines {
            // A write to a string cannot fail.
            let _ = writeln!(text, "{} {}", line.class, self.prefix(line));
        }
        text
    }

    /// The prefix of a line as text.
    pub fn prefix(&self, line: &Line) -> String {
        format!("{}/{}", ip(self.family, line.network), line.len)
    }

    /// The reference for the class of an address.
    pub fn reference(&self) -> Reference {
        let mut lengths: BTreeMap<u32, HashMap<u128, u8>> = BTreeMap::new();
        for line in &self.lines {
            lengths.entry(line.len).or_default().insert(line.network, line.class);
        }
        Reference { lengths }
    }
}

/// A routed address that no container of the benchmark has.
fn unicast_v4(random: &mut Random) -> u128 {
    loop {
        let bits = random.bits();
        if let 16..=126 | 128..=222 = bits >> 120 {
            return bits;
        }
    }
}

/// Looks for the longest length under which the address is known.
#[derive(Debug)]
pub struct Reference {
    lengths: BTreeMap<u32, HashMap<u128, u8>>,
}

impl Reference {
    /// The class of an address.
    pub fn class(&self, address: u128) -> u8 {
        let mut longest_first = self.lengths.iter().rev();
        longest_first.find_map(|(&len, networks)| networks.get(&(address & mask(len))).copied()).unwrap_or(0)
    }
}

/// The number of bits of an address.
pub const fn width(family: Family) -> u32 {
    match family {
        Family::Ipv4 => 32,
        Family::Ipv6 => 128,
    }
}

/// The uppermost bits.
pub const fn mask(len: u32) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - len) }
}

/// The bits as an address.
pub fn ip(family: Family, bits: u128) -> IpAddr {
    let [a, b, c, d, ..] = bits.to_be_bytes();
    match family {
        Family::Ipv4 => IpAddr::from([a, b, c, d]),
        Family::Ipv6 => IpAddr::from(bits.to_be_bytes()),
    }
}

/// The bits as words of a packet.
pub fn words(bits: u128) -> Address {
    std::array::from_fn(|word| {
        #[expect(clippy::cast_possible_truncation, reason = "only one word is needed")]
        let shifted = (bits >> (96 - 32 * word)) as u32;
        u32::from_ne_bytes(shifted.to_be_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans every line.
    fn naive(table: &Table, address: u128) -> u8 {
        let matching = table.lines.iter().filter(|line| address & mask(line.len) == line.network);
        matching.max_by_key(|line| line.len).map_or(0, |line| line.class)
    }

    #[test]
    fn tables_have_the_requested_number_of_different_prefixes() {
        for family in Family::ALL {
            let table = Table::new(family, 3000, Nesting::Allowed, 1);
            let distinct: HashSet<_> = table.lines.iter().map(|line| (line.len, line.network)).collect();
            assert_eq!((table.lines.len(), distinct.len()), (3000, 3000));
            assert!(table.lines.iter().all(|line| line.network & !mask(line.len) == 0));
        }
    }

    #[test]
    fn the_reference_agrees_with_a_scan() {
        for family in Family::ALL {
            let table = Table::new(family, 500, Nesting::Allowed, 2);
            let reference = table.reference();
            let mut random = Random::new(3);
            for _ in 0..2000 {
                let address = table.address(&mut random);
                assert_eq!(reference.class(address), naive(&table, address), "{}", ip(family, address));
            }
        }
    }

    #[test]
    fn without_nesting_an_address_is_in_one_prefix() {
        let table = Table::new(Family::Ipv4, 2000, Nesting::Avoided, 4);
        let mut random = Random::new(5);
        for _ in 0..500 {
            let address = table.address(&mut random);
            let matching = table.lines.iter().filter(|line| address & mask(line.len) == line.network).count();
            assert_eq!(matching, 1, "{}", ip(Family::Ipv4, address));
        }
    }

    #[test]
    fn words_are_in_network_byte_order() {
        let bits = u128::from(u32::from_be_bytes([192, 0, 2, 7])) << 96;
        assert_eq!(words(bits)[0].to_ne_bytes(), [192, 0, 2, 7]);
        assert_eq!(ip(Family::Ipv4, bits).to_string(), "192.0.2.7");
    }
}
