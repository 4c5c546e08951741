//! What a command that cannot be undone would do. Nothing here writes.

use jiff::Timestamp;
use serde::Serialize;
use traffic_model::is_pending;

use crate::{
    closing::{
        close::{Month, require_closable},
        delivered::{self, DeliveredClass},
    },
    error::LedgerError,
    figures::Figures,
    query::query_plan::{ReportQuery, Split},
    store::Ledger,
};

/// What closing a month would freeze.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClosePreview {
    /// The billing month as `YYYY-MM`.
    pub name: String,
    /// Start.
    pub start: Timestamp,
    /// End.
    pub end: Timestamp,
    /// Number of containers with figures.
    pub containers: usize,
    /// Sum of all billed figures, layer 3.
    pub total: Figures,
    /// Number of gaps in it with traffic that is not in the sums.
    pub gaps_losing_traffic: usize,
    /// Number of containers with figures that are pending owners: who they are is not known, and nobody is billed for
    /// them.
    #[serde(skip_serializing_if = "is_zero")]
    pub pending_owners: usize,
    /// The corrections that closing makes of what was dropped, in the classes that are billed by what was delivered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub delivered: Vec<DeliveredClass>,
    /// Why its figures are doubtful. Given only if the month is to be closed nevertheless.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
}

/// What retiring a container would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RetirePreview {
    /// The id.
    pub container: String,
    /// When its figures begin.
    pub since: Timestamp,
    /// Sum of its billed figures, layer 3. They stay with it.
    pub total: Figures,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Ledger {
    /// Shows what [`Ledger::close`] would do, or [`Ledger::close_anyway`] with `force`.
    ///
    /// # Errors
    /// As these, as far as that is known beforehand.
    pub fn preview_close(
        &self,
        name: &str,
        now: Timestamp,
        force: bool,
    ) -> Result<ClosePreview, LedgerError> {
        let (start, end, name) = self.month(name)?;
        let month = Month { start, end, name: &name };
        let doubt = require_closable(&self.conn, &self.calendar, &month, now)?;
        if let Some(doubt) = doubt.as_deref().filter(|_| !force) {
            return Err(month.refuse(doubt));
        }
        let (start, end) = (Timestamp::from_second(start)?, Timestamp::from_second(end)?);
        let report =
            self.report(&ReportQuery { from: Some(start), to: Some(end), ..ReportQuery::default() })?;
        let containers: std::collections::BTreeSet<&str> =
            report.rows.iter().map(|row| row.container.as_str()).collect();
        Ok(ClosePreview {
            start,
            end,
            containers: containers.len(),
            pending_owners: containers.iter().filter(|container| is_pending(container)).count(),
            total: report.total,
            delivered: delivered::preview(self, (start, end))?,
            gaps_losing_traffic: report.gaps.iter().filter(|gap| gap.reason.loses_traffic()).count(),
            doubt,
            name,
        })
    }

    /// Shows what [`Ledger::retire`] would do.
    ///
    /// # Errors
    /// When no active container has this id, or the file cannot be read.
    pub fn preview_retire(&self, container: &str) -> Result<RetirePreview, LedgerError> {
        let find = "SELECT since FROM container WHERE name = ?1 AND retired IS NULL";
        let mut statement = self.conn.prepare_cached(find)?;
        let mut rows = statement.query([container])?;
        let since =
            rows.next()?.ok_or_else(|| LedgerError::UnknownContainer(container.to_owned()))?.get(0)?;
        let query = ReportQuery {
            containers: vec![container.to_owned()],
            split: Split::default(),
            ..ReportQuery::default()
        };
        Ok(RetirePreview {
            container: container.to_owned(),
            since: Timestamp::from_second(since)?,
            total: self.report(&query)?.total,
        })
    }
}
