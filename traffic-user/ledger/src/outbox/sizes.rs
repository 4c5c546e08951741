//! How large parts are, before they are read as a whole.

use std::{collections::BTreeMap, ops::AddAssign};

use rusqlite::Connection;
use traffic_model::calendar::Level;

use crate::{
    days::read::{self, Selection},
    error::LedgerError,
    outbox::{
        KINDS,
        parts::{self, Cell, Content},
        tables::TABLES,
    },
};

/// Five minutes of a day.
const DAY_BUCKETS: i64 = 288;
/// Bytes of a number.
const NUMBER: usize = size_of::<i64>();
/// Bytes of a row of a closed month, more or less.
const CLOSED_ROW: usize = 256;

/// The size of parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentSize {
    /// Their rows.
    pub rows: usize,
    /// The bytes of their values in memory, more or less.
    pub bytes: usize,
}

impl ContentSize {
    /// Whether neither is larger than in another one.
    pub const fn is_within(self, most: Self) -> bool {
        self.rows <= most.rows && self.bytes <= most.bytes
    }

    const fn rows_of_table(rows: usize, table: usize) -> Self {
        Self { rows, bytes: rows * TABLES[table].columns() * NUMBER }
    }
}

impl AddAssign for ContentSize {
    fn add_assign(&mut self, other: Self) {
        self.rows = self.rows.saturating_add(other.rows);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

impl Content {
    /// The size of its values.
    pub fn size(&self) -> ContentSize {
        let of_cell = |cell: &Cell| match cell {
            Cell::Null | Cell::Integer(_) => NUMBER,
            Cell::Text(text) => text.len(),
            Cell::Bytes(bytes) => bytes.len(),
        };
        let cells: usize = self.rows.iter().flat_map(|row| &row.1).map(of_cell).sum();
        let numbers: usize = self.counted.iter().map(|rows| rows.1.len()).sum();
        ContentSize { rows: self.count(), bytes: cells + numbers * NUMBER }
    }
}

/// Says how large parts are at most. It remembers the packed days that it was asked for.
pub(super) struct Sizes<'c> {
    conn: &'c Connection,
    packed: BTreeMap<(Level, i64), PackedDay>,
}

/// The packed rows of a day.
#[derive(Debug, Default)]
struct PackedDay {
    /// Those of kinds whose series go on for most of the day: they count in all of its five minutes.
    everywhere: ContentSize,
    /// Those of other kinds, by their start.
    by_start: BTreeMap<i64, ContentSize>,
}

impl<'c> Sizes<'c> {
    pub fn new(conn: &'c Connection) -> Self {
        Self { conn, packed: BTreeMap::new() }
    }

    /// How large a part is at most. No values of a packed day are read for it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn most(&mut self, (name, number): (&'static str, i64)) -> Result<ContentSize, LedgerError> {
        let Some(level) = parts::level_of(name) else { return self.record(name, number) };
        // The unit's own row, and spans.
        let mut most = ContentSize { rows: 2, bytes: 2 * CLOSED_ROW };
        for (at, kind) in &KINDS {
            let sql = format!("SELECT count(*) FROM {} WHERE start = ?1", kind.rows_table(level));
            most += ContentSize::rows_of_table(self.count(&sql, number)?, *at);
        }
        let day = "SELECT coalesce(max(start), 0) FROM border WHERE level = 2 AND start <= ?1";
        let day: i64 = self.conn.prepare_cached(day)?.query_row([number], |row| row.get(0))?;
        if !self.packed.contains_key(&(level, day)) {
            let of_day = self.packed_day(level, day)?;
            self.packed.insert((level, day), of_day);
        }
        if let Some(of_day) = self.packed.get(&(level, day)) {
            most += of_day.everywhere;
            most += of_day.by_start.get(&number).copied().unwrap_or_default();
        }
        Ok(most)
    }

    fn count(&self, sql: &str, number: i64) -> Result<usize, LedgerError> {
        let found: i64 = self.conn.prepare_cached(sql)?.query_row([number], |row| row.get(0))?;
        Ok(usize::try_from(found).unwrap_or(usize::MAX))
    }

    fn record(&self, name: &'static str, number: i64) -> Result<ContentSize, LedgerError> {
        match name {
            "period" => {
                let sql = "SELECT (SELECT count(*) FROM closed_row WHERE period = ?1)
                           + (SELECT count(*) FROM closed_rate WHERE period = ?1) + 1";
                let rows = self.count(sql, number)?;
                Ok(ContentSize { rows, bytes: rows.saturating_mul(CLOSED_ROW) })
            }
            // The only one that may be large without rows: its length is known without reading it.
            "class_table" => {
                let sql = "SELECT coalesce(max(length(content)), 0) FROM class_table WHERE id = ?1";
                Ok(ContentSize { rows: 1, bytes: self.count(sql, number)?.saturating_add(CLOSED_ROW) })
            }
            _ => {
                let mut content = Content::new(name, number, 0);
                parts::record(self.conn, &mut content)?;
                Ok(content.size())
            }
        }
    }

