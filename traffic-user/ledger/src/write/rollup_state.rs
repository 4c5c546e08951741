//! Which units are summed up, and which readers must look below for: the state that `rollup` moves on and reports go by.

use std::collections::BTreeSet;

use rusqlite::Connection;
use traffic_model::calendar::{Calendar, Level};

use crate::error::LedgerError;

/// The bucket of the last reading, which is not over.
pub(crate) fn last_bucket(conn: &Connection) -> Result<Option<i64>, LedgerError> {
    let sql = "SELECT last_bucket FROM epoch WHERE drains > 0 ORDER BY drains DESC LIMIT 1";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
}

/// Units of `level` that hold a dirty unit of `finer`, by their starts.
pub(crate) fn units_over_dirty(
    conn: &Connection,
    calendar: &Calendar,
    finer: Level,
    level: Level,
) -> Result<BTreeSet<i64>, LedgerError> {
    let mut statement =
        conn.prepare_cached("SELECT start FROM unit WHERE level = ?1 AND dirty ORDER BY start")?;
    let mut rows = statement.query([finer as u8])?;
    let mut starts = BTreeSet::new();
    while let Some(row) = rows.next()? {
        starts.insert(calendar.start(level, row.get(0)?)?);
    }
    Ok(starts)
}

/// Units of a level whose rows are not up to date, because something below them was not summed up yet.
pub(crate) fn pending(
    conn: &Connection,
    calendar: &Calendar,
    level: Level,
) -> Result<BTreeSet<i64>, LedgerError> {
    let mut pending = BTreeSet::new();
    for finer in Level::ALL.into_iter().take_while(|&finer| finer < level) {
        pending.append(&mut units_over_dirty(conn, calendar, finer, level)?);
    }
    Ok(pending)
}
