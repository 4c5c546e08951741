//! What is used of quotas, and the thresholds that are crossed, as rows.
//!
//! A *track* is a quota of a container in a period, with everything that finding crossings needs. Whoever knows
//! the file with the quotas makes the tracks ([`crate::Ledger::follow_quotas`]), with sums from ordinary reports.
//! From then on each drain adds to the running sums what it books, and writes crossings in its own transaction. So
//! a drain reads no other rows, and does not know the file: one that is broken or missing cannot stop it.
//!
//! The sums hold as long as nothing but drains changes figures. Every transaction that changes any has a change
//! number (see [`crate::outbox`]), and `meta` has the number up to which the sums are right. After a correction,
//! an import, an attribution or a rollup it is another one: drains then leave the sums alone, until
//! [`crate::Ledger::follow_quotas`] has taken them from reports again. Crossings found there are written in the
//! transaction that writes the sums.

mod row;
mod tracks;

use std::collections::HashMap;

use rusqlite::{Connection, Transaction, params};
use traffic_quota::{Direction, Look, Sum, Used};

use crate::{error::LedgerError, ids, outbox, store::Ledger, write::clock};

pub use tracks::{PastTrack, QuotaCrossing, QuotaLook, QuotaState};

/// Key of the change number up to which the sums are right.
const NUMBER: &str = "quota_number";
/// Key of the time of the last reading that was followed, in seconds since the Unix epoch.
const FOLLOWED: &str = "quota_followed";

/// The classes of a track whose figures are those of several containers, as a report has them. No drain adds to it.
const BY_REPORTS: &str = "reports";

