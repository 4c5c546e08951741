//! History from PVA's database, as what was before the switch-over.
//!
//! Its differences are booked as five-minute rows of a stream of their own and go the way of all others from there. Rows
//! are absolute: an import that is repeated replaces what it wrote. PVA knew neither families nor (in the counters that
//! are known) classes: everything becomes IPv4 of one class, unless there are counters of single classes.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior, params};

use super::bucket::FIVE_MINUTES_S;
use super::error::LedgerError;
use super::names;
use super::past::floor;
use super::store::Ledger;
use crate::snapshot::{ContainerId, hex};

/// How to take PVA's history over.
#[derive(Clone, Debug)]
pub struct PvaImport {
    /// Name of the node it was counted on.
    pub node: String,
    /// The class that totals of all classes are booked under.
    pub class: u8,
    /// Only what began before this is taken; `None` for the begin of this ledger's own counting.
    pub until: Option<Timestamp>,
}

/// What was taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PvaImported {
    /// Containers and machines with counters in PVA's database.
    pub containers: usize,
    /// Five-minute rows written.
    pub rows: usize,
}

/// A counter of PVA: its join column, our container, class, and which of the four values it is.
type Counter = (i64, i64, u8, u8);
/// The counters of one owner (an id, and whether it is a machine): join column, class if of a single one, value.
type ByOwner = BTreeMap<(String, bool), Vec<(i64, Option<u8>, u8)>>;

const VALUES: [&str; 4] = [
    "counter_net_incoming_packets",
    "counter_net_incoming_bytes",
    "counter_net_outgoing_packets",
    "counter_net_outgoing_bytes",
];

impl Ledger {
    /// Takes over the history in PVA's database (`log_def`, `log_data`, joined by `id`); call
    /// [`Ledger::maintain`] afterwards.
    ///
    /// # Errors
    /// When either file cannot be used, or the history reaches into what is closed or no longer kept in five minutes:
    /// then nothing is taken.
    pub fn import_pva(&mut self, file: &Path, import: &PvaImport) -> Result<PvaImported, LedgerError> {
        self.conn.execute("ATTACH ?1 AS pva", [file.display().to_string()])?;
        let result = self.import_attached(import);
        self.conn.execute("DETACH pva", [])?;
        self.checkpoint()?;
        result
    }

