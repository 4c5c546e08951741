//! Who the imported history belongs to: the containers that had an id, and the series of imported rows.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension as _, params};
use traffic_model::hex;

use crate::{error::LedgerError, ids};

/// A container that had an id for a while.
#[derive(Clone, Debug)]
pub struct Owner {
    /// When it was retired, in Unix seconds; `i64::MAX` for the current owner.
    pub until: i64,
    /// Its id in the ledger.
    pub number: i64,
    pub label: String,
}

/// Finds the owner of each id, and creates containers that the ledger does not have.
pub struct Owners<'a> {
    conn: &'a Connection,
    dry_run: bool,
    /// All ids in PVA's database, and whether they are virtual machines.
    is_vm: &'a BTreeMap<String, bool>,
    /// Owners of each id, by its index in the file.
    of_id: HashMap<usize, Vec<Owner>>,
    /// Negative id for the next container that a dry run would create.
    next_placeholder: i64,
}

impl<'a> Owners<'a> {
    pub fn new(conn: &'a Connection, dry_run: bool, is_vm: &'a BTreeMap<String, bool>) -> Self {
        Self { conn, dry_run, is_vm, of_id: HashMap::new(), next_placeholder: -1 }
    }

    /// The owner of an id at a time. History before all retirements belongs to the first owner.
    pub fn at(&mut self, eid: &str, index: usize, start: i64) -> Result<Owner, LedgerError> {
        let owners = match self.of_id.entry(index) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => new.insert(owners_of(self.conn, eid)?),
        };
        if let Some(owner) = owners.iter().find(|owner| start < owner.until) {
            return Ok(owner.clone());
        }
        let number = if self.dry_run {
            let placeholder = self.next_placeholder;
            self.next_placeholder -= 1;
            placeholder
        } else {
            let is_vm = self.is_vm.get(eid).copied().unwrap_or(false);
            ids::container(self.conn, eid, if is_vm { "vm" } else { "ct" }, start)?
        };
        let owner = Owner { until: i64::MAX, number, label: eid.to_owned() };
        owners.push(owner.clone());
        Ok(owner)
    }
}

/// All owners of an id, the earliest first.
fn owners_of(conn: &Connection, eid: &str) -> Result<Vec<Owner>, LedgerError> {
    let mut statement = conn.prepare_cached(
        "SELECT coalesce(retired, ?2), id, label FROM container WHERE name = ?1 ORDER BY 1, id",
    )?;
    let owners = statement.query_map(params![eid, i64::MAX], |row| {
        Ok(Owner { until: row.get(0)?, number: row.get(1)?, label: row.get(2)? })
    })?;
    Ok(owners.collect::<Result<_, _>>()?)
}

/// The series of imported rows, if there is one.
pub fn find_series(conn: &Connection, node: &str) -> Result<Option<i64>, LedgerError> {
    let sql = "SELECT s.id FROM stream s JOIN node n ON n.id = s.node JOIN epoch e ON e.id = s.epoch
        WHERE n.name = ?1 AND e.boot_id = 'pva-import'";
    Ok(conn.query_row(sql, [node], |row| row.get(0)).optional()?)
}

/// Finds or creates the series of imported rows: an epoch that is never drained, under an unknown class
/// table.
pub fn make_series(conn: &Connection, node: &str) -> Result<i64, LedgerError> {
    let node = ids::node(conn, node)?;
    conn.execute(
        "INSERT OR IGNORE INTO epoch (boot_id, epoch, created) VALUES ('pva-import', '0000000000000000', 0)",
        [],
    )?;
    conn.execute(
        "INSERT OR IGNORE INTO class_table (hash, loaded, prefixes) VALUES (?1, 0, 0)",
        [hex(&[0; 32])],
    )?;
    let epoch = conn.query_row("SELECT id FROM epoch WHERE boot_id = 'pva-import'", [], |row| row.get(0))?;
    let find = "SELECT id FROM class_table WHERE hash = ?1";
    let class_table = conn.query_row(find, [hex(&[0; 32])], |row| row.get(0))?;
    ids::series(conn, node, epoch, class_table)
}
