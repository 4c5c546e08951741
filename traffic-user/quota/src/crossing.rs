//! Crossings of thresholds: what is new since the last look, exactly once.
//!
//! A [`Track`] is what is known of a quota, a container and a period. The ledger keeps it as rows, and writes
//! it in the transaction that books the figures it was computed from: either both are there, or neither, and
//! then the next look finds the same crossings under the same ids.
//!
//! - Several thresholds that are reached at once are crossed in ascending order.
//! - A threshold that is no longer reached (a correction, a higher allowance, a window that has moved on) is
//!   undone, in descending order. If it is reached again, that is another crossing.
//! - Periods are looked at in their order, so what was missed while nobody looked is caught up in order. A
//!   period that is not the newest is not forgotten: a clock that is set back over a border crosses nothing
//!   again.

use std::collections::BTreeMap;

use crate::{period::Span, usage::reached};

/// What is known of one quota of one container in one period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// Each threshold that was ever crossed, with how often, and whether it is crossed now.
    thresholds: BTreeMap<u16, Mark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    crossings: u32,
    is_crossed: bool,
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// What is used.
    pub used: u64,
    /// What may be used; never 0.
    pub allowance: u64,
}

/// A change of a threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// Its stable id: the same however often it is found.
    pub id: String,
    /// The threshold in percent.
    pub percent: u16,
    /// Reached, or no longer reached.
    pub change: Change,
    /// What was seen.
    pub look: Look,
}

/// The change of a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is reached.
    Reached,
    /// It was, and is not any more.
    Undone,
}

/// Whose threshold it is: part of the ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The name of the quota.
    pub quota: &'a str,
    /// The container, by what no other customer ever has: its number in the ledger.
    pub container: i64,
    /// The ledger, so that two nodes never have the same id.
    pub ledger: &'a str,
    /// The period.
    pub span: Span,
}

impl Track {
    /// The rows of a track: threshold, number of crossings, and whether it is crossed now.
    pub fn rows(&self) -> impl Iterator<Item = (u16, u32, bool)> + '_ {
        self.thresholds.iter().map(|(percent, mark)| (*percent, mark.crossings, mark.is_crossed))
    }

    /// A track from its rows.
    pub fn from_rows(rows: impl IntoIterator<Item = (u16, u32, bool)>) -> Self {
        let mark = |(percent, crossings, is_crossed)| (percent, Mark { crossings, is_crossed });
        Self { thresholds: rows.into_iter().map(mark).collect() }
    }

    /// Takes a look into account, and returns what has changed, in order. `None` is a quota without a limit,
    /// or none at all: what was crossed is undone.
    pub fn follow(&mut self, subject: Subject<'_>, thresholds: &[u16], look: Option<Look>) -> Vec<Crossing> {
        let now = look.map_or_else(Vec::new, |look| reached(thresholds, look.used, look.allowance));
        let seen = look.unwrap_or(Look { used: 0, allowance: 0 });
        let mut changes = Vec::new();
        for (&percent, mark) in self.thresholds.iter_mut().rev() {
            if mark.is_crossed && !now.contains(&percent) {
                mark.is_crossed = false;
                changes.push(crossing(subject, (percent, mark.crossings), Change::Undone, seen));
            }
        }
        for percent in now {
            let mark = self.thresholds.entry(percent).or_insert(Mark { crossings: 0, is_crossed: false });
            if !mark.is_crossed {
                *mark = Mark { crossings: mark.crossings.saturating_add(1), is_crossed: true };
                changes.push(crossing(subject, (percent, mark.crossings), Change::Reached, seen));
            }
        }
        changes
    }
}

fn crossing(subject: Subject<'_>, (percent, number): (u16, u32), change: Change, look: Look) -> Crossing {
    let Subject { quota, container, ledger, span } = subject;
    let what = match change {
        Change::Reached => "reached",
        Change::Undone => "undone",
    };
    let id = format!("{ledger}/{quota}/{container}/{}/{percent}/{what}/{number}", span.start_s);
    Crossing { id, percent, change, look }
}

#[cfg(test)]
#[path = "crossing_tests.rs"]
mod tests;
