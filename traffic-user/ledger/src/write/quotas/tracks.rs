//! Tracks: made and corrected from reports, ended with their periods, and the crossings of their thresholds.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row as SqlRow, TransactionBehavior, params};
use traffic_quota::{Change, Direction, Span, Used};

use super::{
    BY_REPORTS, FOLLOWED, NUMBER, classes, number,
    row::{Row, from_json},
};
use crate::{digest, error::LedgerError, ids, schema, store::Ledger, write::clock};

/// How long a track is kept after its period, in seconds. Corrections of older months cross nothing.
const KEPT_S: i64 = 400 * 86_400;

/// A quota of a container in a period, and what a report says is used of it.
#[derive(Clone, Debug, PartialEq)]
pub struct QuotaLook {
    /// Name of the quota.
    pub quota: String,
    /// The container's label.
    pub container: String,
    /// The period.
    pub span: Span,
    /// The period in words.
    pub label: String,
    /// Whether the period moves on with each day.
    pub moves: bool,
    /// What counts.
    pub direction: Direction,
    /// The classes that count; empty for all that are billed.
    pub classes: Vec<u8>,
    /// Whether it is a rate at a percentile.
    pub is_rate: bool,
    /// Whether several containers have it together: what a drain books of one is not all of it.
    pub is_shared: bool,
    /// Bytes or bits per second; `None` without a limit.
    pub allowance: Option<u64>,
    /// Percents with the names of their actions, in ascending order.
    pub thresholds: Vec<(u16, Vec<String>)>,
    /// What is used; `None` if that cannot be read now.
    pub used: Option<Used>,
}

impl QuotaLook {
    pub(super) const fn period(&self) -> i64 {
        if self.moves { 0 } else { self.span.start_s }
    }
}

/// A track of a period that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastTrack {
    /// Its number.
    pub track: i64,
    /// The container's label.
    pub container: String,
    /// The period.
    pub span: Span,
    /// The classes that count; empty for all that are billed.
    pub classes: Vec<u8>,
}

/// What the tracks need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaState {
    /// The change number of the figures.
    pub number: i64,
    /// Whether the sums are those of the figures.
    pub is_current: bool,
    /// The time of the last reading that was followed, in seconds since the Unix epoch.
    pub followed_s: Option<i64>,
    /// Number of tracks whose period has not ended.
    pub open: u64,
    /// The first end of their periods, in seconds since the Unix epoch.
    pub next_end_s: Option<i64>,
    /// The change number of the last change of a container or a name.
    pub containers: i64,
    /// Tracks of past periods whose figures may have changed.
    pub past: Vec<PastTrack>,
}

/// A threshold that was reached, or is not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaCrossing {
    /// Its place in the order of all crossings.
    pub sequence: i64,
    /// The id that stays, also if an older ledger finds it again.
    pub id: String,
    /// Name of the quota.
    pub quota: String,
    /// The container's label.
    pub container: String,
    /// Its id, which a platform knows it by. If it was retired, the next one may have it.
    pub container_id: String,
    /// What people call it now.
    pub name: Option<String>,
    /// The period.
    pub span: Span,
    /// The period in words.
    pub label: String,
    /// The threshold.
    pub percent: u16,
    /// What happened.
    pub change: Change,
    /// Whether it is a rate at a percentile, in bits per second.
    pub is_rate: bool,
    /// What was used then.
    pub used: u64,
    /// What could be used then; 0 without a limit.
    pub allowance: u64,
    /// When it was found.
    pub made: Timestamp,
    /// Names of the actions to run for it.
    pub actions: Vec<String>,
}

impl Ledger {
    /// What the tracks of quotas need.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn quota_state(&self) -> Result<QuotaState, LedgerError> {
        let view = self.conn.unchecked_transaction()?;
        let number = number(&view)?;
        let right = ids::meta::<i64>(&view, NUMBER)?;
        let open = "SELECT count(*), min(end) FROM quota_track WHERE NOT ended";
        let (open, next_end_s): (i64, _) = view.query_row(open, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let containers =
            "SELECT coalesce(max(rev), 0) FROM outbox WHERE name IN ('container', 'container_name')";
        let containers = view.query_row(containers, [], |row| row.get(0))?;
        let past = match right {
            Some(right) if right != number => past_since(&view, right)?,
            _ => Vec::new(),
        };
        Ok(QuotaState {
            number,
            is_current: right == Some(number),
            followed_s: ids::meta(&view, FOLLOWED)?,
            open: open.cast_unsigned(),
            next_end_s,
            containers,
            past,
        })
    }

