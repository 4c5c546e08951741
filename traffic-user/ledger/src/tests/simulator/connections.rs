//! Connections that outlive their ledger, for the next one that is opened.
//!
//! Opening a connection and preparing its statements takes most of the time of a history. A connection that is
//! given another ledger's files forgets all that it read, because the index of the log is gone, as after the end
//! of a process; its schema and its statements stay. One history in sixteen opens all its connections itself.

use std::{cell::RefCell, path::Path, rc::Rc};

use rusqlite::Connection;

use super::{disk::Disk, vfs};
use crate::{Ledger, LedgerError, digest, migrate, outbox, testing::quietly};

thread_local! {
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
    vfs::attach(&conn, disk, path);
    conn.busy_timeout(migrate::BUSY_TIMEOUT)?;
    // A process has a token of its own.
    outbox::renew_token(&conn)?;
    Ok(conn)
}

/// Keeps the connection of a ledger that nobody uses any more. It is not closed as SQLite does it: the files stay
/// as they are.
pub fn keep(ledger: Ledger) {
    let Ledger { conn, .. } = ledger;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    vfs::detach(&conn);
    KEPT.with_borrow_mut(|kept| kept.push(conn));
}

/// Closes what this thread keeps.
pub fn close_all() {
    KEPT.with_borrow_mut(Vec::clear);
}

/// Whether a connection is as a new one, apart from what it knows of the schema.
pub fn is_idle(conn: &Connection) -> bool {
    let no_temporary = || {
        conn.execute_batch("DROP TABLE IF EXISTS temp.moving")?;
        let count = "SELECT count(*) FROM sqlite_temp_schema";
        conn.prepare_cached(count)?.query_row([], |row| row.get::<_, i64>(0))
    };
    conn.is_autocommit() && no_temporary() == Ok(0) && KEPT.with_borrow(Vec::len) < MOST
}
