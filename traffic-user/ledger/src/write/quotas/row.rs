//! A track as it is stored: what a look makes of it, its crossings and its end.

use rusqlite::{Connection, OptionalExtension as _, Row as SqlRow, Transaction, params};
use traffic_quota::{Change, Crossing, Direction, Look, Span, Subject, Track, Used};

use super::{BY_REPORTS, direction, look, stored, tracks::QuotaLook};
use crate::{error::LedgerError, ids};

/// A value as JSON. A text that is none has nothing: no drain fails for that, and the audit finds it.
pub(super) fn from_json<T: serde::de::DeserializeOwned + Default>(
    row: &SqlRow<'_>,
    at: usize,
) -> rusqlite::Result<T> {
    Ok(serde_json::from_str(row.get_ref(at)?.as_str()?).unwrap_or_default())
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, LedgerError> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()).into())
}

/// A track as it is stored.
#[derive(Debug)]
pub(super) struct Row {
    id: i64,
    pub quota: String,
    pub container: i64,
    pub period: i64,
    span: Span,
    label: String,
    pub direction: Direction,
    classes: String,
    is_rate: bool,
    allowance: Option<u64>,
    thresholds: Vec<(u16, Vec<String>)>,
    ended: bool,
}

const COLUMNS: &str =
    "id, quota, container, period, start, end, label, direction, classes, is_rate, allowance,
    thresholds, ended";

