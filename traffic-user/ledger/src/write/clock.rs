//! The stored clock line, and when a reading is booked by it.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use traffic_model::Snapshot;

use crate::{
    error::LedgerError,
    ids,
    time::{
        clock_line::{ClockEvent, ClockLine, Clocks, Distrusted, LARGE_MS, REVERTED_MS, Trial},
        reading_checks::{BookedTimes, LastReading},
    },
    write::last_reading::latest_reading,
};

/// The clock of the last reading; `None` before the first one.
pub(crate) fn load(conn: &Connection) -> Result<Option<ClockLine>, LedgerError> {
    let sql = "SELECT boot_id, boot_ms, offset_ms, trial, since_ms, distrusted_ms, distrusted_since_ms,
        trusted_ms FROM clock";
    if let Some(line) = conn.prepare_cached(sql)?.query_row([], line_of).optional()? {
        return Ok(Some(line));
    }
    // A ledger of an older version followed the wall clock wherever it went.
    Ok(latest_reading(conn)?.map(|last| {
        let boot_ms = i64::try_from(last.boottime_ns / 1_000_000).unwrap_or(i64::MAX);
        let wall_ms = last.wall.as_millisecond();
        ClockLine {
            boot_id: last.boot_id,
            boot_ms,
            offset_ms: wall_ms - boot_ms,
            trial: Trial::None,
            since_ms: wall_ms,
            distrusted: None,
            trusted_ms: Some(wall_ms),
        }
    }))
}

/// When the last reading was made, by the booked time; `None` before the first one.
pub(crate) fn last_reading(conn: &Connection) -> Result<Option<Timestamp>, LedgerError> {
    Ok(load(conn)?.map(|line| Timestamp::from_millisecond(line.time_ms())).transpose()?)
}

fn line_of(row: &Row<'_>) -> rusqlite::Result<ClockLine> {
    let distrusted = row.get::<_, Option<i64>>(5)?.zip(row.get::<_, Option<i64>>(6)?);
    Ok(ClockLine {
        boot_id: row.get(0)?,
        boot_ms: row.get(1)?,
        offset_ms: row.get(2)?,
        trial: match row.get::<_, i64>(3)? {
            0 => Trial::None,
            1 => Trial::FirstStart,
            _ => Trial::Jump,
        },
        since_ms: row.get(4)?,
        distrusted: distrusted.map(|(offset_ms, since_boot_ms)| Distrusted { offset_ms, since_boot_ms }),
        trusted_ms: row.get(7)?,
    })
}

/// Stores the clock of this reading.
pub(crate) fn store(conn: &Connection, line: &ClockLine) -> Result<(), LedgerError> {
    conn.prepare_cached("INSERT OR REPLACE INTO clock VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?.execute(
        params![
            line.boot_id,
            line.boot_ms,
            line.offset_ms,
            line.trial as i64,
            line.since_ms,
            line.distrusted.map(|distrusted| distrusted.offset_ms),
            line.distrusted.map(|distrusted| distrusted.since_boot_ms),
            line.trusted_ms,
        ],
    )?;
    Ok(())
}

/// The clocks of a snapshot. `before` is the line of the last reading.
pub(crate) fn clocks<'a>(
    conn: &Connection,
    before: Option<&ClockLine>,
    snapshot: &'a Snapshot,
) -> Result<Clocks<'a>, LedgerError> {
    let is_last = before.is_none_or(|line| line.boot_id == snapshot.boot_id);
    Ok(Clocks {
        boot_id: &snapshot.boot_id,
        boot_ms: i64::try_from(snapshot.boottime_ns / 1_000_000).unwrap_or(i64::MAX),
        wall_ms: snapshot.time.as_millisecond(),
        of_earlier_boot: !is_last && ids::has_drained_boot(conn, &snapshot.boot_id)?,
    })
}

/// Refuses a reading that another process overtook. One that is much older comes from a reverted node.
pub(crate) fn refuse_stale(latest: Option<&LastReading>, snapshot: &Snapshot) -> Result<(), LedgerError> {
    let Some(last) = latest.filter(|last| last.boot_id == snapshot.boot_id) else { return Ok(()) };
    let behind_ns = last.boottime_ns.saturating_sub(snapshot.boottime_ns);
    if behind_ns == 0 || behind_ns > REVERTED_MS.unsigned_abs() * 1_000_000 {
        return Ok(());
    }
    Err(LedgerError::StaleReading { boottime_ns: snapshot.boottime_ns, last_ns: last.boottime_ns })
}

/// When this reading and those before it are booked.
pub(crate) fn booked_times(
    snapshot: &Snapshot,
    line: &ClockLine,
    before: Option<&ClockLine>,
    (same_epoch, event): (Option<&LastReading>, ClockEvent),
) -> Result<BookedTimes, LedgerError> {
    let at = |ms: i64| Timestamp::from_millisecond(ms);
    let by_line =
        |boottime_ns: u64| at(i64::try_from(boottime_ns / 1_000_000).unwrap_or(i64::MAX) + line.offset_ms);
    let moved = matches!(event, ClockEvent::BootMoves { .. } | ClockEvent::SinceMoves { .. });
    let latest = match before {
        Some(before) if moved => Some(at(before.boot_ms + line.offset_ms)?),
        // The clock of a boot on trial may have been years ahead.
        Some(before) if before.time_ms() > line.time_ms() + LARGE_MS => {
            Some(at(before.trusted_ms.unwrap_or(line.time_ms()).min(line.time_ms()))?)
        }
        Some(before) => Some(at(before.time_ms())?),
        None => None,
    };
    let same_epoch = match (same_epoch, event) {
        (None, _) => None,
        (Some(_), ClockEvent::Reverted { .. }) => latest,
        (Some(last), _) => Some(by_line(last.boottime_ns)?),
    };
    Ok(BookedTimes {
        now: at(line.time_ms())?,
        same_epoch,
        latest,
        booted: at(line.time_ms() - i64::try_from(snapshot.boottime_ns / 1_000_000).unwrap_or(0))?,
    })
}
