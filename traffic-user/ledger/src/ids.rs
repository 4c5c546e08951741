//! Maps names and hashes to the integer ids of their rows, inserting a row where needed. Everything runs in
//! the caller's transaction.

use rusqlite::{Connection, OptionalExtension as _, ToSql, params, types::FromSql};
use traffic_model::{ClassTableInfo, Snapshot, is_pending};

use crate::{error::LedgerError, write::attribution};

/// Looks an id up, and inserts the row if there is none. Returns the id and whether the row is new.
fn find_or_insert(
    conn: &Connection,
    find: &str,
    make: &str,
    key: &[&dyn ToSql],
    more: &[&dyn ToSql],
) -> Result<(i64, bool), LedgerError> {
    if let Some(id) = conn.prepare_cached(find)?.query_row(key, |row| row.get(0)).optional()? {
        return Ok((id, false));
    }
    let all: Vec<&dyn ToSql> = key.iter().chain(more).copied().collect();
    Ok((conn.prepare_cached(make)?.insert(all.as_slice())?, true))
}

/// The id of a node.
pub(crate) fn node(conn: &Connection, name: &str) -> Result<i64, LedgerError> {
    let find = "SELECT id FROM node WHERE name = ?1";
    Ok(find_or_insert(conn, find, "INSERT INTO node (name) VALUES (?1)", &[&name], &[])?.0)
}

const FIND_EPOCH: &str = "SELECT id FROM epoch WHERE boot_id = ?1 AND epoch = ?2";

/// The id of a snapshot's counter epoch, and whether it is new.
pub(crate) fn epoch(conn: &Connection, snapshot: &Snapshot) -> Result<(i64, bool), LedgerError> {
    let number = epoch_name(snapshot.epoch);
    find_or_insert(
        conn,
        FIND_EPOCH,
        "INSERT INTO epoch (boot_id, epoch, created) VALUES (?1, ?2, ?3)",
        &[&snapshot.boot_id, &number],
        &[&snapshot.epoch_created.as_second()],
    )
}

/// The id of a snapshot's counter epoch; `None` if it was never drained into this ledger.
pub(crate) fn find_epoch(conn: &Connection, snapshot: &Snapshot) -> Result<Option<i64>, LedgerError> {
    let key = params![snapshot.boot_id, epoch_name(snapshot.epoch)];
    Ok(conn.prepare_cached(FIND_EPOCH)?.query_row(key, |row| row.get(0)).optional()?)
}

/// Whether an epoch was drained into this ledger.
pub(crate) fn has_drained(conn: &Connection, boot_id: &str, epoch: u64) -> Result<bool, LedgerError> {
    let find = "SELECT 1 FROM epoch WHERE boot_id = ?1 AND epoch = ?2 AND drains > 0";
    Ok(conn.prepare_cached(find)?.exists(params![boot_id, epoch_name(epoch)])?)
}

/// Whether any epoch of this boot was drained into this ledger.
pub(crate) fn has_drained_boot(conn: &Connection, boot_id: &str) -> Result<bool, LedgerError> {
    let find = "SELECT 1 FROM epoch WHERE boot_id = ?1 AND drains > 0";
    Ok(conn.prepare_cached(find)?.exists([boot_id])?)
}

fn epoch_name(epoch: u64) -> String {
    format!("{epoch:016x}")
}

/// The id of a class table.
pub(crate) fn class_table(conn: &Connection, table: &ClassTableInfo) -> Result<i64, LedgerError> {
    let found = find_or_insert(
        conn,
        "SELECT id FROM class_table WHERE hash = ?1",
        "INSERT INTO class_table (hash, loaded, prefixes) VALUES (?1, ?2, ?3)",
        &[&table.hash_hex()],
        &[&table.loaded.as_second(), &table.prefixes.cast_signed()],
    )?;
    Ok(found.0)
}

/// The id of a series: what one epoch of a node counted under one class table.
pub(crate) fn series(conn: &Connection, node: i64, epoch: i64, class_table: i64) -> Result<i64, LedgerError> {
    let find = "SELECT id FROM stream WHERE node = ?1 AND epoch = ?2 AND class_table = ?3";
    let make = "INSERT INTO stream (node, epoch, class_table) VALUES (?1, ?2, ?3)";
    Ok(find_or_insert(conn, find, make, &[&node, &epoch, &class_table], &[])?.0)
}

/// The id of the active container of this name; of a pending owner that was attributed, that of its container.
pub(crate) fn container(conn: &Connection, name: &str, kind: &str, now_s: i64) -> Result<i64, LedgerError> {
    if is_pending(name)
        && let Some((owner, _)) = attribution::owner_of(conn, name)?
    {
        return Ok(owner);
    }
    let found = find_or_insert(
        conn,
        "SELECT id FROM container WHERE name = ?1 AND retired IS NULL",
        "INSERT INTO container (name, label, kind, since) VALUES (?1, ?1, ?2, ?3)",
        &[&name],
        &[&kind, &now_s],
    )?;
    Ok(found.0)
}

/// The id of an interface together with its container; `container` is 0 for a shared interface.
pub(crate) fn interface(conn: &Connection, name: &str, container: i64) -> Result<i64, LedgerError> {
    let find = "SELECT id FROM interface WHERE name = ?1 AND container = ?2";
    let make = "INSERT INTO interface (name, container) VALUES (?1, ?2)";
    Ok(find_or_insert(conn, find, make, &[&name, &container], &[])?.0)
}

/// The id of one life of an interface's counters.
pub(crate) fn interface_life(
    conn: &Connection,
    epoch: i64,
    name: &str,
    generation: u32,
) -> Result<i64, LedgerError> {
    let find = "SELECT id FROM interface_life WHERE epoch = ?1 AND name = ?2 AND generation = ?3";
    let make = "INSERT INTO interface_life (epoch, name, generation) VALUES (?1, ?2, ?3)";
    Ok(find_or_insert(conn, find, make, &[&epoch, &name, &generation], &[])?.0)
}

/// Reads a single value that belongs to the whole ledger.
pub(crate) fn meta<T: FromSql>(conn: &Connection, key: &str) -> Result<Option<T>, LedgerError> {
    let mut statement = conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?)
}

/// Writes such a value.
pub(crate) fn set_meta(conn: &Connection, key: &str, value: impl ToSql) -> Result<(), LedgerError> {
    conn.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
        .execute(params![key, value])?;
    Ok(())
}
