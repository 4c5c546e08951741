//! Collects the five-minute rates of each row of a report, day by day: the rows of a day in both forms, and
//! late readings spread over the time that they cover.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::Connection;
use traffic_model::calendar::{FIVE_MINUTES_S, Level};

use crate::{
    days::{
        Series,
        columns::MOST_VALUES,
        read::{self, AnyRow, PackedDay, Selection},
    },
    error::LedgerError,
    figures::Basis,
    query::{
        percentile_report::RowPercentiles,
        query_plan::{LineKey, Plan},
        rows::{TrafficRow, owner},
        spread::{Late, Spread},
    },
    schema::{TALLY, TRAFFIC},
};

/// The populations of all rows, over some of the days.
pub(crate) struct Collector<'a> {
    plan: &'a Plan<'a>,
    percent: f64,
    /// Nothing was read from this bucket on.
    recorded_end: i64,
    /// Late readings by series and bucket.
    late: &'a Late,
    places: HashMap<LineKey, usize>,
    pub keys: Vec<LineKey>,
    pub percentiles: Vec<RowPercentiles>,
}

/// The sums of one row of the report in each bucket of a day.
#[derive(Debug, Default)]
struct DayLine {
    /// Packets in, bytes in, packets out, bytes out. Those that the basis does not need stay empty.
    values: [Vec<u64>; 4],
    /// Buckets with a part of a late reading.
    parts: BTreeSet<u32>,
    /// The first bucket that may have rows, and the one after the last.
    from: u32,
    end: u32,
}

impl DayLine {
    fn covers(&mut self, from: u32, last: u32) {
        self.from = if self.end == 0 { from } else { self.from.min(from) };
        self.end = self.end.max(last + 1);
    }

    fn add(&mut self, bucket: u32, values: [u64; 4]) {
        self.covers(bucket, bucket);
        for (sums, value) in self.values.iter_mut().zip(values).filter(|(_, value)| *value != 0) {
            if sums.len() <= bucket as usize {
                sums.resize(bucket as usize + 1, 0);
            }
            sums[bucket as usize] += value;
        }
    }

    fn at(&self, bucket: u32) -> [u64; 4] {
        [0, 1, 2, 3].map(|at: usize| self.values[at].get(bucket as usize).copied().unwrap_or(0))
    }
}

/// A day of the ledger's zone, and the part of it that is asked for. Unix seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Day {
    pub start: i64,
    pub range: (i64, i64),
}

impl Day {
    fn bucket(&self, at: i64) -> Option<u32> {
        let inside = self.range.0 <= at && at < self.range.1;
        inside.then(|| u32::try_from((at - self.start) / FIVE_MINUTES_S).ok()).flatten()
    }

    fn at(&self, bucket: u32) -> i64 {
        self.start + i64::from(bucket) * FIVE_MINUTES_S
    }
}

/// The sums of a day, by row of the report. Their steps are not set yet.
type DayLines = BTreeMap<LineKey, DayLine>;

impl<'a> Collector<'a> {
    pub fn new(plan: &'a Plan<'a>, percent: f64, recorded_end: i64, late: &'a Late) -> Self {
        let (places, keys, percentiles) = (HashMap::new(), Vec::new(), Vec::new());
        Self { plan, percent, recorded_end, late, places, keys, percentiles }
    }

    /// Reads some days.
    pub fn read(&mut self, conn: &Connection, days: &[Day]) -> Result<(), LedgerError> {
        days.iter().try_for_each(|day| self.read_day(conn, day))
    }

    fn read_day(&mut self, conn: &Connection, day: &Day) -> Result<(), LedgerError> {
        let columns = Columns::of(self.plan.query.basis);
        let selection = Selection {
            owners: self.plan.containers.as_deref(),
            values: columns.names,
            ..Selection::all(&TRAFFIC, Level::FiveMinutes, day.range)
        };
        let mut lines = DayLines::new();
        read::each_row(conn, &selection, |row| {
            self.add(&mut lines, day, &row, columns)?;
            Ok(())
        })?;
        self.add_late_of_other_days(conn, day, &selection, &mut lines)?;
        // Without other rows, a container is complete as soon as the next one begins.
        let one_by_one = lines.is_empty();
        let mut container = None;
        read::each_day(conn, &selection, |packed| {
            if one_by_one && container != Some(packed.series[0]) {
                self.flush(day, &mut lines);
            }
            container = Some(packed.series[0]);
            self.add_packed(&mut lines, day, &packed, columns)
        })?;
        self.flush(day, &mut lines);
        Ok(())
    }

