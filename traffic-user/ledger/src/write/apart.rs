//! What is counted and also reported apart: packets in small segments.
//!
//! They are in their class already. A record of each interface and day says how many, because the size of the
//! segments is only the sender's claim, and a neighbour's bill may consist of them. It is kept among the gaps, so
//! that every report and statement of the time shows it.

use rusqlite::params;
use traffic_common::Tally;
use traffic_model::{ContainerId, calendar::Level};

use crate::{
    error::LedgerError,
    write::{
        drain::Drain,
        gaps::{self, Gap, GapLinks, GapReason, GapSize},
    },
};

impl Drain<'_> {
    /// Adds what was counted in small segments since the last drain to the day's records.
    pub(super) fn record_small_segments(&mut self) -> Result<(), LedgerError> {
        for counter in &self.snapshot.interfaces {
            let (incoming, outgoing) =
                (counter.passed.incoming.small_segments, counter.passed.outgoing.small_segments);
            if (incoming.packets, outgoing.packets) == (0, 0) {
                continue;
            }
            // The kernel allows neither a space nor a slash in a name.
            let life = format!("small_segments {} {} {}", self.epoch, counter.generation, counter.interface);
            let new = size(incoming, outgoing).since(&self.recorded(&life, None)?);
            if new == GapSize::default() {
                continue;
            }
            let once = format!("{life} {}", self.day()?);
            let of_day = self.recorded(&life, Some(&once))?;
            let container = counter.container.as_ref().map(ContainerId::as_str);
            let now = self.times.now;
            let gap = Gap {
                node: None,
                start: Some(self.times.same_epoch.unwrap_or(now).min(now)),
                end: now,
                reason: GapReason::SmallSegments,
                interface: Some(counter.interface.clone()),
                container: container.map(str::to_owned),
                size: Some(of_day.plus(&new)),
                detail: None,
            };
            if !gaps::extend(self.transaction, &once, &gap)? {
                let number = Some(self.container_of(container)?).filter(|&number| number != 0);
                gaps::insert(self.transaction, now, &gap, GapLinks { container: number, once: Some(&once) })?;
                self.gaps.push(gap);
            }
        }
        Ok(())
    }

    /// The day that this drain is booked in.
    fn day(&self) -> Result<String, LedgerError> {
        let sql = "SELECT name FROM border WHERE level = ?1 AND start <= ?2 AND end > ?2";
        let mut statement = self.transaction.prepare_cached(sql)?;
        Ok(statement.query_row(params![Level::Day as u8, self.bucket.bucket_s], |row| row.get(0))?)
    }

    /// What is recorded of a life of an interface, on all days or on one.
    fn recorded(&self, life: &str, once: Option<&str>) -> Result<GapSize, LedgerError> {
        // All names that begin with the life's and a space.
        let (from, to) = once.map_or_else(
            || (format!("{life} "), format!("{life}!")),
            |once| (once.to_owned(), format!("{once} ")),
        );
        let sql = "SELECT sum(in_skbs), sum(in_skb_bytes), sum(out_skbs), sum(out_skb_bytes) FROM gap
                   WHERE once >= ?1 AND once < ?2";
        let mut statement = self.transaction.prepare_cached(sql)?;
        let size = statement.query_row([from, to], |row| {
            let value = |at| row.get::<_, Option<i64>>(at).map(|sum| sum.unwrap_or(0).cast_unsigned());
            Ok(GapSize {
                in_skbs: value(0)?,
                in_skb_bytes: value(1)?,
                out_skbs: value(2)?,
                out_skb_bytes: value(3)?,
            })
        })?;
        Ok(size)
    }
}

const fn size(incoming: Tally, outgoing: Tally) -> GapSize {
    GapSize {
        in_skbs: incoming.packets,
        in_skb_bytes: incoming.bytes,
        out_skbs: outgoing.packets,
        out_skb_bytes: outgoing.bytes,
    }
}