    /// Brings the tracks to what reports say, and writes the crossings that this finds: what is over ends, in the
    /// order of the periods; what is no longer a quota is undone; then come the running periods.
    ///
    /// `looks` are of all periods since the last reading that was followed, in their order. `state` must be from before the reports. Returns false, and changes nothing, if figures were changed since.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn follow_quotas(
        &mut self,
        state: &QuotaState,
        looks: &[QuotaLook],
        past: &[(i64, Used)],
    ) -> Result<bool, LedgerError> {
        self.check_files()?;
        let Some(now) = clock::last_reading(&self.conn)? else { return Ok(true) };
        let now_s = now.as_second();
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if number(&transaction)? != state.number {
            return Ok(false);
        }
        for (track, used) in past {
            let row = Row::load(&transaction, *track)?;
            row.set_used(&transaction, (used.incoming, used.outgoing))?;
            row.follow(&transaction, row.direction.of(*used), now_s)?;
        }
        let (over, running): (Vec<_>, Vec<_>) = numbered(&transaction, looks)?
            .into_iter()
            .partition(|(_, look)| !look.moves && look.span.end_s <= now_s);
        for (container, look) in over {
            if let Some(mut row) = Row::of_past(&transaction, container, look)? {
                row.take(&transaction, look, now_s)?;
                row.leave(&transaction, now_s)?;
            }
        }
        let wanted: HashSet<_> = running
            .iter()
            .map(|(container, look)| (look.quota.as_str(), *container, look.period()))
            .collect();
        for mut row in Row::open(&transaction)? {
            if !wanted.contains(&(row.quota.as_str(), row.container, row.period)) {
                row.leave(&transaction, now_s)?;
            }
        }
        // Without figures, a track stays as it is.
        for (container, look) in running.iter().filter(|(_, look)| look.used.is_some()) {
            Row::make(&transaction, *container, look)?.take(&transaction, look, now_s)?;
        }
        prune(&transaction, now_s)?;
        ids::set_meta(&transaction, NUMBER, state.number)?;
        ids::set_meta(&transaction, FOLLOWED, now_s)?;
        digest::commit(transaction)?;
        Ok(true)
    }

    /// The crossings after a place in their order, at most `most`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn quota_crossings(&self, after: i64, most: u32) -> Result<Vec<QuotaCrossing>, LedgerError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT q.id, q.name, q.quota, c.label, n.name, q.start, q.end, q.label, q.percent, q.change, q.is_rate,
             q.used, q.allowance, q.made, q.actions, c.name FROM quota_crossing q JOIN container c ON c.id = q.container
             LEFT JOIN container_name n ON n.container = c.id AND n.until IS NULL
             WHERE q.id > ?1 ORDER BY q.id LIMIT ?2",
        )?;
        let rows = statement.query_map(params![after, most], crossing)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Ledger {
    /// The actions that are in force for a container now, by its id: of each threshold that is crossed in a period that has
    /// not ended, the name of the quota, the percent, and the name of an action.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn quota_actions_in_force(&self, id: &str) -> Result<Vec<(String, u16, String)>, LedgerError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT t.quota, h.percent, h.actions FROM quota_track t JOIN quota_threshold h ON h.track = t.id
             JOIN container c ON c.id = t.container WHERE c.name = ?1 AND NOT t.ended AND h.is_crossed
             ORDER BY t.quota, h.percent",
        )?;
        let rows = statement.query_map([id], |row| Ok((row.get(0)?, row.get(1)?, from_json(row, 2)?)))?;
        let mut all = Vec::new();
        for row in rows {
            let (quota, percent, actions): (String, u16, Vec<String>) = row?;
            all.extend(actions.into_iter().map(|action| (quota.clone(), percent, action)));
        }
        Ok(all)
    }

    /// The last crossings, at most `most`, in their order.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn last_quota_crossings(&self, most: u32) -> Result<Vec<QuotaCrossing>, LedgerError> {
        let last = "SELECT coalesce(max(id), 0) FROM quota_crossing";
        let last: i64 = self.conn.query_row(last, [], |row| row.get(0))?;
        self.quota_crossings(last.saturating_sub(i64::from(most)), most)
    }

    /// The id of the crossing at a place in their order; `None` if there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn quota_crossing_id(&self, sequence: i64) -> Result<Option<String>, LedgerError> {
        let find = "SELECT name FROM quota_crossing WHERE id = ?1";
        Ok(self.conn.prepare_cached(find)?.query_row([sequence], |row| row.get(0)).optional()?)
    }
}

