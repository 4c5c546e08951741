//! Which classes the addresses of a prefix have: its parts by longest prefix, each with class, line and
//! share.
//!
//! Works on the compiled table, which already contains the order's decisions. Why a line does not decide is
//! explained for single addresses only ([`explain()`](crate::explain())).

use std::{collections::BTreeMap, fmt};

use ipnet::IpNet;
use serde::Serialize;

use crate::{
    compile::{ClassOrder, ClassTable, compile},
    explain::{ExplainContext, billing},
    parse::{ClassFile, Entry, UNCLASSIFIED},
};

/// Most parts that an explanation keeps: the largest ones.
const KEPT_PARTS: usize = 1000;
/// Most parts that are printed as text.
const SHOWN_PARTS: usize = 20;

/// The addresses of a prefix whose class one line decides.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Part {
    /// Their class.
    pub class: u8,
    /// The line that decides; `None` where no line matches, which is class 0.
    pub decided_by: Option<Entry>,
    /// Their share of the prefix, above 0 and at most 1.
    pub share: f64,
}

/// A class and its share of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClassShare {
    /// The class.
    pub class: u8,
    /// Its share of the prefix, above 0 and at most 1.
    pub share: f64,
}

/// Which classes the addresses of a prefix have. Its `Display` is a few lines of text, each ended by a line
/// feed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrefixExplanation {
    /// The prefix in question.
    pub prefix: IpNet,
    /// The order that was applied.
    pub order: ClassOrder,
    /// Every class in the prefix, largest share first.
    pub classes: Vec<ClassShare>,
    /// The parts, largest share first; at most 1,000.
    pub parts: Vec<Part>,
    /// Number of parts, including those that are not listed.
    pub parts_total: usize,
    /// What else is known.
    #[serde(flatten)]
    pub context: ExplainContext,
}

impl PrefixExplanation {
    /// With what is known about the file.
    #[must_use]
    pub fn with_context(mut self, context: ExplainContext) -> Self {
        self.context = context;
        self
    }
}

/// Explains which classes the addresses of a prefix have, as [`compile`](crate::compile()) would decide.
pub fn explain_prefix(file: &ClassFile, order: ClassOrder, prefix: IpNet) -> PrefixExplanation {
    let prefix = prefix.trunc();
    let mut parts = parts(&compile(&file.entries, order), prefix);
    let mut shares: BTreeMap<u8, f64> = BTreeMap::new();
    for part in &parts {
        *shares.entry(part.class).or_default() += part.share;
    }
    let mut classes: Vec<ClassShare> =
        shares.into_iter().map(|(class, share)| ClassShare { class, share }).collect();
    // Stable sorts: equal shares stay in the order of classes or addresses.
    classes.sort_by(|a, b| b.share.total_cmp(&a.share));
    parts.sort_by(|a, b| b.share.total_cmp(&a.share));
    let parts_total = parts.len();
    parts.truncate(KEPT_PARTS);
    PrefixExplanation { prefix, order, classes, parts, parts_total, context: ExplainContext::default() }
}

/// Every part in the order of addresses, an enclosing one before those inside it.
fn parts(table: &ClassTable, prefix: IpNet) -> Vec<Part> {
    let whole = table.enclosing(prefix);
    let mut parts =
        vec![Part { class: whole.map_or(UNCLASSIFIED, |entry| entry.class), decided_by: whole, share: 1.0 }];
    // The parts around the current entry. Each gives up the share of the entries directly inside it. Shares
    // are powers of two, so subtracting them is exact down to 2^-52.
    let mut path: Vec<(IpNet, usize)> = vec![(prefix, 0)];
    for entry in table.within(prefix) {
        while path.len() > 1 && path.last().is_some_and(|(around, _)| !around.contains(&entry.prefix)) {
            path.pop();
        }
        let share = (-f64::from(entry.prefix.prefix_len() - prefix.prefix_len())).exp2();
        if let Some(&(_, around)) = path.last() {
            parts[around].share -= share;
        }
        path.push((entry.prefix, parts.len()));
        parts.push(Part { class: entry.class, decided_by: Some(entry), share });
    }
    parts.retain(|part| part.share > 0.0);
    parts
}

impl fmt::Display for PrefixExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, order, classes, parts, parts_total, context } = self;
        if let ([class], [part]) = (&classes[..], &parts[..]) {
            let class = class.class;
            writeln!(f, "{prefix} is {} (class order {order}){}", context.class(class), billing(class))?;
            return match part.decided_by {
                Some(entry) => writeln!(f, "decided by {}: {entry}", context.line(entry.line)),
                None => {
                    writeln!(f, "decided by no line: addresses that match nothing are class {UNCLASSIFIED}")
                }
            };
        }
        writeln!(f, "{prefix} has {parts_total} parts in {} (class order {order})", count_of(classes.len()))?;
        for ClassShare { class, share } in classes {
            let billing = if *class == UNCLASSIFIED { ", counted, not billed" } else { "" };
            writeln!(f, "{}: {}{billing}", context.class(*class), Percent(*share))?;
        }
        writeln!(f, "parts, largest first:")?;
        for part in parts.iter().take(SHOWN_PARTS) {
            match part.decided_by {
                Some(entry) => {
                    writeln!(
                        f,
                        "{} class {} by line {}: {entry}",
                        Percent(part.share),
                        part.class,
                        entry.line
                    )?;
                }
                None => writeln!(f, "{} class {} by no line", Percent(part.share), part.class)?,
            }
        }
        match parts_total.saturating_sub(SHOWN_PARTS) {
            0 => Ok(()),
            more => writeln!(f, "... and {more} more"),
        }
    }
}

