//! ClickHouse in memory: its tables, and requests that are lost, that nobody hears of, that arrive twice or much later, each
//! alone.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use traffic_ledger::{Cell, TABLES};

use super::{
    model::{OfLedger, Simulated},
    tables::{Insertion, Note, Row, Tables},
};
use crate::{
    StoreError,
    clickhouse::{
        Replacing,
        engine::{Adoption, Engine, Notes, PartVersion, Progress, Seen, Versioned, Versions},
    },
    digests,
    store::{Known, PartDigest},
};

pub type Fake = Rc<RefCell<Tables>>;

impl Simulated for Fake {
    type Connection = Replacing<Connection>;

    fn connect(&self, seed: u64, fails: usize, puts: usize) -> Replacing<Connection> {
        let random = fastrand::Rng::with_seed(seed);
        // A batch is several calls, of which two add parts.
        let (fails, adds_left) = (fails * 4, puts.saturating_mul(2));
        let takes_drops = !self.borrow().is_old;
        let tables = Rc::clone(self);
        Replacing::new(Connection { tables, random, fails, adds_left, rows_left: usize::MAX, takes_drops })
    }

    fn connect_by_bad_link(&self, seed: u64, rows: usize) -> Replacing<Connection> {
        Replacing::new(Connection {
            tables: Rc::clone(self),
            random: fastrand::Rng::with_seed(seed),
            fails: 0,
            adds_left: usize::MAX,
            rows_left: rows,
            takes_drops: true,
        })
    }

    fn set_old(&self, is_old: bool) {
        self.borrow_mut().is_old = is_old;
    }

    fn ledgers(&self) -> BTreeMap<String, OfLedger> {
        let tables = self.borrow();
        let noted = tables.notes.iter().map(|note| note.ledger.clone());
        let ids: BTreeSet<String> =
            noted.chain(tables.adoptions.iter().map(|adoption| adoption.ledger.clone())).collect();
        let of = |id: &String| {
            let own = tables.adoptions.iter().filter(|adoption| adoption.ledger == *id);
            let last = own.max_by_key(|adoption| (adoption.turn, adoption.place));
            let first = tables.notes.iter().find(|note| note.ledger == *id);
            let place = match (last, first) {
                (Some(Adoption { replaced_by: Some(by), .. }), _) => {
                    let known = Known { replaced_by: Some(by.clone()), ..Known::default() };
                    return OfLedger { known, parts: BTreeMap::new() };
                }
                (Some(adoption), _) => adoption.place,
                (None, first) => first.unwrap().place,
            };
            let Progress { done, drops_kept_from, .. } = tables.progress(place);
            let known = Known { done, drops_kept_from, ..Known::default() };
            OfLedger { known, parts: tables.parts(place) }
        };
        ids.iter().map(|id| (id.clone(), of(id))).collect()
    }

    fn settle(&self) {
        let mut tables = self.borrow_mut();
        let late = std::mem::take(&mut tables.late);
        for insertion in late {
            match insertion {
                Insertion::Rows(_) => tables.late.push(insertion),
                notes => tables.insert(notes),
            }
        }
    }

    fn alter(&self, random: &mut fastrand::Rng) -> (String, i64) {
        let mut tables = self.borrow_mut();
        // What arrives later would repair it.
        tables.late.clear();
        let last =
            tables.adoptions.iter().max_by_key(|adoption| (adoption.turn, adoption.replaced_by.is_none()));
        let place = last.map_or_else(|| tables.notes[0].place, |adoption| adoption.place);
        let counted: Vec<Row> = tables.counted(place).into_iter().cloned().collect();
        let chosen = counted[random.usize(..counted.len())].clone();
        let table = &TABLES[chosen.table.unwrap()];
        // Level and start, or the number of a record, are those of the part.
        let of_part = if table.is_of_units() { 2 } else { 1 };
        let mut altered = chosen.clone();
        let key = table.keys.len() - 1;
        match random.u8(..3) {
            0 => {
                tables.rows.retain(|row| row.key() != chosen.key());
                return (chosen.part.0.to_owned(), chosen.part.1);
            }
            1 if key >= of_part => match &mut altered.cells[key] {
                Cell::Integer(number) => *number += 1_000_000,
                Cell::Text(text) => text.push('x'),
                other => panic!("{other:?}"),
            },
            _ => {
                let found =
                    altered.cells[of_part.max(table.keys.len())..].iter_mut().find_map(|cell| match cell {
                        Cell::Integer(number) => {
                            *number += 1;
                            Some(())
                        }
                        Cell::Text(text) => {
                            text.push('x');
                            Some(())
                        }
                        _ => None,
                    });
                found.unwrap();
            }
        }
        tables.rows.push(altered);
        (chosen.part.0.to_owned(), chosen.part.1)
    }
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Well,
    /// It never arrives.
    Undone,
    /// It is done, and nobody hears of it.
    Unheard,
    /// It is done much later.
    Late,
}