    /// Adds the parts of late readings that were booked on another day.
    fn add_late_of_other_days(
        &self,
        conn: &Connection,
        day: &Day,
        selection: &Selection<'_>,
        lines: &mut DayLines,
    ) -> Result<(), LedgerError> {
        let of_others = |spread: &&Spread| day.bucket(spread.bucket).is_none() && spread.overlaps(day.range);
        for spread in self.late.values().filter(of_others) {
            let range = (spread.bucket, spread.bucket + 1);
            read::each(conn, &Selection { range, ..*selection }, |row| {
                if row.series[3] == spread.series {
                    self.add(lines, day, &row, Columns::of(self.plan.query.basis))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Adds a row to its bucket, or to all buckets of this day that it covers.
    fn add(
        &self,
        lines: &mut DayLines,
        day: &Day,
        row: &AnyRow,
        columns: Columns,
    ) -> Result<(), LedgerError> {
        let Some(line) = self.line(lines, &row.series)? else { return Ok(()) };
        let values = columns.placed(|at| row.values[at]);
        match self.late.get(&(row.series[3], row.start)) {
            Some(spread) => {
                for at in spread.buckets(day.range) {
                    let Some(bucket) = day.bucket(at) else { continue };
                    line.add(bucket, values.map(|value| spread.part(value, at)));
                    line.parts.insert(bucket);
                }
            }
            None => {
                if let Some(bucket) = day.bucket(row.start) {
                    line.add(bucket, values);
                }
            }
        }
        Ok(())
    }

    fn add_packed(
        &self,
        lines: &mut DayLines,
        day: &Day,
        packed: &PackedDay<'_>,
        columns: Columns,
    ) -> Result<(), LedgerError> {
        let series = packed.series;
        let is_late = self.late.range((series[3], day.range.0)..(series[3], day.range.1)).next().is_some();
        if packed.start == day.start && !is_late {
            let Some(line) = self.line(lines, &series)? else { return Ok(()) };
            for (column, &place) in columns.places.iter().enumerate() {
                packed.columns.add_column(column, &mut line.values[place]);
            }
            let (from, to) = packed.columns.covers();
            line.covers(from, to);
            return Ok(());
        }
        let mut result = Ok(());
        packed.columns.each_bucket(packed.buckets(day.range), |bucket, at| {
            let mut values = [0; MOST_VALUES];
            for (column, value) in values.iter_mut().enumerate().take(columns.names.len()) {
                *value = packed.columns.value(column, at);
            }
            let start = packed.at(bucket);
            if result.is_ok() {
                result = self.add(lines, day, &AnyRow { start, series, values }, columns);
            }
        });
        result
    }

    /// The sums that a series belongs to; `None` if it was not asked for.
    fn line<'l>(
        &self,
        lines: &'l mut DayLines,
        series: &Series,
    ) -> Result<Option<&'l mut DayLine>, LedgerError> {
        let (container, class, family) = owner(series)?;
        let row = TrafficRow { start: 0, container, class, family, values: [0; 4] };
        Ok(self.plan.line_in(0, &row).map(|key| lines.entry(key).or_default()))
    }

    /// Ranks the sums of complete rows.
    fn flush(&mut self, day: &Day, lines: &mut DayLines) {
        for (mut key, line) in std::mem::take(lines) {
            let (mut place, mut step_end) = (None, i64::MIN);
            for bucket in line.from..line.end {
                let start = day.at(bucket);
                if day.bucket(start).is_none() {
                    continue;
                }
                if start >= step_end {
                    let Some(step) = self.plan.step(start) else { continue };
                    step_end = self.plan.steps[step].1;
                    key.0 = step;
                    place = Some(self.place(key));
                }
                let Some(percentiles) = place.map(|place: usize| &mut self.percentiles[place]) else {
                    continue;
                };
                percentiles.push(line.at(bucket), self.plan.query.basis);
                percentiles.spread_buckets += u64::from(line.parts.contains(&bucket));
            }
        }
    }

    fn place(&mut self, key: LineKey) -> usize {
        *self.places.entry(key).or_insert_with(|| {
            let (start, end) = self.plan.steps[key.0];
            let end = end.min(self.recorded_end.max(start));
            let buckets = ((end - start) / FIVE_MINUTES_S).unsigned_abs();
            self.keys.push(key);
            self.percentiles.push(RowPercentiles::new(self.percent, buckets));
            self.keys.len() - 1
        })
    }

    /// Adds what another collector read.
    pub fn absorb(&mut self, other: &Self) {
        for (&key, percentiles) in other.keys.iter().zip(&other.percentiles) {
            let place = self.place(key);
            self.percentiles[place].absorb(percentiles);
        }
    }
}

/// The columns that a basis needs, and their places among the four values of a row.
#[derive(Clone, Copy, Debug)]
struct Columns {
    names: &'static [&'static str],
    places: &'static [usize],
}

impl Columns {
    const fn of(basis: Basis) -> Self {
        match basis {
            Basis::L3 => Self { names: &["in_bytes", "out_bytes"], places: &[1, 3] },
            Basis::L2 | Basis::L1 => Self { names: &TALLY, places: &[0, 1, 2, 3] },
        }
    }

    fn placed(self, value: impl Fn(usize) -> u64) -> [u64; 4] {
        let mut values = [0; 4];
        self.places.iter().enumerate().for_each(|(at, &place)| values[place] = value(at));
        values
    }
}
