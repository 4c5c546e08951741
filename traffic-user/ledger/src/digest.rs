//! Digests of all tables, by which the audit finds every row that something else than this program changed.
//!
//! Each table has one digest for each part of it: for the five-minute and hourly sums a day (UTC), else the
//! whole table. A digest is the number of rows and the sum, modulo 2^128, of a hash of each row in the
//! encoding of [`crate::encoding`]. So it does not depend on the order, and follows each change without
//! reading other rows.
//!
//! The connection that writes has temporary triggers on every table. They exist only in this connection: they
//! note what this program changes, and nothing else. [`commit`] stores the noted changes in the transaction
//! that made them.

use std::{
    collections::BTreeMap,
    hash::Hasher as _,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{
    Connection, Transaction, TransactionBehavior,
    functions::{Context, FunctionFlags},
    params,
    types::ValueRef,
};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::{encoding, error::LedgerError};

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

/// The schema as rows of part 0. The root pages are left out, because a copy has others.
const SCHEMA: &str = "SELECT 0, type, name, tbl_name, sql FROM sqlite_schema
                      WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";

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

/// What the triggers of one connection noted since its last commit.
#[derive(Debug, Default)]
struct Noted {
    changes: Parts,
    buffer: Vec<u8>,
}

impl Noted {
    fn digest<'a>(&mut self, values: impl ExactSizeIterator<Item = ValueRef<'a>>) -> Digest {
        self.buffer.clear();
        encoding::row(&mut self.buffer, values.len());
        values.for_each(|value| encoding::value(&mut self.buffer, value));
        let mut hasher = SipHasher13::new();
        hasher.write(&self.buffer);
        Digest { rows: 1, sum: hasher.finish128().as_u128() }
    }

    /// One call of a trigger: the table, the part of a row before and after, and the values of both rows. A
    /// row that was or is not there has no part and no values.
    fn note(&mut self, context: &Context<'_>) -> rusqlite::Result<()> {
        let name = context.get_raw(0).as_str()?;
        let (before, after): (Option<i64>, Option<i64>) = (context.get(1)?, context.get(2)?);
        let columns = (context.len() - 3) / (usize::from(before.is_some()) + usize::from(after.is_some()));
        let mut at = 3;
        let mut next = |noted: &mut Self| {
            let digest = noted.digest((at..at + columns).map(|at| context.get_raw(at)));
            at += columns;
            digest
        };
        if let Some(part) = before {
            let digest = next(self);
            part_of(&mut self.changes, name, part).remove(digest);
        }
        if let Some(part) = after {
            let digest = next(self);
            part_of(&mut self.changes, name, part).add(digest);
        }
        Ok(())
    }
}

/// A table and how its rows are divided.
struct Table {
    name: String,
    columns: Vec<String>,
}

impl Table {
    fn all(conn: &Connection) -> rusqlite::Result<Vec<Self>> {
        let mut names = conn.prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
             AND name <> 'digest' ORDER BY name",
        )?;
        let names = names.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        let mut columns = conn.prepare("SELECT name FROM pragma_table_info(?1) ORDER BY cid")?;
        names
            .into_iter()
            .map(|name| {
                let columns =
                    columns.query_map([&name], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
                Ok(Self { name, columns })
            })
            .collect()
    }

    /// SQL for the part of a row.
    fn part(&self, row: &str) -> String {
        // With the names that these tables had in version 5.
        let by_day = ["_rows", "_days", "_5min", "_hour"].iter().any(|end| self.name.ends_with(end));
        if by_day && self.columns.first().is_some_and(|column| column == "start") {
            format!("{row}\"start\" - {row}\"start\" % {DAY_S}")
        } else {
            "0".to_owned()
        }
    }

    fn values(&self, row: &str) -> String {
        self.columns.iter().map(|column| format!(", {row}\"{column}\"")).collect()
    }

    fn triggers(&self) -> String {
        let name = &self.name;
        let trigger = |event: &str, before: Option<&str>, after: Option<&str>| {
            let part = |row: Option<&str>| row.map_or("NULL".to_owned(), |row| self.part(row));
            let values = |row: Option<&str>| row.map(|row| self.values(row)).unwrap_or_default();
            format!(
                "CREATE TEMP TRIGGER \"digest_{event}_{name}\" AFTER {event} ON main.\"{name}\" BEGIN
                     SELECT digest_note('{name}', {}, {}{}{}); END;\n",
                part(before),
                part(after),
                values(before),
                values(after),
            )
        };
        let (old, new) = (Some("OLD."), Some("NEW."));
        [trigger("INSERT", None, new), trigger("DELETE", old, None), trigger("UPDATE", old, new)].concat()
    }
}

/// Lets a connection note what it changes. Called for each connection that writes, before its first change.
///
/// # Errors
/// When the triggers cannot be created.
pub(crate) fn follow(conn: &mut Connection) -> Result<(), LedgerError> {
    let noted = Arc::new(Mutex::new(Noted::default()));
    let noting = Arc::clone(&noted);
    conn.create_scalar_function("digest_note", -1, FunctionFlags::SQLITE_UTF8, move |context| {
        noting.lock().unwrap_or_else(PoisonError::into_inner).note(context).map(|()| None::<i64>)
    })?;
    let taken = Arc::clone(&noted);
    conn.create_scalar_function("digest_noted", 0, FunctionFlags::SQLITE_UTF8, move |_| {
        let mut noted = taken.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_string(&noted_rows(&std::mem::take(&mut noted.changes)))
            .map_err(|error| rusqlite::Error::UserFunctionError(error.into()))
    })?;
    conn.rollback_hook(Some(move || {
        noted.lock().unwrap_or_else(PoisonError::into_inner).changes.clear();
    }))?;
    // Without this, a row that REPLACE removes would be removed without a trigger.
    conn.execute_batch("PRAGMA recursive_triggers = ON")?;
    conn.execute_batch(&Table::all(conn)?.iter().map(Table::triggers).collect::<String>())?;
    Ok(())
}

