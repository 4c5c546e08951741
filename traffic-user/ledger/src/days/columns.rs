//! The encoding of a day's columns. `docs/ledger-file.md` describes it for other programs.
//!
//! A bucket is numbered by its start: five minutes after the start of the day is 1. The values of one column
//! are big-endian numbers of equal width, one after the other. The width is the smallest that holds the largest
//! value, so a column of zeros takes no room. The numbers stand for the buckets `first`, `first + step`, and so
//! on, where a bucket with only zeros is one without a row; or for the listed buckets.

use std::{collections::BTreeMap, ops::Range};

use rusqlite::{
    Row,
    types::{ToSqlOutput, Type, Value},
};

/// Most values of a kind.
pub(crate) const MOST_VALUES: usize = 12;
/// The form of the encoding.
const FORM: i64 = 1;
/// Longest day that is packed, in buckets. Its last bucket still has a character of two bytes.
pub(crate) const MOST_BUCKETS: i64 = 3 * 288;
/// The character of bucket 0 in a list.
pub(crate) const FIRST_CHARACTER: u32 = 256;
/// All buckets.
const ALL: Range<u32> = 0..u32::MAX;
const WIDEST: usize = size_of::<u64>();
/// Bytes of a listed bucket.
const LISTED: usize = 2;

/// The values of one series and day by bucket number.
pub(crate) type Points = BTreeMap<u32, [u64; MOST_VALUES]>;

/// Adds values to those of a bucket.
pub(crate) fn add(points: &mut Points, bucket: u32, values: impl IntoIterator<Item = u64>) {
    let sums = points.entry(bucket).or_default();
    // Not checked: an impossible counter would make maintenance fail forever.
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum = sum.wrapping_add(value));
}

/// An encoded day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    first: u32,
    step: u32,
    count: usize,
    buckets: Option<String>,
    columns: Vec<Vec<u8>>,
}

impl Packed {
    /// Encodes at least one bucket with `values` values. `step` is the usual distance between two buckets.
    pub fn new(points: &Points, values: usize, step: u32) -> Self {
        let (first, last) = (first(points.keys()), points.keys().next_back().copied().unwrap_or(0));
        let largest = |column: usize| points.values().map(|values| values[column]).max().unwrap_or(0);
        let widths: Vec<usize> = (0..values).map(|column| width(largest(column))).collect();
        let of_bucket: usize = widths.iter().sum();
        let regular = points.iter().all(|(bucket, values)| {
            (bucket - first).is_multiple_of(step) && values.iter().any(|&value| value != 0)
        });
        let in_line = ((last - first) / step) as usize + 1;
        let listed = !regular || in_line * of_bucket > points.len() * (of_bucket + LISTED);
        let numbers: Vec<u32> = if listed {
            points.keys().copied().collect()
        } else {
            (first..=last).step_by(step as usize).collect()
        };
        let none = [0; MOST_VALUES];
        let column = |at: usize| {
            let mut bytes = Vec::with_capacity(numbers.len() * widths[at]);
            for bucket in &numbers {
                let value = points.get(bucket).unwrap_or(&none)[at];
                bytes.extend_from_slice(&value.to_be_bytes()[WIDEST - widths[at]..]);
            }
            bytes
        };
        let character = |&bucket: &u32| char::from_u32(FIRST_CHARACTER + bucket);
        Self {
            first,
            step,
            count: numbers.len(),
            buckets: listed.then(|| numbers.iter().filter_map(character).collect()),
            columns: (0..values).map(column).collect(),
        }
    }

    /// Form, first, step, count, buckets, and the columns.
    pub fn parameters(self) -> impl Iterator<Item = ToSqlOutput<'static>> {
        let count = i64::try_from(self.count).unwrap_or(i64::MAX);
        let numbers = [FORM, self.first.into(), self.step.into(), count];
        let buckets = self.buckets.map_or(Value::Null, Value::Text);
        let columns = self.columns.into_iter().map(Value::Blob);
        numbers.map(Value::Integer).into_iter().chain([buckets]).chain(columns).map(ToSqlOutput::Owned)
    }
}

fn first<'a>(mut buckets: impl Iterator<Item = &'a u32>) -> u32 {
    buckets.next().copied().unwrap_or(0)
}

fn width(largest: u64) -> usize {
    WIDEST - largest.leading_zeros() as usize / 8
}

/// A day's columns in a row that is being read.
#[derive(Debug)]
pub(crate) struct Columns<'r> {
    first: u32,
    step: u32,
    count: u32,
    buckets: Option<Vec<u32>>,
    columns: [&'r [u8]; MOST_VALUES],
    values: usize,
}

