//! What people called the containers, and when.
//!
//! A name is that of one moment: it is kept from when a drain first saw it to when another one took its place. So a
//! report about October has the names of October. Without any news, a name stays: that a platform does not answer
//! says nothing about its containers.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, params};
use serde::Serialize;

use crate::{error::LedgerError, schema, store::Ledger};

/// A name that a container had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContainerName {
    /// The name.
    pub name: String,
    /// When it was first seen.
    pub since: Timestamp,
    /// When another one was seen, or the container was retired; `None` while it has it.
    pub until: Option<Timestamp>,
}

/// Notes the names that containers have now, by id. Those that the ledger does not know have none yet.
pub(crate) fn store(
    transaction: &Transaction<'_>,
    names: &BTreeMap<String, String>,
    now_s: i64,
) -> Result<(), LedgerError> {
    if names.is_empty() {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached(
        "SELECT c.name, c.id, n.name FROM container c
         LEFT JOIN container_name n ON n.container = c.id AND n.until IS NULL WHERE c.retired IS NULL",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let rows: Vec<(String, i64, Option<String>)> = rows.collect::<Result<_, _>>()?;
    for (id, container, known) in rows {
        let Some(name) = names.get(&id).filter(|name| known.as_ref() != Some(name)) else { continue };
        close(transaction, container, now_s)?;
        transaction
            .prepare_cached("INSERT INTO container_name (container, since, name) VALUES (?1, ?2, ?3)")?
            .execute(params![container, now_s, name])?;
    }
    Ok(())
}

/// Ends the name that a container has.
pub(crate) fn close(conn: &Connection, container: i64, now_s: i64) -> Result<(), LedgerError> {
    conn.prepare_cached(
        "UPDATE container_name SET until = max(since, ?2) WHERE container = ?1 AND until IS NULL",
    )?
    .execute([container, now_s])?;
    // Of two names within a second, nobody saw the first.
    conn.prepare_cached("DELETE FROM container_name WHERE container = ?1 AND until <= since")?
        .execute([container])?;
    Ok(())
}

/// The last name that a container had before a moment. One that had none by then has its first one.
pub(crate) fn at(all: &HashMap<i64, Vec<ContainerName>>, container: i64, end: Timestamp) -> Option<String> {
    last_before(all.get(&container)?, end).map(str::to_owned)
}

fn last_before(names: &[ContainerName], end: Timestamp) -> Option<&str> {
    let last = names.iter().rev().find(|name| name.since < end).or(names.first())?;
    Some(&last.name)
}

/// The names of all containers, by their labels.
#[derive(Clone, Debug, Default)]
pub struct ContainerNames(HashMap<String, Vec<ContainerName>>);

impl ContainerNames {
    /// The last name that a container had before a moment. One that had none by then has its first one.
    pub fn at(&self, label: &str, end: Timestamp) -> Option<&str> {
        last_before(self.0.get(label)?, end)
    }
}

fn name(row: &Row<'_>, at: usize) -> rusqlite::Result<ContainerName> {
    let until: Option<i64> = row.get(at + 2)?;
    Ok(ContainerName {
        name: row.get(at)?,
        since: schema::time(row, at + 1)?,
        until: until.map(|_| schema::time(row, at + 2)).transpose()?,
    })
}

/// All names of all containers, by number, the oldest first.
pub(crate) fn all(conn: &Connection) -> Result<HashMap<i64, Vec<ContainerName>>, LedgerError> {
    let sql = "SELECT container, name, since, until FROM container_name ORDER BY container, since, id";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut names: HashMap<i64, Vec<ContainerName>> = HashMap::new();
    while let Some(row) = rows.next()? {
        names.entry(row.get(0)?).or_default().push(name(row, 1)?);
    }
    Ok(names)
}

impl Ledger {
    /// Has each later drain note what people call the containers now, by id.
    pub fn note_names(&mut self, names: BTreeMap<String, String>) {
        self.names = names;
    }

    /// The names of all containers.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn container_names(&self) -> Result<ContainerNames, LedgerError> {
        let mut names = all(&self.conn)?;
        if names.is_empty() {
            return Ok(ContainerNames::default());
        }
        let mut statement = self.conn.prepare_cached("SELECT id, label FROM container")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let labels: Vec<(i64, String)> = rows.collect::<Result<_, _>>()?;
        let named = labels.into_iter().filter_map(|(id, label)| Some((label, names.remove(&id)?)));
        Ok(ContainerNames(named.collect()))
    }

    /// The labels of the containers that have this name, or else of those that had it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn labels_named(&self, name: &str) -> Result<Vec<String>, LedgerError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT c.label, max(n.until IS NULL) FROM container_name n JOIN container c ON c.id = n.container
             WHERE n.name = ?1 GROUP BY c.id ORDER BY c.label",
        )?;
        let rows = statement.query_map([name], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let found: Vec<(String, bool)> = rows.collect::<Result<_, _>>()?;
        let have_it_now = found.iter().any(|(_, now)| *now);
        Ok(found.into_iter().filter(|(_, now)| *now || !have_it_now).map(|(label, _)| label).collect())
    }
}
