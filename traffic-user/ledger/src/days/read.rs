//! Reads five-minute rows and hours in both of their forms, and the other levels in their only one.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use rusqlite::{Connection, Row};
use traffic_model::calendar::{FIVE_MINUTES_S, Level};

use crate::{
    days::{
        Series,
        columns::{Columns, MOST_VALUES},
    },
    error::LedgerError,
    schema::Kind,
};

/// Above this number of owners, reading all rows is faster than seeking.
pub(crate) const SEEK_AT_MOST: usize = 40;

/// Which rows to read, and which of their values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selection<'a> {
    pub kind: &'a Kind,
    pub level: Level,
    /// The rows begin from here to before there. Seconds since the Unix epoch.
    pub range: (i64, i64),
    /// Only rows of these containers or interfaces.
    pub owners: Option<&'a [i64]>,
    /// Names of columns.
    pub values: &'a [&'a str],
}

impl<'a> Selection<'a> {
    /// All values of all owners.
    pub fn all(kind: &'a Kind, level: Level, range: (i64, i64)) -> Self {
        Self { kind, level, range, owners: None, values: kind.values }
    }

    fn few(&self) -> bool {
        self.owners.is_some_and(|owners| owners.len() <= SEEK_AT_MOST)
    }

    /// SQL that limits rows to the owners.
    fn filter(&self, of: &str) -> String {
        self.owners.map_or_else(String::new, |owners| {
            let numbers: Vec<String> = owners.iter().map(i64::to_string).collect();
            format!("AND {of}.{} IN ({})", self.kind.keys[0], numbers.join(", "))
        })
    }

    fn columns(&self, of: &str) -> String {
        let columns = self.kind.keys.iter().chain(self.values);
        columns.map(|column| format!(", {of}.{column}")).collect()
    }
}

/// A row of any level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnyRow {
    pub start: i64,
    pub series: Series,
    /// The selected values; others are 0.
    pub values: [u64; MOST_VALUES],
}

/// One series on one finished day.
#[derive(Debug)]
pub(crate) struct PackedDay<'r> {
    pub start: i64,
    pub series: Series,
    pub columns: Columns<'r>,
}

impl PackedDay<'_> {
    /// The buckets that begin in a range of time.
    pub fn buckets(&self, (from, to): (i64, i64)) -> Range<u32> {
        let from_start = |time: i64| {
            let passed = time.saturating_sub(self.start).max(0);
            u32::try_from(passed.unsigned_abs().div_ceil(FIVE_MINUTES_S.unsigned_abs())).unwrap_or(u32::MAX)
        };
        from_start(from)..from_start(to)
    }

    /// Start of a bucket.
    pub fn at(&self, bucket: u32) -> i64 {
        self.start + i64::from(bucket) * FIVE_MINUTES_S
    }
}

/// The series in the columns of a row from `at` on.
///
/// # Errors
/// When one of them is no number.
pub(super) fn series(row: &Row<'_>, at: usize, keys: usize) -> rusqlite::Result<Series> {
    let mut series = Series::default();
    for (key, at) in series.iter_mut().zip(at..at + keys) {
        *key = row.get(at)?;
    }
    Ok(series)
}

/// Passes on all rows of both forms, in no order. A series may have two rows with one start: both count.
///
/// # Errors
/// When the file cannot be read, and the errors of `each`.
pub(crate) fn each(
    conn: &Connection,
    of: &Selection<'_>,
    mut each: impl FnMut(AnyRow) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    each_row(conn, of, &mut each)?;
    each_packed(conn, of, each)
}

/// Passes on the rows that are not packed, by start and owner.
///
/// # Errors
/// As [`each`].
pub(crate) fn each_row(
    conn: &Connection,
    of: &Selection<'_>,
    mut each: impl FnMut(AnyRow) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let Some((first, end)) = unpacked_range(conn, of)? else { return Ok(()) };
    let (table, columns, filter) = (of.kind.rows_table(of.level), of.columns("t"), of.filter("t"));
    let sql = if of.few() {
        format!(
            "SELECT t.start{columns} FROM unit u CROSS JOIN {table} t ON t.start = u.start {filter}
             WHERE u.level = {} AND u.start >= ?1 AND u.start < ?2 ORDER BY u.start",
            of.level as u8,
        )
    } else {
        format!(
            "SELECT t.start{columns} FROM {table} t WHERE t.start >= ?1 AND t.start < ?2 {filter}
             ORDER BY t.start, t.{}",
            of.kind.keys[0]
        )
    };
    let keys = of.kind.keys.len();
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([first, end])?;
    while let Some(row) = rows.next()? {
        let mut values = [0; MOST_VALUES];
        for (value, at) in values.iter_mut().zip(1 + keys..).take(of.values.len()) {
            *value = row.get::<_, i64>(at)?.cast_unsigned();
        }
        each(AnyRow { start: row.get(0)?, series: series(row, 1, keys)?, values })?;
    }
    Ok(())
}

