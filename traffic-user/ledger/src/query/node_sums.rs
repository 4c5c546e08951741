//! Sums of the whole node by five minutes and class, kept between queries.
//!
//! A day of 1,000 containers in five-minute steps is two million rows while it is not finished. But nearly all of them
//! are of five minutes that are over, which hardly ever change, and whatever changes them gives their unit another
//! change number (see [`outbox`](crate::outbox)). So sums that were made under a number are right as long as the unit
//! has it, in the same ledger, and written by the same process: one that went back to an earlier state repeats
//! numbers, but with another token.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rusqlite::{
    Connection,
    functions::{Aggregate, Context, FunctionFlags},
};
use traffic_model::calendar::{FIVE_MINUTES_S, Level, five_minutes_of};

use crate::{
    days::read::{self, Selection},
    error::LedgerError,
    figures::{Sums, add},
    query::rows::owner,
    schema::TRAFFIC,
    store::Ledger,
    write::clock,
};

/// Most sums that are kept, in classes times five minutes: ten days with 16 classes, in 3 MB.
const MOST: usize = 50_000;
/// What [`Ledger::keep_last_day`] reads: the day of a plot, and what a clock and a zone may add.
const KEPT_S: i64 = 26 * 3600;

/// The sums of the classes of one five minutes.
type Classes = Vec<(u8, Sums)>;

/// What five minutes were like when they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    number: i64,
    /// Of whoever wrote it; `None` if nothing was written since the ledger got change numbers.
    token: Option<Arc<str>>,
}

/// Sums of the whole node that earlier queries made. Bounded; those of the latest times stay.
#[derive(Debug, Default)]
pub struct NodeSums(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// The ledger's id.
    ledger: String,
    /// By start.
    units: BTreeMap<i64, (Change, Arc<Classes>)>,
    /// How many sums there are in all units.
    count: usize,
}

impl NodeSums {
    fn kept(&self, ledger: &str) -> MutexGuard<'_, Kept> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.ledger != ledger {
            *kept = Kept { ledger: ledger.to_owned(), ..Kept::default() };
        }
        kept
    }

    /// The units whose sums are still right.
    fn known(&self, ledger: &str, changes: &BTreeMap<i64, Change>) -> Vec<(i64, Arc<Classes>)> {
        let kept = self.kept(ledger);
        let known = |(start, change)| {
            let (of, classes) = kept.units.get(start)?;
            (of == change).then(|| (*start, Arc::clone(classes)))
        };
        changes.iter().filter_map(known).collect()
    }

    fn keep(&self, ledger: &str, units: Vec<(i64, Change, Classes)>) {
        let mut kept = self.kept(ledger);
        for (start, change, classes) in units {
            // One without traffic takes room too.
            kept.count += classes.len().max(1);
            if let Some((_, before)) = kept.units.insert(start, (change, Arc::new(classes))) {
                kept.count -= before.len().max(1);
            }
        }
        while kept.count > MOST
            && let Some((_, (_, classes))) = kept.units.pop_first()
        {
            kept.count -= classes.len().max(1);
        }
    }
}

impl Ledger {
    /// Reads what a plot of the last day needs, and keeps it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn keep_last_day(&self, kept: &NodeSums) -> Result<(), LedgerError> {
        let view = self.conn.unchecked_transaction()?;
        let Some(last) = clock::last_reading(&view)? else { return Ok(()) };
        let end = five_minutes_of(last.as_second()) + FIVE_MINUTES_S;
        each(&view, (end - KEPT_S, end), (&self.id()?, kept), |_, _, _| {})
    }
}

/// Passes on the sums of a span between five-minute borders: start, class, sums. Reads what is not kept, and keeps it.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn each(
    view: &Connection,
    (from, to): (i64, i64),
    (ledger, kept): (&str, &NodeSums),
    mut each: impl FnMut(i64, u8, Sums),
) -> Result<(), LedgerError> {
    let mut changes = changes(view, (from, to))?;
    let known = kept.known(ledger, &changes);
    let mut at = from;
    let mut missing = Vec::new();
    for (start, classes) in &known {
        classes.iter().for_each(|&(class, sums)| each(*start, class, sums));
        if at < *start {
            missing.push((at, *start));
        }
        at = start + FIVE_MINUTES_S;
    }
    if at < to {
        missing.push((at, to));
    }
    let mut units = Vec::new();
    for range in missing {
        for (start, classes) in read(view, range)? {
            classes.iter().for_each(|&(class, sums)| each(start, class, sums));
            // Without a number, nobody could tell when it changes.
            if let Some(change) = changes.remove(&start) {
                units.push((start, change, classes));
            }
        }
    }
    kept.keep(ledger, units);
    Ok(())
}