impl<'r> Columns<'r> {
    /// Reads form, first, step, count, buckets and `values` columns of a row, from column `at` on.
    ///
    /// # Errors
    /// When they do not fit together: something else than this program wrote them.
    pub fn read(row: &'r Row<'_>, at: usize, values: usize) -> rusqlite::Result<Self> {
        let damaged = || {
            let reason = "the columns of a day do not fit together".into();
            rusqlite::Error::FromSqlConversionFailure(at, Type::Blob, reason)
        };
        let (form, step): (i64, u32) = (row.get(at)?, row.get(at + 2)?);
        let (first, count): (u32, u32) = (row.get(at + 1)?, row.get(at + 3)?);
        let buckets = match row.get_ref(at + 4)? {
            rusqlite::types::ValueRef::Null => None,
            list => {
                let number = |character: char| u32::from(character).checked_sub(FIRST_CHARACTER);
                Some(list.as_str()?.chars().map(number).collect::<Option<Vec<_>>>().ok_or_else(damaged)?)
            }
        };
        let mut columns: [&[u8]; MOST_VALUES] = [&[]; MOST_VALUES];
        for (column, at) in columns.iter_mut().zip(at + 5..).take(values) {
            *column = row.get_ref(at)?.as_blob()?;
        }
        let last = i64::from(first) + i64::from(step) * (i64::from(count) - 1);
        let length = count as usize;
        let fits = form == FORM
            && step > 0
            && (1..=MOST_BUCKETS).contains(&i64::from(count))
            && match &buckets {
                Some(buckets) => {
                    buckets.len() == length && buckets.iter().all(|&at| i64::from(at) < MOST_BUCKETS)
                }
                None => last < MOST_BUCKETS,
            }
            && columns.iter().all(|column| column.len() % length == 0 && column.len() / length <= WIDEST);
        if fits { Ok(Self { first, step, count, buckets, columns, values }) } else { Err(damaged()) }
    }

    /// Passes on the number of each bucket of a range that has a row, and its index in the columns.
    pub fn each_bucket(&self, within: Range<u32>, mut each: impl FnMut(u32, usize)) {
        if let Some(buckets) = &self.buckets {
            let listed = buckets.iter().zip(0..).filter(|(bucket, _)| within.contains(bucket));
            listed.for_each(|(&bucket, at)| each(bucket, at));
            return;
        }
        let skipped = within.start.saturating_sub(self.first).div_ceil(self.step);
        for at in skipped..self.count {
            let (bucket, at) = (self.first + at * self.step, at as usize);
            if bucket >= within.end {
                return;
            }
            if (0..self.values).any(|column| self.bytes(column, at).iter().any(|&byte| byte != 0)) {
                each(bucket, at);
            }
        }
    }

    /// The numbers of all buckets that may have a row: also of those with only zeros.
    pub fn possible(&self) -> impl Iterator<Item = u32> {
        let listed = self.buckets.iter().flatten().copied();
        let in_line = if self.buckets.is_some() { 0 } else { self.count };
        listed.chain((0..in_line).map(|at| self.first + at * self.step))
    }

    /// The first and the last bucket.
    pub fn covers(&self) -> (u32, u32) {
        match &self.buckets {
            Some(buckets) => (first(buckets.iter()), buckets.iter().max().copied().unwrap_or(0)),
            None => (self.first, self.first + self.step * (self.count - 1)),
        }
    }

    /// A value by its index.
    pub fn value(&self, column: usize, at: usize) -> u64 {
        number(self.bytes(column, at))
    }

