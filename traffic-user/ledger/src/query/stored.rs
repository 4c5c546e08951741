//! Reports over a store of many nodes: the store adds up the rows, and everything else is done as for a ledger.
//!
//! [`Ledger::of_store`] makes a ledger in memory of what is small: the calendar, the containers, where everything
//! begins and ends. Its reports ask [`StoredRows`] for sums instead of reading rows. So a report has the same steps,
//! spans, names, rounding and corrections, wherever its rows are.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use jiff::Timestamp;
use rusqlite::{Connection, params};
use traffic_model::calendar::{Calendar, FIVE_MINUTES_S, Level};

use crate::{
    closing::{adjust::PeriodAdjustment, close::ClosedPeriod, closed_rates, correction::Signed},
    error::LedgerError,
    figures::{Basis, Figures, Sums, add},
    query::{
        collected::Collected,
        drop_report, percentile,
        percentile_report::Rates,
        query_plan::{LineKey, Plan, Split},
    },
    schema,
    store::Ledger,
    time::borders::NamedUnit,
    write::{clock, gaps::Gap, rollup_state::last_bucket},
};

/// Which rows to add up, and into what.
#[derive(Clone, Copy, Debug)]
pub struct StoredQuery<'a> {
    /// Starts of the steps, ascending. Each ends where the next one begins, and the last one with the span.
    pub starts: &'a [i64],
    /// Start and end of the span, on five-minute borders. Unix seconds.
    pub range: (i64, i64),
    /// Numbers of the containers; `None` for all.
    pub containers: Option<&'a [i64]>,
    /// Classes; empty for all.
    pub classes: &'a [u8],
    /// What gets sums of its own. Class 0 has always.
    pub split: Split,
}

impl StoredQuery<'_> {
    /// The step that contains a time.
    pub fn step(&self, at: i64) -> Option<usize> {
        (at < self.range.1).then(|| self.starts.partition_point(|&start| start <= at).checked_sub(1))?
    }

    /// Start and end of a step.
    pub fn span(&self, step: usize) -> (i64, i64) {
        (self.starts[step], self.starts.get(step + 1).copied().unwrap_or(self.range.1))
    }
}

/// Where the percentile falls in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepRank {
    /// How many five-minute values are ranked, those without traffic included.
    pub values: u64,
    /// The place of the percentile, counted from the largest value: 1 is the largest. 0 without values.
    pub from_top: u64,
}

/// A percentile to find.
#[derive(Clone, Copy, Debug)]
pub struct Ranking<'a> {
    /// By step.
    pub steps: &'a [StepRank],
    /// Network layer of the ranked bytes.
    pub basis: Basis,
    /// Whether rates that were frozen when a month was closed answer for it.
    pub takes_frozen: bool,
}

/// Sums by interface.
#[derive(Clone, Debug, Default)]
pub struct InterfaceSums {
    /// What passed, by step and interface.
    pub passed: Vec<((usize, i64), Sums)>,
    /// Faults, by step, interface and reason.
    pub faults: Vec<((usize, i64, i64), Sums)>,
    /// Classes, by step, container and whether they are billed, without history imported from PVA.
    pub classes: Vec<((usize, i64, bool), Sums)>,
    /// Whether there is such history.
    pub has_pva: bool,
}

/// Bits per second from bytes in five minutes, rounded down.
pub fn bits_per_second(bytes: u64) -> u64 {
    let bits = u128::from(bytes) * 8 / u128::from(FIVE_MINUTES_S.unsigned_abs());
    u64::try_from(bits).unwrap_or(u64::MAX)
}

/// Row of the report, reason of drops or nothing of what was counted, and the sums.
pub type CountedOrDropped = (LineKey, Option<i64>, Sums);

