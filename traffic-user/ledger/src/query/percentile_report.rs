//! Percentiles of a report, over the five-minute rates of each row. Reads bucket by bucket, with several
//! threads if there are many.

use std::collections::{BTreeMap, HashMap};

use rusqlite::Connection;
use serde::Serialize;
use traffic_model::calendar::{FIVE_MINUTES_S, Level};

use crate::{
    closing::closed_rates,
    error::LedgerError,
    figures::Basis,
    ids, migrate,
    query::{
        percentile::Percentile,
        query_plan::{LineKey, Plan, ReportQuery},
        rows::{self, Slice, TrafficRow},
        spread::{self, Active, Spread},
    },
    schema::TRAFFIC,
    store::Ledger,
    write::rollup_state::last_bucket,
};

/// Bits per second at a percentile. Each field is ranked separately: the total is not the sum of the other
/// two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rates {
    /// To the container.
    #[serde(rename = "in_bits_per_s", skip_serializing_if = "Option::is_none")]
    pub incoming: Option<u64>,
    /// From the container.
    #[serde(rename = "out_bits_per_s", skip_serializing_if = "Option::is_none")]
    pub outgoing: Option<u64>,
    /// Both directions, added in each bucket before ranking.
    #[serde(rename = "total_bits_per_s", skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Number of ranked buckets, including those without traffic.
    pub buckets: u64,
    /// How many of them hold a part of a late reading, spread evenly over the time that it covers.
    #[serde(skip_serializing_if = "is_zero")]
    pub spread_buckets: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Rates {
    /// For a row about the incoming direction.
    pub(crate) fn only_incoming(self) -> Self {
        Self { outgoing: None, total: None, ..self }
    }

    /// For a row about the outgoing direction.
    pub(crate) fn only_outgoing(self) -> Self {
        Self { incoming: None, total: None, ..self }
    }
}

/// States the rule in words.
pub(crate) fn rule(percent: f64) -> String {
    format!(
        "percentile {percent}: nearest rank over the rates of five-minute buckets up to the last reading, \
         buckets without traffic counted as zero; in, out and their sum are ranked separately; a late reading \
         is spread over the time that it covers"
    )
}

/// The three populations of one row.
#[derive(Debug)]
struct RowPercentiles {
    incoming: Percentile,
    outgoing: Percentile,
    total: Percentile,
    buckets: u64,
    spread_buckets: u64,
}

impl RowPercentiles {
    fn new(percent: f64, buckets: u64) -> Self {
        let new = || Percentile::new(percent, buckets);
        Self { incoming: new(), outgoing: new(), total: new(), buckets, spread_buckets: 0 }
    }

    fn push(&mut self, values: [u64; 4], basis: Basis) {
        let [in_packets, in_bytes, out_packets, out_bytes] = values;
        let (incoming, outgoing) = (basis.bytes(in_packets, in_bytes), basis.bytes(out_packets, out_bytes));
        self.incoming.push(incoming);
        self.outgoing.push(outgoing);
        self.total.push(incoming.saturating_add(outgoing));
    }

    fn absorb(&mut self, other: &Self) {
        self.incoming.absorb(&other.incoming);
        self.outgoing.absorb(&other.outgoing);
        self.total.absorb(&other.total);
        self.spread_buckets += other.spread_buckets;
    }

    fn rates(&mut self) -> Rates {
        // Bytes in five minutes to bits per second, rounded down.
        let rate = |values: &mut Percentile| {
            let bits = u128::from(values.value()) * 8 / u128::from(FIVE_MINUTES_S.unsigned_abs());
            Some(u64::try_from(bits).unwrap_or(u64::MAX))
        };
        Rates {
            incoming: rate(&mut self.incoming),
            outgoing: rate(&mut self.outgoing),
            total: rate(&mut self.total),
            buckets: self.buckets,
            spread_buckets: self.spread_buckets,
        }
    }
}

/// The populations of all rows, over a part of the buckets.
struct Collector<'a> {
    plan: &'a Plan<'a>,
    percent: f64,
    /// Nothing was read from this bucket on.
    recorded_end: i64,
    places: HashMap<LineKey, usize>,
    keys: Vec<LineKey>,
    percentiles: Vec<RowPercentiles>,
    /// By place: the place that followed it last time. Rows come in the same order in nearly every bucket,
    /// which saves most lookups.
    next: Vec<usize>,
    last: usize,
}

impl<'a> Collector<'a> {
    fn new(plan: &'a Plan<'a>, percent: f64, recorded_end: i64) -> Self {
        let (places, keys, percentiles) = (HashMap::new(), Vec::new(), Vec::new());
        Self { plan, percent, recorded_end, places, keys, percentiles, next: Vec::new(), last: 0 }
    }

