//! Digests of a ledger from before version 5, computed little by little after its migration.
//!
//! The tables of sums have many millions of rows. Reading them takes minutes, so it is done part by part and
//! without the write lock, while others write. `meta` holds the first part that is left. A part that somebody
//! changed meanwhile has another digest than before, and is read again. An audit skips the parts that are
//! left.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, params};
use traffic_model::calendar::Level;

use super::{DAY_S, Digest, TABLE, Table, change, compute, day_of, row_digest, write};
use crate::{error::LedgerError, ids, schema::KINDS};

/// Key of the first part that is left, as `TABLE PART`. Without it, none is.
const LEFT: &str = "digests_left_from";
/// How long a step reads at most.
const SLICE: Duration = Duration::from_millis(100);
/// How often a part is read without the lock. A drain after every slice would keep it from being finished.
const ATTEMPTS: u32 = 3;

/// The tables whose digests are computed later, in this order.
fn tables() -> Vec<String> {
    KINDS.iter().flat_map(|kind| Level::ALL.map(|level| kind.rows_table(level))).collect()
}

/// The first part whose digest is left to be computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    table: String,
    part: i64,
}

impl Left {
    /// Reads it; `None` if no part is left. A text that is none is the audit's to find.
    pub fn load(conn: &Connection) -> Result<Option<Self>, LedgerError> {
        let text: Option<String> = ids::meta(conn, LEFT)?;
        Ok(text.as_deref().and_then(|text| {
            let (table, part) = text.split_once(' ')?;
            Some(Self { table: table.to_owned(), part: part.parse().ok()? })
        }))
    }

    /// Whether a part is left.
    pub fn includes(&self, table: &str, part: i64) -> bool {
        let at = |name: &str| tables().iter().position(|known| known == name);
        let (Some(at), Some(left)) = (at(table), at(&self.table)) else { return false };
        (at, part) >= (left, self.part)
    }

    fn store(left: Option<&Self>, conn: &Connection) -> Result<(), LedgerError> {
        match left {
            Some(Self { table, part }) => ids::set_meta(conn, LEFT, format!("{table} {part}")),
            None => Ok(conn.execute("DELETE FROM meta WHERE key = ?1", [LEFT]).map(drop)?),
        }
    }

    /// The beginning of the next table, if there is one.
    fn next_table(&self) -> Option<Self> {
        let mut tables = tables().into_iter().skip_while(|table| *table != self.table);
        tables.nth(1).map(|table| Self { table, part: i64::MIN })
    }
}

/// Begins the digests of a file that was migrated just now: those of the small tables are computed at once.
///
/// # Errors
/// When the file cannot be read or written.
pub(crate) fn begin(conn: &Connection) -> Result<(), LedgerError> {
    conn.execute_batch(TABLE)?;
    conn.execute("DELETE FROM digest", [])?;
    let later = tables();
    let first = later.first().map(|table| Left { table: table.clone(), part: i64::MIN });
    Left::store(first.as_ref(), conn)?;
    let mut now = Table::all(conn)?;
    now.retain(|table| !later.contains(&table.name));
    Ok(write(conn, &compute(conn, &now)?)?)
}

/// The part that is being read.
#[derive(Debug)]
struct Reading {
    table: Table,
    part: i64,
    /// Where the rows that are left begin and end, in seconds since the Unix epoch.
    range: (i64, i64),
    /// Its digest in the file when this began: only the changes since the migration.
    before: Option<(i64, Vec<u8>)>,
    sum: Digest,
}

/// How far this process came.
#[derive(Debug, Default)]
pub(crate) struct Rebuild {
    reading: Option<Reading>,
    attempts: u32,
}