    fn import_attached(&mut self, import: &PvaImport) -> Result<PvaImported, LedgerError> {
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let until = match import.until {
            Some(until) => until.as_second(),
            None => own_begin(&transaction)?,
        };
        let first: Option<i64> =
            transaction.query_row("SELECT CAST(min(startTime) AS INTEGER) FROM pva.log_data", [], |row| {
                row.get(0)
            })?;
        let floor_s = floor(&transaction)?;
        if first.is_some_and(|first| first < floor_s) {
            return Err(LedgerError::Query(format!(
                "the history begins at {}, but this ledger takes nothing before {}: import into a new one",
                Timestamp::from_second(first.unwrap_or_default())?,
                Timestamp::from_second(floor_s)?,
            )));
        }
        let counters = counters(&transaction, import.class, first.unwrap_or_default())?;
        transaction.execute_batch(
            "CREATE TEMP TABLE pva_map (id INTEGER PRIMARY KEY, container INTEGER, class INTEGER, value INTEGER);",
        )?;
        let mut containers = HashSet::new();
        for &(id, container, class, value) in &counters {
            containers.insert(container);
            transaction
                .prepare_cached("INSERT INTO temp.pva_map VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![id, container, class, value])?;
            transaction
                .prepare_cached("INSERT OR IGNORE INTO class_use VALUES (?1, ?2)")?
                .execute(params![container, class])?;
        }
        let stream = stream(&transaction, &import.node)?;
        let sum =
            |value: usize| format!("CAST(sum(CASE m.value WHEN {value} THEN l.avg ELSE 0 END) AS INTEGER)");
        let rows = transaction.execute(
            &format!(
                "INSERT OR REPLACE INTO traffic_5min
                 SELECT CAST(l.startTime AS INTEGER) / {FIVE_MINUTES_S} * {FIVE_MINUTES_S}, m.container, m.class, 0, ?1,
                     {}, {}, {}, {}
                 FROM pva.log_data l JOIN temp.pva_map m ON m.id = l.id
                 WHERE l.startTime < ?2 AND l.avg > 0 GROUP BY 1, 2, 3",
                sum(0),
                sum(1),
                sum(2),
                sum(3),
            ),
            [stream, until],
        )?;
        transaction.execute(
            "INSERT INTO unit (level, start, end, dirty, finest)
             SELECT DISTINCT 0, start, start + ?2, 1, 1 FROM traffic_5min WHERE stream = ?1
             ON CONFLICT (level, start) DO UPDATE SET dirty = 1",
            [stream, FIVE_MINUTES_S],
        )?;
        transaction.execute_batch("DROP TABLE temp.pva_map")?;
        transaction.commit()?;
        Ok(PvaImported { containers: containers.len(), rows })
    }
}

/// When this ledger's own counting began.
fn own_begin(conn: &Connection) -> Result<i64, LedgerError> {
    let sql = "SELECT min(created) FROM epoch WHERE drains > 0";
    let begin: Option<i64> = conn.query_row(sql, [], |row| row.get(0))?;
    Ok(begin.unwrap_or(i64::MAX))
}

/// The counters to take. Where an owner has counters of single classes, its total is left out.
fn counters(conn: &Connection, class_of_total: u8, first_s: i64) -> Result<Vec<Counter>, LedgerError> {
    let mut statement = conn.prepare(
        "SELECT id, eid, lclass, instance, counter FROM pva.log_def
         WHERE lclass IN ('counters_vz_net', 'counters_vzp_net')",
    )?;
    let mut rows = statement.query([])?;
    let mut by_owner = ByOwner::new();
    while let Some(row) = rows.next()? {
        let (eid, lclass, instance, counter): (String, String, String, String) =
            (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        let value = (0_u8..).zip(VALUES).find(|(_, name)| *name == counter);
        let class = if instance.is_empty() { Some(None) } else { instance.parse().ok().map(Some) };
        if let (Some((value, _)), Some(class)) = (value, class) {
            let is_vm = lclass == "counters_vzp_net";
            by_owner.entry((eid, is_vm)).or_default().push((row.get(0)?, class, value));
        }
    }
    let mut counters = Vec::new();
    for ((eid, is_vm), of_owner) in by_owner {
        let name = ContainerId::new(&eid).map_err(|error| LedgerError::Query(error.to_string()))?;
        let kind = if is_vm { "vm" } else { "ct" };
        let container = names::container(conn, name.as_str(), kind, first_s)?;
        let has_classes = of_owner.iter().any(|(_, class, _)| class.is_some());
        for (id, class, value) in of_owner {
            match class {
                None if has_classes => {}
                class => counters.push((id, container, class.unwrap_or(class_of_total), value)),
            }
        }
    }
    Ok(counters)
}

/// The stream of imported rows: an epoch that never was drained, under a table that nobody knows.
fn stream(conn: &Connection, node: &str) -> Result<i64, LedgerError> {
    let node = names::node(conn, node)?;
    conn.execute(
        "INSERT OR IGNORE INTO epoch (boot_id, epoch, created) VALUES ('pva-import', '0000000000000000', 0)",
        [],
    )?;
    conn.execute(
        "INSERT OR IGNORE INTO class_table (hash, loaded, prefixes) VALUES (?1, 0, 0)",
        [hex(&[0; 32])],
    )?;
    let epoch = conn.query_row("SELECT id FROM epoch WHERE boot_id = 'pva-import'", [], |row| row.get(0))?;
    let table =
        conn.query_row("SELECT id FROM class_table WHERE hash = ?1", [hex(&[0; 32])], |row| row.get(0))?;
    names::stream(conn, node, epoch, table)
}
