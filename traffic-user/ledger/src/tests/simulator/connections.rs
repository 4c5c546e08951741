//! Connections that outlive their ledger, for the next one that is opened.
//!
//! Opening a connection and preparing its statements takes most of the time of a history. A connection that is
//! given another ledger's files forgets all that it read, because the index of the log is gone, as after the end
//! of a process; its schema and its statements stay. Where the opening itself is what happens, it is done as by a
//! process that begins, and its connection is exchanged for one that is kept afterwards. One history in sixteen
//! opens all its connections itself.

use std::{cell::RefCell, mem, path::Path, ptr, rc::Rc};

use rusqlite::{Connection, config::DbConfig, ffi};

use super::{disk::Disk, vfs};
use crate::{Ledger, LedgerError, digest, migrate, outbox, testing::quietly};

thread_local! {
    /// That with the most statements comes last.
    static KEPT: RefCell<Vec<Connection>> = const { RefCell::new(Vec::new()) };
}

/// More than a history uses at once.
const MOST: usize = 8;
/// All statements that any history uses.
const STATEMENTS: usize = 2000;

/// A connection to a ledger in the current schema.
pub fn connect(disk: &Rc<Disk>, path: &Path) -> Result<Connection, LedgerError> {
    let Some(conn) = KEPT.with_borrow_mut(Vec::pop) else {
        let mut conn = migrate::open(path, &quietly())?;
        digest::follow(&mut conn)?;
        return Ok(conn);
    };
    take_over(&conn, disk, path)?;
    Ok(conn)
}

fn take_over(conn: &Connection, disk: &Rc<Disk>, path: &Path) -> Result<(), LedgerError> {
    vfs::attach(conn, disk, path);
    conn.busy_timeout(migrate::BUSY_TIMEOUT)?;
    // A process has a token of its own.
    outbox::renew_token(conn)
}

/// Exchanges the connection of a ledger that was just opened. It is as if that process was killed at once, and
/// the next one had nothing to change when it opened the ledger.
pub fn exchange(ledger: &mut Ledger, disk: &Rc<Disk>) -> Result<(), LedgerError> {
    let Some(conn) = KEPT.with_borrow_mut(Vec::pop) else { return Ok(()) };
    vfs::detach(&ledger.conn);
    take_over(&conn, disk, ledger.path())?;
    store(mem::replace(&mut ledger.conn, conn));
    Ok(())
}

/// Keeps the connection of a ledger that nobody uses any more. It is not closed as SQLite does it: the files stay
/// as they are.
pub fn keep(ledger: Ledger) {
    let Ledger { conn, .. } = ledger;
    vfs::detach(&conn);
    store(conn);
}

fn store(conn: Connection) {
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    KEPT.with_borrow_mut(|kept| {
        kept.push(conn);
        kept.sort_by_cached_key(statements);
        if kept.len() > MOST {
            // Otherwise SQLite would remove the log at the path where this one was opened, which is in use by others.
            kept[0].set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
            kept.remove(0);
        }
    });
}

/// How many statements a connection has prepared.
fn statements(conn: &Connection) -> usize {
    let mut last = ptr::null_mut();
    // SAFETY: the connection is open, and `last` null or one of its statements.
    std::iter::from_fn(|| unsafe {
        last = ffi::sqlite3_next_stmt(conn.handle(), last);
        (!last.is_null()).then_some(())
    })
    .count()
}

/// Closes what this thread keeps.
pub fn close_all() {
    KEPT.with_borrow_mut(Vec::clear);
}

/// Whether a connection is as a new one, apart from what it knows of the schema. Its temporary tables are empty
/// unless a transaction is open.
pub fn is_idle(conn: &Connection) -> bool {
    conn.is_autocommit()
}
