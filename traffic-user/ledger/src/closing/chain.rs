//! The chain of closed months, corrections and changes of the key of statements: each entry is a hash over the entry
//! before it and over the rows of its subject. `docs/ledger-hashes.md` describes it, so that others can verify a file alone.
//!
//! New entries have version 2: rows in the encoding of [`crate::encoding`], with the frozen percentiles.
//! Entries of version 1 were made from Rust's `Debug` notation, and verify forever. After the first entry of
//! version 2, none of version 1 is accepted.

use rusqlite::{Connection, OptionalExtension as _, Transaction, params, types::ValueRef};
use sha2::{Digest as _, Sha256};
use traffic_model::hex;

use crate::{encoding, error::LedgerError};

/// An entry of the chain without its hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub seq: i64,
    /// `period`, `adjustment` or `key`.
    pub kind: &'a str,
    /// Id of the period, the adjustment or the change of the key.
    pub subject: i64,
    /// Hash of the entry before it.
    pub previous: Option<&'a str>,
}

/// The version of an entry's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    One,
    Two,
}

const PERIOD: &str = "SELECT name, start, end, closed FROM period WHERE id = ?1";
const CLOSED_ROWS: &str = "SELECT node, container, number, class, family, class_table, in_packets, in_bytes,
    out_packets, out_bytes
    FROM closed_row WHERE period = ?1 ORDER BY node, container, number, class, family, class_table";
const CLOSED_RATES: &str =
    "SELECT number, class, basis, in_bits, out_bits, total_bits, buckets, spread_buckets
    FROM closed_rate WHERE period = ?1 ORDER BY number, class, basis";
const ADJUSTMENT: &str =
    "SELECT p.name, a.made, a.container, a.class, a.family, a.in_packets, a.in_bytes, a.out_packets,
    a.out_bytes, a.reason, a.number FROM adjustment a JOIN period p ON p.id = a.period WHERE a.id = ?1";
const KEY_CHANGE: &str = "SELECT made, note FROM key_change WHERE id = ?1";
/// Before corrections recorded their container's number.
const FORMER_ADJUSTMENT: &str =
    "SELECT p.name, a.made, a.container, a.class, a.family, a.in_packets, a.in_bytes, a.out_packets,
    a.out_bytes, a.reason FROM adjustment a JOIN period p ON p.id = a.period WHERE a.id = ?1";

/// Appends an entry to the chain. Returns its number and hash.
pub(crate) fn extend_chain(
    transaction: &Transaction<'_>,
    kind: &str,
    subject: i64,
) -> Result<(i64, String), LedgerError> {
    let last = "SELECT seq, hash FROM chain ORDER BY seq DESC LIMIT 1";
    let last: Option<(i64, String)> =
        transaction.query_row(last, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let seq = last.as_ref().map_or(1, |last| last.0 + 1);
    let entry = Entry { seq, kind, subject, previous: last.as_ref().map(|last| last.1.as_str()) };
    let hash = hash(transaction, &entry)?;
    transaction.execute(
        "INSERT INTO chain (seq, kind, subject, hash) VALUES (?1, ?2, ?3, ?4)",
        params![seq, kind, subject, hash],
    )?;
    Ok((seq, hash))
}

/// The version under which a stored hash matches the rows of its entry; `None` if it does not.
pub(crate) fn matching_version(
    conn: &Connection,
    entry: &Entry<'_>,
    stored: &str,
) -> Result<Option<Version>, LedgerError> {
    if hash(conn, entry)? == stored {
        return Ok(Some(Version::Two));
    }
    // Version 1 had no such entries.
    if entry.kind == "key" {
        return Ok(None);
    }
    let is_former = hash_v1(conn, entry, false)? == stored
        || entry.kind == "adjustment" && hash_v1(conn, entry, true)? == stored;
    Ok(is_former.then_some(Version::One))
}

/// The hash of version 2: SHA-256 over a row about the entry, then the subject's rows, each with the name of
/// its table first.
fn hash(conn: &Connection, entry: &Entry<'_>) -> Result<String, LedgerError> {
    let statements: &[(&str, &str)] = match entry.kind {
        "period" => &[("period", PERIOD), ("closed_row", CLOSED_ROWS), ("closed_rate", CLOSED_RATES)],
        "key" => &[("key_change", KEY_CHANGE)],
        _ => &[("adjustment", ADJUSTMENT)],
    };
    let mut hasher = Sha256::new();
    let mut bytes = Vec::new();
    let text = |text: &'static str| ValueRef::Text(text.as_bytes());
    encoding::row(&mut bytes, 5);
    for value in [
        text("trafctl chain"),
        ValueRef::Integer(2),
        ValueRef::Integer(entry.seq),
        entry.previous.map_or(ValueRef::Null, |previous| ValueRef::Text(previous.as_bytes())),
        ValueRef::Text(entry.kind.as_bytes()),
    ] {
        encoding::value(&mut bytes, value);
    }
    hasher.update(&bytes);
    for (table, sql) in statements {
        let mut statement = conn.prepare_cached(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([entry.subject])?;
        while let Some(row) = rows.next()? {
            bytes.clear();
            encoding::row(&mut bytes, columns + 1);
            encoding::value(&mut bytes, text(table));
            for at in 0..columns {
                encoding::value(&mut bytes, row.get_ref(at)?);
            }
            hasher.update(&bytes);
        }
    }
    Ok(hex(&hasher.finalize()))
}

/// The hash of version 1: SHA-256 over lines of tab-separated fields, beginning with the previous hash.
/// `Debug` quoting keeps a tab or line end inside a text distinct from one between fields. A `former`
/// correction does not cover its container's number, which a migration added.
pub(crate) fn hash_v1(conn: &Connection, entry: &Entry<'_>, former: bool) -> Result<String, LedgerError> {
    let statements: &[&str] = match (entry.kind, former) {
        ("period", _) => &[PERIOD, CLOSED_ROWS],
        (_, false) => &[ADJUSTMENT],
        (_, true) => &[FORMER_ADJUSTMENT],
    };
    let mut hasher = Sha256::new();
    hasher.update(format!("trafctl-ledger-1\t{}\t{}\n", entry.previous.unwrap_or("-"), entry.kind));
    for sql in statements {
        let mut statement = conn.prepare_cached(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([entry.subject])?;
        while let Some(row) = rows.next()? {
            let fields = (0..columns).map(|at| row.get_ref(at).map(field_v1));
            let fields: Vec<String> = fields.collect::<Result<_, _>>()?;
            hasher.update(fields.join("\t") + "\n");
        }
    }
    Ok(hex(&hasher.finalize()))
}

fn field_v1(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
        other => format!("{other:?}"),
    }
}
