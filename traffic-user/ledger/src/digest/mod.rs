//! Digests of all tables, by which the audit finds every row that something else than this program changed.
//!
//! Each table has one digest for each part of it: for the five-minute and hourly sums a day (UTC), else the
//! whole table. A digest is the number of rows and the sum, modulo 2^128, of a hash of each row in the
//! encoding of [`crate::encoding`]. So it does not depend on the order, and follows each change without
//! reading other rows.
//!
//! The connection that writes notes what it changes ([`noting`]), and nobody else's changes. [`commit`] stores the
//! noted changes in the transaction that made them.

mod compare;
mod noting;
mod rebuild;
mod row_hook;

use std::{collections::BTreeMap, hash::Hasher as _};

use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params, types::ValueRef};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::{encoding, error::LedgerError, outbox};

pub(crate) use compare::compare;
pub(crate) use noting::{follow, shipped};
pub(crate) use rebuild::{Rebuild, begin};

/// The table of digests.
pub(crate) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS digest ( -- of the rows that trafctl wrote, to find those that something else changed
    name TEXT NOT NULL, -- of the table
    part INTEGER NOT NULL, -- start of the day, seconds since the Unix epoch; 0 for a whole table
    rows INTEGER NOT NULL,
    sum BLOB NOT NULL, -- sum of the hashes of all rows modulo 2^128, big-endian
    PRIMARY KEY (name, part)
) STRICT, WITHOUT ROWID;
";

const DAY_S: i64 = 86_400;

/// SQL for the beginning of a time's day, also before 1970: `%` has the sign of its left side.
fn day_of(time: &str) -> String {
    format!("{time} - ({time} % {DAY_S} + {DAY_S}) % {DAY_S}")
}

/// The schema as rows of part 0. The root pages are left out, because a copy has others, and so are SQLite's
/// own tables and indexes. Anything else under one of their names can only be planted.
const SCHEMA: &str = "SELECT 0, type, name, tbl_name, sql FROM sqlite_schema
                      WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' OR type <> 'table' AND sql IS NOT NULL";

/// Rows and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Digest {
    rows: i64,
    sum: u128,
}

impl Digest {
    fn add(&mut self, other: Self) {
        self.rows = self.rows.wrapping_add(other.rows);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    fn remove(&mut self, other: Self) {
        self.rows = self.rows.wrapping_sub(other.rows);
        self.sum = self.sum.wrapping_sub(other.sum);
    }
}

/// By table and part. There are few tables, so that looking for a name is faster than making a key of it.
type Parts = Vec<(String, BTreeMap<i64, Digest>)>;

fn part_of<'a>(parts: &'a mut Parts, name: &str, part: i64) -> &'a mut Digest {
    let at = parts.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
        parts.push((name.to_owned(), BTreeMap::new()));
        parts.len() - 1
    });
    parts[at].1.entry(part).or_default()
}

/// The digest of one row.
fn digest_of<'a>(buffer: &mut Vec<u8>, values: impl ExactSizeIterator<Item = ValueRef<'a>>) -> Digest {
    buffer.clear();
    encoding::row(buffer, values.len());
    values.for_each(|value| encoding::value(buffer, value));
    let mut hasher = SipHasher13::new();
    hasher.write(buffer);
    Digest { rows: 1, sum: hasher.finish128().as_u128() }
}

/// A table and how its rows are divided.
#[derive(Debug)]
struct Table {
    name: String,
    columns: Vec<String>,
}

impl Table {
    fn all(conn: &Connection) -> rusqlite::Result<Vec<Self>> {
        let mut statement = conn.prepare_cached(
            "SELECT name FROM sqlite_schema WHERE type = 'table'
             AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> 'digest' ORDER BY name",
        )?;
        let names = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        let table = |name: String| {
            // Not asked for as a table's columns each time, which takes longer than to read a small ledger: a
            // statement that was prepared before has them. As it runs, SQLite sees whether the table was changed.
            let quoted = name.replace('"', "\"\"");
            let mut statement = conn.prepare_cached(&format!("SELECT * FROM \"{quoted}\" LIMIT 0"))?;
            statement.exists([])?;
            let columns = statement.column_names().map(str::to_owned).collect();
            Ok(Self { name, columns })
        };
        names.into_iter().map(table).collect()
    }

    /// Whether its rows of each day are a part.
    fn is_by_day(&self) -> bool {
        // With the names that these tables had in version 5.
        let by_day = ["_rows", "_days", "_5min", "_hour"].iter().any(|end| self.name.ends_with(end));
        by_day && self.columns.first().is_some_and(|column| column == "start")
    }

    /// SQL for all rows: the part of each, then its values.
    fn select(&self) -> String {
        let part = if self.is_by_day() { day_of("\"start\"") } else { "0".to_owned() };
        let values: String = self.columns.iter().map(|column| format!(", \"{column}\"")).collect();
        format!("SELECT {part}{values} FROM \"{}\"", self.name)
    }
}

fn flat(parts: &Parts) -> impl Iterator<Item = (&str, i64, Digest)> {
    parts.iter().flat_map(|(name, parts)| parts.iter().map(|(part, digest)| (name.as_str(), *part, *digest)))
}