    /// The packed rows of a day. Of a series of which a few values are 0, all rows are counted.
    fn packed_day(&self, level: Level, day: i64) -> Result<PackedDay, LedgerError> {
        let mut sizes = PackedDay::default();
        for (at, kind) in &KINDS {
            let Some(table) = kind.days_table(level) else { continue };
            let sql = format!("SELECT count(*), coalesce(sum(count), 0) FROM {table} WHERE start = ?1");
            let (count, buckets): (i64, i64) =
                self.conn.prepare_cached(&sql)?.query_row([day], |row| Ok((row.get(0)?, row.get(1)?)))?;
            // Which five minutes each series has is only looked up where it matters.
            if buckets.saturating_mul(2) >= count.saturating_mul(DAY_BUCKETS) {
                let rows = usize::try_from(count).unwrap_or(usize::MAX);
                sizes.everywhere += ContentSize::rows_of_table(rows, *at);
                continue;
            }
            let mut series: Vec<usize> = Vec::new();
            let without_values = Selection { values: &[], ..Selection::all(kind, level, (day, day + 1)) };
            let mut starts = BTreeMap::new();
            read::each_day(self.conn, &without_values, |packed| {
                for bucket in packed.columns.possible() {
                    let of = bucket as usize;
                    if series.len() <= of {
                        series.resize(of + 1, 0);
                    }
                    if series[of] == 0 {
                        starts.insert(of, packed.at(bucket));
                    }
                    series[of] += 1;
                }
                Ok(())
            })?;
            for (bucket, start) in starts {
                *sizes.by_start.entry(start).or_default() += ContentSize::rows_of_table(series[bucket], *at);
            }
        }
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        self, ledger,
        seeded::{self, Volume},
    };

    #[test]
    fn a_part_has_no_more_rows_than_were_expected_of_it() {
        // Series of a few five minutes, and of all of them.
        for (step, is_dense) in [(3600, false), (300, true)] {
            let mut file = ledger();
            let begin: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
            let mut snapshot = seeded::first_snapshot(begin, 3, 2);
            let end = begin + jiff::SignedDuration::from_hours(48);
            seeded::fill(&mut file.ledger, &mut snapshot, (end, step), Volume::Mixed).unwrap();
            let changes =
                |units| file.ledger.changes(crate::Changes { after: 0, until: i64::MAX, units }).unwrap();
            let mut sizes = Sizes::new(&file.ledger.conn);
            let mut units = 0;
            for part in changes(false).into_iter().chain(changes(true)) {
                let most = sizes.most((part.0, part.1)).unwrap();
                for content in file.ledger.contents(&[(part.0, part.1)]).unwrap() {
                    let is = content.size();
                    assert!(is.is_within(most) && most.rows <= 4 * is.rows + 4, "{part:?}: {is:?} {most:?}");
                    units += content.counted.len();
                }
            }
            let days = || sizes.packed.values();
            let found =
                (days().any(|day| day.everywhere.rows > 0), days().any(|day| !day.by_start.is_empty()));
            assert!(units > 20 && found == (is_dense, !is_dense), "{units} {:?}", sizes.packed);
        }
    }

    #[test]
    fn containers_of_a_moment_count_in_their_own_five_minutes() {
        let mut file = ledger();
        // Midnight.
        let mut node = testing::Node::balanced(1_794_268_800);
        for number in 0..200 {
            node.traffic(&number.to_string(), 1, [9; 4]);
            node.pass(300).drain(&mut file.ledger);
        }
        node.pass(2 * 86_400).drain(&mut file.ledger);
        file.ledger.maintain(node.wall).unwrap();
        let units = file.ledger.changes(crate::Changes { after: 0, until: i64::MAX, units: true }).unwrap();
        let of_buckets: Vec<_> = units.into_iter().filter(|unit| unit.0 == "5min").take(150).collect();
        let mut sizes = Sizes::new(&file.ledger.conn);
        let series = |sizes: &Sizes<'_>| sizes.packed.values().map(|day| day.by_start.len()).max();
        for unit in &of_buckets {
            let most = sizes.most((unit.0, unit.1)).unwrap();
            assert!(most.rows < 20, "{unit:?}: {most:?}");
        }
        assert!(series(&sizes).is_some_and(|count| count > 100), "nothing is packed");
        let most = ContentSize { rows: 3000, bytes: usize::MAX };
        assert_eq!(file.ledger.fitting(&of_buckets, most).unwrap(), 150);
    }

    #[test]
    fn a_large_class_table_is_large_before_it_is_read() {
        let file = ledger();
        let insert = "INSERT INTO class_table (id, hash, loaded, prefixes, content)
                      VALUES (?1, ?1, 0, 0, zeroblob(1000000))";
        (1..5).for_each(|id| assert_eq!(file.ledger.conn.execute(insert, [id]).unwrap(), 1));
        let parts: Vec<_> = (1..5).map(|id| ("class_table", id, 1)).collect();
        let fitting = |bytes| file.ledger.fitting(&parts, ContentSize { rows: 100, bytes }).unwrap();
        assert_eq!([fitting(1000), fitting(2_100_000), fitting(10_000_000)], [1, 2, 4]);
    }
}