fn count_of(classes: usize) -> String {
    if classes == 1 { "1 class".to_owned() } else { format!("{classes} classes") }
}

struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.0 * 100.0;
        // A small part must not look like none, nor a large one like all.
        if percent < 0.01 {
            f.write_str("under 0.01 %")
        } else if percent > 99.99 && self.0 < 1.0 {
            f.write_str("over 99.99 %")
        } else {
            write!(f, "{percent:.2} %")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    const FILE: &[u8] = b"1 0.0.0.0/0\n\
        2 10.0.0.0/8\n\
        0 10.1.0.0/16\n\
        3 10.1.2.0/24\n\
        4 10.128.0.0/9\n\
        4 10.128.0.0/10\n\
        5 10.192.0.0/10\n";

    fn explained(text: &[u8], order: ClassOrder, prefix: &str) -> PrefixExplanation {
        explain_prefix(&parse(text), order, prefix.parse().unwrap())
    }

    #[test]
    fn parts_follow_the_longest_prefix_and_add_up() {
        let explanation = explained(FILE, ClassOrder::LongestPrefix, "10.0.0.0/8");
        let parts: Vec<_> = explanation
            .parts
            .iter()
            .map(|part| (part.class, part.decided_by.unwrap().line, part.share))
            .collect();
        let (c_16, c_24) = (1.0 / 256.0, 1.0 / 65_536.0);
        assert_eq!(
            parts,
            [(2, 2, 0.5 - c_16), (4, 6, 0.25), (5, 7, 0.25), (0, 3, c_16 - c_24), (3, 4, c_24)],
            "line 5 is covered by lines 6 and 7"
        );
        let sum: f64 = explanation.classes.iter().map(|class| class.share).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        // Under Virtuozzo's order the class-0 network wins.
        let explanation = explained(FILE, ClassOrder::Virtuozzo, "10.1.2.0/23");
        assert_eq!(
            explanation.to_string(),
            "10.1.2.0/23 is class 0 (class order virtuozzo): counted, not billed\ndecided by line 3: 0 10.1.0.0/16\n"
        );
    }

    #[test]
    fn text_lists_classes_and_parts() {
        assert_eq!(
            explained(FILE, ClassOrder::Virtuozzo, "10.0.0.0/8").to_string(),
            "10.0.0.0/8 has 4 parts in 4 classes (class order virtuozzo)\n\
             class 2: 49.61 %\n\
             class 4: 25.00 %\n\
             class 5: 25.00 %\n\
             class 0: 0.39 %, counted, not billed\n\
             parts, largest first:\n\
             49.61 % class 2 by line 2: 2 10.0.0.0/8\n\
             25.00 % class 4 by line 6: 4 10.128.0.0/10\n\
             25.00 % class 5 by line 7: 5 10.192.0.0/10\n\
             0.39 % class 0 by line 3: 0 10.1.0.0/16\n"
        );
        assert_eq!(
            explained(b"1 10.0.0.0/9\n", ClassOrder::Virtuozzo, "10.0.0.0/8").to_string(),
            "10.0.0.0/8 has 2 parts in 2 classes (class order virtuozzo)\n\
             class 0: 50.00 %, counted, not billed\n\
             class 1: 50.00 %\n\
             parts, largest first:\n\
             50.00 % class 0 by no line\n\
             50.00 % class 1 by line 1: 1 10.0.0.0/9\n"
        );
        assert_eq!(
            explained(b"1 ::/0\n", ClassOrder::Virtuozzo, "0.0.0.0/0").to_string(),
            "0.0.0.0/0 is class 0 (class order virtuozzo): counted, not billed\ndecided by no line: addresses that match nothing \
             are class 0\n"
        );
    }

    #[test]
    fn output_is_bounded() {
        let text: String = (0..4096).map(|n| format!("1 10.{}.{}.0/24\n", n / 256, n % 256)).collect();
        let explanation = explained(text.as_bytes(), ClassOrder::Virtuozzo, "::/0");
        assert_eq!(explanation.parts_total, 1, "the other family does not count");
        let explanation = explained(text.as_bytes(), ClassOrder::Virtuozzo, "10.0.0.0/8");
        assert_eq!((explanation.parts.len(), explanation.parts_total), (KEPT_PARTS, 4097));
        let shown = explanation.to_string();
        assert!(shown.ends_with("... and 4077 more\n"), "{shown}");
        assert_eq!(shown.lines().count(), 1 + 2 + 1 + SHOWN_PARTS + 1);
        assert!(shown.contains("under 0.01 % class 1"), "{shown}");
    }

    #[test]
    fn tiny_parts_of_a_large_prefix_are_named() {
        let explanation = explained(b"1 ::/0\n2 2001:db8::1/128\n", ClassOrder::Virtuozzo, "::/0");
        assert_eq!(explanation.parts_total, 2);
        assert_eq!(explanation.parts[1].decided_by.unwrap().line, 2);
    }
}