    fn place(&mut self, key: LineKey) -> usize {
        let guess = self.next.get(self.last).copied().unwrap_or(usize::MAX);
        let place = if self.keys.get(guess) == Some(&key) {
            guess
        } else {
            let place = *self.places.entry(key).or_insert_with(|| {
                let (start, end) = self.plan.steps[key.0];
                let end = end.min(self.recorded_end.max(start));
                let buckets = ((end - start) / FIVE_MINUTES_S).unsigned_abs();
                self.keys.push(key);
                self.percentiles.push(RowPercentiles::new(self.percent, buckets));
                self.next.push(usize::MAX);
                self.keys.len() - 1
            });
            if let Some(next) = self.next.get_mut(self.last) {
                *next = place;
            }
            place
        };
        self.last = place;
        place
    }

    /// Reads the buckets with these starts, in ascending order.
    fn read(&mut self, conn: &Connection, starts: &[i64], spreads: &[Spread]) -> Result<(), LedgerError> {
        let query = self.plan.query;
        let mut rows = BucketRows::new(conn, self.plan.containers.as_deref(), query)?;
        let mut active = Active::new(spreads);
        // The values of one container in one bucket; one row of the report may combine several of them.
        let mut together: Vec<(LineKey, [u64; 4])> = Vec::new();
        for &start in starts {
            let Some(step) = self.plan.step(start) else { continue };
            active.advance(start, |spread| {
                let mut all = Vec::new();
                rows.each(spread.bucket, |row, series| {
                    if series == spread.series {
                        all.push(row);
                    }
                })?;
                Ok(all)
            })?;
            if !active.now.is_empty() {
                self.read_spread(step, start, &mut rows, &active.now)?;
                continue;
            }
            rows.each(start, |row, _| {
                if together.first().is_some_and(|(key, _)| key.1 != row.container) {
                    self.flush(&mut together);
                }
                if let Some(key) = self.plan.line_in(step, &row) {
                    match together.iter_mut().find(|(other, _)| *other == key) {
                        Some((_, sum)) => {
                            sum.iter_mut().zip(row.values).for_each(|(total, value)| *total += value);
                        }
                        None => together.push((key, row.values)),
                    }
                }
            })?;
            self.flush(&mut together);
        }
        Ok(())
    }

    /// Reads a bucket that late readings cover.
    fn read_spread(
        &mut self,
        step: usize,
        start: i64,
        rows: &mut BucketRows<'_>,
        active: &[(&Spread, Vec<TrafficRow>)],
    ) -> Result<(), LedgerError> {
        let mut sums: BTreeMap<LineKey, ([u64; 4], bool)> = BTreeMap::new();
        let mut add = |row: &TrafficRow, values: [u64; 4], is_part: bool| {
            let Some(key) = self.plan.line_in(step, row) else { return };
            let (sum, spread) = sums.entry(key).or_default();
            sum.iter_mut().zip(values).for_each(|(total, value)| *total += value);
            *spread |= is_part;
        };
        rows.each(start, |row, series| {
            // The rows of a late reading count as its part.
            if !active.iter().any(|(spread, _)| (spread.bucket, spread.series) == (start, series)) {
                add(&row, row.values, false);
            }
        })?;
        for (spread, late) in active {
            for row in late {
                add(row, row.values.map(|value| spread.part(value, start)), true);
            }
        }
        for (key, (values, is_part)) in sums {
            let place = self.place(key);
            self.percentiles[place].push(values, self.plan.query.basis);
            self.percentiles[place].spread_buckets += u64::from(is_part);
        }
        Ok(())
    }

    fn flush(&mut self, together: &mut Vec<(LineKey, [u64; 4])>) {
        for (key, values) in together.drain(..) {
            let place = self.place(key);
            self.percentiles[place].push(values, self.plan.query.basis);
        }
    }

    fn absorb(&mut self, other: &Self) {
        for (&key, percentiles) in other.keys.iter().zip(&other.percentiles) {
            let place = self.place(key);
            self.percentiles[place].absorb(percentiles);
        }
    }
}

/// Reads the rows of one bucket at a time, with only the columns that the query needs. Decoding columns takes
/// most of the time.
struct BucketRows<'a> {
    statement: rusqlite::Statement<'a>,
    with_family: bool,
    with_packets: bool,
}

impl<'a> BucketRows<'a> {
    fn new(
        conn: &'a Connection,
        containers: Option<&[i64]>,
        query: &ReportQuery,
    ) -> Result<Self, LedgerError> {
        let with_family = query.split.family;
        let with_packets = query.basis != Basis::L3;
        let packets = if with_packets { ", in_packets, out_packets" } else { "" };
        let family = if with_family { ", family" } else { "" };
        let filter = containers.map_or_else(String::new, |containers| {
            let numbers: Vec<String> = containers.iter().map(i64::to_string).collect();
            format!("AND container IN ({})", numbers.join(", "))
        });
        let statement = conn.prepare(&format!(
            "SELECT container, class, in_bytes, out_bytes, stream{packets}{family} FROM {}
             WHERE start = ?1 {filter} ORDER BY container",
            TRAFFIC.table(Level::FiveMinutes),
        ))?;
        Ok(Self { statement, with_family, with_packets })
    }

