//! For whom each interface was counted, and when that changed.
//!
//! What was counted before a change stays with the former container. That an owner became known who was pending is
//! no change, but an attribution ([`crate::write::attribution`]).

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};
use serde::Serialize;
use traffic_model::{InterfaceCounter, Snapshot};

use crate::{error::LedgerError, schema, store::Ledger};

/// An interface that is counted for another container since some moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OwnerChange {
    /// When a drain first saw it.
    pub made: Timestamp,
    /// The interface.
    pub interface: String,
    /// Label of the container that it was counted for; `None` where the address decided.
    pub former: Option<String>,
    /// Label of the container that it is counted for since; `None` likewise.
    pub owner: Option<String>,
}

/// Compares the interfaces that exist with those of the last drain. `number` gives the number of the container of an
/// interface, or 0.
pub(crate) fn follow(
    transaction: &Transaction<'_>,
    snapshot: &Snapshot,
    now_s: i64,
    number: impl Fn(&InterfaceCounter) -> Result<i64, LedgerError>,
) -> Result<(), LedgerError> {
    let mut known = last_owners(transaction, &snapshot.boot_id)?;
    let mut present: BTreeMap<u32, &InterfaceCounter> = BTreeMap::new();
    for interface in &snapshot.interfaces {
        if let Some(index) = interface.ifindex
            && present.get(&index).is_none_or(|other| other.generation < interface.generation)
        {
            present.insert(index, interface);
        }
    }
    for (index, interface) in present {
        let owner = number(interface)?;
        match known.remove(&index) {
            Some((name, former)) if name == interface.interface && former == owner => continue,
            // Of another name, it may be another device that got the index.
            Some((name, former)) if name == interface.interface => {
                transaction
                    .prepare_cached(
                        "INSERT INTO owner_change (made, interface, former, owner) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute(params![now_s, name, former, owner])?;
            }
            _ => {}
        }
        transaction
            .prepare_cached("INSERT OR REPLACE INTO interface_owner VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![snapshot.boot_id, index, interface.interface, owner])?;
    }
    for index in known.into_keys() {
        transaction
            .prepare_cached("DELETE FROM interface_owner WHERE boot_id = ?1 AND ifindex = ?2")?
            .execute(params![snapshot.boot_id, index])?;
    }
    Ok(())
}

/// Name and number of the container of each interface at the last drain, by index.
fn last_owners(conn: &Connection, boot_id: &str) -> Result<HashMap<u32, (String, i64)>, LedgerError> {
    let sql = "SELECT ifindex, name, container FROM interface_owner WHERE boot_id = ?1";
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map([boot_id], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Forgets the interfaces of other boots.
pub(crate) fn forget_other_boots(conn: &Connection, boot_id: &str) -> Result<(), LedgerError> {
    conn.prepare_cached("DELETE FROM interface_owner WHERE boot_id <> ?1")?.execute([boot_id])?;
    Ok(())
}

impl Ledger {
    /// The changes of owners that concern a container, by its label, or all of them; the oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn owner_changes(&self, label: Option<&str>) -> Result<Vec<OwnerChange>, LedgerError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT h.made, h.interface, f.label, o.label FROM owner_change h
             LEFT JOIN container f ON f.id = h.former LEFT JOIN container o ON o.id = h.owner
             WHERE ?1 IS NULL OR f.label = ?1 OR o.label = ?1 ORDER BY h.id",
        )?;
        let rows = statement.query_map([label], |row| {
            Ok(OwnerChange {
                made: schema::time(row, 0)?,
                interface: row.get(1)?,
                former: row.get(2)?,
                owner: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
