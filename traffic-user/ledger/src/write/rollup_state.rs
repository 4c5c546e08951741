//! Which units are up to date. Drains and `rollup` change this state, and reports read it.

use std::collections::BTreeSet;

use rusqlite::Connection;
use traffic_model::calendar::{Calendar, FIVE_MINUTES_S, Level};

use crate::{error::LedgerError, time::borders::Borders};

/// The bucket of the last reading. It is still open.
pub(crate) fn last_bucket(conn: &Connection) -> Result<Option<i64>, LedgerError> {
    let sql = "SELECT last_bucket FROM epoch WHERE drains > 0 ORDER BY drains DESC LIMIT 1";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
}

/// Records that a bucket has rows that are not summed yet.
pub(crate) fn mark_dirty(conn: &Connection, bucket: i64) -> Result<(), LedgerError> {
    conn.prepare_cached(
        "INSERT INTO unit (level, start, end, dirty, finest) VALUES (0, ?1, ?2, 1, 1)
         ON CONFLICT (level, start) DO UPDATE SET dirty = 1",
    )?
    .execute([bucket, bucket + FIVE_MINUTES_S])?;
    Ok(())
}

/// Starts of the units of `level` that contain a dirty unit of `finer`.
pub(crate) fn units_above_dirty(
    conn: &Connection,
    calendar: &Calendar,
    finer: Level,
    level: Level,
) -> Result<BTreeSet<i64>, LedgerError> {
    let mut statement =
        conn.prepare_cached("SELECT start FROM unit WHERE level = ?1 AND dirty ORDER BY start")?;
    let mut rows = statement.query([finer as u8])?;
    let borders = Borders::new(conn, calendar);
    let mut starts = BTreeSet::new();
    let mut last = (0, 0);
    while let Some(row) = rows.next()? {
        let start: i64 = row.get(0)?;
        if !(last.0..last.1).contains(&start) {
            last = borders.unit(level, start)?;
            starts.insert(last.0);
        }
    }
    Ok(starts)
}

/// Starts of the units of a level that are stale, because something below them is not summed yet.
pub(crate) fn stale_units(
    conn: &Connection,
    calendar: &Calendar,
    level: Level,
) -> Result<BTreeSet<i64>, LedgerError> {
    let mut stale_units = BTreeSet::new();
    for finer in Level::ALL.into_iter().take_while(|&finer| finer < level) {
        stale_units.append(&mut units_above_dirty(conn, calendar, finer, level)?);
    }
    Ok(stale_units)
}
