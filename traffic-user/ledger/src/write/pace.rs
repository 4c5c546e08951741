//! The pace of maintenance: how long one call and each of its transactions may take.

use std::{
    iter,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::{digest, error::LedgerError, write::rollup::Maintenance};

/// How long units share a transaction. One transaction per unit would wait for the disk as often; a longer
/// one would make other writers fail after [`BUSY_TIMEOUT`](crate::migrate::BUSY_TIMEOUT).
const TRANSACTION: Duration = Duration::from_millis(500);
/// Pause between transactions of unlimited maintenance. A waiting writer polls at least every 100 ms; without
/// a pause it would hardly ever find the lock free.
const PAUSE: Duration = Duration::from_millis(110);

/// How much time maintenance may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// `None` for no limit.
    pub until: Option<Instant>,
}

impl Pace {
    pub(crate) fn is_over(self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// When a transaction that begins now should end.
    pub(crate) fn end_of_transaction(self) -> Instant {
        let end = Instant::now() + TRANSACTION;
        self.until.map_or(end, |until| end.min(until))
    }

    /// Lets other writers in between two transactions.
    pub(crate) fn pause(self) {
        if self.until.is_none() {
            std::thread::sleep(PAUSE);
        }
    }
}

/// Does a step for each item, as many in one transaction as its time allows. A step that breaks is the last
/// one. It notes in `done` what it did, and so does this if the time ran out.
///
/// # Errors
/// When a step fails or the file cannot be written. What was committed before stays.
pub(crate) fn in_transactions<T>(
    conn: &mut Connection,
    pace: Pace,
    done: &mut Maintenance,
    items: impl IntoIterator<Item = T>,
    mut step: impl FnMut(&Transaction<'_>, T, &mut Maintenance) -> Result<ControlFlow<()>, LedgerError>,
) -> Result<(), LedgerError> {
    let mut items = items.into_iter();
    let mut next = items.next();
    while let Some(first) = next.take() {
        if done.did_anything() && pace.is_over() {
            done.unfinished = true;
            return Ok(());
        }
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let end = pace.end_of_transaction();
        for item in iter::once(first).chain(items.by_ref()) {
            if step(&transaction, item, done)?.is_break() {
                return digest::commit(transaction);
            }
            if Instant::now() >= end {
                break;
            }
        }
        digest::commit(transaction)?;
        next = items.next();
        if next.is_some() {
            pace.pause();
        }
    }
    Ok(())
}
