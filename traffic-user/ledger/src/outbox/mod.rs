//! What changed last when: the ledger as an outbox, from which its rows are shipped to a store.
//!
//! Every transaction that changes something that is shipped gets the next *change number*. The table `outbox`
//! holds, for each part of the ledger, the number of its last change: for five minutes and for days the start of
//! the unit, otherwise the number of a row. Nothing else has to be kept for a store that is away, however long:
//! it asks for what changed since the number that it knows, and gets the present rows ([`changes`], [`parts`], [`tables`]).
//!
//! Temporary triggers of the writing connection note the changes, as those of the digests do, so the number is
//! written in the transaction of the change. Packing a day and dropping old rows change nothing that is shipped.
//!
//! The table `lineage` tells copies apart. Each connection that writes has a random token. Where it is not the one
//! of the last change, `lineage` gets a line. So whoever remembers a change number with its token recognises a
//! ledger that went back to an earlier state and went on from there: the token of that number is another one.

pub(crate) mod changes;
pub(crate) mod parts;
pub(crate) mod tables;

use std::{
    hash::Hasher as _,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rusqlite::{Connection, OptionalExtension as _, Transaction, functions::FunctionFlags};
use siphasher::sip128::{Hasher128 as _, SipHasher13};
use traffic_model::calendar::Level;

use crate::error::LedgerError;

/// The levels that are shipped, and their names in `outbox`. Hours and months follow from them.
pub(crate) const UNITS: [(Level, &str); 2] = [(Level::FiveMinutes, "5min"), (Level::Day, "day")];

/// The tables of which each row is a part, and the column with its number.
pub(crate) const RECORDS: [(&str, &str); 11] = [
    ("container", "id"),
    ("interface", "id"),
    ("stream", "id"),
    ("class_table", "id"),
    ("gap", "id"),
    ("period", "id"),
    ("adjustment", "id"),
    ("chain", "seq"),
    ("attribution", "pending"),
    ("container_name", "id"),
    ("owner_change", "id"),
];

/// SQL that notes a change of a part in the current transaction.
///
/// Not `INSERT OR REPLACE`: within a trigger, SQLite uses the conflict clause of the statement that fired it.
fn note(name: &str, part: &str) -> String {
    format!(
        "INSERT INTO outbox (name, part, rev) VALUES ('{name}', {part}, (SELECT number + 1 FROM changes))
         ON CONFLICT (name, part) DO UPDATE SET rev = excluded.rev"
    )
}

fn triggers() -> String {
    let mut sql = String::new();
    let mut trigger = |event: &str, table: &str, of: &str, when: &str, what: &str| {
        sql.push_str(&format!(
            "CREATE TEMP TRIGGER \"outbox_{event}_{of}\" AFTER {event} ON main.\"{table}\" {when} BEGIN {what}; END;\n"
        ));
    };
    for (table, number) in RECORDS {
        for (event, row) in [("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")] {
            trigger(event, table, table, "", &note(table, &format!("{row}.{number}")));
        }
    }
    for (level, name) in UNITS {
        let level = level as u8;
        // Every change of a unit's rows makes it dirty. Summing it up, after which it is clean, changes none.
        let changed = format!("WHEN NEW.level = {level} AND NEW.dirty");
        trigger("INSERT", "unit", name, &format!("WHEN NEW.level = {level}"), &note(name, "NEW.start"));
        trigger("UPDATE", "unit", name, &changed, &note(name, "NEW.start"));
        trigger("DELETE", "unit", name, &format!("WHEN OLD.level = {level}"), &note(name, "OLD.start"));
    }
    sql
}

/// Lets a connection note what it changes. Called for each connection that writes, before its first change.
///
/// # Errors
/// When the triggers cannot be created.
pub(crate) fn follow(conn: &Connection) -> Result<(), LedgerError> {
    let token = Arc::new(Mutex::new(new_token()));
    let renewed = Arc::clone(&token);
    conn.create_scalar_function("outbox_token", 0, FunctionFlags::SQLITE_UTF8, move |_| {
        Ok(token.lock().unwrap_or_else(PoisonError::into_inner).clone())
    })?;
    conn.create_scalar_function("outbox_renew", 0, FunctionFlags::SQLITE_UTF8, move |_| {
        *renewed.lock().unwrap_or_else(PoisonError::into_inner) = new_token();
        Ok(None::<i64>)
    })?;
    Ok(conn.execute_batch(&triggers())?)
}

/// A token that no other process has, nor this one after its machine went back to an earlier state.
fn new_token() -> String {
    let mut random = [0; 16];
    let read = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    let mut hasher = SipHasher13::new();
    hasher.write(&random);
    // The kernel's random numbers may have gone back together with the memory, but not the time.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    hasher.write_u128(now.as_nanos());
    hasher.write_u32(std::process::id());
    hasher.write_usize(read.unwrap_or_default());
    format!("{:032x}", hasher.finish128().as_u128())
}

/// Begins another lineage: the machine went back to an earlier state under this connection.
///
/// # Errors
/// When the connection does not note changes.
pub(crate) fn renew_token(conn: &Connection) -> Result<(), LedgerError> {
    conn.prepare_cached("SELECT outbox_renew()")?.query_row([], |_| Ok(()))?;
    Ok(())
}

/// Notes that all units of a level changed whose starts a query returns. For changes of rows that leave `unit` as it
/// is.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn note_units(conn: &Connection, level: Level, starts: &str) -> Result<(), LedgerError> {
    let Some((_, name)) = UNITS.iter().find(|unit| unit.0 == level) else { return Ok(()) };
    conn.execute(
        &format!(
            "INSERT INTO outbox (name, part, rev)
             SELECT DISTINCT '{name}', start, (SELECT number + 1 FROM changes) FROM ({starts}) WHERE true
             ON CONFLICT (name, part) DO UPDATE SET rev = excluded.rev"
        ),
        [],
    )?;
    Ok(())
}

