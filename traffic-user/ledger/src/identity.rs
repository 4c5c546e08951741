//! Recognises copies of a ledger and the ledgers of other machines before anything is written into them.
//!
//! Each ledger has a random id. A copy has the same one, so the ledger also records its own file and its
//! machine. A file that is not the one recorded was copied or restored: it is audited first, because a copy
//! made while the ledger was written can hold figures of different moments. A machine that is not the one
//! recorded belongs to another node, or is a clone whose customers would share rows with those of the
//! original: the ledger is refused until somebody adopts it, and then has an id of its own.

use rusqlite::Connection;

use crate::{
    digest,
    error::LedgerError,
    ids,
    migration::{MigrationProgress, OnProgress},
    store::Ledger,
    wal_guard::{FileIdentity, resolve},
};

/// Gives a ledger its id. Without one to insert, this takes no write lock, so that a command can open the
/// file beside a writer.
pub(crate) fn give_id(conn: &Connection) -> Result<(), LedgerError> {
    if text(conn, "ledger_id")?.is_none() {
        digest::change(conn, |transaction| {
            Ok(transaction.execute(
                "INSERT OR IGNORE INTO meta (key, value) VALUES ('ledger_id', lower(hex(randomblob(16))))",
                [],
            )?)
        })?;
    }
    Ok(())
}

/// Refuses a ledger of another machine and a copy that does not pass the audit, unless they are to be adopted.
///
/// # Errors
/// With [`LedgerError::OtherMachine`] and [`LedgerError::IncompleteCopy`] in these cases.
pub(crate) fn check(
    ledger: &Ledger,
    machine: Option<&str>,
    adopt: bool,
    progress: &OnProgress,
) -> Result<(), LedgerError> {
    let conn = &ledger.conn;
    let recorded = text(conn, "machine")?;
    let is_others = recorded.as_deref().zip(machine).is_some_and(|(recorded, now)| recorded != now);
    if is_others && !adopt {
        return Err(LedgerError::OtherMachine);
    }
    check_copy(ledger, adopt, progress)?;
    if is_others {
        digest::change(conn, |transaction| {
            Ok(transaction.execute_batch(
                "INSERT OR REPLACE INTO meta (key, value)
                     SELECT 'parent_id', value FROM meta WHERE key = 'ledger_id';
                 UPDATE meta SET value = lower(hex(randomblob(16))) WHERE key = 'ledger_id';
                 DELETE FROM meta WHERE key = 'machine'",
            )?)
        })?;
    }
    match machine {
        Some(machine) if text(conn, "machine")?.is_none() => set(conn, "machine", machine),
        _ => Ok(()),
    }
}

fn check_copy(ledger: &Ledger, adopt: bool, progress: &OnProgress) -> Result<(), LedgerError> {
    let conn = &ledger.conn;
    let path = resolve(ledger.path());
    let file = FileIdentity::of(&path)
        .map_err(|source| LedgerError::Log { path: path.clone(), source })?
        .lasting_name();
    let recorded = text(conn, "file")?;
    if recorded.as_deref() == Some(&file) {
        return Ok(());
    }
    if recorded.is_some() {
        tracing::info!(
            "{} is a copy of a ledger or was restored: auditing it before it is used",
            path.display()
        );
        progress(MigrationProgress::Auditing);
        let problems = ledger.audit()?.problems;
        if let Some(first) = problems.first().filter(|_| !adopt) {
            return Err(LedgerError::IncompleteCopy { problems: problems.len(), first: first.clone() });
        }
    }
    set(conn, "file", &file)
}

fn text(conn: &Connection, key: &str) -> Result<Option<String>, LedgerError> {
    ids::meta(conn, key)
}

fn set(conn: &Connection, key: &str, value: &str) -> Result<(), LedgerError> {
    digest::change(conn, |transaction| ids::set_meta(transaction, key, value))
}