/// Stores the change number and the digests of what the transaction changed, and commits it. Every transaction that writes to a
/// ledger ends here.
///
/// # Errors
/// When the file cannot be written; then nothing of the transaction is.
pub(crate) fn commit(transaction: Transaction<'_>) -> Result<(), LedgerError> {
    outbox::number(&transaction)?;
    let changes = noting::digests(&transaction)?;
    {
        let mut read =
            transaction.prepare_cached("SELECT rows, sum FROM digest WHERE name = ?1 AND part = ?2")?;
        let mut write = transaction.prepare_cached(
            "INSERT OR REPLACE INTO digest (name, part, rows, sum) VALUES (?1, ?2, ?3, ?4)",
        )?;
        let mut delete = transaction.prepare_cached("DELETE FROM digest WHERE name = ?1 AND part = ?2")?;
        for (name, part, rows, sum) in changes {
            let mut digest = Digest { rows, sum };
            let mut found = read.query(params![name, part])?;
            if let Some(row) = found.next()? {
                digest.add(Digest { rows: row.get(0)?, sum: u128::from_be_bytes(row.get(1)?) });
            }
            drop(found);
            match digest == Digest::default() {
                true => delete.execute(params![name, part])?,
                false => write.execute(params![name, part, digest.rows, digest.sum.to_be_bytes()])?,
            };
        }
    }
    Ok(transaction.commit()?)
}

/// Makes one change in a transaction of its own.
///
/// # Errors
/// As the change, and as [`commit`].
pub(crate) fn change<T>(
    conn: &Connection,
    change: impl FnOnce(&Transaction<'_>) -> Result<T, LedgerError>,
) -> Result<T, LedgerError> {
    let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    let result = change(&transaction)?;
    commit(transaction)?;
    Ok(result)
}

/// One row of a table, and the part that it belongs to.
fn row_digest(buffer: &mut Vec<u8>, row: &Row<'_>, columns: usize) -> rusqlite::Result<(i64, Digest)> {
    let values = (1..columns).map(|at| row.get_ref(at)).collect::<rusqlite::Result<Vec<_>>>()?;
    Ok((row.get(0)?, digest_of(buffer, values.into_iter())))
}

/// Computes the digests of some tables from their rows.
fn compute(conn: &Connection, tables: &[Table]) -> rusqlite::Result<Parts> {
    let tables = tables.iter().map(|table| (table.name.as_str(), table.select()));
    let mut parts = Parts::new();
    let mut buffer = Vec::new();
    for (name, sql) in tables.chain([("sqlite_schema", SCHEMA.to_owned())]) {
        let mut statement = conn.prepare_cached(&sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        // Rows of one part are neighbours, and there are millions of them.
        let mut sum = (0, Digest::default());
        while let Some(row) = rows.next()? {
            let (part, digest) = row_digest(&mut buffer, row, columns)?;
            if part != sum.0 {
                part_of(&mut parts, name, sum.0).add(sum.1);
                sum = (part, Digest::default());
            }
            sum.1.add(digest);
        }
        part_of(&mut parts, name, sum.0).add(sum.1);
    }
    Ok(parts)
}

/// Computes the digests of a file that was created just now.
///
/// # Errors
/// When the file cannot be read or written.
pub(crate) fn create(conn: &Connection) -> Result<(), LedgerError> {
    conn.execute_batch(TABLE)?;
    conn.execute("DELETE FROM digest", [])?;
    let parts = compute(conn, &Table::all(conn)?)?;
    Ok(write(conn, &parts)?)
}

fn write(conn: &Connection, parts: &Parts) -> rusqlite::Result<()> {
    let mut insert =
        conn.prepare_cached("INSERT OR REPLACE INTO digest (name, part, rows, sum) VALUES (?1, ?2, ?3, ?4)")?;
    for (name, part, digest) in flat(parts).filter(|(_, _, digest)| *digest != Digest::default()) {
        insert.execute(params![name, part, digest.rows, digest.sum.to_be_bytes()])?;
    }
    Ok(())
}

/// Follows a migration: the same rows are in a table of another name.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn rename(conn: &Connection, from: &str, to: &str) -> rusqlite::Result<()> {
    conn.execute("UPDATE digest SET name = ?2 WHERE name = ?1", [from, to]).map(drop)
}

/// Computes the digests of tables that a migration created and filled.
///
/// # Errors
/// When the file cannot be read or written.
pub(crate) fn created(conn: &Connection, names: &[&str]) -> rusqlite::Result<()> {
    if !conn.table_exists(None, "digest")? {
        return Ok(());
    }
    let mut tables = Table::all(conn)?;
    tables.retain(|table| names.contains(&table.name.as_str()));
    write(conn, &compute(conn, &tables)?)
}

/// Computes the digest of the schema after a migration that kept all other digests.
///
/// # Errors
/// When the file cannot be read or written.
pub(crate) fn schema_changed(conn: &Connection) -> Result<(), LedgerError> {
    // This includes the digest of the schema.
    let parts = compute(conn, &[])?;
    Ok(write(conn, &parts)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_days_before_1970_begin_at_midnight_too() {
        let conn = Connection::open_in_memory().unwrap();
        let sql = format!("SELECT {}", day_of("?1"));
        let day = |time: i64| conn.query_row(&sql, [time], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!([0, 1, 86_399, 86_400].map(day), [0, 0, 0, 86_400]);
        assert_eq!([-1, -86_399, -86_400, -86_401].map(day), [-86_400, -86_400, -86_400, -172_800]);
    }
}