/// The part of a range in which there are rows that are not packed.
fn unpacked_range(conn: &Connection, of: &Selection<'_>) -> Result<Option<(i64, i64)>, LedgerError> {
    let table = of.kind.rows_table(of.level);
    let mut statement = conn.prepare_cached(&format!(
        "SELECT (SELECT min(start) FROM {table} WHERE start >= ?1 AND start < ?2),
             (SELECT max(start) FROM {table} WHERE start >= ?1 AND start < ?2)"
    ))?;
    let range: (Option<i64>, Option<i64>) =
        statement.query_row([of.range.0, of.range.1], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(range.0.zip(range.1).map(|(first, last)| (first, last + 1)))
}

/// Passes on the rows of packed days: by day, owner, series and start.
///
/// # Errors
/// As [`each`].
pub(crate) fn each_packed(
    conn: &Connection,
    of: &Selection<'_>,
    mut each: impl FnMut(AnyRow) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    each_day(conn, of, |day| {
        let mut result = Ok(());
        day.columns.each_bucket(day.buckets(of.range), |bucket, at| {
            let start = day.at(bucket);
            if result.is_ok() {
                let mut values = [0; MOST_VALUES];
                for (column, value) in values.iter_mut().enumerate().take(of.values.len()) {
                    *value = day.columns.value(column, at);
                }
                result = each(AnyRow { start, series: day.series, values });
            }
        });
        result
    })
}

/// Passes on the packed days that overlap the range, by day and owner. They may also have buckets outside it.
///
/// # Errors
/// As [`each`].
pub(crate) fn each_day(
    conn: &Connection,
    of: &Selection<'_>,
    mut each: impl FnMut(PackedDay<'_>) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let Some(table) = of.kind.days_table(of.level) else { return Ok(()) };
    let keys = of.kind.keys.len();
    let key_columns: String = of.kind.keys.iter().map(|key| format!(", d.{key}")).collect();
    let values: String = of.values.iter().map(|value| format!(", d.{value}")).collect();
    // A bucket without a value in the selected columns may have one in another, which does not matter here.
    let mut statement = conn.prepare_cached(&format!(
        "SELECT d.start{key_columns}, d.form, d.first, d.step, d.count, d.buckets{values}
         FROM border b CROSS JOIN {table} d ON d.start = b.start {}
         WHERE b.level = 2 AND b.end > ?1 AND b.start < ?2 ORDER BY b.start, d.{}",
        of.filter("d"),
        of.kind.keys[0],
    ))?;
    let mut rows = statement.query([of.range.0, of.range.1])?;
    while let Some(row) = rows.next()? {
        let columns = Columns::read(row, 1 + keys, of.values.len())?;
        each(PackedDay { start: row.get(0)?, series: series(row, 1, keys)?, columns })?;
    }
    Ok(())
}

/// Sums of each series.
pub(crate) type Sums = BTreeMap<Series, [u64; MOST_VALUES]>;

/// Adds a row to the sums of its series.
pub(crate) fn add(sums: &mut Sums, row: &AnyRow) {
    let sum = sums.entry(row.series).or_default();
    sum.iter_mut().zip(row.values).for_each(|(sum, value)| *sum = sum.wrapping_add(value));
}

/// The sums of all series over the range, of packed days only.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn packed_sums(conn: &Connection, of: &Selection<'_>) -> Result<Sums, LedgerError> {
    let mut sums = Sums::new();
    each_packed(conn, of, |row| {
        add(&mut sums, &row);
        Ok(())
    })?;
    Ok(sums)
}

/// The starts of all rows in packed days.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn packed_starts(
    conn: &Connection,
    kind: &Kind,
    level: Level,
    range: (i64, i64),
) -> Result<BTreeSet<i64>, LedgerError> {
    let mut starts = BTreeSet::new();
    // With all values: a bucket of which all that are selected are 0 is passed over.
    each_packed(conn, &Selection::all(kind, level, range), |row| {
        starts.insert(row.start);
        Ok(())
    })?;
    Ok(starts)
}