#[derive(Debug)]
pub struct Connection {
    tables: Fake,
    random: fastrand::Rng,
    /// One call in this many fails; 0 for none.
    fails: usize,
    /// After so many insertions of parts, every one fails.
    adds_left: usize,
    /// The connection ends before more rows of parts and calls than these.
    rows_left: usize,
    takes_drops: bool,
}

fn lost<T>() -> Result<T, StoreError> {
    Err(StoreError::Away("the connection was lost".to_owned()))
}

impl Connection {
    fn fate(&mut self) -> Fate {
        match self.fails {
            0 => Fate::Well,
            most if self.random.usize(..most) > 0 => Fate::Well,
            _ => [Fate::Undone, Fate::Unheard, Fate::Late][self.random.usize(..3)],
        }
    }

    /// Others have their turn.
    async fn pause(&mut self) {
        for _ in 0..self.random.u8(..3) {
            tokio::task::yield_now().await;
        }
    }

    /// Ends the connection if no more passes.
    fn pass(&mut self, rows: usize) -> Result<(), StoreError> {
        let Some(left) = self.rows_left.checked_sub(rows) else {
            (self.adds_left, self.rows_left) = (0, 0);
            return lost();
        };
        self.rows_left = left;
        Ok(())
    }

    async fn read<T>(&mut self, read: impl FnOnce(&Tables) -> T) -> Result<T, StoreError> {
        self.pass(1)?;
        self.pause().await;
        let fate = self.fate();
        let found = read(&self.tables.borrow());
        self.pause().await;
        if fate == Fate::Well { Ok(found) } else { lost() }
    }

    async fn insert(&mut self, insertions: Vec<Insertion>) -> Result<(), StoreError> {
        self.pass(1)?;
        self.pause().await;
        for insertion in insertions {
            let fate = self.fate();
            let tables = &mut *self.tables.borrow_mut();
            if self.random.u8(..3) == 0 {
                tables.merge(&mut self.random);
            }
            // Something that was sent long ago arrives now.
            if !tables.late.is_empty() && self.random.bool() {
                let late = tables.late.swap_remove(self.random.usize(..tables.late.len()));
                tables.insert(late);
            }
            match fate {
                Fate::Undone => return lost(),
                Fate::Late => {
                    tables.late.push(insertion);
                    return lost();
                }
                Fate::Well | Fate::Unheard => {
                    // Also once more.
                    if self.fails > 0 && self.random.u8(..4) == 0 {
                        tables.late.push(insertion.clone());
                    }
                    tables.insert(insertion);
                    if fate == Fate::Unheard {
                        return lost();
                    }
                }
            }
        }
        self.pause().await;
        Ok(())
    }
}

impl Engine for Connection {
    fn takes_drops(&self) -> bool {
        self.takes_drops
    }

    async fn was_migrated(&mut self) -> Result<bool, StoreError> {
        if self.takes_drops { Ok(false) } else { self.read(|tables| !tables.is_old).await }
    }

    async fn adoptions(&mut self, ledger: &str) -> Result<Vec<Adoption>, StoreError> {
        let own = |tables: &Tables| {
            tables.adoptions.iter().filter(|adoption| adoption.ledger == ledger).cloned().collect()
        };
        self.read(own).await
    }

    async fn progress(&mut self, place: u64) -> Result<Progress, StoreError> {
        self.read(|tables| tables.progress(place)).await
    }

