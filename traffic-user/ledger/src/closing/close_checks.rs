//! What makes the figures of a month doubtful, so that it is closed only deliberately.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{
    error::LedgerError,
    time::clock_line::{TRUST_MS, Trial},
    write::clock,
};

/// Readings may be missing for this long before the end of a month, in seconds.
const MISSING_S: i64 = 600;

/// Why a month should not be closed yet, and what to do; `None` if nothing speaks against it.
pub(crate) fn objection(conn: &Connection, start: i64, end: i64) -> Result<Option<String>, LedgerError> {
    let figures = "SELECT 1 FROM unit WHERE start >= ?1 AND start < ?2";
    if !conn.prepare_cached(figures)?.exists([start, end])? {
        return Ok(Some("it holds no figures; check the month, or close it empty with --force".to_owned()));
    }
    if let Some(line) = clock::load(conn)? {
        if line.distrusted.is_some() {
            return Ok(Some(
                "the clock is far off the ledger's time and is not trusted; set it, or close with --force"
                    .to_owned(),
            ));
        }
        if line.trial == Trial::Jump {
            let until = Timestamp::from_millisecond(line.since_ms + TRUST_MS)?;
            return Ok(Some(format!(
                "the clock jumped by more than a day and is trusted again from {until:.0} on; check it and \
                 `trafctl gaps`, then close with --force"
            )));
        }
    }
    missing_readings(conn, end)
}

/// Whether the last readings of the month are missing, so that a later one holds a part of its traffic.
fn missing_readings(conn: &Connection, end: i64) -> Result<Option<String>, LedgerError> {
    let sql = "SELECT reason, start, end FROM gap WHERE interface IS NULL AND container IS NULL
        AND reason IN ('daemon_down', 'missed_drain', 'disk_full', 'ledger_unwritable', 'reboot',
            'counters_renewed', 'clock_stepped', 'reverted')
        AND start < ?1 - ?2 AND end > ?1 ORDER BY end - start DESC LIMIT 1";
    let found: Option<(String, i64, i64)> = conn
        .query_row(sql, params![end, MISSING_S], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((reason, from, to)) = found else { return Ok(None) };
    let (from, to) = (Timestamp::from_second(from)?, Timestamp::from_second(to)?);
    Ok(Some(format!(
        "there is no reading between {from} and {to} ({reason}), so a part of its traffic may be in the next \
         month or lost; if a backup was restored, restore a later one; else close with --force, and correct \
         the figures with `trafctl adjust`"
    )))
}
