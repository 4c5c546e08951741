//! How the rows of a part are read. Their tables are in `tables`.

use std::{borrow::Cow, collections::BTreeMap};

use rusqlite::{Connection, OptionalExtension as _, types::ValueRef};
use traffic_model::calendar::Level;

use crate::{
    days::read::{self, Selection},
    error::LedgerError,
    outbox::{
        KINDS, UNITS,
        tables::{TABLES, select},
    },
    schema::Kind,
};

/// Units that are further apart are read apart: those of one packed day are decoded together.
const APART_S: i64 = 86_400;

/// A value of a shipped row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cell {
    /// Nothing.
    Null,
    /// A number; of counters, an u64 with the same bits.
    Integer(i64),
    /// Text.
    Text(String),
    /// Binary content.
    Bytes(Vec<u8>),
}

impl Cell {
    fn of(value: ValueRef<'_>) -> Result<Self, LedgerError> {
        Ok(match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Text(text) => Self::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Self::Bytes(bytes.to_vec()),
            ValueRef::Real(_) => {
                return Err(LedgerError::Query("a shipped row holds a number with a fraction".to_owned()));
            }
        })
    }
}

/// Everything that a part holds, or held until it was removed: then there is no row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Name of the part, as in [`ShippedTable::parts`](crate::ShippedTable::parts).
    pub name: &'static str,
    /// Start of the unit, or number of the record.
    pub number: i64,
    /// Change number of its last change.
    pub rev: i64,
    /// Its rows in tables whose values are not counted: places in [`TABLES`], and the values of all columns.
    pub rows: Vec<(usize, Vec<Cell>)>,
    /// Its rows in tables of counters, which are nearly all that is shipped: the place of each table, and the values of
    /// all columns of all rows, one after the other; of counters, an u64 with the same bits.
    pub counted: Vec<(usize, Vec<i64>)>,
}

impl Content {
    /// A part that has no rows yet.
    pub fn new(name: &'static str, number: i64, rev: i64) -> Self {
        Self { name, number, rev, rows: Vec::new(), counted: Vec::new() }
    }

    /// How many rows it has.
    pub fn count(&self) -> usize {
        self.rows.len() + self.counted_rows().count()
    }

    /// The rows of counters, each with the place of its table.
    pub fn counted_rows(&self) -> impl Iterator<Item = (usize, &[i64])> {
        self.counted.iter().flat_map(|(table, numbers)| {
            numbers.chunks_exact(TABLES[*table].columns()).map(|row| (*table, row))
        })
    }

    /// All rows in the same form.
    pub fn all_rows(&self) -> impl Iterator<Item = (usize, Cow<'_, [Cell]>)> {
        let counted = self.counted_rows().map(|(table, row)| {
            (table, Cow::Owned(row.iter().copied().map(Cell::Integer).collect::<Vec<_>>()))
        });
        self.rows.iter().map(|(table, row)| (*table, Cow::Borrowed(&row[..]))).chain(counted)
    }
}

/// The level of a unit's name.
pub(super) fn level_of(name: &str) -> Option<Level> {
    UNITS.iter().find(|unit| unit.1 == name).map(|unit| unit.0)
}

/// The rows of a record.
pub(super) fn record(conn: &Connection, content: &mut Content) -> Result<(), LedgerError> {
    for (at, table) in TABLES.iter().enumerate().filter(|(_, table)| table.parts.contains(&content.name)) {
        let mut statement = conn.prepare_cached(select(table.name))?;
        let columns = statement.column_count();
        let mut rows = statement.query([content.number])?;
        while let Some(row) = rows.next()? {
            let cells = (0..columns).map(|at| Cell::of(row.get_ref(at)?)).collect::<Result<_, _>>()?;
            content.rows.push((at, cells));
        }
    }
    Ok(())
}

