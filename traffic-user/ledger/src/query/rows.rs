//! Chooses the rows that answer a query: cuts a time span into slices, each read from the coarsest level that
//! is complete there.

use std::collections::BTreeSet;

use rusqlite::{Connection, params};
use traffic_model::calendar::{Calendar, Level};

use crate::{
    days::{
        Series,
        read::{self, AnyRow, Selection},
    },
    error::LedgerError,
    ids,
    schema::TRAFFIC,
    time::borders::Borders,
    write::rollup_state::stale_units,
};

/// A time span, and the level to read it from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub level: Level,
    pub start: i64,
    pub end: i64,
}

/// A row of class counters, from any level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrafficRow {
    pub start: i64,
    pub container: i64,
    pub class: u8,
    pub family: u8,
    /// Packets in, bytes in, packets out, bytes out.
    pub values: [u64; 4],
}

/// Cuts spans of time into slices.
pub(crate) struct Cutter<'a> {
    borders: Borders<'a>,
    /// By level: starts of the units that are stale.
    stale_units: [BTreeSet<i64>; 4],
}

impl<'a> Cutter<'a> {
    /// Reads which units are stale. Valid within one read transaction.
    pub fn new(conn: &'a Connection, calendar: &'a Calendar) -> Result<Self, LedgerError> {
        let [a, b, c, d] = Level::ALL.map(|level| stale_units(conn, calendar, level));
        Ok(Self { borders: Borders::new(conn, calendar), stale_units: [a?, b?, c?, d?] })
    }

    /// Cuts `start..end`, both on five-minute borders, into slices no coarser than `coarsest`, ordered by
    /// time.
    pub fn cut(&self, coarsest: Level, start: i64, end: i64) -> Result<Vec<Slice>, LedgerError> {
        let mut slices = Vec::new();
        self.cut_into(coarsest, start, end, &mut slices)?;
        Ok(slices)
    }

    fn cut_into(
        &self,
        level: Level,
        start: i64,
        end: i64,
        slices: &mut Vec<Slice>,
    ) -> Result<(), LedgerError> {
        if start >= end {
            return Ok(());
        }
        let Some(finer) = level.finer() else {
            push(slices, Slice { level, start, end });
            return Ok(());
        };
        let first = self.borders.unit(level, start)?;
        let first = if first.0 < start { first.1 } else { first.0 };
        let last = self.borders.start(level, end)?;
        if first >= last {
            return self.cut_into(finer, start, end, slices);
        }
        self.cut_into(finer, start, first, slices)?;
        let mut at = first;
        for &unit in self.stale_units[level as usize].range(first..last) {
            push(slices, Slice { level, start: at, end: unit });
            at = self.borders.end(level, unit)?;
            self.cut_into(finer, unit, at, slices)?;
        }
        push(slices, Slice { level, start: at, end: last });
        self.cut_into(finer, last, end, slices)
    }
}

/// Appends a slice, or extends the last one if they are adjacent.
pub(crate) fn push(slices: &mut Vec<Slice>, slice: Slice) {
    if slice.start >= slice.end {
        return;
    }
    match slices.last_mut() {
        Some(last) if last.level == slice.level && last.end == slice.start => last.end = slice.end,
        _ => slices.push(slice),
    }
}

/// Refuses a slice whose rows were dropped.
pub(crate) fn require_kept(conn: &Connection, calendar: &Calendar, slice: &Slice) -> Result<(), LedgerError> {
    let key = match slice.level {
        Level::FiveMinutes => "dropped_before_5min",
        Level::Hour => "dropped_before_hour",
        Level::Day | Level::Month => return Ok(()),
    };
    let Some(kept_from) = ids::meta(conn, key)?.filter(|&from| slice.start < from) else {
        return Ok(());
    };
    // A coarser unit that is `finest` had finer rows once.
    let lost: i64 = conn.query_row(
        "SELECT count(*) FROM unit WHERE level > ?1 AND finest AND end > ?2 AND start < ?3",
        params![slice.level as u8, slice.start, slice.end.min(kept_from)],
        |row| row.get(0),
    )?;
    if lost == 0 {
        return Ok(());
    }
    let name = slice.level.name();
    let from = calendar.label(Level::Hour, kept_from)?;
    Err(LedgerError::Query(format!(
        "this report needs {name} rows from before {from}, which were dropped; use longer steps, or a span \
         that begins with a step in the ledger's zone ({})",
        calendar.zone_name(),
    )))
}

/// Reads the rows of a slice, in no order. `containers` limits it to these containers.
pub(crate) fn rows(
    conn: &Connection,
    slice: &Slice,
    containers: Option<&[i64]>,
    mut each: impl FnMut(TrafficRow) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let range = (slice.start, slice.end);
    let selection = Selection { owners: containers, ..Selection::all(&TRAFFIC, slice.level, range) };
    read::each(conn, &selection, |row| each(traffic_row(&row)?))
}

fn traffic_row(row: &AnyRow) -> Result<TrafficRow, LedgerError> {
    let (container, class, family) = owner(&row.series)?;
    let [a, b, c, d, ..] = row.values;
    Ok(TrafficRow { start: row.start, container, class, family, values: [a, b, c, d] })
}

/// Container, class and family of a series.
///
/// # Errors
/// When something else than this program wrote the class or the family.
pub(crate) fn owner(series: &Series) -> Result<(i64, u8, u8), LedgerError> {
    let number = |at: usize| {
        u8::try_from(series[at]).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(at, series[at]))
    };
    Ok((series[0], number(1)?, number(2)?))
}
