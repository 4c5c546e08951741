//! Crossings of thresholds: what is new since the last look, exactly once.
//!
//! A [`Track`] is what is known of a quota, a container and a period. The ledger keeps it as rows, and writes
//! it in the transaction that books the figures it was computed from: either both are there, or neither, and
//! then the next look finds the same crossings under the same ids.
//!
//! - Several thresholds that are reached at once are crossed in ascending order.
//! - A threshold that is no longer reached (a correction, a higher allowance, a window that has moved on) is
//!   undone, in descending order. If it is reached again, that is another crossing.
//! - At the end of a period, everything that is crossed ends, in descending order.
//! - Periods are looked at in their order, so what was missed while nobody looked is caught up in order. If a
//!   clock is set back over a border, what had ended there begins again, as another crossing.

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It is reached.
    Reached,
    /// It was, and is not any more.
    Undone,
    /// It was until the period ended.
    Ended,
}

impl Change {
    /// All changes, with their names in ids and in output.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Reached, "reached"), (Self::Undone, "undone"), (Self::Ended, "ended")];

    /// The name in ids and in output.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(change, _)| *change == self).map_or("", |(_, name)| name)
    }
}

/// Whose threshold it is: part of the ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The name of the quota.
    pub quota: &'a str,
    /// The container, by what no other customer ever has: its number in the ledger.
    pub container: i64,
    /// Its id. After an older ledger was restored, another container may get the number.
    pub id: &'a str,
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
        let seen = look.unwrap_or_default();
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

    /// The period has ended: so does everything that is crossed. The track stays as it is, so that later
    /// corrections are found.
    pub fn end(&self, subject: Subject<'_>, look: Look) -> Vec<Crossing> {
        let crossed = self.thresholds.iter().rev().filter(|(_, mark)| mark.is_crossed);
        crossed
            .map(|(&percent, mark)| crossing(subject, (percent, mark.crossings), Change::Ended, look))
            .collect()
    }

    /// The period that had ended goes on: what is reached now is crossed again.
    pub fn reopen(&mut self) {
        self.thresholds.values_mut().for_each(|mark| mark.is_crossed = false);
    }

    /// The smallest amount from which on a look finds a threshold that is not crossed now; `None` if all are.
    pub fn next_amount(&self, thresholds: &[u16], allowance: u64) -> Option<u64> {
        let is_crossed = |percent: &u16| self.thresholds.get(percent).is_some_and(|mark| mark.is_crossed);
        let amount = |percent: u16| (u128::from(allowance) * u128::from(percent)).div_ceil(100);
        let next = thresholds.iter().copied().filter(|percent| !is_crossed(percent)).map(amount).min()?;
        Some(u64::try_from(next).unwrap_or(u64::MAX))
    }
}

fn crossing(subject: Subject<'_>, (percent, number): (u16, u32), change: Change, look: Look) -> Crossing {
    let Subject { quota, container, id, ledger, span } = subject;
    let what = change.name();
    let id = format!("{ledger}/{quota}/{id}/{container}/{}/{percent}/{what}/{number}", span.start_s);
    Crossing { id, percent, change, look }
}

#[cfg(test)]
#[path = "crossing_tests.rs"]
mod tests;
