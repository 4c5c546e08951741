//! Goes on where neither the system nor this program knows the zone of a ledger any more.
//!
//! What was booked keeps its borders, which are stored. What follows is booked at the UTC offset of the last
//! day, until the zone is known again. A ledger without any day is not begun under an unknown zone.

use jiff::{
    Timestamp,
    tz::{Offset, TimeZone},
};
use rusqlite::{Connection, OptionalExtension as _};
use traffic_model::calendar::{Calendar, Level};

use crate::{error::LedgerError, store::Ledger, time::borders::named_unit};

impl Ledger {
    /// Why the rules of the zone are not known, and what to do; `None` if they are.
    pub fn unknown_zone(&self) -> Option<String> {
        if self.calendar.zone_is_known() {
            return None;
        }
        Some(format!(
            "neither this system nor trafctl knows the time zone {:?}: days and months go on with the UTC offset \
             {} of the last one that was booked; install the system's time zone data",
            self.calendar.zone_name(),
            self.calendar.zone().to_offset(Timestamp::UNIX_EPOCH)
        ))
    }
}

/// Gives a calendar whose zone is unknown the UTC offset at which the last day was booked.
pub(crate) fn with_substitute(conn: &Connection, calendar: Calendar) -> Result<Calendar, LedgerError> {
    if calendar.zone_is_known() {
        return Ok(calendar);
    }
    let last = "SELECT start, end, name FROM border WHERE level = ?1 ORDER BY start DESC LIMIT 1";
    let last = conn.query_row(last, [Level::Day as u8], named_unit).optional()?;
    let Some(last) = last else { return Ok(calendar) };
    let midnight = last.name.to_zoned(TimeZone::UTC)?.timestamp().as_second();
    let offset =
        i32::try_from(midnight - last.start).ok().and_then(|offset| Offset::from_seconds(offset).ok());
    Ok(offset.map_or(calendar.clone(), |offset| calendar.with_substitute(offset)))
}