/// The rows of units of one level, by start.
pub(super) fn units(
    conn: &Connection,
    level: Level,
    contents: &mut BTreeMap<i64, Content>,
) -> Result<(), LedgerError> {
    let starts: Vec<i64> = contents.keys().copied().collect();
    for together in starts.chunk_by(|&before, &next| next - before < APART_S) {
        for together in together.chunks(288) {
            for (at, kind) in &KINDS {
                counted(conn, (*at, kind), level, (together, &mut *contents))?;
            }
        }
    }
    for (&start, content) in contents {
        let level = i64::from(level as u8);
        let name = |level: u8| {
            format!(
                "(SELECT name FROM border WHERE level = {level} AND start <= ?2 ORDER BY start DESC LIMIT 1)"
            )
        };
        let sql = format!("SELECT end, {}, {} FROM unit WHERE level = ?1 AND start = ?2", name(2), name(3));
        let unit = conn.prepare_cached(&sql)?.query_row([level, start], |row| {
            Ok((row.get(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, Option<String>>(2)?))
        });
        let Some((end, day, month)) = unit.optional()? else { continue };
        let text = |name: Option<String>| name.map_or(Cell::Null, Cell::Text);
        let row =
            vec![Cell::Integer(level), Cell::Integer(start), Cell::Integer(end), text(day), text(month)];
        content.rows.push((0, row));
        if level == 0 {
            let mut spans = conn.prepare_cached("SELECT stream, start, end FROM span WHERE bucket = ?1")?;
            let mut rows = spans.query([start])?;
            while let Some(row) = rows.next()? {
                let numbers = [level, start, row.get(0)?, row.get(1)?, row.get(2)?];
                content.rows.push((4, numbers.map(Cell::Integer).into()));
            }
        }
    }
    Ok(())
}

/// The rows of one kind in some units of a level: both of their forms added up, without those that are 0.
fn counted(
    conn: &Connection,
    (table, kind): (usize, &Kind),
    level: Level,
    (starts, contents): (&[i64], &mut BTreeMap<i64, Content>),
) -> Result<(), LedgerError> {
    let Some(range) = starts.first().zip(starts.last()) else { return Ok(()) };
    let keys = 2 + kind.keys.len();
    read::each(conn, &Selection::all(kind, level, (*range.0, range.1 + 1)), |row| {
        if let Some(content) = contents.get_mut(&row.start) {
            if content.counted.last().is_none_or(|last| last.0 != table) {
                content.counted.push((table, Vec::new()));
            }
            let Some((_, numbers)) = content.counted.last_mut() else { return Ok(()) };
            numbers.extend([i64::from(level as u8), row.start]);
            numbers.extend(&row.series[..kind.keys.len()]);
            numbers.extend(row.values[..kind.values.len()].iter().map(|value| value.cast_signed()));
        }
        Ok(())
    })?;
    for start in starts {
        let Some(content) = contents.get_mut(start) else { continue };
        if let Some((_, numbers)) = content.counted.last_mut().filter(|last| last.0 == table) {
            add_up(numbers, (keys, keys + kind.values.len()));
            if numbers.is_empty() {
                content.counted.pop();
            }
        }
    }
    Ok(())
}

/// Sorts rows by their keys, adds up those with the same keys, and leaves out those that are 0. `keys` and `width`: how
/// many columns identify a row, and how many there are.
fn add_up(numbers: &mut Vec<i64>, (keys, width): (usize, usize)) {
    let is_done = |rows: &[i64]| {
        let mut before: Option<&[i64]> = None;
        rows.chunks_exact(width).all(|row| {
            let is_next = before.is_none_or(|before| before[..keys] < row[..keys]);
            before = Some(row);
            is_next && row[keys..].iter().any(|&value| value != 0)
        })
    };
    // Packed rows come like this, and nearly all are packed.
    if is_done(numbers) {
        return;
    }
    let mut rows: Vec<&[i64]> = numbers.chunks_exact(width).collect();
    rows.sort_unstable_by_key(|row| &row[..keys]);
    let mut sums: Vec<i64> = Vec::with_capacity(numbers.len());
    for same in rows.chunk_by(|a, b| a[..keys] == b[..keys]) {
        let begin = sums.len();
        sums.extend(same[0]);
        for row in &same[1..] {
            let values = sums[begin + keys..].iter_mut().zip(&row[keys..]);
            values.for_each(|(sum, value)| *sum = sum.wrapping_add(*value));
        }
        if sums[begin + keys..].iter().all(|&value| value == 0) {
            sums.truncate(begin);
        }
    }
    *numbers = sums;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        outbox::{RECORDS, tables::Kept},
        testing::ledger,
    };

    #[test]
    fn rows_with_the_same_keys_are_added_up_and_empty_ones_left_out() {
        let rows = |list: &[[i64; 4]]| list.concat();
        let mut numbers =
            rows(&[[0, 5, 1, 2], [0, 3, 9, 0], [0, 5, -1, 4], [0, 4, 0, 0], [0, 3, 1, 1], [0, 6, 7, 7]]);
        add_up(&mut numbers, (2, 4));
        assert_eq!(numbers, rows(&[[0, 3, 10, 1], [0, 5, 0, 6], [0, 6, 7, 7]]));
        let mut zeros = rows(&[[0, 1, 2, 3], [0, 1, -2, -3]]);
        add_up(&mut zeros, (2, 4));
        assert!(zeros.is_empty());
        let mut sorted = rows(&[[0, 1, 2, 3], [0, 2, 0, 1]]);
        add_up(&mut sorted, (2, 4));
        assert_eq!(sorted, rows(&[[0, 1, 2, 3], [0, 2, 0, 1]]));
    }

    #[test]
    fn all_rows_are_counted_ones_and_others() {
        let mut content = Content::new("5min", 300, 7);
        content.rows.push((0, vec![Cell::Null]));
        content.counted.push((1, (0..20).collect()));
        assert_eq!(content.count(), 3);
        let all: Vec<_> = content.all_rows().map(|(table, row)| (table, row.len(), row[0].clone())).collect();
        assert_eq!(all, [(0, 1, Cell::Null), (1, 10, Cell::Integer(0)), (1, 10, Cell::Integer(10))]);
    }

    #[test]
    fn every_row_has_the_columns_of_its_table() {
        let file = ledger();
        for table in TABLES.iter().filter(|table| !table.is_of_units()) {
            let statement = file.ledger.conn.prepare(select(table.name)).unwrap();
            assert_eq!(statement.column_count(), table.keys.len() + table.values.len(), "{}", table.name);
        }
        for (at, kind) in KINDS {
            let table = TABLES[at];
            assert_eq!(table.name, kind.name);
            let names = |columns: &[(&'static str, Kept)]| -> Vec<&str> {
                columns.iter().map(|column| column.0).collect()
            };
            let keys = kind.keys.iter().map(|&key| if key == "stream" { "series" } else { key });
            assert_eq!(names(table.keys)[2..], keys.collect::<Vec<_>>());
            assert_eq!(names(table.values), kind.values);
        }
        assert_eq!(TABLES[4].name, "span");
        let parts: std::collections::BTreeSet<&str> =
            TABLES.iter().flat_map(|table| table.parts).copied().collect();
        let noted = UNITS.iter().map(|unit| unit.1).chain(RECORDS.iter().map(|record| record.0));
        assert_eq!(parts, noted.collect());
    }
}