    /// Passes on the rows of a bucket, each with its series.
    fn each(&mut self, start: i64, mut each: impl FnMut(TrafficRow, i64)) -> Result<(), LedgerError> {
        let mut rows = self.statement.query([start])?;
        while let Some(row) = rows.next()? {
            let value = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
            let (in_packets, out_packets) = if self.with_packets { (value(5)?, value(6)?) } else { (0, 0) };
            let family = if self.with_family { row.get(if self.with_packets { 7 } else { 5 })? } else { 0 };
            let values = [in_packets, value(2)?, out_packets, value(3)?];
            let (container, class) = (row.get(0)?, row.get(1)?);
            each(TrafficRow { start, container, class, family, values }, row.get(4)?);
        }
        Ok(())
    }
}

/// Number of buckets from which another thread is worthwhile.
const BUCKETS_OF_ONE_THREAD: usize = 288;
/// More threads would wait for the disk, and each keeps the largest values of all rows in memory.
const MOST_THREADS: usize = 4;

/// Computes the percentile of every row of a report. Those of closed months are the frozen ones.
pub(crate) fn percentiles(
    ledger: &Ledger,
    view: &Connection,
    plan: &Plan<'_>,
    percent: f64,
) -> Result<HashMap<LineKey, Rates>, LedgerError> {
    let mut rates = HashMap::new();
    let mut open: Vec<(i64, i64)> = Vec::new();
    for (step, &(start, end)) in plan.steps.iter().enumerate() {
        if closed_rates::read(view, plan, step, percent, &mut rates)? {
            continue;
        }
        match open.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => open.push((start, end)),
        }
    }
    for range in open {
        rates.extend(percentiles_of(ledger, view, plan, (percent, range))?);
    }
    Ok(rates)
}

/// Computes the percentiles of the steps within a range from its five-minute rows.
fn percentiles_of(
    ledger: &Ledger,
    view: &Connection,
    plan: &Plan<'_>,
    (percent, (start, end)): (f64, (i64, i64)),
) -> Result<HashMap<LineKey, Rates>, LedgerError> {
    let slice = Slice { level: Level::FiveMinutes, start, end };
    rows::require_kept(view, &ledger.calendar, &slice)?;
    let recorded_end = last_bucket(view)?.map_or(start, |bucket| bucket + FIVE_MINUTES_S);
    let mut statement =
        view.prepare("SELECT start FROM unit WHERE level = 0 AND start >= ?1 AND start < ?2 ORDER BY start")?;
    let starts: Vec<i64> = statement.query_map([start, end], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let spreads = spread::spreads(view, (start, end))?;
    let starts = spread::with_covered(starts, &spreads, (start, end));
    let mut collector = Collector::new(plan, percent, recorded_end);
    let few = plan.containers.as_ref().is_some_and(|containers| containers.len() <= rows::SEEK_AT_MOST);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let threads = threads.min(MOST_THREADS).min(starts.len() / BUCKETS_OF_ONE_THREAD);
    let others = if few || threads < 2 { Vec::new() } else { other_views(ledger, view, threads - 1)? };
    let share = starts.len().div_ceil(others.len() + 1).max(1);
    let mut shares = starts.chunks(share);
    let own = shares.next().unwrap_or_default();
    std::thread::scope(|scope| -> Result<(), LedgerError> {
        let spreads = &spreads;
        let readers: Vec<_> = shares
            .zip(others)
            .map(|(share, conn)| {
                scope.spawn(move || -> Result<Collector<'_>, LedgerError> {
                    let mut collector = Collector::new(plan, percent, recorded_end);
                    collector.read(&conn, share, spreads)?;
                    Ok(collector)
                })
            })
            .collect();
        collector.read(view, own, spreads)?;
        for reader in readers {
            let part = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            collector.absorb(&part);
        }
        Ok(())
    })?;
    let rates = collector.percentiles.iter_mut().map(RowPercentiles::rates);
    Ok(collector.keys.iter().copied().zip(rates).collect())
}

/// Identifies the state of the five-minute rows: every writer changes one of these values.
fn state(conn: &Connection) -> Result<[Option<i64>; 3], LedgerError> {
    Ok([
        conn.query_row("SELECT max(drains) FROM epoch", [], |row| row.get(0))?,
        ids::meta(conn, "dropped_before_5min")?,
        ids::meta(conn, "pva_imports")?,
    ])
}

/// Connections for other threads that see the same rows as `view`. None if a drain happened in between.
fn other_views(ledger: &Ledger, view: &Connection, number: usize) -> Result<Vec<Connection>, LedgerError> {
    let expected = state(view)?;
    let mut views = Vec::new();
    for _ in 0..number {
        let conn = migrate::open_read_only(ledger.path())?;
        // The transaction stays open until the connection is closed.
        conn.execute_batch("BEGIN")?;
        if state(&conn)? != expected {
            return Ok(Vec::new());
        }
        views.push(conn);
    }
    Ok(views)
}
