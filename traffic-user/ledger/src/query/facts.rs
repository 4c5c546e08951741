//! What the ledger knows besides figures: its containers, its node, where it begins and ends, and the class
//! table of the last reading.

use std::cmp::Ordering;

use jiff::Timestamp;
use rusqlite::OptionalExtension as _;
use serde::Serialize;

use crate::{
    error::LedgerError,
    query::query_plan::recorded_range,
    store::Ledger,
    write::{
        clock, last_reading,
        names::{self, ContainerName},
    },
};

/// A container of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KnownContainer {
    /// Its label: its id, with the time of retirement if it is retired.
    pub container: String,
    /// What people call it, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// All names that it had, the oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<ContainerName>,
    /// `ct` or `vm`.
    pub kind: String,
    /// When it was first seen.
    pub since: Timestamp,
    /// When it was retired.
    pub retired: Option<Timestamp>,
}

/// A class table that packets were counted under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownClassTable {
    /// SHA-256 of the compiled table, hexadecimal.
    pub hash: String,
    /// When it was loaded.
    pub loaded: Timestamp,
    /// Number of prefixes.
    pub prefixes: u64,
    /// The table as its owner stored it, if it was stored.
    pub content: Option<Vec<u8>>,
}

/// Where a ledger begins and ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// Start of the first bucket; `None` in an empty ledger.
    pub begin: Option<Timestamp>,
    /// Time of the last reading; `None` without one.
    pub last_reading: Option<Timestamp>,
    /// Time zone of its days and months.
    pub zone: String,
    /// Day of the month on which its months begin.
    pub billing_day: u8,
}

impl Ledger {
    /// All containers with figures: numbers first, by value, then other ids.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn containers(&self) -> Result<Vec<KnownContainer>, LedgerError> {
        let mut statement =
            self.conn.prepare_cached("SELECT label, kind, since, retired, id FROM container")?;
        let mut rows = statement.query([])?;
        let mut names = names::all(&self.conn)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let retired: Option<i64> = row.get(3)?;
            let names = names.remove(&row.get(4)?).unwrap_or_default();
            all.push(KnownContainer {
                container: row.get(0)?,
                name: names.last().map(|last| last.name.clone()),
                names,
                kind: row.get(1)?,
                since: Timestamp::from_second(row.get(2)?)?,
                retired: retired.map(Timestamp::from_second).transpose()?,
            });
        }
        all.sort_by(|a, b| by_number(&a.container, &b.container));
        Ok(all)
    }

    /// The name of the node that wrote last; `None` before the first reading.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn node(&self) -> Result<Option<String>, LedgerError> {
        let find = "SELECT n.name FROM stream s JOIN node n ON n.id = s.node ORDER BY s.id DESC LIMIT 1";
        Ok(self.conn.query_row(find, [], |row| row.get(0)).optional()?)
    }

    /// Where it begins and ends.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn extent(&self) -> Result<Extent, LedgerError> {
        let (begin, end) = recorded_range(&self.conn)?;
        Ok(Extent {
            begin: (begin < end).then(|| Timestamp::from_second(begin)).transpose()?,
            last_reading: clock::last_reading(&self.conn)?,
            zone: self.calendar.zone_name().to_owned(),
            billing_day: self.calendar.billing_day(),
        })
    }

    /// The class table of the last reading.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn class_table_of_last_reading(&self) -> Result<Option<KnownClassTable>, LedgerError> {
        let Some(last) = last_reading::latest_reading(&self.conn)? else { return Ok(None) };
        let find = "SELECT hash, loaded, prefixes, content FROM class_table WHERE id = ?1";
        let row = self.conn.query_row(find, [last.class_table], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?, row.get(3)?))
        });
        let Some((hash, loaded, prefixes, content)) = row.optional()? else { return Ok(None) };
        let loaded = Timestamp::from_second(loaded)?;
        Ok(Some(KnownClassTable { hash, loaded, prefixes: prefixes.cast_unsigned(), content }))
    }
}

/// Numbers come first, by value.
fn by_number(a: &str, b: &str) -> Ordering {
    let number = |label: &str| label.split('@').next().and_then(|id| id.parse().ok()).unwrap_or(u64::MAX);
    number(a).cmp(&number(b)).then_with(|| a.cmp(b))
}
