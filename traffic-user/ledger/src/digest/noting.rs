//! What a writing connection has changed since its last commit: SQLite shows its hook each row before and after.
//!
//! The hook belongs to this connection, so it notes what this program changes, and nothing else. It also sees the
//! rows that `REPLACE` removes, and what triggers change. A hook may not write, so [`super::commit`] takes what was
//! noted, through SQL functions, because all that it has is the transaction.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CStr,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rusqlite::{Connection, functions::FunctionFlags, types::ValueRef};

use super::{
    DAY_S, Parts, Table, digest_of, flat, part_of,
    row_hook::{self, Change, Watcher},
};
use crate::{
    error::LedgerError,
    outbox::{self, Shipped},
};

/// A table whose changes are noted.
#[derive(Debug)]
struct Followed {
    is_by_day: bool,
    shipped: Option<Shipped>,
}

#[derive(Debug, Default)]
struct Noted {
    digests: Parts,
    /// The parts of the outbox that changed.
    shipped: BTreeSet<(&'static str, i64)>,
    /// Why a change could not be noted. Nothing may be committed then.
    failed: Option<String>,
    buffer: Vec<u8>,
}

impl Noted {
    fn note(&mut self, name: &str, table: &Followed, change: &Change) -> rusqlite::Result<()> {
        let (before, after) = (change.before()?, change.after()?);
        if let Some(row) = &before {
            let digest = digest_of(&mut self.buffer, row.iter().copied());
            part_of(&mut self.digests, name, table.part(row)).remove(digest);
        }
        if let Some(row) = &after {
            let digest = digest_of(&mut self.buffer, row.iter().copied());
            part_of(&mut self.digests, name, table.part(row)).add(digest);
        }
        if let Some(shipped) = &table.shipped {
            self.shipped.extend(shipped.changed(before.as_deref(), after.as_deref()));
        }
        Ok(())
    }

    /// Takes a part of what was noted, as a text that passes through SQL.
    fn give<T: serde::Serialize>(&mut self, take: impl FnOnce(&mut Self) -> T) -> rusqlite::Result<String> {
        if let Some(reason) = &self.failed {
            return Err(rusqlite::Error::UserFunctionError(reason.clone().into()));
        }
        serde_json::to_string(&take(self)).map_err(|error| rusqlite::Error::UserFunctionError(error.into()))
    }
}

impl Followed {
    /// The part of a row.
    fn part(&self, row: &[ValueRef<'_>]) -> i64 {
        match row.first() {
            Some(ValueRef::Integer(start)) if self.is_by_day => start - start.rem_euclid(DAY_S),
            _ => 0,
        }
    }
}

/// Notes the changes of the tables that it knows.
struct Notes {
    tables: BTreeMap<String, Followed>,
    noted: Arc<Mutex<Noted>>,
}

impl Watcher for Notes {
    fn sees(&self, database: &CStr, table: &CStr, change: &Change) {
        if let (b"main", Ok(name)) = (database.to_bytes(), table.to_str())
            && let Some(table) = self.tables.get(name)
        {
            let mut noted = lock(&self.noted);
            if let Err(error) = noted.note(name, table, change) {
                noted.failed = Some(format!("cannot read a row of {name} that is being changed: {error}"));
            }
        }
    }
}

/// Name, part, rows and sum.
type NotedDigest = (String, i64, i64, u128);

/// Lets a connection note what it changes. Called for each connection that writes, before its first change.
///
/// # Errors
/// When the tables cannot be read.
pub(crate) fn follow(conn: &mut Connection) -> Result<(), LedgerError> {
    let tables: BTreeMap<String, Followed> = Table::all(conn)?
        .into_iter()
        .map(|table| {
            let shipped = Shipped::of(&table.name, &table.columns);
            let is_by_day = table.is_by_day();
            (table.name, Followed { is_by_day, shipped })
        })
        .collect();
    let noted = Arc::new(Mutex::new(Noted::default()));
    let taken = Arc::clone(&noted);
    conn.create_scalar_function("noted_digests", 0, FunctionFlags::SQLITE_UTF8, move |_| {
        to_give(&taken)?.give(|noted| {
            let digests = mem::take(&mut noted.digests);
            flat(&digests)
                .map(|(name, part, digest)| (name.to_owned(), part, digest.rows, digest.sum))
                .collect::<Vec<NotedDigest>>()
        })
    })?;
    let taken = Arc::clone(&noted);
    conn.create_scalar_function("noted_shipped", 0, FunctionFlags::SQLITE_UTF8, move |_| {
        to_give(&taken)?.give(|noted| mem::take(&mut noted.shipped))
    })?;
    let undone = Arc::clone(&noted);
    conn.rollback_hook(Some(move || {
        *lock(&undone) = Noted::default();
        undone.clear_poison();
    }))?;
    row_hook::install(conn, Arc::new(Notes { tables, noted }))?;
    outbox::follow(conn)
}

fn lock(noted: &Mutex<Noted>) -> MutexGuard<'_, Noted> {
    noted.lock().unwrap_or_else(PoisonError::into_inner)
}

/// After a panic while a change was noted, nothing may be committed.
fn to_give(noted: &Mutex<Noted>) -> rusqlite::Result<MutexGuard<'_, Noted>> {
    let panicked = |_| rusqlite::Error::UserFunctionError("noting a change panicked".into());
    noted.lock().map_err(panicked)
}

