//! Lines that could be removed without a change of any address's class.

use std::{collections::HashMap, fmt};

use serde::Serialize;

use crate::{
    compile::{ClassOrder, ClassTable, overrides, standing},
    order::by_network,
    parse::{ClassFile, Entry, UNCLASSIFIED},
    segments::spans,
};

/// Why a line has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum NoEffectReason {
    /// The same network is repeated on a later line.
    SamePrefixAgain {
        /// The last line with that network.
        line: u32,
    },
    /// A class-0 network contains this one (order `virtuozzo`).
    CoveredByClassZero {
        /// The line of the class-0 network.
        line: u32,
    },
    /// A larger network on a later line contains this one (order `last-line`).
    EarlierLine {
        /// That line.
        line: u32,
    },
    /// Longer prefixes decide all of its addresses.
    CoveredInside,
    /// The network around it has the same class.
    SameClass {
        /// The line of the network around it.
        line: u32,
    },
}

impl NoEffectReason {
    /// Whether somebody meant something else. A list with networks inside each other is as good as its
    /// aggregate.
    pub const fn is_doubtful(self) -> bool {
        !matches!(self, Self::SameClass { .. })
    }
}

/// A line without effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NoEffect {
    /// The line.
    pub entry: Entry,
    /// Why it has no effect.
    pub reason: NoEffectReason,
}

impl fmt::Display for NoEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, reason } = self;
        write!(f, "line {}: {entry}: no effect: ", entry.line)?;
        match reason {
            NoEffectReason::SamePrefixAgain { line } => write!(f, "the prefix is repeated on line {line}"),
            NoEffectReason::CoveredByClassZero { line } => {
                write!(f, "the class-0 network of line {line} covers it")
            }
            NoEffectReason::EarlierLine { line } => {
                write!(f, "line {line}, a larger network, comes later and decides")
            }
            NoEffectReason::CoveredInside => f.write_str("longer prefixes decide all of its addresses"),
            NoEffectReason::SameClass { line } => write!(f, "line {line} around it has the same class"),
        }
    }
}

/// Lines of a file. A table has a million, of which a hash table takes longer to fill than all else takes.
struct LineSet(Vec<bool>);

impl LineSet {
    /// For lines up to this number.
    fn new(last: u32) -> Self {
        Self(vec![false; last as usize + 1])
    }

    fn insert(&mut self, line: u32) {
        if let Some(line) = self.0.get_mut(line as usize) {
            *line = true;
        }
    }

    fn contains(&self, line: u32) -> bool {
        self.0.get(line as usize).is_some_and(|line| *line)
    }
}

/// The lines without effect under an order, in the order of lines.
pub(super) fn without_effect(entries: &[Entry], table: &ClassTable) -> Vec<NoEffect> {
    let order = table.order;
    let mut found = Vec::new();
    let lines = entries.iter().map(|entry| entry.line).max().unwrap_or(0);
    let all = by_network(entries);
    // A line that takes the place of an earlier one has that effect, whatever else decides.
    let mut replacing = LineSet::new(lines);
    for same in all.chunk_by(|one, next| one.prefix == next.prefix) {
        let line = same[0].line;
        for &entry in same.iter().filter(|entry| entry.line != line) {
            replacing.insert(line);
            found.push(NoEffect { entry, reason: NoEffectReason::SamePrefixAgain { line } });
        }
    }
    let mut standing = all.into_owned();
    standing.dedup_by_key(|entry| entry.prefix);
    // A line that overrides others has that effect, even if it decides nothing else.
    let mut overriding = LineSet::new(lines);
    for (entry, by) in overrides(&standing, order) {
        let Some(by) = by else { continue };
        overriding.insert(by.line);
        let reason = match order {
            ClassOrder::LastLine => NoEffectReason::EarlierLine { line: by.line },
            _ => NoEffectReason::CoveredByClassZero { line: by.line },
        };
        found.push(NoEffect { entry, reason });
    }
    for is_v4 in [true, false] {
        let mut deciding = LineSet::new(lines);
        for span in spans(super::summary::rows(table, is_v4), is_v4) {
            span.line.into_iter().for_each(|line| deciding.insert(line));
        }
        let mut around: Vec<Entry> = Vec::new();
        for row in super::summary::rows(table, is_v4) {
            let entry = Entry { line: row.line, class: row.class, prefix: row.prefix };
            while around.last().is_some_and(|outer| !outer.prefix.contains(&entry.prefix)) {
                around.pop();
            }
            let outer = around.last().copied();
            around.push(entry);
            if overriding.contains(entry.line) || replacing.contains(entry.line) {
                continue;
            }
            let same = outer.filter(|outer| outer.class == entry.class);
            let reason = if !deciding.contains(entry.line) {
                NoEffectReason::CoveredInside
            } else if let Some(outer) = same {
                NoEffectReason::SameClass { line: outer.line }
            } else {
                continue;
            };
            found.push(NoEffect { entry, reason });
        }
    }
    found.sort_by_key(|one| one.entry.line);
    found
}

/// The line that overrides the most others, as a sentence. A default at the end decides everything under
/// `last-line`, and under `virtuozzo` a class-0 line takes what is inside it from being billed.
pub(super) fn largest_override(file: &ClassFile, table: &ClassTable) -> Option<String> {
    let order = table.order;
    // Nothing was left out of the table, as usual.
    if table.len() == file.entries.len() {
        return None;
    }
    let mut by_line: HashMap<u32, usize> = HashMap::new();
    for (entry, by) in overrides(&standing(&file.entries), order) {
        if let Some(by) = by.filter(|_| order == ClassOrder::LastLine || entry.class != UNCLASSIFIED) {
            *by_line.entry(by.line).or_default() += 1;
        }
    }
    let (line, lines) = by_line.into_iter().max_by_key(|&(line, lines)| (lines, line))?;
    Some(match order {
        ClassOrder::LastLine => {
            let are = if lines == 1 { "line above it has" } else { "lines above it have" };
            format!(
                "line {line} comes last and decides: {lines} {are} no effect under the order last-line; write \
                 larger networks first"
            )
        }
        _ => {
            let are = if lines == 1 { "line is" } else { "lines are" };
            format!(
                "line {line} is class 0 and goes before longer prefixes: {lines} {are} not billed as written; \
                 set class_order = \"longest-prefix\" if that is not meant"
            )
        }
    })
}
