//! Bounds on what a query may take, for callers that answer others: rows, and time.

use std::time::Instant;

use rusqlite::Connection;

use crate::{error::LedgerError, store::Ledger};

/// How many instructions of SQLite's machine pass between two looks at the clock. A row takes some twenty.
const INSTRUCTIONS: i32 = 10_000;

/// The bounds of all queries to one open ledger. `None` means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryLimits {
    /// Most rows of a report, and most steps.
    pub most_rows: Option<usize>,
    /// When a query is given up.
    pub until: Option<Instant>,
}

impl QueryLimits {
    /// Lets a connection give up its statements when the time is over.
    pub(crate) fn watch(self, conn: &mut Connection) -> Result<(), LedgerError> {
        let Some(until) = self.until else { return Ok(()) };
        Ok(conn.progress_handler(INSTRUCTIONS, Some(move || Instant::now() >= until))?)
    }

    /// Refuses more rows than a report may have.
    pub(crate) fn require_few_rows(self, rows: usize) -> Result<(), LedgerError> {
        match self.most_rows {
            Some(most) if rows > most => Err(LedgerError::Query(format!(
                "the answer has more than {most} rows; ask for a shorter span, longer steps, fewer containers or \
                 fewer splits"
            ))),
            _ => Ok(()),
        }
    }
}

impl Ledger {
    /// Bounds all queries from now on. A query that takes longer fails with [`LedgerError::TooLong`], one with
    /// more rows with [`LedgerError::Query`].
    ///
    /// # Errors
    /// When SQLite does not take the bound.
    pub fn limit_queries(&mut self, limits: QueryLimits) -> Result<(), LedgerError> {
        limits.watch(&mut self.conn)?;
        self.limits = limits;
        Ok(())
    }
}