/// What a store answers. Containers and interfaces have the numbers that [`StoredLedger`] gave them.
pub trait StoredRows: fmt::Debug + Send {
    /// Packets in, bytes in, packets out and bytes out, by row of the report. A key may come several times.
    ///
    /// # Errors
    /// When the store does not answer, or does not have the rows.
    fn traffic(&self, query: &StoredQuery<'_>) -> Result<Vec<(LineKey, Sums)>, LedgerError>;

    /// What was counted and what was dropped, by row of the report: as [`Self::traffic`], of dropped packets with the number
    /// of their [`traffic_common::DropGroup`]. Frozen rows of closed months do not answer.
    ///
    /// # Errors
    /// As [`Self::traffic`], and when the store has no drops.
    fn drops(&self, query: &StoredQuery<'_>) -> Result<Vec<CountedOrDropped>, LedgerError>;

    /// Nodes whose drops are not in [`Self::drops`] of the same query, or not all of them.
    ///
    /// # Errors
    /// As [`Self::drops`].
    fn nodes_without_drops(&self, query: &StoredQuery<'_>) -> Result<Vec<String>, LedgerError>;

    /// The sum of all faults.
    ///
    /// # Errors
    /// As [`Self::traffic`].
    fn faults(&self, query: &StoredQuery<'_>) -> Result<Sums, LedgerError>;

    /// Sums by interface.
    ///
    /// # Errors
    /// As [`Self::traffic`].
    fn interfaces(&self, query: &StoredQuery<'_>) -> Result<InterfaceSums, LedgerError>;

    /// The rate at a percentile, by row of the report. Rows of several nodes are added in each five minutes first.
    ///
    /// # Errors
    /// As [`Self::traffic`].
    fn rates(
        &self,
        query: &StoredQuery<'_>,
        ranking: &Ranking<'_>,
    ) -> Result<Vec<(LineKey, Rates)>, LedgerError>;

    /// How many five minutes of a span also hold traffic of another time.
    ///
    /// # Errors
    /// As [`Self::traffic`].
    fn mixed_buckets(&self, range: (i64, i64)) -> Result<u64, LedgerError>;

    /// The gaps that overlap a span of Unix seconds, for all or for some containers; see [`Ledger::gaps_of`].
    ///
    /// # Errors
    /// As [`Self::traffic`].
    fn gaps(&self, range: (i64, i64), containers: Option<&[i64]>) -> Result<Vec<Gap>, LedgerError>;

    /// The closed periods that overlap a span.
    ///
    /// # Errors
    /// As [`Self::traffic`].
    fn closed(&self, range: (i64, i64)) -> Result<Vec<ClosedPeriod>, LedgerError>;

    /// The corrections of closed periods that overlap a span, the oldest first.
    ///
    /// # Errors
    /// As [`Self::traffic`].
    fn adjustments(&self, range: (i64, i64)) -> Result<Vec<PeriodAdjustment>, LedgerError>;

    /// The frozen figures of a container and class in the period of this name.
    ///
    /// # Errors
    /// As [`Self::traffic`].
    fn frozen(&self, period: &str, container: i64, class: u8) -> Result<Signed, LedgerError>;
}

/// A container of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredContainer {
    /// Its number in reports.
    pub number: i64,
    /// Its id on its node.
    pub id: String,
    /// What reports call it; unique.
    pub label: String,
    /// `ct` or `vm`.
    pub kind: String,
    /// When it was first seen, Unix seconds.
    pub since: i64,
    /// When it was retired.
    pub retired: Option<i64>,
    /// Its names: since, until, name.
    pub names: Vec<(i64, Option<i64>, String)>,
}

/// What is small of the ledgers that a report is about.
#[derive(Clone, Debug)]
pub struct StoredLedger {
    /// The calendar of their days and months.
    pub calendar: Calendar,
    /// Their node, if it is one.
    pub node: Option<String>,
    /// Start and end of everything, Unix seconds. Equal without any rows.
    pub recorded: (i64, i64),
    /// The bucket of the last reading.
    pub last_bucket: Option<i64>,
    /// The last reading, in milliseconds since the Unix epoch.
    pub last_reading_ms: Option<i64>,
    /// Since when all of them record drops, Unix seconds.
    pub drops_from: Option<i64>,
    /// Days and months whose borders the rules of the zone do not give: start, end, and the date that names them.
    pub days: Vec<(i64, i64, String)>,
    /// As `days`.
    pub months: Vec<(i64, i64, String)>,
    /// The containers.
    pub containers: Vec<StoredContainer>,
    /// Interfaces, if the report is about them: number, name, and container (0 for a shared one).
    pub interfaces: Vec<(i64, String, i64)>,
}

/// What a store must know of a ledger, besides its rows, to report as the ledger does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShippedExtent {
    /// Time zone of its days and months.
    pub zone: String,
    /// Day of the month on which its months begin.
    pub billing_day: u8,
    /// Start and end of everything that it has recorded, Unix seconds. Equal without any rows.
    pub recorded: (i64, i64),
    /// The bucket of the last reading.
    pub last_bucket: Option<i64>,
    /// The last reading, in milliseconds since the Unix epoch.
    pub last_reading_ms: Option<i64>,
    /// Since when it records drops, Unix seconds; `None` if it never did.
    pub drops_from: Option<i64>,
}

impl Ledger {
    /// A ledger in memory that reports what a store holds.
    ///
    /// # Errors
    /// When two containers have the same label, or there is no memory.
    pub fn of_store(stored: &StoredLedger, rows: Box<dyn StoredRows>) -> Result<Self, LedgerError> {
        let conn = Connection::open_in_memory()?;
        conn.execute_batch(&schema::create())?;
        // Nodes may have the same ids.
        conn.execute_batch("DROP INDEX container_active; BEGIN")?;
        if stored.recorded.0 < stored.recorded.1 {
            conn.execute(
                "INSERT INTO unit VALUES (0, ?1, ?2, 0, 1)",
                [stored.recorded.0, stored.recorded.1],
            )?;
        }
        let epoch =
            "INSERT INTO epoch (boot_id, epoch, created, drains, last_bucket) VALUES ('', '', 0, 1, ?1)";
        conn.execute(epoch, [stored.last_bucket])?;
        if let Some(last) = stored.last_reading_ms {
            let clock = "INSERT INTO clock VALUES (1, '', 0, ?1, 0, ?1, NULL, NULL, ?1)";
            conn.execute(clock, [last])?;
        }
        if let Some(from) = stored.drops_from {
            conn.execute("INSERT INTO drop_set VALUES (1, 1, NULL, ?1, ?1, NULL)", [from])?;
        }
        if let Some(node) = &stored.node {
            conn.execute("INSERT INTO node VALUES (1, ?1)", [node])?;
            conn.execute("INSERT INTO stream VALUES (1, 1, 1, 1)", [])?;
        }
        for (level, units) in [(Level::Day, &stored.days), (Level::Month, &stored.months)] {
            for (start, end, name) in units {
                conn.prepare_cached("INSERT OR REPLACE INTO border VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![level as u8, start, end, name])?;
            }
        }
        for container in &stored.containers {
            let StoredContainer { number, id, label, kind, since, retired, names } = container;
            conn.prepare_cached("INSERT INTO container VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![number, id, label, kind, since, retired])?;
            for (since, until, name) in names {
                let insert =
                    "INSERT INTO container_name (container, since, until, name) VALUES (?1, ?2, ?3, ?4)";
                conn.prepare_cached(insert)?.execute(params![number, since, until, name])?;
            }
        }
        for (number, name, container) in &stored.interfaces {
            conn.prepare_cached("INSERT INTO interface VALUES (?1, ?2, ?3)")?
                .execute(params![number, name, container])?;
        }
        conn.execute_batch("COMMIT")?;
        Ok(Self::in_memory(conn, stored.calendar.clone(), rows))
    }

    /// What a store must know of this ledger besides its rows.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn shipped_extent(&self) -> Result<ShippedExtent, LedgerError> {
        let view = self.conn.unchecked_transaction()?;
        Ok(ShippedExtent {
            zone: self.calendar.zone_name().to_owned(),
            billing_day: self.calendar.billing_day(),
            recorded: super::query_plan::reported_range(&view)?,
            last_bucket: last_bucket(&view)?,
            last_reading_ms: clock::last_reading(&view)?.map(Timestamp::as_millisecond),
            drops_from: drop_report::recorded_from(&view)?.map(Timestamp::as_second),
        })
    }

    /// The borders that the rules of a calendar give the day (or month) of a name, if they are others than these.
    ///
    /// # Errors
    /// When the name is no date.
    pub fn differs_from_rules(
        calendar: &Calendar,
        is_month: bool,
        (start, end, name): (i64, i64, &str),
    ) -> Result<bool, LedgerError> {
        let name = name.parse().map_err(|_| {
            LedgerError::Store(format!("the store has a day or month {name:?}, which is no date"))
        })?;
        let unit = NamedUnit { start, end, name };
        let next = if is_month { calendar.next_month_date(name)? } else { name.tomorrow()? };
        Ok((unit.start, unit.end) != (calendar.date_start(name)?, calendar.date_start(next)?))
    }
}

/// Starts of the steps of a plan.
pub(crate) fn starts(plan: &Plan<'_>) -> Vec<i64> {
    plan.steps.iter().map(|step| step.0).collect()
}

/// What a plan asks for.
pub(crate) fn query_of<'a>(plan: &'a Plan<'_>, starts: &'a [i64], split: Split) -> StoredQuery<'a> {
    StoredQuery {
        starts,
        range: plan.range,
        containers: plan.containers.as_deref(),
        classes: &plan.query.classes,
        split,
    }
}

/// The sums of a report's rows.
pub(crate) fn sums(
    rows: &dyn StoredRows,
    plan: &Plan<'_>,
    split: Split,
) -> Result<BTreeMap<LineKey, Sums>, LedgerError> {
    let mut sums: BTreeMap<LineKey, Sums> = BTreeMap::new();
    if plan.range.0 < plan.range.1 {
        for (key, values) in rows.traffic(&query_of(plan, &starts(plan), split))? {
            add(sums.entry(key).or_default(), values);
        }
    }
    Ok(sums)
}

/// What was counted and dropped in the rows of a report of drops.
pub(crate) fn drops(rows: &dyn StoredRows, plan: &Plan<'_>) -> Result<Vec<CountedOrDropped>, LedgerError> {
    if plan.range.0 >= plan.range.1 {
        return Ok(Vec::new());
    }
    rows.drops(&query_of(plan, &starts(plan), plan.query.split))
}

/// The nodes whose drops are not all in a drop report.
pub(crate) fn nodes_without_drops(
    rows: &dyn StoredRows,
    plan: &Plan<'_>,
) -> Result<Vec<String>, LedgerError> {
    if plan.range.0 >= plan.range.1 {
        return Ok(Vec::new());
    }
    rows.nodes_without_drops(&query_of(plan, &starts(plan), plan.query.split))
}

/// The sum of the faults of a plan's span.
pub(crate) fn faults(rows: &dyn StoredRows, plan: &Plan<'_>) -> Result<Sums, LedgerError> {
    if plan.range.0 >= plan.range.1 {
        return Ok([0; 4]);
    }
    rows.faults(&query_of(plan, &[plan.range.0], Split::default()))
}

/// The sums of an interface report, and whether it lacks imported history.
pub(crate) fn collected(rows: &dyn StoredRows, plan: &Plan<'_>) -> Result<(Collected, bool), LedgerError> {
    let mut collected = Collected::default();
    if plan.range.0 >= plan.range.1 {
        return Ok((collected, false));
    }
    let found = rows.interfaces(&query_of(plan, &starts(plan), Split::default()))?;
    found.passed.into_iter().for_each(|(key, sums)| add(collected.passed.entry(key).or_default(), sums));
    found.faults.into_iter().for_each(|(key, sums)| add(collected.faults.entry(key).or_default(), sums));
    found.classes.into_iter().for_each(|(key, sums)| add(collected.classes.entry(key).or_default(), sums));
    Ok((collected, found.has_pva))
}

/// The percentile of each row of a report.
pub(crate) fn rates(
    rows: &dyn StoredRows,
    view: &Connection,
    plan: &Plan<'_>,
    percent: f64,
) -> Result<HashMap<LineKey, Rates>, LedgerError> {
    if plan.range.0 >= plan.range.1 {
        return Ok(HashMap::new());
    }
    let recorded_end = last_bucket(view)?.map_or(i64::MIN, |bucket| bucket + FIVE_MINUTES_S);
    let rank = |&(start, end): &(i64, i64)| {
        let values = ((end.min(recorded_end.max(start)) - start) / FIVE_MINUTES_S).unsigned_abs();
        StepRank { values, from_top: percentile::from_top(percent, values) }
    };
    let steps: Vec<StepRank> = plan.steps.iter().map(rank).collect();
    let ranking = Ranking {
        steps: &steps,
        basis: plan.query.basis,
        takes_frozen: closed_rates::are_frozen(plan.query, percent),
    };
    Ok(rows.rates(&query_of(plan, &starts(plan), plan.query.split), &ranking)?.into_iter().collect())
}

/// The corrections of a span, for the containers and classes of a plan.
pub(crate) fn adjustments(
    rows: &dyn StoredRows,
    plan: &Plan<'_>,
    classes: &[u8],
) -> Result<Vec<PeriodAdjustment>, LedgerError> {
    let mut all = rows.adjustments(plan.range)?;
    all.retain(|found| {
        let of_container = plan.containers.as_ref().is_none_or(|asked| asked.contains(&found.container));
        of_container && (classes.is_empty() || classes.contains(&found.adjustment.class))
    });
    Ok(all)
}

/// Faults as figures.
pub(crate) fn fault_figures(rows: &dyn StoredRows, plan: &Plan<'_>) -> Result<Figures, LedgerError> {
    Ok(Figures::new(faults(rows, plan)?, plan.query.basis))
}