fn crossing(row: &SqlRow<'_>) -> rusqlite::Result<QuotaCrossing> {
    let change = row.get_ref(9)?.as_str()?;
    let change =
        Change::ALL.iter().find(|(_, name)| *name == change).map_or(Change::Reached, |(found, _)| *found);
    Ok(QuotaCrossing {
        sequence: row.get(0)?,
        id: row.get(1)?,
        quota: row.get(2)?,
        container: row.get(3)?,
        container_id: row.get(15)?,
        name: row.get(4)?,
        span: Span { start_s: row.get(5)?, end_s: row.get(6)? },
        label: row.get(7)?,
        percent: row.get(8)?,
        change,
        is_rate: row.get(10)?,
        used: row.get::<_, i64>(11)?.cast_unsigned(),
        allowance: row.get::<_, i64>(12)?.cast_unsigned(),
        made: schema::time(row, 13)?,
        actions: from_json(row, 14)?,
    })
}

/// The ended tracks whose figures may have changed since a change number.
fn past_since(conn: &Connection, number: i64) -> Result<Vec<PastTrack>, LedgerError> {
    let first: Option<i64> = conn.query_row(
        "SELECT min(at) FROM (
             SELECT part AS at FROM outbox WHERE rev > ?1 AND name IN ('5min', 'day')
             UNION ALL SELECT p.start FROM outbox o JOIN adjustment a ON a.id = o.part
                 JOIN period p ON p.id = a.period WHERE o.rev > ?1 AND o.name = 'adjustment'
             UNION ALL SELECT p.start FROM outbox o JOIN period p ON p.id = o.part
                 WHERE o.rev > ?1 AND o.name = 'period')",
        [number],
        |row| row.get(0),
    )?;
    let Some(first) = first else { return Ok(Vec::new()) };
    let mut statement = conn.prepare_cached(
        "SELECT t.id, c.label, t.start, t.end, t.classes FROM quota_track t JOIN container c ON c.id = t.container
         WHERE t.end > ?1 AND t.ended AND NOT t.is_rate AND t.period <> 0 AND t.allowance IS NOT NULL
         AND t.classes <> ?2
         ORDER BY t.end, t.quota, t.container",
    )?;
    let rows = statement.query_map(params![first, BY_REPORTS], |row| {
        Ok(PastTrack {
            track: row.get(0)?,
            container: row.get(1)?,
            span: Span { start_s: row.get(2)?, end_s: row.get(3)? },
            classes: classes(row.get_ref(4)?.as_str()?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Looks with the numbers of their containers. One that the ledger does not know has used nothing.
fn numbered<'l>(conn: &Connection, looks: &'l [QuotaLook]) -> Result<Vec<(i64, &'l QuotaLook)>, LedgerError> {
    let mut statement = conn.prepare_cached("SELECT label, id FROM container WHERE retired IS NULL")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let numbers: HashMap<String, i64> = rows.collect::<Result<_, _>>()?;
    Ok(looks.iter().filter_map(|look| Some((*numbers.get(&look.container)?, look))).collect())
}

/// Forgets the tracks of periods that were over long ago. Their crossings stay.
fn prune(conn: &Connection, now_s: i64) -> Result<(), LedgerError> {
    let old = "SELECT id FROM quota_track WHERE end < ?1 AND ended";
    if conn.prepare_cached(old)?.exists([now_s - KEPT_S])? {
        for (table, key) in [("quota_used", "track"), ("quota_threshold", "track"), ("quota_track", "id")] {
            conn.execute(&format!("DELETE FROM {table} WHERE {key} IN ({old})"), [now_s - KEPT_S])?;
        }
    }
    Ok(())
}
