//! The last day of the whole node in one answer: classes by step, and the largest containers with a line each.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use serde::Serialize;
use traffic_model::calendar::{Calendar, FIVE_MINUTES_S, Level, five_minutes_of};

use crate::{
    error::LedgerError,
    figures::{Basis, Figures, Sums, add, permille_shares},
    query::{
        query_plan::{By, ReportQuery, Split, recorded_range},
        series::{self, ClassColumns, ClassSeries, column, step_s},
    },
    store::Ledger,
    write::{clock, gaps::Gap, names},
};

/// Most containers of a node whose classes are shown in five-minute steps: reading these rows of more takes
/// too long for a first view.
const MOST_IN_FIVE_MINUTES: i64 = 100;

/// A query for the last day.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OverviewQuery {
    /// Number of containers.
    pub count: usize,
    /// Time zone of the hours; `None` for the ledger's own.
    pub calendar: Option<Calendar>,
    /// Network layer of the byte figures.
    pub basis: Basis,
}

/// One of the largest containers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopSeries {
    /// Rank from 1.
    pub place: usize,
    /// The container.
    pub container: String,
    /// What people call it, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Packets and bytes in the billed classes.
    #[serde(flatten)]
    pub figures: Figures,
    /// Share of the bytes of all containers, in thousandths.
    pub permille: u64,
    /// Bytes to the container in each step of five minutes; `None` where nothing is recorded.
    pub in_bytes: Vec<Option<u64>>,
    /// The same from the container.
    pub out_bytes: Vec<Option<u64>>,
}

/// The last day.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overview {
    /// Start of the span: 23 whole hours before the running one.
    pub from: Timestamp,
    /// End of the span: the five minutes of the last reading.
    pub to: Timestamp,
    /// Step length of the classes.
    pub by: By,
    /// The same in seconds.
    pub step_s: Option<i64>,
    /// Starts of these steps, in Unix seconds.
    pub starts: Vec<i64>,
    /// The classes with traffic. Documents have them with their names.
    #[serde(skip)]
    pub classes: Vec<ClassSeries>,
    /// Sum of all billed classes.
    pub total: Figures,
    /// Sum of class 0.
    pub class_zero: Figures,
    /// Unclassified traffic.
    pub faults: Figures,
    /// How many containers had traffic in billed classes.
    pub container_count: usize,
    /// Starts of the containers' steps, in Unix seconds.
    pub spark_starts: Vec<i64>,
    /// The largest containers, by bytes in both directions in the billed classes.
    pub containers: Vec<TopSeries>,
    /// Gaps that overlap the span. Documents have them with their text.
    #[serde(skip)]
    pub gaps: Vec<Gap>,
}

impl Ledger {
    /// The last day that the ledger has.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn overview(&self, query: &OverviewQuery) -> Result<Overview, LedgerError> {
        let view = self.conn.unchecked_transaction()?;
        let known: i64 = view.query_row("SELECT count(*) FROM container", [], |row| row.get(0))?;
        let by = if known <= MOST_IN_FIVE_MINUTES { By::FiveMinutes } else { By::Hour };
        let of = self.last_day(&view, query, by)?;
        let plan = self.plan(&view, &of)?;
        let mut classes = ClassColumns::new();
        let mut containers: HashMap<i64, Sums> = HashMap::new();
        self.each_row(&view, &plan, |step, row| {
            let columns = classes.entry(row.class).or_insert_with(|| vec![[0; 4]; plan.steps.len()]);
            add(&mut columns[step], row.values);
            if row.class != 0 {
                add(containers.entry(row.container).or_default(), row.values);
            }
        })?;
        let total =
            |billed: bool| Figures::new(series::total(&classes, |class| (class != 0) == billed), query.basis);
        let (from, to) = (Timestamp::from_second(plan.range.0)?, Timestamp::from_second(plan.range.1)?);
        let (spark_starts, top) = self.largest(&view, &of, (&containers, query.count))?;
        Ok(Overview {
            from,
            to,
            by,
            step_s: step_s(by),
            starts: plan.steps.iter().map(|step| step.0).collect(),
            total: total(true),
            class_zero: total(false),
            faults: self.faults_of(&view, &plan)?,
            classes: series::classes(&plan, &classes),
            container_count: containers.len(),
            spark_starts,
            containers: top,
            gaps: self.gaps_within(&view, (Some(from), Some(to)), None)?,
        })
    }

    fn last_day(&self, view: &Connection, query: &OverviewQuery, by: By) -> Result<ReportQuery, LedgerError> {
        let calendar = query.calendar.clone().unwrap_or_else(|| self.calendar.clone());
        let (begin, end) = recorded_range(view)?;
        // Rows of a clock that was once ahead are not the last day.
        let last = clock::last_reading(view)?.map_or(end - 1, Timestamp::as_second);
        let to = five_minutes_of(last) + FIVE_MINUTES_S;
        let hour = Timestamp::from_second(calendar.start(Level::Hour, to - 1)?)?;
        let day = hour.checked_sub(SignedDuration::from_hours(23))?;
        let from = day.max(Timestamp::from_second(begin.min(to))?);
        Ok(ReportQuery {
            by,
            from: Some(from),
            to: Some(Timestamp::from_second(to)?),
            calendar: Some(calendar),
            split: Split { class: true, ..Split::default() },
            basis: query.basis,
            ..ReportQuery::default()
        })
    }

    /// The largest containers, and the starts of their steps.
    fn largest(
        &self,
        view: &Connection,
        of: &ReportQuery,
        (containers, count): (&HashMap<i64, Sums>, usize),
    ) -> Result<(Vec<i64>, Vec<TopSeries>), LedgerError> {
        let labels = labels(view)?;
        let figures = |id: &i64| Figures::new(containers[id], of.basis);
        let label = |id: &i64| labels.get(id).cloned().unwrap_or_else(|| "?".to_owned());
        let mut ranked: Vec<i64> = containers.keys().copied().collect();
        ranked.sort_by_cached_key(|id| (std::cmp::Reverse(figures(id).total.bytes), label(id)));
        let bytes: Vec<u64> = ranked.iter().map(|id| figures(id).total.bytes).collect();
        let shares = permille_shares(&bytes);
        ranked.truncate(count);
        let query = ReportQuery { by: By::FiveMinutes, ..of.clone() };
        let mut plan = self.plan(view, &query)?;
        plan.containers = Some(ranked.clone());
        let mut lines: BTreeMap<i64, Vec<Sums>> = BTreeMap::new();
        self.each_row(view, &plan, |step, row| {
            if row.class != 0 {
                let line = lines.entry(row.container).or_insert_with(|| vec![[0; 4]; plan.steps.len()]);
                add(&mut line[step], row.values);
            }
        })?;
        let empty = vec![[0; 4]; plan.steps.len()];
        let names = names::all(view)?;
        let rows = (1..).zip(&ranked).zip(shares).map(|((place, id), permille)| {
            let line = lines.get(id).unwrap_or(&empty);
            TopSeries {
                place,
                container: label(id),
                name: names.get(id).and_then(|names| Some(names.last()?.name.clone())),
                figures: figures(id),
                permille,
                in_bytes: column(&plan, line, 0),
                out_bytes: column(&plan, line, 2),
            }
        });
        Ok((plan.steps.iter().map(|step| step.0).collect(), rows.collect()))
    }
}

fn labels(view: &Connection) -> Result<HashMap<i64, String>, LedgerError> {
    let mut statement = view.prepare_cached("SELECT id, label FROM container")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