/// Bytes as SQLite has them. No figure comes near the limit.
fn stored(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The last change number.
fn number(conn: &Connection) -> Result<i64, LedgerError> {
    Ok(conn.prepare_cached("SELECT number FROM changes")?.query_row([], |row| row.get(0))?)
}

fn direction(name: &str) -> Direction {
    Direction::ALL.iter().find(|(_, known)| *known == name).map_or(Direction::Sum, |(found, _)| *found)
}

fn classes(text: &str) -> Vec<u8> {
    text.split(',').filter_map(|class| class.parse().ok()).collect()
}

/// The running sums of the tracks that a drain adds to.
#[derive(Debug)]
pub(crate) struct RunningSums {
    /// The change number before the drain.
    number: i64,
    tracks: Vec<RunningSum>,
    /// What the drain books, by container: class, bytes in, bytes out.
    booked: HashMap<i64, Vec<(u8, u64, u64)>>,
}

#[derive(Debug)]
struct RunningSum {
    track: i64,
    container: i64,
    direction: Direction,
    classes: Vec<u8>,
    used: Used,
    /// From which amount on a threshold is newly reached.
    next: Option<u64>,
}

impl RunningSums {
    /// The sums of the periods that contain a bucket; `None` if there are no quotas, or their sums are not right
    /// any more.
    pub fn load(conn: &Connection, bucket_s: i64) -> Result<Option<Self>, LedgerError> {
        let Some(right) = ids::meta::<i64>(conn, NUMBER)? else { return Ok(None) };
        let number = number(conn)?;
        if right != number {
            return Ok(None);
        }
        let mut statement = conn.prepare_cached(
            "SELECT t.id, t.container, t.direction, t.classes, u.in_bytes, u.out_bytes, u.next
             FROM quota_track t JOIN quota_used u ON u.track = t.id
             WHERE t.end > ?1 AND t.start <= ?1 AND NOT t.is_rate AND t.allowance IS NOT NULL AND t.classes <> ?2",
        )?;
        let rows = statement.query_map(params![bucket_s, BY_REPORTS], |row| {
            let next: Option<i64> = row.get(6)?;
            Ok(RunningSum {
                track: row.get(0)?,
                container: row.get(1)?,
                direction: direction(row.get_ref(2)?.as_str()?),
                classes: classes(row.get_ref(3)?.as_str()?),
                used: Used {
                    incoming: row.get::<_, i64>(4)?.cast_unsigned(),
                    outgoing: row.get::<_, i64>(5)?.cast_unsigned(),
                    together: None,
                },
                next: next.map(i64::cast_unsigned),
            })
        })?;
        let tracks = rows.collect::<Result<_, _>>()?;
        Ok(Some(Self { number, tracks, booked: HashMap::new() }))
    }

    /// Notes what is booked of a container and class: packets and bytes in, packets and bytes out.
    pub fn add(&mut self, container: i64, class: u8, [_, incoming, _, outgoing]: [u64; 4]) {
        if !self.tracks.is_empty() && (incoming > 0 || outgoing > 0) {
            self.booked.entry(container).or_default().push((class, incoming, outgoing));
        }
    }

    /// Adds it to the sums, and writes the crossings. If the drain changed other figures too, the sums are left
    /// to be taken from reports.
    pub fn store(
        mut self,
        transaction: &Transaction<'_>,
        bucket_s: i64,
        now_s: i64,
    ) -> Result<(), LedgerError> {
        outbox::write_noted(transaction)?;
        let mut other = transaction.prepare_cached(
            "SELECT 1 FROM outbox WHERE rev > ?1
             AND (name = '5min' AND part <> ?2 OR name IN ('period', 'adjustment', 'attribution'))",
        )?;
        if other.exists([self.number, bucket_s])? {
            return Ok(());
        }
        let mut update = transaction
            .prepare_cached("UPDATE quota_used SET in_bytes = ?2, out_bytes = ?3 WHERE track = ?1")?;
        for sum in &mut self.tracks {
            let Some(booked) = self.booked.get(&sum.container) else { continue };
            let before = sum.used;
            for (class, incoming, outgoing) in booked {
                let counts = if sum.classes.is_empty() { *class != 0 } else { sum.classes.contains(class) };
                if counts {
                    sum.used.incoming = sum.used.incoming.saturating_add(*incoming);
                    sum.used.outgoing = sum.used.outgoing.saturating_add(*outgoing);
                }
            }
            if sum.used == before {
                continue;
            }
            update.execute(params![sum.track, stored(sum.used.incoming), stored(sum.used.outgoing)])?;
            let amount = sum.direction.of(sum.used);
            if sum.next.is_some_and(|next| amount >= next) {
                row::Row::load(transaction, sum.track)?.follow(transaction, amount, now_s)?;
            }
        }
        let changed = "SELECT EXISTS (SELECT 1 FROM outbox WHERE rev > ?1)";
        let changed: i64 = transaction.prepare_cached(changed)?.query_row([self.number], |row| row.get(0))?;
        if changed > 0 {
            // The transaction gets the next number.
            ids::set_meta(transaction, NUMBER, self.number + changed)?;
        }
        Ok(())
    }
}

impl Ledger {
    /// What is used of the quotas whose next threshold drains look for, as of the last reading. Empty if the sums are
    /// not right now.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn quota_sums(&self) -> Result<Vec<Sum>, LedgerError> {
        let view = self.conn.unchecked_transaction()?;
        let Some(last) = clock::last_reading(&view)? else { return Ok(Vec::new()) };
        let Some(sums) = RunningSums::load(&view, last.as_second())? else { return Ok(Vec::new()) };
        let mut statement = view.prepare_cached("SELECT id, name FROM container WHERE retired IS NULL")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let ids: HashMap<i64, String> = rows.collect::<Result<_, _>>()?;
        let sum = |sum: RunningSum| {
            let RunningSum { container, direction, classes, used, next, .. } = sum;
            Some(Sum { container: ids.get(&container)?.clone(), direction, classes, used, next: next? })
        };
        Ok(sums.tracks.into_iter().filter_map(sum).collect())
    }
}

/// What was seen of a track.
fn look(used: u64, allowance: Option<u64>) -> Option<Look> {
    allowance.map(|allowance| Look { used, allowance })
}
