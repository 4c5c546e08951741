//! Gaps, closed months and corrections of a span, from the file or from a store.

use jiff::Timestamp;
use rusqlite::Connection;

use crate::{
    closing::{
        adjust::{self, PeriodAdjustment},
        close::{self, ClosedPeriod},
        correction::Corrected,
    },
    error::LedgerError,
    query::{
        query_plan::{Plan, container_numbers},
        stored,
    },
    store::Ledger,
    write::gaps::{self, Gap},
};

type Bounds = (Option<Timestamp>, Option<Timestamp>);

impl Ledger {
    /// Lists the gaps that overlap a time span; `None` means unlimited.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn gaps(&self, from: Option<Timestamp>, to: Option<Timestamp>) -> Result<Vec<Gap>, LedgerError> {
        self.gaps_within(&self.conn, (from, to), None)
    }

    /// Lists the gaps of some containers, and those of the whole node, which affect them too. No other
    /// container and no interface of one is named.
    ///
    /// # Errors
    /// When a container is unknown, or the file cannot be read.
    pub fn gaps_of(
        &self,
        containers: &[String],
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> Result<Vec<Gap>, LedgerError> {
        self.gaps_within(&self.conn, (from, to), container_numbers(&self.conn, containers)?.as_deref())
    }

    /// The gaps of a span, for all or for some containers by number.
    pub(crate) fn gaps_within(
        &self,
        view: &Connection,
        (from, to): Bounds,
        containers: Option<&[i64]>,
    ) -> Result<Vec<Gap>, LedgerError> {
        let Some(rows) = self.stored.as_deref() else { return gaps::list(view, from, to, containers) };
        let range = (from.map_or(i64::MIN, Timestamp::as_second), to.map_or(i64::MAX, Timestamp::as_second));
        rows.gaps(range, containers)
    }

    /// The closed periods that overlap the span of a plan.
    pub(crate) fn closed_within(
        &self,
        view: &Connection,
        plan: &Plan<'_>,
    ) -> Result<Vec<ClosedPeriod>, LedgerError> {
        match self.stored.as_deref() {
            Some(rows) => rows.closed(plan.range),
            None => close::periods_within(view, second(plan.range.0)?, second(plan.range.1)?),
        }
    }

    /// The corrections of closed periods that overlap the span of a plan, for its containers and some classes.
    pub(crate) fn adjustments_of(
        &self,
        view: &Connection,
        plan: &Plan<'_>,
        classes: &[u8],
    ) -> Result<Vec<PeriodAdjustment>, LedgerError> {
        if let Some(rows) = self.stored.as_deref() {
            return stored::adjustments(rows, plan, classes);
        }
        let span = (second(plan.range.0)?, second(plan.range.1)?);
        adjust::adjustments_within(view, span, plan.containers.as_deref(), classes)
    }

    /// The frozen figures that corrections belong to.
    pub(crate) fn corrected_by(
        &self,
        view: &Connection,
        adjustments: &[PeriodAdjustment],
    ) -> Result<Vec<Corrected>, LedgerError> {
        match self.stored.as_deref() {
            Some(rows) => adjust::corrected(view, adjustments, |period, container, class| {
                rows.frozen(period, container, class)
            }),
            None => adjust::corrected(view, adjustments, |period, container, class| {
                adjust::frozen(view, period, container, class)
            }),
        }
    }

    /// How many five minutes of a plan's span also hold traffic of another time.
    pub(crate) fn mixed_buckets(&self, view: &Connection, plan: &Plan<'_>) -> Result<u64, LedgerError> {
        if let Some(rows) = self.stored.as_deref() {
            return rows.mixed_buckets(plan.range);
        }
        let sql = "SELECT count(DISTINCT bucket) FROM span WHERE bucket >= ?1 AND bucket < ?2";
        Ok(view
            .prepare_cached(sql)?
            .query_row([plan.range.0, plan.range.1], |row| row.get::<_, i64>(0))?
            .cast_unsigned())
    }
}

fn second(unix_s: i64) -> Result<Timestamp, LedgerError> {
    Ok(Timestamp::from_second(unix_s)?)
}