/// Forgets the five-minute units before a time, which the ledger keeps no longer: a store keeps them.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn forget_before(conn: &Connection, before: i64) -> Result<(), LedgerError> {
    conn.prepare_cached("DELETE FROM outbox WHERE name = '5min' AND part < ?1")?.execute([before])?;
    Ok(())
}

/// Gives the transaction its change number, if it changed anything that is shipped.
///
/// # Errors
/// When the file cannot be read or written.
pub(crate) fn number(transaction: &Transaction<'_>) -> Result<(), LedgerError> {
    let sql = "SELECT number, (SELECT max(rev) FROM outbox) FROM changes";
    let found: Option<(i64, Option<i64>)> =
        transaction.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((number, Some(last))) = found else { return Ok(()) };
    if last <= number {
        return Ok(());
    }
    transaction.prepare_cached("UPDATE changes SET number = ?1")?.execute([last])?;
    transaction
        .prepare_cached(
            "INSERT INTO lineage (since, token) SELECT ?1, outbox_token()
             WHERE outbox_token() IS NOT (SELECT token FROM lineage ORDER BY since DESC LIMIT 1)",
        )?
        .execute([last])?;
    Ok(())
}

/// Fills the outbox of a ledger from before version 9: all of it changed just now.
///
/// # Errors
/// When the file cannot be read or written.
pub(crate) fn fill(conn: &Connection) -> rusqlite::Result<()> {
    for (level, name) in UNITS {
        conn.execute(
            &format!("INSERT INTO outbox SELECT '{name}', start, 1 FROM unit WHERE level = {}", level as u8),
            [],
        )?;
    }
    for (table, number) in RECORDS {
        conn.execute(&format!("INSERT INTO outbox SELECT '{table}', {number}, 1 FROM {table}"), [])?;
    }
    conn.execute("UPDATE changes SET number = 1 WHERE EXISTS (SELECT 1 FROM outbox)", []).map(drop)
}