/// Takes the changes of digests.
///
/// # Errors
/// When the connection does not note changes, or could not note one.
pub(super) fn digests(conn: &Connection) -> rusqlite::Result<Vec<NotedDigest>> {
    taken(conn, "SELECT noted_digests()")
}

/// Takes the parts of the outbox that changed.
///
/// # Errors
/// As for the digests.
pub(crate) fn shipped(conn: &Connection) -> rusqlite::Result<Vec<(String, i64)>> {
    taken(conn, "SELECT noted_shipped()")
}

fn taken<T: serde::de::DeserializeOwned>(conn: &Connection, sql: &str) -> rusqlite::Result<Vec<T>> {
    let text: String = conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    serde_json::from_str(&text).map_err(|error| rusqlite::Error::UserFunctionError(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        digest::{change, compare, create},
        schema,
    };

    fn followed() -> Connection {
        let mut conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(schema::OUTBOX).unwrap();
        conn.execute_batch(
            "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) STRICT, WITHOUT ROWID;
             CREATE TABLE gap (id INTEGER PRIMARY KEY, name TEXT UNIQUE, content BLOB) STRICT;
             CREATE TABLE by_key (a INTEGER NOT NULL, b TEXT NOT NULL, c, PRIMARY KEY (b, a)) WITHOUT ROWID;
             CREATE TABLE x_rows (start INTEGER NOT NULL, amount INTEGER NOT NULL) STRICT;
             CREATE TABLE log (gap INTEGER REFERENCES gap (id) ON DELETE CASCADE ON UPDATE CASCADE, what TEXT);
             CREATE TRIGGER logged AFTER UPDATE ON gap BEGIN INSERT INTO log VALUES (NEW.id, OLD.name); END;
             PRAGMA foreign_keys = ON;",
        )
        .unwrap();
        create(&conn).unwrap();
        follow(&mut conn).unwrap();
        conn
    }

    fn runs(conn: &Connection, sql: &str) {
        change(conn, |transaction| Ok(transaction.execute_batch(sql)?)).unwrap();
        assert_eq!(compare(conn).unwrap().problems, [""; 0], "{sql}");
    }

    #[test]
    fn every_kind_of_change_is_noted() {
        let conn = followed();
        for sql in [
            "INSERT INTO gap VALUES (1, 'a', x'00ff'), (2, 'b', NULL), (3, 'c', x''), (4, 'd', zeroblob(9000))",
            "INSERT INTO by_key VALUES (1, 'x', 1.5), ('2', 'x', 'text'), (1, 'y', NULL)",
            "INSERT INTO x_rows VALUES (-1, 1), (0, 2), (86399, 3), (86400, 4), ('86401', '5')",
            "UPDATE gap SET name = name || '!' WHERE id > 1; UPDATE gap SET id = 9 WHERE id = 4",
            "UPDATE by_key SET a = 7, c = '7' WHERE b = 'y'; UPDATE x_rows SET start = start + 86400, amount = amount",
            // REPLACE by number, by name, and of two rows at once.
            "INSERT OR REPLACE INTO gap VALUES (1, 'e', NULL); INSERT OR REPLACE INTO gap VALUES (6, 'e', x'01')",
            "INSERT OR REPLACE INTO gap VALUES (2, 'c!', NULL); UPDATE OR REPLACE gap SET name = 'e' WHERE id = 9",
            "INSERT OR REPLACE INTO by_key VALUES (1, 'x', 2), (1, 'x', 3), (1, 'x', 2)",
            "INSERT INTO by_key VALUES (1, 'x', 8) ON CONFLICT DO UPDATE SET c = c + 40",
            "INSERT OR IGNORE INTO gap VALUES (2, 'z', NULL); INSERT INTO by_key VALUES (1, 'x', 0) ON CONFLICT DO NOTHING",
            "UPDATE gap SET content = NULL; UPDATE gap SET id = id",
            "INSERT INTO x_rows SELECT start + 1, amount FROM x_rows; DELETE FROM x_rows WHERE amount = 2",
            // Also what a foreign key and a table without a condition remove.
            "DELETE FROM gap WHERE id = 2; DELETE FROM x_rows; DELETE FROM log; DELETE FROM by_key; DELETE FROM gap",
        ] {
            runs(&conn, sql);
        }
        let left: i64 = conn
            .query_row(
                "SELECT count(*) FROM digest WHERE name IN ('gap', 'by_key', 'x_rows', 'log')",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(left, 0);
    }

    #[test]
    fn what_is_rolled_back_is_not_noted() {
        let conn = followed();
        runs(&conn, "INSERT INTO gap VALUES (1, 'a', NULL)");
        let refused = change(&conn, |transaction| {
            transaction
                .execute_batch("INSERT INTO gap VALUES (2, 'b', NULL); DELETE FROM gap WHERE id = 1")?;
            Ok(transaction.execute_batch("INSERT INTO gap VALUES (3, 'c', NULL), (4, 'c', NULL)")?)
        });
        assert!(refused.is_err());
        assert_eq!(compare(&conn).unwrap().problems, [""; 0]);
        assert_eq!(shipped(&conn).unwrap(), []);
        runs(&conn, "INSERT INTO gap VALUES (5, 'e', NULL)");
    }

    #[test]
    fn the_parts_that_changed_are_shipped() {
        let conn = followed();
        let rev = |name: &str, part: i64| -> Option<i64> {
            let found = "SELECT max(rev) FROM outbox WHERE name = ?1 AND part = ?2";
            conn.query_row(found, rusqlite::params![name, part], |row| row.get(0)).unwrap()
        };
        runs(&conn, "INSERT INTO gap VALUES (11, 'a', NULL), (12, 'b', NULL)");
        assert_eq!([rev("gap", 11), rev("gap", 12)], [Some(1), Some(1)]);
        runs(&conn, "UPDATE gap SET name = 'c' WHERE id = 12; INSERT INTO x_rows VALUES (1, 1)");
        runs(&conn, "DELETE FROM gap WHERE id = 11");
        assert_eq!([rev("gap", 11), rev("gap", 12)], [Some(3), Some(2)]);
        // What is not shipped takes no number.
        runs(&conn, "INSERT INTO x_rows VALUES (2, 2)");
        assert_eq!(conn.query_row("SELECT number FROM changes", [], |row| row.get::<_, i64>(0)).unwrap(), 3);
    }
}
