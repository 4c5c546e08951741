//! Reads the chain back with the rows that its entries froze, for statements to others.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use traffic_common::Family;

use crate::{
    closing::{
        chain::{Entry, matching_version},
        closed_rates,
        correction::Adjustment,
    },
    error::LedgerError,
    figures::Basis,
    query::facts::KnownClassTable,
    schema::time,
    store::Ledger,
};

/// An entry of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenEntry {
    /// SHA-256 of the entry and the chain before it, in hexadecimal.
    pub hash: String,
    /// What it froze.
    pub content: Frozen,
}

/// What an entry froze.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// The figures of each container, by number, in the billing month of this name (`YYYY-MM`).
    Period(String, Vec<FrozenContainer>),
    /// A correction of the container with this number.
    Correction(i64, Adjustment),
    /// A change of the key of statements: the signed note.
    KeyChange(String),
}

/// The figures of a container in a closed month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenContainer {
    /// Its number in the ledger.
    pub number: i64,
    /// Its label when the month was closed.
    pub container: String,
    /// Its rows.
    pub rows: Vec<FrozenRow>,
    /// Its 95th percentiles.
    pub rates: Vec<FrozenRate>,
}

/// A row of a closed month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenRow {
    /// The node that counted it.
    pub node: String,
    /// The class.
    pub class: u8,
    /// The family.
    pub family: Family,
    /// SHA-256 of the class table.
    pub class_table: String,
    /// Packets in, layer-3 bytes in, packets out, layer-3 bytes out.
    pub counts: [u64; 4],
}

/// A percentile of a closed month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenRate {
    /// The class; `None` for all billed classes together.
    pub class: Option<u8>,
    /// What of a packet is counted.
    pub basis: Basis,
    /// Bits a second in, out, and of both directions together.
    pub bits: [u64; 3],
}