impl Rebuild {
    /// Reads for a moment. Returns whether something is left.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn step(&mut self, conn: &Connection) -> Result<bool, LedgerError> {
        let Some(left) = Left::load(conn)? else { return Ok(false) };
        if self.attempts >= ATTEMPTS {
            // Nobody can change it meanwhile.
            change(conn, |transaction| {
                let Some(mut reading) = Reading::next(transaction, left)? else { return Ok(()) };
                reading.read(transaction, None)?;
                reading.store(transaction).map(drop)
            })?;
            *self = Self::default();
            return Ok(true);
        }
        let reading = match self.reading.take() {
            Some(reading) => Some(reading),
            None => Reading::next(conn, left)?,
        };
        let Some(mut reading) = reading else {
            change(conn, |transaction| Left::store(None, transaction))?;
            return Ok(false);
        };
        if !reading.read(conn, Some(Instant::now() + SLICE))? {
            self.reading = Some(reading);
        } else if change(conn, |transaction| reading.store(transaction))? {
            self.attempts = 0;
        } else {
            self.attempts += 1;
        }
        Ok(true)
    }
}

impl Reading {
    /// Begins the next part that has rows or a digest; `None` if there is none.
    fn next(conn: &Connection, mut left: Left) -> Result<Option<Self>, LedgerError> {
        loop {
            let Some(table) = table(conn, &left.table)? else { return Ok(None) };
            let name = &table.name;
            let part: Option<i64> = if table.is_by_day() {
                let day = day_of("min(start)");
                let first = format!(
                    "SELECT min(part) FROM (
                         SELECT {day} AS part FROM {name} WHERE start >= ?1
                         UNION SELECT part FROM digest WHERE name = '{name}' AND part >= ?1)"
                );
                conn.query_row(&first, [left.part], |row| row.get(0))?
            } else {
                Some(0).filter(|&part| part >= left.part)
            };
            if let Some(part) = part {
                let range = if table.is_by_day() { (part, part + DAY_S) } else { (i64::MIN, i64::MAX) };
                let before = stored(conn, name, part)?;
                return Ok(Some(Self { table, part, range, before, sum: Digest::default() }));
            }
            let Some(next) = left.next_table() else { return Ok(None) };
            left = next;
        }
    }

    /// Adds rows up to a time, in whole starts. Returns whether all are read.
    fn read(&mut self, conn: &Connection, until: Option<Instant>) -> Result<bool, LedgerError> {
        let mut buffer = Vec::new();
        let sql = format!("{} WHERE start >= ?1 AND start < ?2 ORDER BY start", self.table.select());
        let mut statement = conn.prepare_cached(&sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([self.range.0, self.range.1])?;
        let mut last = None;
        while let Some(row) = rows.next()? {
            let start: i64 = row.get(1)?;
            if last.is_some_and(|last| last != start) && until.is_some_and(|until| Instant::now() >= until) {
                self.range.0 = start;
                return Ok(false);
            }
            last = Some(start);
            self.sum.add(row_digest(&mut buffer, row, columns)?.1);
        }
        Ok(true)
    }

    /// Stores the digest, unless somebody changed the part or stored its digest since this began. Returns
    /// whether it is stored.
    fn store(&self, transaction: &Connection) -> Result<bool, LedgerError> {
        let (name, part) = (&self.table.name, self.part);
        let is_left = Left::load(transaction)?.is_some_and(|left| left.includes(name, part));
        if !is_left || stored(transaction, name, part)? != self.before {
            return Ok(false);
        }
        transaction
            .prepare_cached("DELETE FROM digest WHERE name = ?1 AND part = ?2")?
            .execute(params![name, part])?;
        let parts = vec![(name.clone(), [(part, self.sum)].into())];
        write(transaction, &parts)?;
        let part = if self.table.is_by_day() { part + DAY_S } else { part + 1 };
        Left::store(Some(&Left { table: name.clone(), part }), transaction)?;
        Ok(true)
    }
}

fn table(conn: &Connection, name: &str) -> Result<Option<Table>, LedgerError> {
    Ok(Table::all(conn)?.into_iter().find(|table| table.name == name))
}

fn stored(conn: &Connection, table: &str, part: i64) -> Result<Option<(i64, Vec<u8>)>, LedgerError> {
    let sql = "SELECT rows, sum FROM digest WHERE name = ?1 AND part = ?2";
    let mut statement = conn.prepare_cached(sql)?;
    Ok(statement.query_row(params![table, part], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}
