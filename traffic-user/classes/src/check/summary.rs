//! What a table bills: the addresses of each class, and what would not be billed.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    compile::ClassTable,
    parse::{Entry, UNCLASSIFIED, foreign::grouped},
    segments::{Row, Span, each_span, spans},
};

/// What one class covers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClassSummary {
    /// The class.
    pub class: u8,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// IPv4 prefixes that decide for this class.
    pub prefixes_v4: usize,
    /// IPv6 prefixes that decide for this class.
    pub prefixes_v6: usize,
    /// IPv4 addresses in this class. For class 0 with those that match nothing.
    pub addresses_v4: u64,
    /// IPv6 networks of 64 bits in this class, with fractions. For class 0 with those that match nothing.
    pub networks64_v6: f64,
}

impl std::fmt::Display for ClassSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { class, name, prefixes_v4, prefixes_v6, addresses_v4, networks64_v6 } = self;
        write!(f, "class {class}")?;
        if let Some(name) = name {
            write!(f, " \"{name}\"")?;
        }
        if *class == UNCLASSIFIED {
            f.write_str(" (counted, not billed)")?;
        }
        write!(
            f,
            ": {} IPv4 and {} IPv6 prefixes, {} IPv4 addresses, {} IPv6 networks of /64",
            grouped(*prefixes_v4),
            grouped(*prefixes_v6),
            grouped(usize::try_from(*addresses_v4).unwrap_or(usize::MAX)),
            networks64(*networks64_v6)
        )
    }
}

/// A number of /64 networks. Part of one must not look like none.
pub(super) fn networks64(number: f64) -> String {
    if number > 0.0 && number < 1.0 {
        return "less than 1".to_owned();
    }
    // A float converts to an integer without a panic; 2^64 is the most there can be.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 2^64, and not negative"
    )]
    let whole = number.round() as u128;
    usize::try_from(whole).map_or_else(|_| whole.to_string(), grouped)
}

/// The rows of a family as they decide, in their order.
pub(crate) fn rows(table: &ClassTable, is_v4: bool) -> impl Iterator<Item = Row> {
    let v4 = if is_v4 { &table.v4[..] } else { &[] };
    let v6 = if is_v4 { &[] } else { &table.v6[..] };
    let entries = v4.iter().map(|row| row.to_entry()).chain(v6.iter().map(|row| row.to_entry()));
    entries.map(|Entry { line, class, prefix }| Row { prefix, class, line })
}

/// Addresses as /64 networks.
#[expect(clippy::cast_precision_loss, reason = "a figure to be read, not to be billed from")]
pub(super) fn as_networks64(addresses: u128) -> f64 {
    addresses as f64 / 2_f64.powi(64)
}

/// Every class that an address can get, in the order of numbers.
pub(super) fn summaries(table: &ClassTable, names: &BTreeMap<u8, String>) -> Vec<ClassSummary> {
    let mut found: BTreeMap<u8, ClassSummary> = BTreeMap::new();
    for class in table.classes_in_use() {
        let name = names.get(&class).cloned();
        found.insert(class, ClassSummary { class, name, ..ClassSummary::default() });
    }
    for row in &table.v4 {
        found.entry(row.class).or_default().prefixes_v4 += 1;
    }
    for row in &table.v6 {
        found.entry(row.class).or_default().prefixes_v6 += 1;
    }
    for span in spans(rows(table, true), true) {
        let addresses = u64::try_from(span.addresses()).unwrap_or(u64::MAX);
        found.entry(span.class).or_default().addresses_v4 += addresses;
    }
    for span in spans(rows(table, false), false) {
        found.entry(span.class).or_default().networks64_v6 += as_networks64(span.addresses());
    }
    found.into_values().collect()
}

/// The addresses that peers on the Internet can have: in IPv4 without "this network", multicast and what is
/// reserved behind it, in IPv6 those that are assigned at all.
const fn reachable(is_v4: bool) -> (u128, u128) {
    if is_v4 { (1 << 24, (224 << 24) - 1) } else { (0x2 << 124, (0x4 << 124) - 1) }
}

/// What would not be billed, as sentences: WHAT: WHY; WHAT TO DO.
pub(super) fn not_billed(table: &ClassTable) -> Vec<String> {
    let mut found = Vec::new();
    for (is_v4, family, all) in [(true, "IPv4", "0.0.0.0/0"), (false, "IPv6", "::/0")] {
        let (first, last) = reachable(is_v4);
        let within = |span: &Span| {
            let (from, to) = (span.first.max(first), span.last.min(last));
            if from > to { 0 } else { to - from + 1 }
        };
        let (mut is_billed, mut unmatched, mut by) = (false, 0_u128, None);
        each_span(rows(table, is_v4), is_v4, |span| {
            is_billed |= span.class != UNCLASSIFIED;
            by = by.or(span.line);
            if span.line.is_none() {
                unmatched += within(&span);
            }
        });
        if !is_billed {
            let why = match by {
                Some(line) => format!("all of it is class 0, by line {line} and others like it"),
                None => "no line names an address of it".to_owned(),
            };
            found.push(format!(
                "{family} traffic is not billed: {why}; write `1 {all}` to bill it as class 1"
            ));
        } else if unmatched > 0 {
            #[expect(clippy::cast_precision_loss, reason = "a figure to be read, not to be billed from")]
            let share = unmatched as f64 * 100.0 / (last - first + 1) as f64;
            let share = if share < 0.01 { "under 0.01".to_owned() } else { format!("{share:.2}") };
            found.push(format!(
                "{family} traffic that matches no line is not billed: it is class 0, and {share} % of the \
                 addresses match none; write `1 {all}` to bill it as class 1"
            ));
        }
    }
    found
}