fn flat(parts: &Parts) -> impl Iterator<Item = (&str, i64, Digest)> {
    parts.iter().flat_map(|(name, parts)| parts.iter().map(|(part, digest)| (name.as_str(), *part, *digest)))
}

/// Name, part, rows and sum, in a form that passes through SQL.
type NotedRow = (String, i64, i64, u128);

fn noted_rows(parts: &Parts) -> Vec<NotedRow> {
    flat(parts).map(|(name, part, digest)| (name.to_owned(), part, digest.rows, digest.sum)).collect()
}

/// Stores the digests of what the transaction changed, and commits it. Every transaction that writes to a
/// ledger ends here.
///
/// # Errors
/// When the file cannot be written; then nothing of the transaction is.
pub(crate) fn commit(transaction: Transaction<'_>) -> Result<(), LedgerError> {
    let text: String =
        transaction.prepare_cached("SELECT digest_noted()")?.query_row([], |row| row.get(0))?;
    let changes: Vec<NotedRow> =
        serde_json::from_str(&text).map_err(|error| rusqlite::Error::UserFunctionError(error.into()))?;
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

/// Computes all digests from the rows.
fn compute(conn: &Connection) -> Result<Parts, LedgerError> {
    let mut parts = Parts::new();
    let mut noted = Noted::default();
    let tables = Table::all(conn)?.into_iter().map(|table| {
        let sql = format!("SELECT {}{} FROM \"{}\"", table.part(""), table.values(""), table.name);
        (table.name, sql)
    });
    for (name, sql) in tables.chain([("sqlite_schema".to_owned(), SCHEMA.to_owned())]) {
        let mut statement = conn.prepare(&sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        let mut at: Option<(i64, Digest)> = None;
        while let Some(row) = rows.next()? {
            let part = row.get(0)?;
            let values = (1..columns).map(|at| row.get_ref(at));
            let values = values.collect::<rusqlite::Result<Vec<_>>>()?;
            let digest = noted.digest(values.into_iter());
            match &mut at {
                Some((of, sum)) if *of == part => sum.add(digest),
                _ => {
                    if let Some((of, sum)) = at.replace((part, digest)) {
                        part_of(&mut parts, &name, of).add(sum);
                    }
                }
            }
        }
        if let Some((of, sum)) = at {
            part_of(&mut parts, &name, of).add(sum);
        }
    }
    Ok(parts)
}

/// Computes the digests of a file that was created or migrated just now.
///
/// # Errors
/// When the file cannot be read or written.
pub(crate) fn create(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(TABLE)?;
    conn.execute("DELETE FROM digest", [])?;
    let parts = compute(conn).map_err(|error| rusqlite::Error::UserFunctionError(error.into()))?;
    let mut insert = conn.prepare("INSERT INTO digest (name, part, rows, sum) VALUES (?1, ?2, ?3, ?4)")?;
    for (name, part, digest) in flat(&parts) {
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

/// Computes the digest of the schema after a migration that kept all other digests.
///
/// # Errors
/// When the file cannot be read or written.
pub(crate) fn schema_changed(conn: &Connection) -> rusqlite::Result<()> {
    let mut noted = Noted::default();
    let mut sum = Digest::default();
    let mut statement = conn.prepare(SCHEMA)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let values = (1..columns).map(|at| row.get_ref(at)).collect::<rusqlite::Result<Vec<_>>>()?;
        sum.add(noted.digest(values.into_iter()));
    }
    conn.execute(
        "INSERT OR REPLACE INTO digest (name, part, rows, sum) VALUES ('sqlite_schema', 0, ?1, ?2)",
        params![sum.rows, sum.sum.to_be_bytes()],
    )
    .map(drop)
}

/// What the comparison of all rows with their digests found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    /// Number of rows.
    pub rows: u64,
    /// One sentence for each part that differs.
    pub problems: Vec<String>,
}

/// Compares all rows with their digests.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn compare(conn: &Connection) -> Result<Compared, LedgerError> {
    let mut compared = Compared::default();
    let mut found = compute(conn)?;
    compared.rows = flat(&found).map(|(_, _, digest)| digest.rows.unsigned_abs()).sum();
    let mut statement = conn.prepare("SELECT name, part, rows, sum FROM digest")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (name, part): (String, i64) = (row.get(0)?, row.get(1)?);
        let written = Digest { rows: row.get(2)?, sum: u128::from_be_bytes(row.get(3)?) };
        let there = std::mem::take(part_of(&mut found, &name, part));
        if there != written {
            compared.problems.push(difference(&name, part, [written, there]));
        }
    }
    let unknown = flat(&found).filter(|(_, _, there)| *there != Digest::default());
    let unknown = unknown.map(|(name, part, there)| difference(name, part, [Digest::default(), there]));
    compared.problems.extend(unknown);
    compared.problems.sort();
    Ok(compared)
}

fn difference(name: &str, part: i64, [written, there]: [Digest; 2]) -> String {
    let day = jiff::Timestamp::from_second(part).map(|day| day.to_string());
    let of = match (part, day) {
        (0, _) | (_, Err(_)) => String::new(),
        (_, Ok(day)) => format!(" of {} (UTC)", &day[..10]),
    };
    let how = match there.rows.wrapping_sub(written.rows) {
        0 => "rows were changed".to_owned(),
        more @ 1.. => format!("{more} rows were added"),
        fewer => format!("{} rows were removed", fewer.unsigned_abs()),
    };
    format!("{name}{of}: {how} by something else than trafctl")
}