impl Row {
    fn read(row: &SqlRow<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            quota: row.get(1)?,
            container: row.get(2)?,
            period: row.get(3)?,
            span: Span { start_s: row.get(4)?, end_s: row.get(5)? },
            label: row.get(6)?,
            direction: direction(row.get_ref(7)?.as_str()?),
            classes: row.get(8)?,
            is_rate: row.get(9)?,
            allowance: row.get::<_, Option<i64>>(10)?.map(i64::cast_unsigned),
            thresholds: from_json(row, 11)?,
            ended: row.get(12)?,
        })
    }

    pub fn load(conn: &Connection, track: i64) -> Result<Self, LedgerError> {
        let sql = format!("SELECT {COLUMNS} FROM quota_track WHERE id = ?1");
        Ok(conn.prepare_cached(&sql)?.query_row([track], Self::read)?)
    }

    /// Those whose end was not noted, in the order of their periods.
    pub fn open(conn: &Connection) -> Result<Vec<Self>, LedgerError> {
        let sql = format!("SELECT {COLUMNS} FROM quota_track WHERE NOT ended ORDER BY end, quota, container");
        let mut statement = conn.prepare_cached(&sql)?;
        let rows = statement.query_map([], Self::read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A track as a look has it.
    fn wanted(container: i64, look: &QuotaLook) -> Self {
        Self {
            id: 0,
            quota: look.quota.clone(),
            container,
            period: look.period(),
            span: look.span,
            label: look.label.clone(),
            direction: look.direction,
            classes: match look.is_shared {
                true => BY_REPORTS.to_owned(),
                false => look.classes.iter().map(u8::to_string).collect::<Vec<_>>().join(","),
            },
            is_rate: look.is_rate,
            allowance: look.allowance,
            thresholds: look.thresholds.clone(),
            ended: false,
        }
    }

    fn find(conn: &Connection, container: i64, look: &QuotaLook) -> Result<Option<Self>, LedgerError> {
        let sql =
            format!("SELECT {COLUMNS} FROM quota_track WHERE quota = ?1 AND container = ?2 AND period = ?3");
        let key = params![look.quota, container, look.period()];
        Ok(conn.prepare_cached(&sql)?.query_row(key, Self::read).optional()?)
    }

    /// The track of a look at a period that is over; `None` if its end was noted. Nobody may have looked while it ran.
    pub fn of_past(conn: &Connection, container: i64, look: &QuotaLook) -> Result<Option<Self>, LedgerError> {
        match Self::find(conn, container, look)? {
            Some(found) => Ok(Some(found).filter(|found| !found.ended)),
            None => Self::make(conn, container, look).map(Some),
        }
    }

    /// The track of a look at a running period, as the look has it.
    pub fn make(conn: &Connection, container: i64, look: &QuotaLook) -> Result<Self, LedgerError> {
        let wanted = Self::wanted(container, look);
        match Self::find(conn, container, look)? {
            None => {
                let id = wanted.write(conn, None)?;
                Ok(Self { id, ..wanted })
            }
            Some(found) => {
                if found.ended {
                    let mut track = found.track(conn)?;
                    track.reopen();
                    found.store_thresholds(conn, &track, &[])?;
                }
                let wanted = Self { id: found.id, ..wanted };
                if !wanted.is_same(&found) {
                    wanted.write(conn, Some(found.id))?;
                }
                Ok(wanted)
            }
        }
    }

    /// Takes over what a look has found.
    pub fn take(
        &self,
        transaction: &Transaction<'_>,
        look: &QuotaLook,
        now_s: i64,
    ) -> Result<(), LedgerError> {
        let Some(used) = look.used else { return Ok(()) };
        let amount = self.direction.of(used);
        self.set_used(transaction, if self.is_rate { (amount, 0) } else { (used.incoming, used.outgoing) })?;
        self.follow(transaction, amount, now_s)
    }

    fn is_same(&self, other: &Self) -> bool {
        let fixed = |row: &Self| (row.span, row.direction, row.is_rate, row.allowance, row.ended);
        fixed(self) == fixed(other)
            && (&self.label, &self.classes, &self.thresholds)
                == (&other.label, &other.classes, &other.thresholds)
    }

    fn write(&self, conn: &Connection, id: Option<i64>) -> Result<i64, LedgerError> {
        conn.prepare_cached(
            "INSERT INTO quota_track VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT (id) DO UPDATE SET start = ?5, end = ?6, label = ?7, direction = ?8, classes = ?9,
             is_rate = ?10, allowance = ?11, thresholds = ?12, ended = ?13",
        )?
        .execute(params![
            id,
            self.quota,
            self.container,
            self.period,
            self.span.start_s,
            self.span.end_s,
            self.label,
            self.direction.name(),
            self.classes,
            self.is_rate,
            self.allowance.map(stored),
            json(&self.thresholds)?,
            self.ended,
        ])?;
        Ok(id.unwrap_or_else(|| conn.last_insert_rowid()))
    }

    pub fn set_used(&self, conn: &Connection, (incoming, outgoing): (u64, u64)) -> Result<(), LedgerError> {
        conn.prepare_cached(
            "INSERT INTO quota_used VALUES (?1, ?2, ?3, NULL) ON CONFLICT (track) DO UPDATE
             SET in_bytes = ?2, out_bytes = ?3 WHERE in_bytes <> ?2 OR out_bytes <> ?3",
        )?
        .execute(params![self.id, stored(incoming), stored(outgoing)])?;
        Ok(())
    }

    fn track(&self, conn: &Connection) -> Result<Track, LedgerError> {
        let sql = "SELECT percent, crossings, is_crossed FROM quota_threshold WHERE track = ?1";
        let mut statement = conn.prepare_cached(sql)?;
        let rows = statement.query_map([self.id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(Track::from_rows(rows.collect::<Result<Vec<_>, _>>()?))
    }

    /// Writes what changed, with the actions of what was reached.
    fn store_thresholds(
        &self,
        conn: &Connection,
        track: &Track,
        reached: &[(u16, String)],
    ) -> Result<(), LedgerError> {
        let mut upsert = conn.prepare_cached(
            "INSERT INTO quota_threshold VALUES (?1, ?2, ?3, ?4, coalesce(?5, '[]')) ON CONFLICT (track, percent)
             DO UPDATE SET crossings = ?3, is_crossed = ?4, actions = coalesce(?5, actions)
             WHERE crossings <> ?3 OR is_crossed <> ?4",
        )?;
        for (percent, crossings, is_crossed) in track.rows() {
            let actions = reached.iter().find(|(of, _)| *of == percent).map(|(_, actions)| actions);
            upsert.execute(params![self.id, percent, crossings, is_crossed, actions])?;
        }
        Ok(())
    }

    /// Follows an amount, and writes the crossings.
    pub fn follow(&self, transaction: &Transaction<'_>, used: u64, now_s: i64) -> Result<(), LedgerError> {
        let mut track = self.track(transaction)?;
        let percents: Vec<u16> = self.thresholds.iter().map(|(percent, _)| *percent).collect();
        let found = self.with_subject(transaction, |subject| {
            track.follow(subject, &percents, look(used, self.allowance))
        })?;
        self.insert(transaction, &found, now_s)?;
        let reached = found
            .iter()
            .filter(|crossing| crossing.change == Change::Reached)
            .map(|crossing| Ok((crossing.percent, json(&self.actions_of(crossing.percent))?)))
            .collect::<Result<Vec<_>, LedgerError>>()?;
        if !found.is_empty() {
            self.store_thresholds(transaction, &track, &reached)?;
        }
        let next = self.allowance.and_then(|allowance| track.next_amount(&percents, allowance)).map(stored);
        transaction
            .prepare_cached("UPDATE quota_used SET next = ?2 WHERE track = ?1 AND next IS NOT ?2")?
            .execute(params![self.id, next])?;
        Ok(())
    }

    /// The period is over, or it is no quota any more.
    pub fn leave(&mut self, transaction: &Transaction<'_>, now_s: i64) -> Result<(), LedgerError> {
        if self.period != 0 && self.span.end_s <= now_s {
            let used = transaction
                .prepare_cached("SELECT in_bytes, out_bytes FROM quota_used WHERE track = ?1")?
                .query_row([self.id], |row| {
                    let amount = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
                    Ok(Used { incoming: amount(0)?, outgoing: amount(1)?, together: None })
                })
                .optional()?
                .unwrap_or_default();
            let used = if self.is_rate { used.incoming } else { self.direction.of(used) };
            let seen = Look { used, allowance: self.allowance.unwrap_or(0) };
            let track = self.track(transaction)?;
            let found = self.with_subject(transaction, |subject| track.end(subject, seen))?;
            self.insert(transaction, &found, now_s)?;
        } else {
            self.allowance = None;
            self.follow(transaction, 0, now_s)?;
        }
        self.ended = true;
        self.write(transaction, Some(self.id)).map(drop)
    }

    fn with_subject<T>(
        &self,
        conn: &Connection,
        found: impl FnOnce(Subject<'_>) -> T,
    ) -> Result<T, LedgerError> {
        let ledger: String = ids::meta(conn, "ledger_id")?.unwrap_or_default();
        let id: String = conn
            .prepare_cached("SELECT name FROM container WHERE id = ?1")?
            .query_row([self.container], |row| row.get(0))
            .optional()?
            .unwrap_or_default();
        let span = Span { start_s: self.period, ..self.span };
        Ok(found(Subject { quota: &self.quota, container: self.container, id: &id, ledger: &ledger, span }))
    }

    fn actions_of(&self, percent: u16) -> Vec<String> {
        let found = self.thresholds.iter().find(|(of, _)| *of == percent);
        found.map(|(_, actions)| actions.clone()).unwrap_or_default()
    }

    /// Writes crossings with the actions to run for them. Of a period that is over, corrections are only noted:
    /// whatever was begun in it has ended.
    fn insert(
        &self,
        transaction: &Transaction<'_>,
        found: &[Crossing],
        now_s: i64,
    ) -> Result<(), LedgerError> {
        for crossing in found {
            let actions = match crossing.change {
                _ if self.ended => "[]".to_owned(),
                Change::Reached => json(&self.actions_of(crossing.percent))?,
                // Those that were ordered then, whatever the file has now.
                Change::Undone | Change::Ended => transaction
                    .prepare_cached("SELECT actions FROM quota_threshold WHERE track = ?1 AND percent = ?2")?
                    .query_row(params![self.id, crossing.percent], |row| row.get(0))
                    .optional()?
                    .unwrap_or_else(|| "[]".to_owned()),
            };
            transaction
                .prepare_cached(
                    "INSERT INTO quota_crossing (name, quota, container, start, end, label, percent, change, is_rate,
                     used, allowance, made, actions) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                     ON CONFLICT (name) DO NOTHING",
                )?
                .execute(params![
                    crossing.id,
                    self.quota,
                    self.container,
                    self.span.start_s,
                    self.span.end_s,
                    self.label,
                    crossing.percent,
                    crossing.change.name(),
                    self.is_rate,
                    stored(crossing.look.used),
                    stored(crossing.look.allowance),
                    now_s,
                    actions,
                ])?;
        }
        Ok(())
    }
}
