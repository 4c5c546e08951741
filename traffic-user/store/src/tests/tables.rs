//! Tables in memory that keep the newest version of each row, sooner or later.

use std::collections::{BTreeMap, BTreeSet};

use traffic_ledger::{Cell, Content, TABLES};

use crate::clickhouse::engine::{Adoption, Progress, Seen};

/// A row of a part, or of the part itself, which has no table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub place: u64,
    pub table: Option<usize>,
    pub part: (&'static str, i64),
    pub version: u64,
    pub cells: Vec<Cell>,
}

pub type Key<'a> = (u64, Option<usize>, (&'static str, i64), &'a [Cell]);

impl Row {
    /// What identifies it, besides its version.
    pub fn key(&self) -> Key<'_> {
        let keys = self.table.map_or(0, |at| TABLES[at].keys.len());
        (self.place, self.table, self.part, &self.cells[..keys])
    }
}

/// A note: place, ledger, what it says, and the change number.
#[derive(Clone, Debug)]
pub struct Note {
    pub place: u64,
    pub ledger: String,
    /// Machine and token of a number that was seen; otherwise it is done.
    pub seen: Option<(Option<String>, Option<String>)>,
    /// Whether all drops are there. The number is the time before which five minutes may lack theirs.
    pub is_of_drops: bool,
    pub number: i64,
}

/// One insertion into one partition.
#[derive(Clone, Debug)]
pub enum Insertion {
    Rows(Vec<Row>),
    Notes(Vec<Note>),
    Adoptions(Vec<Adoption>),
}

#[derive(Debug, Default)]
pub struct Tables {
    pub rows: Vec<Row>,
    pub notes: Vec<Note>,
    pub adoptions: Vec<Adoption>,
    /// Whether they were made before there were drops.
    pub is_old: bool,
    /// Sent long ago, and still on the way.
    pub late: Vec<Insertion>,
}

impl Tables {
    pub fn insert(&mut self, insertion: Insertion) {
        match insertion {
            Insertion::Rows(rows) => self.rows.extend(rows),
            Insertion::Notes(notes) => self.notes.extend(notes),
            Insertion::Adoptions(adoptions) => self.adoptions.extend(adoptions),
        }
    }

    /// The newest version of each row; of the same version, the last.
    pub fn newest(&self) -> BTreeMap<Key<'_>, &Row> {
        let mut newest: BTreeMap<Key<'_>, &Row> = BTreeMap::new();
        for row in &self.rows {
            let kept = newest.entry(row.key()).or_insert(row);
            if kept.version <= row.version {
                *kept = row;
            }
        }
        newest
    }

    /// Removes for good some of the rows that newer versions have replaced.
    pub fn merge(&mut self, random: &mut fastrand::Rng) {
        let kept: Vec<bool> = {
            let newest: BTreeSet<*const Row> = self.newest().into_values().map(std::ptr::from_ref).collect();
            self.rows.iter().map(|row| newest.contains(&std::ptr::from_ref(row))).collect()
        };
        let mut kept = kept.into_iter();
        self.rows.retain(|_| kept.next() == Some(true) || random.bool());
    }

    /// The rows of a place that count.
    pub fn counted(&self, place: u64) -> Vec<&Row> {
        let newest = self.newest();
        let of_part: BTreeMap<_, u64> = newest
            .values()
            .filter(|row| row.place == place && row.table.is_none())
            .map(|row| (row.part, row.version))
            .collect();
        let rows = newest.into_values().filter(|row| row.place == place && row.table.is_some());
        rows.filter(|row| of_part.get(&row.part) == Some(&row.version)).collect()
    }

    /// The parts of a place.
    pub fn parts(&self, place: u64) -> BTreeMap<(String, i64), Content> {
        let newest = self.newest();
        let own = newest.values().filter(|row| row.place == place && row.table.is_none());
        let mut parts: BTreeMap<(String, i64), Content> = own
            .map(|row| {
                let (name, number) = row.part;
                let rev = i64::try_from(row.version >> 16).unwrap();
                ((name.to_owned(), number), Content::new(name, number, rev))
            })
            .collect();
        for row in self.counted(place) {
            let part = parts.get_mut(&(row.part.0.to_owned(), row.part.1)).unwrap();
            part.rows.push((row.table.unwrap(), row.cells.clone()));
        }
        parts
    }

    pub fn progress(&self, place: u64) -> Progress {
        let mut progress = Progress::default();
        for note in self.notes.iter().filter(|note| note.place == place) {
            if note.is_of_drops {
                progress.has_drops = true;
                progress.drops_kept_from =
                    progress.drops_kept_from.max(Some(note.number).filter(|from| *from != 0));
                continue;
            }
            let Some((machine, token)) = &note.seen else {
                progress.done = progress.done.max(note.number);
                continue;
            };
            let same = progress.seen.iter_mut().find(|seen| (&seen.machine, &seen.token) == (machine, token));
            match same {
                Some(seen) => seen.changes = seen.changes.max(note.number),
                None => progress.seen.push(Seen {
                    changes: note.number,
                    token: token.clone(),
                    machine: machine.clone(),
                }),
            }
        }
        progress
    }
}
