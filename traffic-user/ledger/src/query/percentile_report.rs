//! Percentiles of a report, over the five-minute rates of each row. Several threads read a day each if there
//! are many.

use std::collections::HashMap;

use rusqlite::Connection;
use serde::Serialize;
use traffic_model::calendar::{FIVE_MINUTES_S, Level, five_minutes_of};

use crate::{
    closing::closed_rates,
    days::read,
    error::LedgerError,
    figures::Basis,
    ids, migrate,
    query::{
        day_rates::{Collector, Day},
        percentile::Percentile,
        query_plan::{LineKey, Plan},
        rows::{self, Slice},
        series, spread, stored,
    },
    store::Ledger,
    time::borders::Borders,
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

/// Refuses what is no percentile.
pub(crate) fn require_percent(percent: f64) -> Result<(), LedgerError> {
    if percent > 0.0 && percent <= 100.0 {
        return Ok(());
    }
    Err(LedgerError::Query("the percentile must be above 0 and at most 100".to_owned()))
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
pub(crate) struct RowPercentiles {
    incoming: Percentile,
    outgoing: Percentile,
    total: Percentile,
    buckets: u64,
    pub spread_buckets: u64,
}

impl RowPercentiles {
    pub fn new(percent: f64, buckets: u64) -> Self {
        let new = || Percentile::new(percent, buckets);
        Self { incoming: new(), outgoing: new(), total: new(), buckets, spread_buckets: 0 }
    }

    pub fn push(&mut self, values: [u64; 4], basis: Basis) {
        let [in_packets, in_bytes, out_packets, out_bytes] = values;
        let (incoming, outgoing) = (basis.bytes(in_packets, in_bytes), basis.bytes(out_packets, out_bytes));
        self.incoming.push(incoming);
        self.outgoing.push(outgoing);
        self.total.push(incoming.saturating_add(outgoing));
    }

    pub fn absorb(&mut self, other: &Self) {
        self.incoming.absorb(&other.incoming);
        self.outgoing.absorb(&other.outgoing);
        self.total.absorb(&other.total);
        self.spread_buckets += other.spread_buckets;
    }

    fn rates(&mut self) -> Rates {
        let rate = |values: &mut Percentile| Some(stored::bits_per_second(values.value()));
        Rates {
            incoming: rate(&mut self.incoming),
            outgoing: rate(&mut self.outgoing),
            total: rate(&mut self.total),
            buckets: self.buckets,
            spread_buckets: self.spread_buckets,
        }
    }
}

/// More threads would wait for the disk, and each keeps the largest values of all rows in memory.
const MOST_THREADS: usize = 4;
/// How many days of a container are worth a thread: opening the file takes about as long as reading ten.
const WORTH_A_THREAD: usize = 200;

#[cfg(test)]
thread_local! {
    /// Whether everything is worth a thread.
    pub(crate) static SHARES_ALWAYS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Computes the percentile of every row of a report. Those of closed months are the frozen ones.
pub(crate) fn percentiles(
    ledger: &Ledger,
    view: &Connection,
    plan: &Plan<'_>,
    percent: f64,
) -> Result<HashMap<LineKey, Rates>, LedgerError> {
    if let Some(rows) = ledger.stored.as_deref() {
        return stored::rates(rows, view, plan, percent);
    }
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
    let late = spread::late(view, (start, end))?;
    let rows: (Option<i64>, Option<i64>) = view
        .prepare_cached("SELECT min(start), max(end) FROM unit WHERE level = 0")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(first), Some(last)) = rows else { return Ok(HashMap::new()) };
    // A late reading covers time before it, and a clock that was ahead left rows after the last one.
    let first = late.values().map(|spread| spread.start).fold(first, i64::min);
    let borders = Borders::new(view, &ledger.calendar);
    let days = borders.cover(Level::Day, start.max(five_minutes_of(first)), end.min(last))?;
    let days: Vec<Day> =
        days.into_iter().map(|day| Day { start: day.0, range: (day.0.max(start), day.1.min(end)) }).collect();
    let mut collector = Collector::new(plan, percent, recorded_end, &late);
    let threads = threads_for(view, plan, days.len())?;
    let others = if threads < 2 { Vec::new() } else { other_views(ledger, view, threads - 1)? };
    let share = days.len().div_ceil(others.len() + 1).max(1);
    let mut shares = days.chunks(share);
    let own = shares.next().unwrap_or_default();
    std::thread::scope(|scope| -> Result<(), LedgerError> {
        let late = &late;
        let readers: Vec<_> = shares
            .zip(others)
            .map(|(share, conn)| {
                scope.spawn(move || -> Result<Collector<'_>, LedgerError> {
                    let mut collector = Collector::new(plan, percent, recorded_end, late);
                    collector.read(&conn, share)?;
                    Ok(collector)
                })
            })
            .collect();
        collector.read(view, own)?;
        for reader in readers {
            let part = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            collector.absorb(&part);
        }
        Ok(())
    })?;
    let rates = collector.percentiles.iter_mut().map(RowPercentiles::rates);
    Ok(collector.keys.iter().copied().zip(rates).collect())
}

/// How many threads read so many days.
fn threads_for(view: &Connection, plan: &Plan<'_>, days: usize) -> Result<usize, LedgerError> {
    if plan.containers.as_ref().is_some_and(|containers| containers.len() <= read::SEEK_AT_MOST) {
        return Ok(1);
    }
    let containers = usize::try_from(series::known_containers(view)?).unwrap_or(usize::MAX);
    let worth = days.saturating_mul(containers) / WORTH_A_THREAD;
    #[cfg(test)]
    let worth = if SHARES_ALWAYS.get() { MOST_THREADS } else { worth };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    Ok(threads.min(MOST_THREADS).min(days).min(worth))
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
        let open = if ledger.beside_writer { migrate::open_beside } else { migrate::open_read_only };
        let mut conn = open(ledger.path())?;
        ledger.limits.watch(&mut conn)?;
        // The transaction stays open until the connection is closed.
        conn.execute_batch("BEGIN")?;
        if state(&conn)? != expected {
            return Ok(Vec::new());
        }
        views.push(conn);
    }
    Ok(views)
}
