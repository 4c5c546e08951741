//! Packs finished days: the rows of one series become one row of columns.
//!
//! A day is finished when readings have been booked for an hour after it, and all of it is summed. Each
//! transaction packs the rows of some owners, so packing can stop after any of them and continues with the
//! rows that are left. Nothing records how far it came.

use std::{collections::BTreeMap, ops::ControlFlow};

use rusqlite::{
    Connection, params, params_from_iter,
    types::{ToSqlOutput, Value},
};
use traffic_model::calendar::{FIVE_MINUTES_S, Level};

use crate::{
    days::{
        Series,
        columns::{self, Columns, MOST_BUCKETS, Packed, Points},
        packed_columns, places, read,
    },
    error::LedgerError,
    schema::{KINDS, Kind, PACKED_LEVELS},
    store::Ledger,
    time::borders::Borders,
    write::{
        pace::{Pace, in_transactions},
        rollup::Maintenance,
    },
};

/// How long after the end of a day its last readings may come, in seconds.
const SETTLED_S: i64 = 3600;
/// How many owners are packed together. Their rows of a day are in memory at once.
const OWNERS: usize = 32;

/// Some owners of rows of one kind: above the first number, up to the second one.
#[derive(Clone, Copy, Debug)]
struct Part {
    kind: &'static Kind,
    level: Level,
    owners: (i64, i64),
}

impl Ledger {
    /// Packs all finished days that have rows.
    pub(crate) fn pack_days(
        &mut self,
        open: Option<i64>,
        pace: Pace,
        done: &mut Maintenance,
    ) -> Result<(), LedgerError> {
        let Some(open) = open else { return Ok(()) };
        let parts = parts(&self.conn)?;
        let mut after = i64::MIN;
        while let Some(day) = next_day(&self.conn, &Borders::new(&self.conn, &self.calendar), after, open)? {
            self.pack_day(day, &parts, pace, done)?;
            // A day of a large node is a hundred megabytes of the write-ahead log.
            self.checkpoint()?;
            if done.unfinished {
                return Ok(());
            }
            after = day.1;
        }
        Ok(())
    }

    fn pack_day(
        &mut self,
        day: (i64, i64),
        parts: &[Part],
        pace: Pace,
        done: &mut Maintenance,
    ) -> Result<(), LedgerError> {
        let calendar = &self.calendar;
        in_transactions(&mut self.conn, pace, done, parts, |transaction, part, done| {
            // Another process may have written into it since.
            if has_dirty_units(transaction, day)? {
                return Ok(ControlFlow::Break(()));
            }
            Borders::new(transaction, calendar).store(Level::Day, day.0)?;
            done.packed_series += part.pack(transaction, day)?;
            Ok(ControlFlow::Continue(()))
        })
    }
}

/// The first finished day from `after` on that has rows, if it can be packed.
fn next_day(
    conn: &Connection,
    borders: &Borders<'_>,
    mut after: i64,
    open: i64,
) -> Result<Option<(i64, i64)>, LedgerError> {
    loop {
        let mut first = None;
        for (kind, level) in KINDS.iter().flat_map(|kind| PACKED_LEVELS.map(|level| (kind, level))) {
            let sql = format!("SELECT min(start) FROM {} WHERE start >= ?1", kind.rows_table(level));
            let of_table: Option<i64> = conn.prepare_cached(&sql)?.query_row([after], |row| row.get(0))?;
            first = [first, of_table].into_iter().flatten().min();
        }
        let Some(first) = first else { return Ok(None) };
        let day = borders.unit(Level::Day, first)?;
        if day.1 + SETTLED_S > open {
            return Ok(None);
        }
        let can_be_packed = day.0 % FIVE_MINUTES_S == 0 && day.1 - day.0 <= MOST_BUCKETS * FIVE_MINUTES_S;
        if can_be_packed && !has_dirty_units(conn, day)? {
            return Ok(Some(day));
        }
        after = day.1;
    }
}

