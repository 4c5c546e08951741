//! Pending owners and attributions, as people see and make them.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;
use traffic_model::{ContainerId, is_pending};

use super::{Source, attribute};
use crate::{
    closing::correction::Signed, digest, error::LedgerError, figures::Figures, ids,
    query::query_plan::ReportQuery, schema::time, store::Ledger,
};

/// A pending owner whose container became known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attribution {
    /// The id under which it was counted until then.
    pub pending: String,
    /// Label of the container.
    pub owner: String,
    /// When it was recorded.
    pub made: Timestamp,
    /// `counters` or `hand`.
    pub source: String,
    /// The reason, if it was given by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What had been recorded by then: packets in, bytes in, packets out, bytes out. All classes.
    pub recorded: Signed,
    /// Closed months that got corrections.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub corrected: Vec<String>,
    /// Whether it had been recorded before.
    pub is_repeated: bool,
}

/// An owner that is still pending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PendingOwner {
    /// The id under which it is counted.
    pub pending: String,
    /// First seen.
    pub since: Timestamp,
    /// Sum of its figures in billed classes, layer 3.
    pub total: Figures,
}

impl Ledger {
    /// The ids of owners that are still pending and have figures, by when they were first seen, and when that was.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn pending_ids(&self) -> Result<Vec<(String, Timestamp)>, LedgerError> {
        // A class is in use once something was counted in it.
        let sql = "SELECT name, since FROM container c WHERE name LIKE 'pending:%' AND retired IS NULL
                   AND EXISTS (SELECT 1 FROM class_use u WHERE u.container = c.id) ORDER BY since, name";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, time(row, 1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The owners that are still pending, with their figures.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn pending_owners(&self) -> Result<Vec<PendingOwner>, LedgerError> {
        let ids = self.pending_ids()?.into_iter();
        ids.map(|(pending, since)| {
            let query = ReportQuery { containers: vec![pending.clone()], ..ReportQuery::default() };
            Ok(PendingOwner { pending, since, total: self.report(&query)?.total })
        })
        .collect()
    }

    /// All attributions so far, the latest last.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn attributions(&self) -> Result<Vec<Attribution>, LedgerError> {
        let mut statement =
            self.conn.prepare_cached(&format!("{ATTRIBUTIONS} ORDER BY a.made, a.pending"))?;
        let rows = statement.query_map([], attribution_of)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The attribution of a pending owner, if it was attributed.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn attribution(&self, pending: &str) -> Result<Option<Attribution>, LedgerError> {
        attribution_of_pending(&self.conn, pending)
    }

    /// What is recorded of a pending owner, for a preview of [`Ledger::attribute`]; `None` if nothing is.
    ///
    /// # Errors
    /// As [`Ledger::attribute`].
    pub fn preview_attribution(
        &self,
        pending: &str,
        owner: &ContainerId,
    ) -> Result<Option<PendingOwner>, LedgerError> {
        refuse_wrong(pending, owner)?;
        if let Some(before) = attribution_of_pending(&self.conn, pending)? {
            return same_owner(&before, owner).map(|()| None);
        }
        let sql = "SELECT name, label, since FROM container WHERE id = ?1";
        let Some(number) = pending_number(&self.conn, pending)? else { return Ok(None) };
        let (pending, label, since): (String, String, Timestamp) = self
            .conn
            .prepare_cached(sql)?
            .query_row([number], |row| Ok((row.get(0)?, row.get(1)?, time(row, 2)?)))?;
        let query = ReportQuery { containers: vec![label], ..ReportQuery::default() };
        Ok(Some(PendingOwner { pending, since, total: self.report(&query)?.total }))
    }

    /// Gives everything recorded of a pending owner to a container, by hand. `None` if the ledger has nothing of
    /// it. One that was attributed to the same container before stays as it is.
    ///
    /// # Errors
    /// When the id is not that of a pending owner, when it was attributed to another container, when the reason
    /// is not one line, or when the file cannot be written.
    pub fn attribute(
        &mut self,
        pending: &str,
        owner: &ContainerId,
        reason: &str,
        now: Timestamp,
    ) -> Result<Option<Attribution>, LedgerError> {
        self.check_files()?;
        refuse_wrong(pending, owner)?;
        let reason = reason.trim();
        if reason.is_empty() || reason.chars().any(char::is_control) {
            let what = "the attribution has no reason; give one in one line with --reason";
            return Err(LedgerError::Query(what.to_owned()));
        }
        let made = Timestamp::from_second(now.as_second())?;
        let attributed = digest::change(&self.conn, |transaction| {
            if let Some(before) = attribution_of_pending(transaction, pending)? {
                same_owner(&before, owner)?;
                return Ok(Some(Attribution { is_repeated: true, ..before }));
            }
            let Some(number) = pending_number(transaction, pending)? else { return Ok(None) };
            let owner = ids::container(transaction, owner.as_str(), "ct", made.as_second())?;
            attribute(transaction, (number, owner), made, Source::Hand(reason)).map(Some)
        })?;
        self.keep_for_good()?;
        Ok(attributed)
    }
}

const ATTRIBUTIONS: &str = "SELECT c.name, o.label, a.made, a.source, a.reason, a.in_packets, a.in_bytes,
    a.out_packets, a.out_bytes
    FROM attribution a JOIN container c ON c.id = a.pending JOIN container o ON o.id = a.owner";

fn attribution_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Attribution> {
    Ok(Attribution {
        pending: row.get(0)?,
        owner: row.get(1)?,
        made: time(row, 2)?,
        source: row.get(3)?,
        reason: row.get(4)?,
        recorded: [row.get(5)?, row.get(6)?, row.get(7)?, row.get(8)?],
        corrected: Vec::new(),
        is_repeated: false,
    })
}

fn attribution_of_pending(conn: &Connection, pending: &str) -> Result<Option<Attribution>, LedgerError> {
    let sql = format!("{ATTRIBUTIONS} WHERE c.name = ?1 OR c.label = ?1");
    Ok(conn.prepare_cached(&sql)?.query_row([pending], attribution_of).optional()?)
}

/// The number of a pending owner, by its id or by its label if it was retired.
fn pending_number(conn: &Connection, pending: &str) -> Result<Option<i64>, LedgerError> {
    let sql = "SELECT id FROM container WHERE label = ?1 OR name = ?1 ORDER BY label = ?1 DESC LIMIT 1";
    Ok(conn.prepare_cached(sql)?.query_row([pending], |row| row.get(0)).optional()?)
}

fn refuse_wrong(pending: &str, owner: &ContainerId) -> Result<(), LedgerError> {
    let what = if !is_pending(pending) {
        format!("{pending} is not a pending owner: these begin with `pending:`; `trafctl status` lists them")
    } else if owner.is_pending() {
        format!("{owner} is a pending owner itself; name the container that the traffic belongs to")
    } else {
        return Ok(());
    };
    Err(LedgerError::Query(what))
}

fn same_owner(before: &Attribution, owner: &ContainerId) -> Result<(), LedgerError> {
    if before.owner == owner.as_str() {
        return Ok(());
    }
    Err(LedgerError::Query(format!(
        "{} was attributed to {} at {}; what was wrong in a closed month is corrected with `trafctl adjust`",
        before.pending, before.owner, before.made
    )))
}
