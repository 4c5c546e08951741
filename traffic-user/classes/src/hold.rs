//! Files that are not put in force without a person's word, because they look as if they were cut short.
//!
//! A refused file is wrong. A held file may be right: it is complete by its grammar, but its last line or
//! what vanishes from the table looks like an interrupted download, copy or write.

use std::{collections::HashSet, fmt};

use ipnet::IpNet;

use crate::{
    compile::ClassTable,
    parse::{ClassFile, foreign::grouped},
};

/// The part of the prefixes in force that may vanish at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HoldLimit {
    /// In percent, from 0 to 100. At 100 any part may vanish.
    pub percent: f64,
}

impl Default for HoldLimit {
    fn default() -> Self {
        Self { percent: 20.0 }
    }
}

/// What is known about the table in force.
#[derive(Clone, Copy, Debug, Default)]
pub struct InForce<'a> {
    /// Its prefixes.
    pub rows: &'a [(IpNet, u8)],
    /// The bytes of the class file that it was compiled from, if they are known.
    pub file: Option<&'a [u8]>,
}

/// Why a file is held. Its `Display` is WHAT: WHY, without what to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Hold {
    /// The last line has no line feed and host bits set: its length may have lost a digit.
    HostBitsAtEnd {
        /// The line.
        line: u32,
        /// The network as written.
        written: IpNet,
    },
    /// The last line has no line feed, and prefixes vanish.
    UnfinishedAndRemoved {
        /// The line.
        line: u32,
        /// The number of prefixes that vanish.
        removed: usize,
    },
    /// The file is the beginning of the one in force.
    Beginning {
        /// Its length in bytes.
        bytes: usize,
        /// The length of the file in force.
        of: usize,
    },
    /// A large part of the prefixes vanishes.
    Removed {
        /// The number of prefixes that vanish.
        removed: usize,
        /// The number of prefixes in force.
        of: usize,
        /// The limit.
        limit: HoldLimit,
    },
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostBitsAtEnd { line, written } => write!(
                f,
                "it looks cut short: line {line}, the last one, has no line feed and reads {written}, which has \
                 host bits set"
            ),
            Self::UnfinishedAndRemoved { line, removed } => write!(
                f,
                "it looks cut short: line {line}, the last one, has no line feed, and {} of the prefixes in force \
                 are missing",
                grouped(*removed)
            ),
            Self::Beginning { bytes, of } => write!(
                f,
                "it looks cut short: it is the first {} of the {} bytes of the file in force",
                grouped(*bytes),
                grouped(*of)
            ),
            Self::Removed { removed, of, limit } => write!(
                f,
                "{} of the {} prefixes in force are missing, more than hold_if_removed = \"{}%\" allows",
                grouped(*removed),
                grouped(*of),
                limit.percent
            ),
        }
    }
}

/// A file that may be put in force.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// What they say.
    pub file: &'a ClassFile,
    /// The table that it is compiled to.
    pub table: &'a ClassTable,
}

/// Whether to hold a file. `None`: it can be put in force.
pub fn hold(candidate: Candidate<'_>, in_force: InForce<'_>, limit: HoldLimit) -> Option<Hold> {
    let Candidate { bytes, file, table } = candidate;
    if let Some(unfinished) = file.unfinished
        && let Some(written) = unfinished.with_host_bits
    {
        return Some(Hold::HostBitsAtEnd { line: unfinished.line, written });
    }
    if let Some(before) = in_force.file
        && bytes.len() < before.len()
        && before.starts_with(bytes)
        && !is_same(table, in_force.rows)
    {
        return Some(Hold::Beginning { bytes: bytes.len(), of: before.len() });
    }
    let prefixes: HashSet<IpNet> = file.entries.iter().map(|entry| entry.prefix).collect();
    let absent: Vec<&(IpNet, u8)> =
        in_force.rows.iter().filter(|(prefix, _)| !prefixes.contains(prefix)).collect();
    if let Some(unfinished) = file.unfinished.filter(|_| !absent.is_empty()) {
        return Some(Hold::UnfinishedAndRemoved { line: unfinished.line, removed: absent.len() });
    }
    // A prefix that another order overrides is not absent. One that is now part of a larger prefix, or of
    // several smaller ones, of its class has not vanished.
    let has_other_class = |(prefix, class): &&&(IpNet, u8)| {
        [prefix.network(), prefix.broadcast()].iter().any(|&end| table.class_of(end) != *class)
    };
    let missing = absent.iter().filter(has_other_class).count();
    let of = in_force.rows.len();
    #[expect(clippy::cast_precision_loss, reason = "a share of at most some millions")]
    let is_too_many = missing as f64 * 100.0 > of as f64 * limit.percent;
    is_too_many.then_some(Hold::Removed { removed: missing, of, limit })
}

fn is_same(table: &ClassTable, rows: &[(IpNet, u8)]) -> bool {
    let prefixes: HashSet<(IpNet, u8)> = table.entries().map(|entry| (entry.prefix, entry.class)).collect();
    prefixes.len() == rows.len() && rows.iter().all(|row| prefixes.contains(row))
}

#[cfg(test)]
mod tests;