    fn bytes(&self, column: usize, at: usize) -> &'r [u8] {
        let width = self.columns[column].len() / self.count as usize;
        &self.columns[column][at * width..][..width]
    }

    /// Adds a whole column to sums by bucket number.
    pub fn add_column(&self, column: usize, sums: &mut Vec<u64>) {
        let (_, last) = self.covers();
        if sums.len() <= last as usize {
            sums.resize(last as usize + 1, 0);
        }
        let bytes = self.columns[column];
        match (&self.buckets, self.step, bytes.len() / self.count as usize) {
            (_, _, 0) => {}
            (None, 1, 1) => add_all::<1>(&mut sums[self.first as usize..], bytes),
            (None, 1, 2) => add_all::<2>(&mut sums[self.first as usize..], bytes),
            (None, 1, 3) => add_all::<3>(&mut sums[self.first as usize..], bytes),
            (None, 1, 4) => add_all::<4>(&mut sums[self.first as usize..], bytes),
            (None, 1, 5) => add_all::<5>(&mut sums[self.first as usize..], bytes),
            _ => self.each_bucket(ALL, |bucket, at| {
                let sum = &mut sums[bucket as usize];
                *sum = sum.wrapping_add(self.value(column, at));
            }),
        }
    }

    /// All buckets with rows.
    pub fn points(&self) -> Points {
        let mut points = Points::new();
        self.each_bucket(ALL, |bucket, at| {
            add(&mut points, bucket, (0..self.values).map(|column| self.value(column, at)));
        });
        points
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// With a width that is known to the compiler, a number takes about a nanosecond.
fn add_all<const WIDTH: usize>(sums: &mut [u64], bytes: &[u8]) {
    for (sum, bytes) in sums.iter_mut().zip(bytes.chunks_exact(WIDTH)) {
        let mut number = [0; WIDEST];
        number[WIDEST - WIDTH..].copy_from_slice(bytes);
        *sum = sum.wrapping_add(u64::from_be_bytes(number));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::Connection;

    use super::*;

    fn points_of(list: &[(u32, [u64; 2])]) -> Points {
        let mut points = Points::new();
        list.iter().for_each(|&(bucket, values)| add(&mut points, bucket, values));
        points
    }

    /// Stores the columns and reads them again.
    fn stored(packed: Packed) -> (Points, Vec<u64>) {
        let conn = Connection::open_in_memory().unwrap();
        let mut statement = conn.prepare("SELECT ?, ?, ?, ?, ?, ?, ?").unwrap();
        let mut rows = statement.query(rusqlite::params_from_iter(packed.parameters())).unwrap();
        let row = rows.next().unwrap().unwrap();
        let columns = Columns::read(row, 0, 2).unwrap();
        let mut sums = Vec::new();
        columns.add_column(1, &mut sums);
        (columns.points(), sums)
    }

    #[test]
    fn a_busy_day_is_a_line_and_a_quiet_one_a_list() {
        let busy = points_of(&(3..290).map(|at| (at, [u64::from(at), 70_000])).collect::<Vec<_>>());
        let packed = Packed::new(&busy, 2, 1);
        assert_eq!((packed.first, packed.count, &packed.buckets), (3, 287, &None));
        assert_eq!(packed.columns[0].len() + packed.columns[1].len(), 287 * (2 + 3));
        assert_eq!(stored(packed).0, busy);
        let quiet = points_of(&[(1, [5, 0]), (280, [0, 7])]);
        let packed = Packed::new(&quiet, 2, 1);
        assert_eq!(packed.buckets.as_deref().map(str::len), Some(4));
        assert_eq!(stored(packed).0, quiet);
        // Hours that begin half an hour after the day's five minutes of the same name.
        let hours = points_of(&(0..24).map(|hour| (6 + hour * 12, [1, 2])).collect::<Vec<_>>());
        let packed = Packed::new(&hours, 2, 12);
        assert_eq!((packed.first, packed.count, &packed.buckets), (6, 24, &None));
        assert_eq!(stored(packed).0, hours);
    }

    #[test]
    fn a_row_of_zeros_stays_a_row() {
        let zeros = points_of(&[(1, [1, 1]), (2, [0, 0]), (3, [1, 1])]);
        assert_eq!(stored(Packed::new(&zeros, 2, 1)).0, zeros);
    }

    #[test]
    fn columns_that_do_not_fit_are_refused() {
        let conn = Connection::open_in_memory().unwrap();
        for columns in [
            "2, 0, 1, 1, NULL, x'01', x'01'",
            "1, 0, 1, 0, NULL, x'01', x'01'",
            "1, 0, 0, 1, NULL, x'01', x'01'",
            "1, 0, 1, 2, NULL, x'010203', x''",
            "1, 0, 1, 1, NULL, x'010203040506070809', x''",
            "1, 0, 1, 2, char(256), x'0102', x'0102'",
            "1, 0, 1, 1, 'a', x'01', x'01'",
            "1, 863, 1, 2, NULL, x'0102', x'0102'",
            "1, 0, 4294967295, 864, NULL, x'', x''",
            "1, -1, 1, 1, NULL, x'01', x'01'",
        ] {
            let mut statement = conn.prepare(&format!("SELECT {columns}")).unwrap();
            let mut rows = statement.query([]).unwrap();
            assert!(Columns::read(rows.next().unwrap().unwrap(), 0, 2).is_err(), "{columns}");
        }
    }

    proptest! {
        #[test]
        fn every_day_comes_back(
            list in proptest::collection::vec((0..864_u32, 0..65_u32, any::<u64>()), 1..300),
            step in prop_oneof![Just(1_u32), Just(12)], dense in any::<bool>(),
        ) {
            let mut points = Points::new();
            for (at, (bucket, shift, value)) in (0..).zip(list) {
                let bucket = if dense { at } else { bucket };
                add(&mut points, bucket, [value.checked_shr(shift).unwrap_or(0), value]);
            }
            let (again, sums) = stored(Packed::new(&points, 2, step));
            prop_assert_eq!(&again, &points);
            for (bucket, values) in points {
                prop_assert_eq!(sums[bucket as usize], values[1]);
            }
        }
    }
}