    async fn note(&mut self, notes: Notes<'_>) -> Result<(), StoreError> {
        let (place, ledger) = (notes.place, notes.ledger.to_owned());
        let note = |seen, number| Note { place, ledger: ledger.clone(), seen, is_of_drops: false, number };
        let Seen { changes, token, machine } = notes.seen.clone();
        let mut all = vec![note(Some((machine, token)), changes)];
        all.extend(notes.done.map(|done| note(None, done)));
        let kept_from = notes.drops_kept_from.unwrap_or(0);
        all.extend(notes.has_drops.then(|| Note { is_of_drops: true, ..note(None, kept_from) }));
        self.insert(vec![Insertion::Notes(all)]).await
    }

    async fn add(&mut self, place: u64, parts: &Versioned<'_>) -> Result<(), StoreError> {
        if self.adds_left == 0 {
            return lost();
        }
        self.adds_left -= 1;
        let rows: usize = parts.iter().map(|(content, _)| content.count()).sum();
        self.pass(rows)?;
        // Those of one partition, here of one day, arrive together.
        let mut partitions: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
        for (content, version) in parts {
            let is_unit = matches!(content.name, "5min" | "day");
            let partition = if is_unit { content.number.div_euclid(86_400) } else { 0 };
            let row = |table, cells: &[Cell]| Row {
                place,
                table,
                part: (content.name, content.number),
                version: *version,
                cells: cells.to_vec(),
            };
            let rows = partitions.entry(partition).or_default();
            rows.push(row(None, &[]));
            rows.extend(content.all_rows().map(|(at, cells)| row(Some(at), &cells)));
        }
        self.insert(partitions.into_values().map(Insertion::Rows).collect()).await
    }

    async fn versions(&mut self, place: u64, parts: &[(&str, i64)]) -> Result<Vec<PartVersion>, StoreError> {
        let of = |tables: &Tables| {
            let version = |&(part, number): &(&str, i64)| {
                let is_its = |row: &&Row| row.place == place && row.part == (part, number);
                let own = tables.rows.iter().filter(is_its);
                let of_part = own.clone().filter(|row| row.table.is_none()).map(|row| row.version).max();
                let highest = own.map(|row| row.version).max()?;
                Some(PartVersion { part: part.to_owned(), number, of_part, highest })
            };
            parts.iter().filter_map(version).collect()
        };
        self.read(of).await
    }

    async fn arrived(
        &mut self,
        place: u64,
        parts: &Versions<'_>,
    ) -> Result<BTreeSet<(String, i64)>, StoreError> {
        let of = |tables: &Tables| {
            let own = tables.rows.iter().filter(|row| row.table.is_none() && row.place == place);
            let there: BTreeSet<_> = own.map(|row| (row.part, row.version)).collect();
            let has = |(name, number, version): &&(&str, i64, u64)| {
                there.iter().any(|(part, at)| *part == (*name, *number) && at >= version)
            };
            parts.iter().filter(has).map(|part| (part.0.to_owned(), part.1)).collect()
        };
        self.read(of).await
    }

    async fn copy(&mut self, from: u64, to: u64, before: i64) -> Result<(), StoreError> {
        let copied = |tables: &Tables| -> Vec<Row> {
            let newest = tables.newest();
            let own = newest.into_values().filter(|row| row.table.is_none() && row.place == from);
            let rows =
                own.chain(tables.counted(from)).filter(|row| row.part.0 == "5min" && row.part.1 < before);
            rows.map(|row| Row { place: to, version: 1, ..row.clone() }).collect()
        };
        let rows = self.read(copied).await?;
        self.insert(rows.into_iter().map(|row| Insertion::Rows(vec![row])).collect()).await
    }

    async fn adopt(&mut self, adoptions: &[Adoption]) -> Result<(), StoreError> {
        self.insert(vec![Insertion::Adoptions(adoptions.to_vec())]).await
    }

    async fn digests(
        &mut self,
        place: u64,
        units: Option<(i64, i64)>,
    ) -> Result<Vec<PartDigest>, StoreError> {
        let of = |tables: &Tables| {
            let parts = tables.parts(place);
            let chosen = parts.values().filter(|part| match (units, matches!(part.name, "5min" | "day")) {
                (Some((from, until)), true) => (from..until).contains(&part.number),
                (units, is_unit) => units.is_none() && !is_unit,
            });
            chosen.flat_map(digests::of).collect()
        };
        self.read(of).await
    }
}
