//! Percentiles of a report: five-minute rates of each line, taken bucket by bucket as they come from the file.

use std::collections::HashMap;

use rusqlite::Connection;
use serde::Serialize;

use super::bucket::{FIVE_MINUTES_S, Level};
use super::error::LedgerError;
use super::figures::Basis;
use super::percentile::Percentile;
use super::query::{self, Slice};
use super::report::{LineKey, Plan};
use super::rollup::last_bucket;
use super::store::Ledger;

/// Bits per second at a percentile, each on its own: the one of the sum is not the sum of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rates {
    /// To the container.
    #[serde(rename = "in_bits_per_s", skip_serializing_if = "Option::is_none")]
    pub incoming: Option<u64>,
    /// From the container.
    #[serde(rename = "out_bits_per_s", skip_serializing_if = "Option::is_none")]
    pub outgoing: Option<u64>,
    /// Both added up in each bucket.
    #[serde(rename = "total_bits_per_s", skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Buckets that were ranked, zero ones included.
    pub buckets: u64,
}

impl Rates {
    /// The part of a line about the incoming direction.
    pub(super) fn only_incoming(self) -> Self {
        Self { outgoing: None, total: None, ..self }
    }

    /// The part of a line about the outgoing direction.
    pub(super) fn only_outgoing(self) -> Self {
        Self { incoming: None, total: None, ..self }
    }
}

/// The rule in words.
pub(super) fn rule(percent: f64) -> String {
    format!(
        "percentile {percent}: nearest rank over the rates of five-minute buckets, buckets without traffic counted as \
         zero, up to the last reading; in, out and their sum are ranked each for itself"
    )
}

/// The three series of one line.
struct Series {
    incoming: Percentile,
    outgoing: Percentile,
    total: Percentile,
    buckets: u64,
}

impl Series {
    fn new(percent: f64, buckets: u64) -> Self {
        let new = || Percentile::new(percent, buckets);
        Self { incoming: new(), outgoing: new(), total: new(), buckets }
    }

    fn push(&mut self, values: [u64; 4], basis: Basis) {
        let [in_packets, in_bytes, out_packets, out_bytes] = values;
        let (incoming, outgoing) = (basis.bytes(in_packets, in_bytes), basis.bytes(out_packets, out_bytes));
        self.incoming.push(incoming);
        self.outgoing.push(outgoing);
        self.total.push(incoming.saturating_add(outgoing));
    }

    fn rates(&self) -> Rates {
        // Bytes of five minutes to bits of a second, rounded down.
        let rate = |series: &Percentile| {
            let bits = u128::from(series.value()) * 8 / u128::from(FIVE_MINUTES_S.unsigned_abs());
            Some(u64::try_from(bits).unwrap_or(u64::MAX))
        };
        Rates {
            incoming: rate(&self.incoming),
            outgoing: rate(&self.outgoing),
            total: rate(&self.total),
            buckets: self.buckets,
        }
    }
}

/// The percentile of every line of a report.
pub(super) fn percentiles(
    ledger: &Ledger,
    view: &Connection,
    plan: &Plan<'_>,
    percent: f64,
) -> Result<HashMap<LineKey, Rates>, LedgerError> {
    let (start, end) = plan.range;
    let slice = Slice { level: Level::FiveMinutes, start, end };
    query::require_kept(view, &ledger.calendar, &slice)?;
    let recorded_end = last_bucket(view)?.map_or(start, |bucket| bucket + FIVE_MINUTES_S);
    let buckets_of = |step: usize| {
        let (start, end) = plan.steps[step];
        let end = end.min(recorded_end.max(start));
        ((end - start) / FIVE_MINUTES_S).unsigned_abs()
    };
    let mut series: HashMap<LineKey, Series> = HashMap::new();
    // The rows of one bucket and container come together; a line may be made of several of them.
    let mut together: Vec<(LineKey, [u64; 4])> = Vec::new();
    let mut at = None;
    let mut flush = |together: &mut Vec<(LineKey, [u64; 4])>| {
        for (key, values) in together.drain(..) {
            series
                .entry(key)
                .or_insert_with(|| Series::new(percent, buckets_of(key.0)))
                .push(values, plan.query.basis);
        }
    };
    query::rows(view, &slice, plan.containers.as_deref(), |row| {
        if at != Some((row.start, row.container)) {
            flush(&mut together);
            at = Some((row.start, row.container));
        }
        if let Some(key) = plan.line(&row) {
            match together.iter_mut().find(|(other, _)| *other == key) {
                Some((_, sum)) => sum.iter_mut().zip(row.values).for_each(|(total, value)| *total += value),
                None => together.push((key, row.values)),
            }
        }
        Ok(())
    })?;
    flush(&mut together);
    Ok(series.into_iter().map(|(key, series)| (key, series.rates())).collect())
}
