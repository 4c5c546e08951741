//! What changed last when: the ledger as an outbox, from which its rows are shipped to a store.
//!
//! Every transaction that changes something that is shipped gets the next *change number*. The table `outbox`
//! holds, for each part of the ledger, the number of its last change: for five minutes and for days the start of
//! the unit, otherwise the number of a row. Nothing else has to be kept for a store that is away, however long:
//! it asks for what changed since the number that it knows, and gets the present rows ([`changes`], [`parts`], [`sizes`], [`tables`]).
//!
//! The writing connection notes the changes together with those of the digests, so the number is written in the
//! transaction of the change. Packing a day and dropping old rows change nothing that is shipped.
//!
//! The table `lineage` tells copies apart. Each connection that writes has a random token. Where it is not the one
//! of the last change, `lineage` gets a line. So whoever remembers a change number with its token recognises a
//! ledger that went back to an earlier state and went on from there: the token of that number is another one.

pub(crate) mod changes;
pub(crate) mod parts;
pub(crate) mod sizes;
pub(crate) mod tables;

use std::{
    hash::Hasher as _,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rusqlite::{Connection, OptionalExtension as _, Transaction, functions::FunctionFlags, types::ValueRef};
use siphasher::sip128::{Hasher128 as _, SipHasher13};
use traffic_model::calendar::Level;

use crate::{
    digest,
    error::LedgerError,
    schema::{DROPPED, FAULT, Kind, PASSED, TRAFFIC},
};

/// The kinds of sums that are shipped, with the places of their tables in [`tables::TABLES`].
pub(crate) const KINDS: [(usize, Kind); 4] =
    [(1, TRAFFIC), (2, FAULT), (3, PASSED), (tables::DROPPED_TABLE, DROPPED)];

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

/// A table whose changes are shipped, and the columns that tell which part a row belongs to.
#[derive(Debug)]
pub(crate) enum Shipped {
    /// Each row is a part.
    Record { name: &'static str, number: usize },
    /// Each row stands for the figures of a unit.
    Unit { level: usize, start: usize, end: usize, dirty: usize },
}

impl Shipped {
    /// `None` for a table that is not shipped.
    pub fn of(table: &str, columns: &[String]) -> Option<Self> {
        let column = |name: &str| columns.iter().position(|column| column == name);
        if table == "unit" {
            return Some(Self::Unit {
                level: column("level")?,
                start: column("start")?,
                end: column("end")?,
                dirty: column("dirty")?,
            });
        }
        let (name, number) = RECORDS.into_iter().find(|record| record.0 == table)?;
        Some(Self::Record { name, number: column(number)? })
    }

    /// The part that a change of a row changes: the row before and after, without the one that was or is not there.
    pub fn changed(
        &self,
        before: Option<&[ValueRef<'_>]>,
        after: Option<&[ValueRef<'_>]>,
    ) -> Option<(&'static str, i64)> {
        let row = after.or(before)?;
        let integer = |column: usize| row.get(column)?.as_i64().ok();
        match *self {
            Self::Record { name, number } => Some((name, integer(number)?)),
            Self::Unit { level, start, end, dirty } => {
                let level = integer(level)?;
                let (_, name) = UNITS.into_iter().find(|unit| unit.0 as i64 == level)?;
                // Every change of a unit's rows makes it dirty. Summing it up, after which it is clean, changes none,
                // but the end of a day or month may move without its rows.
                let end_of = |row: Option<&[ValueRef<'_>]>| row?.get(end)?.as_i64().ok();
                let keeps_its_end = end_of(before).is_some() && end_of(before) == end_of(after);
                let is_summing_up = keeps_its_end && integer(dirty)? == 0;
                if is_summing_up { None } else { Some((name, integer(start)?)) }
            }
        }
    }
}

/// Gives a connection that writes its token.
///
/// # Errors
/// When SQLite refuses a function.
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
    Ok(())
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
    // Removing the units was a change too.
    write_noted(conn)?;
    conn.prepare_cached("DELETE FROM outbox WHERE name = '5min' AND part < ?1")?.execute([before])?;
    Ok(())
}

/// Writes the parts that were noted since the last call, under the number that the transaction will get. Called
/// before each commit, and before a transaction reads or removes its own changes.
///
/// # Errors
/// When the file cannot be written, or the connection does not note changes.
pub(crate) fn write_noted(conn: &Connection) -> Result<(), LedgerError> {
    let parts = digest::shipped(conn)?;
    if parts.is_empty() {
        return Ok(());
    }
    let mut write = conn.prepare_cached(
        "INSERT INTO outbox (name, part, rev) VALUES (?1, ?2, (SELECT number + 1 FROM changes))
         ON CONFLICT (name, part) DO UPDATE SET rev = excluded.rev",
    )?;
    for part in parts {
        write.execute(part)?;
    }
    Ok(())
}

/// Gives the transaction its change number, if it changed anything that is shipped.
///
/// # Errors
/// When the file cannot be read or written.
pub(crate) fn number(transaction: &Transaction<'_>) -> Result<(), LedgerError> {
    write_noted(transaction)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_changes_with_its_end_and_not_by_being_summed_up() {
        let columns = ["level", "start", "end", "dirty"].map(str::to_owned);
        let unit = Shipped::of("unit", &columns).unwrap();
        let row = |end, dirty| [2, 86_400, end, dirty].map(ValueRef::Integer);
        let (written, summed, shorter) = (row(172_800, 1), row(172_800, 0), row(169_200, 0));
        assert_eq!(unit.changed(Some(&written), Some(&summed)), None);
        assert_eq!(unit.changed(Some(&summed), Some(&shorter)), Some(("day", 86_400)));
    }
}