impl Ledger {
    /// Reads the whole chain in its order, one entry at a time.
    ///
    /// # Errors
    /// When the file cannot be read, or the hash of an entry does not match its rows. Also the error of `take`.
    pub fn frozen_entries<E: From<LedgerError>>(
        &self,
        mut take: impl FnMut(FrozenEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = |error: rusqlite::Error| E::from(LedgerError::from(error));
        // One state of the file from the first entry to the last.
        let view = self.conn.unchecked_transaction().map_err(sql)?;
        let mut statement =
            view.prepare_cached("SELECT seq, kind, subject, hash FROM chain ORDER BY seq").map_err(sql)?;
        let mut rows = statement.query([]).map_err(sql)?;
        let mut previous: Option<String> = None;
        while let Some(row) = rows.next().map_err(sql)? {
            let entry = read_entry(&view, row, previous.as_deref())?;
            previous = Some(entry.hash.clone());
            take(entry)?;
        }
        Ok(())
    }

    /// Finds a container in a closed month, by its label then or now. Returns its number, and its present label if
    /// that is another one than then.
    ///
    /// # Errors
    /// When the month is not closed, it has no figures of this container, or the file cannot be read.
    pub fn frozen_container(
        &self,
        month: &str,
        container: &str,
    ) -> Result<(i64, Option<String>), LedgerError> {
        let (_, _, name) = self.month(month)?;
        let find = "SELECT id FROM period WHERE name = ?1";
        let period: Option<i64> = self.conn.query_row(find, [&name], |row| row.get(0)).optional()?;
        let period = period.ok_or(LedgerError::NotClosed(name))?;
        // The label of then comes first: another container may have it by now.
        let find =
            "SELECT r.number, c.label, r.container FROM closed_row r LEFT JOIN container c ON c.id = r.number
             WHERE r.period = ?1 AND (r.container = ?2 OR c.label = ?2) ORDER BY r.container <> ?2 LIMIT 1";
        let found: Option<(i64, Option<String>, String)> = self
            .conn
            .query_row(find, params![period, container], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let (number, now, then) = found.ok_or_else(|| LedgerError::NoSuchContainer(container.to_owned()))?;
        Ok((number, now.filter(|now| *now != then)))
    }

    /// The class tables of these hashes, without their content, in the order of their loading.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn class_tables(&self, hashes: &[String]) -> Result<Vec<KnownClassTable>, LedgerError> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT hash, loaded, prefixes FROM class_table ORDER BY loaded, hash")?;
        let mut rows = statement.query([])?;
        let mut tables = Vec::new();
        while let Some(row) = rows.next()? {
            let hash: String = row.get(0)?;
            if hashes.contains(&hash) {
                let prefixes: i64 = row.get(2)?;
                let loaded = time(row, 1)?;
                tables.push(KnownClassTable {
                    hash,
                    loaded,
                    prefixes: prefixes.cast_unsigned(),
                    content: None,
                });
            }
        }
        Ok(tables)
    }
}

/// Reads an entry, and checks its hash.
fn read_entry(view: &Connection, row: &Row<'_>, previous: Option<&str>) -> Result<FrozenEntry, LedgerError> {
    let (seq, kind, subject): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let hash: String = row.get(3)?;
    let entry = Entry { seq, kind: &kind, subject, previous };
    if matching_version(view, &entry, &hash)?.is_none() {
        return Err(LedgerError::Query(format!(
            "entry {seq} of the chain of closed months does not match its rows, so something else than trafctl \
             changed them; `trafctl audit` shows what it finds"
        )));
    }
    let content = match kind.as_str() {
        "period" => Frozen::Period(name_of(view, subject)?, containers_of(view, subject)?),
        "key" => Frozen::KeyChange(key_change(view, subject)?),
        _ => {
            let (number, adjustment) = correction(view, subject)?;
            Frozen::Correction(number, adjustment)
        }
    };
    Ok(FrozenEntry { hash, content })
}

fn name_of(view: &Connection, period: i64) -> Result<String, LedgerError> {
    let find = "SELECT name FROM period WHERE id = ?1";
    Ok(view.prepare_cached(find)?.query_row([period], |row| row.get(0))?)
}

fn key_change(view: &Connection, id: i64) -> Result<String, LedgerError> {
    let find = "SELECT note FROM key_change WHERE id = ?1";
    Ok(view.prepare_cached(find)?.query_row([id], |row| row.get(0))?)
}

const fn family(number: i64) -> Family {
    if number == 0 { Family::Ipv4 } else { Family::Ipv6 }
}

fn unsigned<const N: usize>(row: &Row<'_>, first: usize) -> rusqlite::Result<[u64; N]> {
    let mut values = [0; N];
    for (at, value) in values.iter_mut().enumerate() {
        *value = row.get::<_, i64>(first + at)?.cast_unsigned();
    }
    Ok(values)
}

/// The containers of a closed month, with everything that it froze of them.
fn containers_of(view: &Connection, period: i64) -> Result<Vec<FrozenContainer>, LedgerError> {
    let mut containers: Vec<FrozenContainer> = Vec::new();
    let mut statement = view.prepare_cached(
        "SELECT number, container, node, class, family, class_table, in_packets, in_bytes, out_packets, out_bytes
         FROM closed_row WHERE period = ?1 ORDER BY number, container, node, class, family, class_table",
    )?;
    let mut rows = statement.query([period])?;
    while let Some(row) = rows.next()? {
        let (number, container): (i64, String) = (row.get(0)?, row.get(1)?);
        if containers.last().is_none_or(|last| last.number != number) {
            containers.push(FrozenContainer { number, container, rows: Vec::new(), rates: Vec::new() });
        }
        let frozen = FrozenRow {
            node: row.get(2)?,
            class: row.get(3)?,
            family: family(row.get(4)?),
            class_table: row.get(5)?,
            counts: unsigned(row, 6)?,
        };
        if let Some(last) = containers.last_mut() {
            last.rows.push(frozen);
        }
    }
    let mut statement = view.prepare_cached(
        "SELECT number, class, basis, in_bits, out_bits, total_bits FROM closed_rate WHERE period = ?1
         ORDER BY number, class, basis",
    )?;
    let mut rows = statement.query([period])?;
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        let rate = FrozenRate {
            class: u8::try_from(row.get::<_, i64>(1)?).ok(),
            basis: closed_rates::basis(row.get(2)?),
            bits: unsigned(row, 3)?,
        };
        if let Ok(at) = containers.binary_search_by_key(&number, |container| container.number) {
            containers[at].rates.push(rate);
        }
    }
    Ok(containers)
}

fn correction(view: &Connection, id: i64) -> Result<(i64, Adjustment), LedgerError> {
    let mut statement = view.prepare_cached(
        "SELECT a.number, p.name, a.made, a.container, a.class, a.family, a.in_packets, a.in_bytes, a.out_packets,
         a.out_bytes, a.reason FROM adjustment a JOIN period p ON p.id = a.period WHERE a.id = ?1",
    )?;
    let mut rows = statement.query([id])?;
    let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let adjustment = Adjustment {
        period: row.get(1)?,
        made: time(row, 2)?,
        container: row.get(3)?,
        class: row.get(4)?,
        family: row.get(5)?,
        packets: [row.get(6)?, row.get(8)?],
        bytes: [row.get(7)?, row.get(9)?],
        reason: row.get(10)?,
    };
    Ok((row.get(0)?, adjustment))
}
