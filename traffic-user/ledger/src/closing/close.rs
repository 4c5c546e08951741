//! Closed periods: their rows are frozen under a hash that covers everything closed before. Nothing is
//! written into a closed period any more; `adjust` adds corrections to the same chain.
//!
//! The next period to close is always the earliest open month with figures, so no open month is left behind.
//! Imported history may lie before a closed month; it is closed like any other month.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use traffic_model::{calendar::Level, hex};

use crate::{
    closing::{close_checks, closed_rates},
    digest,
    error::LedgerError,
    schema::time,
    store::Ledger,
    time::borders::Borders,
    write::rollup_state::{last_bucket, stale_units},
};

/// A period whose figures are final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClosedPeriod {
    /// The billing month as `YYYY-MM`.
    pub name: String,
    /// Start.
    pub start: Timestamp,
    /// End.
    pub end: Timestamp,
    /// When it was closed.
    pub closed: Timestamp,
    /// Number of frozen rows.
    pub rows: u64,
    /// SHA-256 of the rows and the chain before them, in hexadecimal.
    pub hash: String,
}

impl Ledger {
    /// Closes the billing month `YYYY-MM` of the ledger's calendar.
    ///
    /// # Errors
    /// When the month is not over or already closed, when an earlier month with figures is still open, or
    /// when the file cannot be written. Also when its figures are doubtful: it has none, the clock is not
    /// trusted, or the readings around its end are missing.
    pub fn close(&mut self, name: &str, now: Timestamp) -> Result<ClosedPeriod, LedgerError> {
        self.close_month(name, now, false)
    }

    /// Closes a billing month even if its figures are doubtful.
    ///
    /// # Errors
    /// As for [`Ledger::close`], except for doubtful figures.
    pub fn close_anyway(&mut self, name: &str, now: Timestamp) -> Result<ClosedPeriod, LedgerError> {
        self.close_month(name, now, true)
    }

    fn close_month(&mut self, name: &str, now: Timestamp, force: bool) -> Result<ClosedPeriod, LedgerError> {
        let (start, end, name) = self.month(name)?;
        self.maintain(now)?;
        // Before the file is locked: reading a month's rows takes a while.
        let rates = closed_rates::compute(self, start, end)?;
        let not_closable =
            |reason: &str| LedgerError::NotClosable { period: name.clone(), reason: reason.to_owned() };
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if transaction.prepare("SELECT 1 FROM period WHERE start < ?2 AND end > ?1")?.exists([start, end])? {
            return Err(not_closable("it is already closed"));
        }
        if let Some(earlier) = earliest_open(&transaction, start)? {
            let earlier = Borders::new(&transaction, &self.calendar).label(Level::Month, earlier)?;
            return Err(not_closable(&format!(
                "{earlier} holds figures and is still open; run `trafctl close {earlier}` first"
            )));
        }
        if last_bucket(&transaction)?.is_none_or(|last| last < end) {
            if now.as_second() < end {
                let end = self.calendar.label(Level::FiveMinutes, end)?;
                return Err(not_closable(&format!(
                    "it ends at {end}; close it after the first drain from then on"
                )));
            }
            return Err(not_closable("the last drain was before its end; wait for the next drain"));
        }
        if stale_units(&transaction, &self.calendar, Level::Month)?.contains(&start) {
            return Err(not_closable("its sums are not complete; try again after the next maintenance"));
        }
        if !force && let Some(objection) = close_checks::objection(&transaction, start, end)? {
            return Err(not_closable(&objection));
        }
        Borders::new(&transaction, &self.calendar).store(Level::Month, start)?;
        let period = transaction
            .prepare("INSERT INTO period (name, start, end, closed) VALUES (?1, ?2, ?3, ?4)")?
            .insert(params![name, start, end, now.as_second()])?;
        transaction.execute(
            "INSERT INTO closed_row
             SELECT ?1, n.name, c.label, t.container, t.class, t.family, ct.hash,
                 sum(t.in_packets), sum(t.in_bytes), sum(t.out_packets), sum(t.out_bytes)
             FROM traffic_month t
             JOIN container c ON c.id = t.container
             JOIN stream s ON s.id = t.stream
             JOIN node n ON n.id = s.node
             JOIN class_table ct ON ct.id = s.class_table
             WHERE t.start = ?2 GROUP BY 2, 3, 4, 5, 6, 7",
            [period, start],
        )?;
        closed_rates::store(&transaction, period, rates.as_deref().unwrap_or_default())?;
        extend_chain(&transaction, "period", period)?;
        digest::commit(transaction)?;
        self.checkpoint()?;
        let closed =
            periods_within(&self.conn, Timestamp::from_second(start)?, Timestamp::from_second(end)?)?;
        closed.into_iter().next().ok_or(LedgerError::NotClosed(name))
    }

    /// Start, end and canonical name of a billing month.
    pub(crate) fn month(&self, name: &str) -> Result<(i64, i64, String), LedgerError> {
        let no_month = |_not_a_date| {
            let what = match month_number(name) {
                Some(number) => format!("month {number:02} does not exist"),
                None => format!("{name:?} is not a billing month"),
            };
            LedgerError::Query(format!("{what}; write it like 2026-10"))
        };
        self.calendar.month_named(name).map_err(no_month)?;
        let borders = Borders::new(&self.conn, &self.calendar);
        let (start, end) = borders.month_named(name)?;
        Ok((start, end, borders.label(Level::Month, start)?))
    }