/// Whether something in a day is not summed yet.
fn has_dirty_units(conn: &Connection, (start, end): (i64, i64)) -> Result<bool, LedgerError> {
    let sql = "SELECT 1 FROM unit WHERE level = ?1 AND dirty AND start >= ?2 AND start < ?3";
    let mut statement = conn.prepare_cached(sql)?;
    for level in PACKED_LEVELS {
        if statement.exists(params![level as u8, start, end])? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// All rows of all kinds, in parts.
fn parts(conn: &Connection) -> Result<Vec<Part>, LedgerError> {
    let mut parts = Vec::new();
    for kind in &KINDS {
        let mut statement = conn.prepare_cached(&format!("SELECT id FROM {} ORDER BY id", kind.keys[0]))?;
        let ids: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let ends = ids.chunks(OWNERS).filter_map(<[i64]>::last).copied();
        for level in PACKED_LEVELS {
            let mut above = i64::MIN;
            for end in ends.clone().chain([i64::MAX]) {
                parts.push(Part { kind, level, owners: (above, end) });
                above = end;
            }
        }
    }
    Ok(parts)
}

impl Part {
    /// Packs the rows of a day. Returns the number of series.
    fn pack(&self, conn: &Connection, day: (i64, i64)) -> Result<usize, LedgerError> {
        let starts = self.starts(conn, day)?;
        let mut all: BTreeMap<Series, Points> = BTreeMap::new();
        for &start in &starts {
            self.read(conn, (day.0, start), &mut all)?;
        }
        let packed = all.len();
        for (series, points) in all {
            self.write(conn, day.0, series, points)?;
        }
        let table = self.kind.rows_table(self.level);
        let owner = self.kind.keys[0];
        let mut delete = conn.prepare_cached(&format!(
            "DELETE FROM {table} WHERE start = ?1 AND {owner} > ?2 AND {owner} <= ?3"
        ))?;
        for start in starts {
            delete.execute([start, self.owners.0, self.owners.1])?;
        }
        Ok(packed)
    }

    /// The starts of a day's rows, of all owners. One seek for each.
    fn starts(&self, conn: &Connection, (from, to): (i64, i64)) -> Result<Vec<i64>, LedgerError> {
        let sql = format!(
            "SELECT min(start) FROM {} WHERE start >= ?1 AND start < ?2",
            self.kind.rows_table(self.level)
        );
        let mut next = conn.prepare_cached(&sql)?;
        let (mut starts, mut from) = (Vec::new(), from);
        while let Some(start) = next.query_row([from, to], |row| row.get::<_, Option<i64>>(0))? {
            // Rows that begin between five minutes can be in no column. The audit reports their unit.
            if start % FIVE_MINUTES_S == 0 {
                starts.push(start);
            }
            from = start + 1;
        }
        Ok(starts)
    }

    fn read(
        &self,
        conn: &Connection,
        (day, start): (i64, i64),
        all: &mut BTreeMap<Series, Points>,
    ) -> Result<(), LedgerError> {
        let Kind { keys, values, .. } = self.kind;
        let (table, owner) = (self.kind.rows_table(self.level), keys[0]);
        let mut statement = conn.prepare_cached(&format!(
            "SELECT {}, {} FROM {table} WHERE start = ?1 AND {owner} > ?2 AND {owner} <= ?3",
            keys.join(", "),
            values.join(", "),
        ))?;
        let bucket = u32::try_from((start - day) / FIVE_MINUTES_S).unwrap_or(u32::MAX);
        let mut rows = statement.query([start, self.owners.0, self.owners.1])?;
        while let Some(row) = rows.next()? {
            let series = read::series(row, 0, keys.len())?;
            let values = (keys.len()..keys.len() + values.len())
                .map(|at| row.get(at).map(i64::cast_unsigned))
                .collect::<Result<Vec<u64>, _>>()?;
            columns::add(all.entry(series).or_default(), bucket, values);
        }
        Ok(())
    }

    /// Adds the buckets of a series to its day.
    fn write(
        &self,
        conn: &Connection,
        day: i64,
        series: Series,
        mut points: Points,
    ) -> Result<(), LedgerError> {
        let Some(table) = self.kind.days_table(self.level) else { return Ok(()) };
        let Kind { keys, values, .. } = self.kind;
        let columns = packed_columns(self.kind);
        let key: Vec<i64> = std::iter::once(day).chain(series.into_iter().take(keys.len())).collect();
        let known: String = keys.iter().map(|key| format!(" AND {key} = ?")).collect();
        let mut read =
            conn.prepare_cached(&format!("SELECT {columns} FROM {table} WHERE start = ?{known}"))?;
        let mut rows = read.query(params_from_iter(&key))?;
        let is_new = match rows.next()? {
            Some(row) => {
                let before = Columns::read(row, 0, values.len())?.points();
                for (bucket, values) in before {
                    columns::add(&mut points, bucket, values);
                }
                false
            }
            None => true,
        };
        drop(rows);
        let step = if self.level == Level::Hour { 12 } else { 1 };
        let packed = Packed::new(&points, values.len(), step).parameters();
        let key = key.into_iter().map(|key| ToSqlOutput::Owned(Value::Integer(key)));
        if is_new {
            let sql = format!(
                "INSERT INTO {table} (start, {}, {columns}) VALUES ({})",
                keys.join(", "),
                places(1 + keys.len() + 5 + values.len()),
            );
            conn.prepare_cached(&sql)?.execute(params_from_iter(key.chain(packed)))?;
        } else {
            let places = places(5 + values.len());
            let sql = format!("UPDATE {table} SET ({columns}) = ({places}) WHERE start = ?{known}");
            conn.prepare_cached(&sql)?.execute(params_from_iter(packed.chain(key)))?;
        }
        Ok(())
    }
}
