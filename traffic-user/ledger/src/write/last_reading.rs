//! When earlier readings were taken, and where traffic may still be written.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};

use crate::{
    error::LedgerError,
    ids,
    time::{bucket_assignment::Frozen, reading_checks::LastReading},
};

/// Where nothing may be written: in closed periods, and where five-minute rows were dropped.
pub(crate) fn frozen(conn: &Connection) -> Result<Frozen, LedgerError> {
    let mut statement = conn.prepare_cached("SELECT start, end FROM period ORDER BY start")?;
    let closed = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    Ok(Frozen { closed, dropped_before_s: ids::meta(conn, "dropped_before_5min")? })
}

/// The last reading of any epoch.
pub(crate) fn latest_reading(conn: &Connection) -> Result<Option<LastReading>, LedgerError> {
    reading_of(conn, None)
}

/// The last reading of one epoch.
pub(crate) fn reading_of_epoch(conn: &Connection, epoch: i64) -> Result<Option<LastReading>, LedgerError> {
    reading_of(conn, Some(epoch))
}

fn reading_of(conn: &Connection, epoch: Option<i64>) -> Result<Option<LastReading>, LedgerError> {
    let row = conn
        .prepare_cached(
            "SELECT id, boot_id, last_wall_ms, last_boottime_ns, last_bucket, last_class_table
             FROM epoch WHERE drains > 0 AND (?1 IS NULL OR id = ?1) ORDER BY drains DESC LIMIT 1",
        )?
        .query_row([epoch], |row| {
            let clock = (row.get::<_, i64>(2)?, row.get::<_, i64>(3)?);
            Ok((row.get(0)?, row.get(1)?, clock, row.get(4)?, row.get(5)?))
        })
        .optional()?;
    let Some((epoch, boot_id, (wall_ms, boottime_ns), bucket_s, class_table)) = row else { return Ok(None) };
    let (wall, boottime_ns) = (Timestamp::from_millisecond(wall_ms)?, boottime_ns.cast_unsigned());
    Ok(Some(LastReading { epoch, boot_id, wall, boottime_ns, bucket_s, class_table }))
}
