//! Closed periods: their rows are frozen under a hash that covers everything closed before. Nothing is
//! written into a closed period any more; `adjust` adds corrections to the same chain.
//!
//! The next period to close is always the earliest open month with figures, so no open month is left behind.
//! Imported history may lie before a closed month; it is closed like any other month.

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior, params};
use serde::Serialize;
use traffic_model::calendar::{Calendar, Level};

use crate::{
    closing::{chain::extend_chain, close_checks, closed_rates, delivered},
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
    /// The node, in a report about several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
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
        let month = Month { start, end, name: &name };
        // Asked again under the lock. A month that has not begun has no rates to compute.
        require_closable(&self.conn, &self.calendar, &month, now)?;
        // Before the file is locked: reading a month's rows takes a while.
        let rates = closed_rates::compute(self, start, end)?;
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let doubt = require_closable(&transaction, &self.calendar, &month, now)?;
        if stale_units(&transaction, &self.calendar, Level::Month)?.contains(&start) {
            return Err(month.refuse("its sums are not complete; try again after the next maintenance"));
        }
        if let Some(doubt) = doubt.filter(|_| !force) {
            return Err(month.refuse(&doubt));
        }
        Borders::new(&transaction, &self.calendar).store(Level::Month, start)?;
        let period = transaction
            .prepare_cached("INSERT INTO period (name, start, end, closed) VALUES (?1, ?2, ?3, ?4)")?
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
        delivered::correct(&transaction, (period, &name, start), now)?;
        digest::commit(transaction)?;
        self.keep_for_good()?;
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

/// A month that is to be closed.
pub(crate) struct Month<'a> {
    pub start: i64,
    pub end: i64,
    pub name: &'a str,
}

impl Month<'_> {
    pub fn refuse(&self, reason: &str) -> LedgerError {
        LedgerError::NotClosable { period: self.name.to_owned(), reason: reason.to_owned() }
    }
}

/// Refuses a month that cannot be closed. Returns why its figures are doubtful, if they are.
pub(crate) fn require_closable(
    conn: &Connection,
    calendar: &Calendar,
    month: &Month<'_>,
    now: Timestamp,
) -> Result<Option<String>, LedgerError> {
    let &Month { start, end, .. } = month;
    if conn.prepare_cached("SELECT 1 FROM period WHERE start < ?2 AND end > ?1")?.exists([start, end])? {
        return Err(month.refuse("it is already closed"));
    }
    let last = last_bucket(conn)?;
    if now.as_second() < start && last.is_none_or(|last| last < start) {
        let start = calendar.label(Level::FiveMinutes, start)?;
        return Err(month.refuse(&format!("it begins only at {start}; close a month that is over")));
    }
    if let Some(earlier) = earliest_open(conn, start)? {
        let earlier = Borders::new(conn, calendar).label(Level::Month, earlier)?;
        return Err(month.refuse(&format!(
            "{earlier} holds figures and is still open; run `trafctl close {earlier}` first"
        )));
    }
    if last.is_none_or(|last| last < end) {
        if now.as_second() < end {
            let end = calendar.label(Level::FiveMinutes, end)?;
            return Err(
                month.refuse(&format!("it ends at {end}; close it after the first drain from then on"))
            );
        }
        return Err(month.refuse("the last drain was before its end; wait for the next drain"));
    }
    close_checks::objection(conn, start, end)
}

/// The number after the year, if the text has the form `YYYY-MM`.
fn month_number(name: &str) -> Option<u8> {
    let (year, month) = name.split_once('-')?;
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(year, 4) && digits(month, 2)).then(|| month.parse().ok())?
}

/// Start of the earliest figures before `before` that are in no closed period. Unix seconds.
pub(crate) fn earliest_open(conn: &Connection, before: i64) -> Result<Option<i64>, LedgerError> {
    let sql = "SELECT min(u.start) FROM unit u WHERE u.start < ?1
        AND NOT EXISTS (SELECT 1 FROM period p WHERE p.start <= u.start AND u.start < p.end)";
    Ok(conn.query_row(sql, [before], |row| row.get(0))?)
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
            node: None,
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
