//! The stored borders of a span, read once.
//!
//! A report by days over years asks for those around each of its steps.

use rusqlite::{Connection, params};
use traffic_model::calendar::Level;

use crate::{
    error::LedgerError,
    time::borders::{NamedUnit, named_unit},
};

/// The stored days and months of a span, and those next to it.
#[derive(Debug)]
pub(super) struct LoadedBorders {
    /// Start and end of the span in seconds since the Unix epoch.
    span: (i64, i64),
    days: Vec<NamedUnit>,
    months: Vec<NamedUnit>,
}

impl LoadedBorders {
    /// Reads those of a span.
    pub fn read(conn: &Connection, span: (i64, i64)) -> Result<Self, LedgerError> {
        let mut statement = conn.prepare_cached(
            "SELECT start, end, name FROM border WHERE level = ?1
             AND start >= coalesce((SELECT max(start) FROM border WHERE level = ?1 AND start <= ?2), ?2)
             AND start <= coalesce((SELECT min(start) FROM border WHERE level = ?1 AND start >= ?3), ?3)
             ORDER BY start",
        )?;
        let mut of_level = |level: Level| -> rusqlite::Result<Vec<NamedUnit>> {
            statement.query_map(params![level as u8, span.0, span.1], named_unit)?.collect()
        };
        Ok(Self { span, days: of_level(Level::Day)?, months: of_level(Level::Month)? })
    }

    /// The last unit that begins at or before an instant, and the first one after it. `None` outside the span.
    pub fn around(&self, level: Level, at: i64) -> Option<[Option<NamedUnit>; 2]> {
        if at < self.span.0 || at >= self.span.1 {
            return None;
        }
        let units = if level == Level::Month { &self.months } else { &self.days };
        let next = units.partition_point(|unit| unit.start <= at);
        Some([next.checked_sub(1).and_then(|last| units.get(last)).copied(), units.get(next).copied()])
    }
}
