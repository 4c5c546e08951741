//! How the rows of a part are read. Their tables are in `tables`.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension as _, types::ValueRef};
use traffic_model::calendar::Level;

use crate::{
    days::{
        Series,
        columns::MOST_VALUES,
        read::{self, Selection},
    },
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
    /// Its rows: places in [`TABLES`], and the values of all columns.
    pub rows: Vec<(usize, Vec<Cell>)>,
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
    let wanted: BTreeSet<i64> = starts.iter().copied().collect();
    let mut sums: BTreeMap<(i64, Series), [u64; MOST_VALUES]> = BTreeMap::new();
    read::each(conn, &Selection::all(kind, level, (*range.0, range.1 + 1)), |row| {
        if wanted.contains(&row.start) {
            let sum = sums.entry((row.start, row.series)).or_default();
            sum.iter_mut().zip(row.values).for_each(|(sum, value)| *sum = sum.wrapping_add(value));
        }
        Ok(())
    })?;
    for ((start, series), values) in sums {
        let Some(content) = contents.get_mut(&start).filter(|_| values.iter().any(|&value| value != 0))
        else {
            continue;
        };
        let keys = [i64::from(level as u8), start].into_iter();
        let keys = keys.chain(series.into_iter().take(kind.keys.len()));
        let values = values.into_iter().take(kind.values.len()).map(u64::cast_signed);
        content.rows.push((table, keys.chain(values).map(Cell::Integer).collect()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        outbox::{RECORDS, tables::Kept},
        testing::ledger,
    };

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
        let parts: BTreeSet<&str> = TABLES.iter().flat_map(|table| table.parts).copied().collect();
        let noted = UNITS.iter().map(|unit| unit.1).chain(RECORDS.iter().map(|record| record.0));
        assert_eq!(parts, noted.collect());
    }
}