    /// Lists all closed periods in order.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn closed_periods(&self) -> Result<Vec<ClosedPeriod>, LedgerError> {
        periods_within(&self.conn, Timestamp::MIN, Timestamp::MAX)
    }
}

/// The number after the year, if the text has the form `YYYY-MM`.
fn month_number(name: &str) -> Option<u8> {
    let (year, month) = name.split_once('-')?;
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(year, 4) && digits(month, 2)).then(|| month.parse().ok())?
}

/// Start of the earliest figures before `before` that are in no closed period. Unix seconds.
fn earliest_open(conn: &Connection, before: i64) -> Result<Option<i64>, LedgerError> {
    let sql = "SELECT min(u.start) FROM unit u WHERE u.start < ?1
        AND NOT EXISTS (SELECT 1 FROM period p WHERE p.start <= u.start AND u.start < p.end)";
    Ok(conn.query_row(sql, [before], |row| row.get(0))?)
}

/// Appends an entry to the chain. Returns its number and hash.
pub(crate) fn extend_chain(
    transaction: &Transaction<'_>,
    kind: &str,
    subject: i64,
) -> Result<(i64, String), LedgerError> {
    let previous: Option<String> = transaction
        .query_row("SELECT hash FROM chain ORDER BY seq DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    let hash = entry_hash(transaction, kind, subject, previous.as_deref())?;
    let seq = transaction
        .prepare("INSERT INTO chain (kind, subject, hash) VALUES (?1, ?2, ?3)")?
        .insert(params![kind, subject, hash])?;
    Ok((seq, hash))
}

/// The hash of a chain entry: SHA-256 over lines of tab-separated fields, beginning with the previous hash.
/// `Debug` quoting keeps a tab or line end inside a text distinct from one between fields.
pub(crate) fn entry_hash(
    conn: &Connection,
    kind: &str,
    subject: i64,
    previous: Option<&str>,
) -> Result<String, LedgerError> {
    let statements: &[&str] = match kind {
        "period" => &[
            "SELECT name, start, end, closed FROM period WHERE id = ?1",
            "SELECT node, container, number, class, family, class_table, in_packets, in_bytes, out_packets,
             out_bytes
             FROM closed_row WHERE period = ?1 ORDER BY node, container, number, class, family, class_table",
        ],
        _ => &[
            "SELECT p.name, a.made, a.container, a.class, a.family, a.in_packets, a.in_bytes, a.out_packets,
                 a.out_bytes, a.reason, a.number FROM adjustment a JOIN period p ON p.id = a.period WHERE
                     a.id = ?1",
        ],
    };
    hash_rows(conn, statements, kind, subject, previous)
}

/// The hash that corrections had before they recorded their container's id. It stays valid, but does not
/// cover the id, which the migration found.
pub(crate) fn former_adjustment_hash(
    conn: &Connection,
    subject: i64,
    previous: Option<&str>,
) -> Result<String, LedgerError> {
    let statement =
        "SELECT p.name, a.made, a.container, a.class, a.family, a.in_packets, a.in_bytes, a.out_packets,
        a.out_bytes, a.reason FROM adjustment a JOIN period p ON p.id = a.period WHERE a.id = ?1";
    hash_rows(conn, &[statement], "adjustment", subject, previous)
}

fn hash_rows(
    conn: &Connection,
    statements: &[&str],
    kind: &str,
    subject: i64,
    previous: Option<&str>,
) -> Result<String, LedgerError> {
    let mut hasher = Sha256::new();
    hasher.update(format!("trafctl-ledger-1\t{}\t{kind}\n", previous.unwrap_or("-")));
    for sql in statements {
        let mut statement = conn.prepare(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([subject])?;
        while let Some(row) = rows.next()? {
            let fields = (0..columns).map(|at| row.get_ref(at).map(|value| field(&value)));
            let fields: Vec<String> = fields.collect::<Result<_, _>>()?;
            hasher.update(fields.join("\t") + "\n");
        }
    }
    Ok(hex(&hasher.finalize()))
}

fn field(value: &rusqlite::types::ValueRef<'_>) -> String {
    match value {
        rusqlite::types::ValueRef::Integer(number) => number.to_string(),
        rusqlite::types::ValueRef::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
        other => format!("{other:?}"),
    }
}

/// Lists the closed periods that overlap a span.
pub(crate) fn periods_within(
    conn: &Connection,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<ClosedPeriod>, LedgerError> {
    let mut statement = conn.prepare_cached(
        "SELECT p.name, p.start, p.end, p.closed, (SELECT count(*) FROM closed_row r WHERE r.period = p.id),
         ch.hash
         FROM period p JOIN chain ch ON ch.kind = 'period' AND ch.subject = p.id
         WHERE p.end > ?1 AND p.start < ?2 ORDER BY p.start",
    )?;
    let periods = statement.query_map([from.as_second(), to.as_second()], |row| {
        Ok(ClosedPeriod {
            name: row.get(0)?,
            start: time(row, 1)?,
            end: time(row, 2)?,
            closed: time(row, 3)?,
            rows: row.get::<_, i64>(4)?.cast_unsigned(),
            hash: row.get(5)?,
        })
    })?;
    Ok(periods.collect::<Result<_, _>>()?)
}