/// The last changes of the units of a span.
fn changes(view: &Connection, (from, to): (i64, i64)) -> Result<BTreeMap<i64, Change>, LedgerError> {
    let mut statement = view.prepare_cached("SELECT since, token FROM lineage ORDER BY since")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?.into())))?;
    let tokens: Vec<(i64, Arc<str>)> = rows.collect::<Result<_, _>>()?;
    let mut statement =
        view.prepare_cached("SELECT part, rev FROM outbox WHERE name = '5min' AND part >= ?1 AND part < ?2")?;
    let rows = statement.query_map([from, to], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut changes = BTreeMap::new();
    for row in rows {
        let (start, number): (i64, i64) = row?;
        let writer = tokens.partition_point(|(since, _)| *since <= number).checked_sub(1);
        changes.insert(start, Change { number, token: writer.map(|at| Arc::clone(&tokens[at].1)) });
    }
    Ok(changes)
}

/// Adds up the rows of a span. Every five minutes of it are in the answer.
fn read(view: &Connection, (from, to): (i64, i64)) -> Result<BTreeMap<i64, Classes>, LedgerError> {
    let starts = (from..to).step_by(FIVE_MINUTES_S.unsigned_abs().try_into().unwrap_or(usize::MAX));
    let mut units: BTreeMap<i64, Classes> = starts.map(|start| (start, Classes::new())).collect();
    read_rows(view, (from, to), &mut units)?;
    let selection = Selection::all(&TRAFFIC, Level::FiveMinutes, (from, to));
    read::each_packed(view, &selection, |row| {
        let ((_, class, _), [a, b, c, d, ..]) = (owner(&row.series)?, row.values);
        add_to(units.entry(row.start).or_default(), class, [a, b, c, d]);
        Ok(())
    })?;
    Ok(units)
}

/// The rows that are not packed. SQLite adds them up itself: passing two million rows out of it takes twice as long.
fn read_rows(
    view: &Connection,
    (from, to): (i64, i64),
    units: &mut BTreeMap<i64, Classes>,
) -> Result<(), LedgerError> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    view.create_aggregate_function("sums_of_classes", 5, flags, SumsOfClasses)?;
    let table = TRAFFIC.rows_table(Level::FiveMinutes);
    let mut statement = view.prepare_cached(&format!(
        "SELECT start, sums_of_classes(class, in_packets, in_bytes, out_packets, out_bytes) FROM {table}
         WHERE start >= ?1 AND start < ?2 GROUP BY start"
    ))?;
    let mut rows = statement.query([from, to])?;
    while let Some(row) = rows.next()? {
        let unit = units.entry(row.get(0)?).or_default();
        for (class, sums) in decoded(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?) {
            add_to(unit, class, sums);
        }
    }
    Ok(())
}

fn add_to(unit: &mut Classes, class: u8, values: Sums) {
    // There are few classes, and the one that is looked for is often the one before.
    match unit.iter_mut().rev().find(|(other, _)| *other == class) {
        Some((_, sums)) => add(sums, values),
        None => unit.push((class, values)),
    }
}

/// Adds up rows by class.
struct SumsOfClasses;

impl Aggregate<Classes, Vec<u8>> for SumsOfClasses {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Classes> {
        Ok(Classes::new())
    }

    fn step(&self, row: &mut Context<'_>, sums: &mut Classes) -> rusqlite::Result<()> {
        let value = |at| row.get::<i64>(at).map(i64::cast_unsigned);
        add_to(sums, row.get(0)?, [value(1)?, value(2)?, value(3)?, value(4)?]);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, sums: Option<Classes>) -> rusqlite::Result<Vec<u8>> {
        let bytes = sums.into_iter().flatten().flat_map(|(class, sums)| {
            std::iter::once(class).chain(sums.into_iter().flat_map(u64::to_le_bytes))
        });
        Ok(bytes.collect())
    }
}

/// What [`SumsOfClasses`] returns.
fn decoded(bytes: &[u8]) -> impl Iterator<Item = (u8, Sums)> {
    bytes.chunks_exact(1 + 4 * 8).map(|one| {
        let value = |at: usize| one[1 + 8 * at..].first_chunk().copied().map_or(0, u64::from_le_bytes);
        (one[0], [value(0), value(1), value(2), value(3)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_the_latest_stays() {
        let kept = NodeSums::default();
        let change = |number| Change { number, token: None };
        let unit = |at: i64| (at * 300, change(at), vec![(1, [1; 4]); 100]);
        kept.keep("a", (0..2000).map(unit).collect());
        kept.keep("a", (1900..2000).map(unit).collect());
        let units = kept.0.lock().unwrap().units.len();
        assert_eq!(units, MOST / 100);
        assert_eq!(kept.0.lock().unwrap().count, MOST);
        let asked = |at: i64, number| BTreeMap::from([(at * 300, change(number))]);
        assert_eq!(kept.known("a", &asked(1999, 1999)).len(), 1);
        assert_eq!(kept.known("a", &asked(1999, 2000)).len(), 0, "it changed");
        assert_eq!(kept.known("a", &asked(0, 0)).len(), 0, "it was dropped");
        let other = Change { number: 1999, token: Some("b".into()) };
        assert_eq!(kept.known("a", &[(1999 * 300, other)].into()).len(), 0, "another wrote it");
        assert_eq!(kept.known("b", &asked(1999, 1999)).len(), 0, "it is another ledger");
        assert_eq!(kept.0.lock().unwrap().units.len(), 0);
    }
}
