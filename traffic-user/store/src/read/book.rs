//! What is small of the ledgers that a report is about: their calendar, containers and closed months.

use std::collections::HashMap;

use traffic_ledger::{Ledger, LedgerError, StoredContainer, StoredLedger};
use traffic_model::calendar::Calendar;

use super::{
    Reported,
    drops::{self, DropsOf},
    shares::{Shares, Tenants},
};

/// A ledger, as the store knows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LedgerRow {
    pub number: i32,
    pub node: String,
    /// Missing where the node has not shipped since the store was updated.
    pub zone: Option<String>,
    pub billing_day: Option<u8>,
    pub recorded: (i64, i64),
    pub last_bucket: Option<i64>,
    pub last_reading_ms: Option<i64>,
    pub has_cluster_ids: bool,
    /// Since when it records drops.
    pub drops_from: Option<i64>,
    /// Whether all of them are in the store.
    pub has_all_drops: bool,
    /// Five minutes before this time may lack theirs.
    pub drops_kept_from: Option<i64>,
}

/// A container of a ledger.
#[derive(Clone, Debug)]
pub(crate) struct ContainerRow {
    pub ledger: i32,
    pub number: i64,
    pub name: String,
    pub label: String,
    pub kind: String,
    pub since: i64,
    pub retired: Option<i64>,
}

/// A name of a container: ledger, container, since, until, name.
pub(crate) type NameRow = (i32, i64, i64, Option<i64>, String);
/// An interface: ledger, number, name, container.
pub(crate) type InterfaceRow = (i32, i64, String, i64);
/// A day: start, end, its name, and that of its month.
pub(crate) type DayRow = (i64, i64, String, String);

/// One ledger of the report.
#[derive(Clone, Debug)]
pub(crate) struct OneLedger {
    pub number: i32,
    pub node: String,
    pub zone: String,
}

/// A closed month of a ledger.
#[derive(Clone, Debug)]
pub(crate) struct Period {
    pub ledger: i32,
    pub number: i64,
    pub name: String,
    pub span: (i64, i64),
}

/// The ledgers of a report, and what their containers and interfaces are in it.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub ledgers: Vec<OneLedger>,
    extents: Vec<LedgerRow>,
    /// Whether containers are shown with their node.
    has_prefixes: bool,
    /// Number in the report of a container, by ledger and number in it.
    containers: HashMap<(i32, i64), i64>,
    /// The same the other way round.
    pub members: HashMap<i64, Vec<(i32, i64)>>,
    /// What the containers are called, by ledger and number in it.
    pub labels: HashMap<(i32, i64), String>,
    pub interfaces: HashMap<(i32, i64), i64>,
    pub periods: Vec<Period>,
    /// The drops of the ledgers, in their order.
    pub drops: Vec<DropsOf>,
    /// Whose the containers are, in a report by tenant. Its containers are then the tenants.
    pub shares: Option<Shares>,
}

fn refuse<T>(reason: String) -> Result<T, LedgerError> {
    Err(LedgerError::Store(reason))
}

impl Book {
    /// Chooses the ledgers of a report.
    pub fn new(rows: Vec<LedgerRow>, choice: &Reported<'_>) -> Result<Self, LedgerError> {
        let mut book = Self::default();
        let mut others = Vec::new();
        for row in rows {
            if !choice.nodes.is_empty() && !choice.nodes.contains(&row.node) {
                others.push(row.node);
                continue;
            }
            let (Some(zone), Some(_)) = (&row.zone, row.billing_day) else {
                return refuse(format!(
                    "node {} has not shipped since the store was updated; update trafctl there, and run `trafctl ship \
                     --once`",
                    row.node
                ));
            };
            book.ledgers.push(OneLedger { number: row.number, node: row.node.clone(), zone: zone.clone() });
            book.extents.push(row);
        }
        others.dedup();
        let is_missing = |name: &&String| !book.ledgers.iter().any(|one| one.node == **name);
        if let Some(missing) = choice.nodes.iter().find(is_missing) {
            let mut known: Vec<&str> = others.iter().map(String::as_str).collect();
            known.extend(book.ledgers.iter().map(|one| one.node.as_str()));
            if !known.is_empty() {
                return refuse(format!("the store has no node {missing:?}; it has {}", known.join(", ")));
            }
        }
        if book.ledgers.is_empty() {
            return refuse("the store has no rows yet; run `trafctl ship` on the nodes".to_owned());
        }
        let drops_of = |of: &LedgerRow| DropsOf {
            ledger: of.number,
            node: of.node.clone(),
            recorded: of.recorded,
            from: of.drops_from,
            are_all_here: of.has_all_drops,
            kept_from: of.drops_kept_from,
        };
        book.drops = book.extents.iter().map(drops_of).collect();
        book.has_prefixes = book.has_several() && book.extents.iter().any(|extent| !extent.has_cluster_ids);
        Ok(book)
    }

    fn has_several(&self) -> bool {
        self.ledgers.iter().any(|one| one.node != self.ledgers[0].node)
    }

    pub fn numbers(&self) -> Vec<i32> {
        self.ledgers.iter().map(|ledger| ledger.number).collect()
    }

    pub fn node(&self, ledger: i32) -> &str {
        self.ledgers.iter().find(|one| one.number == ledger).map_or("?", |one| &one.node)
    }

    /// The node of a ledger, where the report is about several.
    pub fn named_node(&self, ledger: i32) -> Option<String> {
        self.has_several().then(|| self.node(ledger).to_owned())
    }

    /// What a container of a ledger is called in reports.
    pub fn shown(&self, ledger: i32, label: &str) -> String {
        if self.has_prefixes { format!("{}/{label}", self.node(ledger)) } else { label.to_owned() }
    }

    /// The containers of the ledgers that make up some containers of the report.
    pub fn members_of(&self, containers: &[i64]) -> Vec<(i32, i64)> {
        containers.iter().filter_map(|number| self.members.get(number)).flatten().copied().collect()
    }

    /// The number in the report of a ledger's container; 0 for one that the store does not have.
    pub fn container(&self, ledger: i32, number: i64) -> i64 {
        self.containers.get(&(ledger, number)).copied().unwrap_or(0)
    }

    /// The calendar of the report's steps, and whether it is that of all ledgers.
    pub fn calendar(&self, choice: &Reported<'_>) -> Result<(Calendar, bool), LedgerError> {
        let day_of = |at: usize| self.extents[at].billing_day.unwrap_or(1);
        let (first, day) = (&self.ledgers[0], day_of(0));
        let other_zone = self.ledgers.iter().find(|one| one.zone != first.zone);
        let other_day = (0..self.extents.len()).find(|at| day_of(*at) != day);
        if let Some(other) = other_zone.filter(|_| choice.zone.is_none()) {
            return refuse(format!(
                "the nodes have several time zones ({}: {}, {}: {}); choose one with --tz, or nodes with --node",
                first.node, first.zone, other.node, other.zone
            ));
        }
        if let Some(at) = other_day.filter(|_| choice.billing_day.is_none()) {
            return refuse(format!(
                "the months of the nodes begin on several days ({}: {day}, {}: {}); choose one with --billing-day, or \
                 nodes with --node",
                first.node,
                self.ledgers[at].node,
                day_of(at)
            ));
        }
        let is_common = other_zone.is_none() && other_day.is_none();
        let zone = choice.zone.filter(|_| other_zone.is_some()).unwrap_or(&first.zone);
        let day = choice.billing_day.filter(|_| other_day.is_some()).unwrap_or(day);
        match (Calendar::new(zone, day), choice.zone) {
            (Ok(calendar), _) => Ok((calendar, is_common)),
            // This machine does not know the zone of the nodes, but another one is asked for.
            (Err(_), Some(asked)) => Ok((Calendar::new(asked, day)?, false)),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// The containers of the report. Those with the same label are one. `rows` are by ledger and number, `names` by time.
    pub fn take_containers(&mut self, rows: Vec<ContainerRow>, names: Vec<NameRow>) -> Vec<StoredContainer> {
        let mut all: Vec<StoredContainer> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for row in rows {
            let label = self.shown(row.ledger, &row.label);
            let place = *places.entry(label.clone()).or_insert(all.len());
            match all.get_mut(place) {
                Some(same) => {
                    same.since = same.since.min(row.since);
                    same.retired = same.retired.zip(row.retired).map(|(a, b)| a.max(b));
                }
                None => all.push(StoredContainer {
                    number: i64::try_from(place).unwrap_or(i64::MAX) + 1,
                    id: row.name,
                    label: label.clone(),
                    kind: row.kind,
                    since: row.since,
                    retired: row.retired,
                    names: Vec::new(),
                }),
            }
            let shown = all[place].number;
            self.containers.insert((row.ledger, row.number), shown);
            self.members.entry(shown).or_default().push((row.ledger, row.number));
            self.labels.insert((row.ledger, row.number), label);
        }
        for (ledger, container, since, until, name) in names {
            let place = usize::try_from(self.container(ledger, container) - 1);
            if let Some(container) = place.ok().and_then(|place| all.get_mut(place)) {
                container.names.push((since, until, name));
            }
        }
        all
    }

    /// The tenants, in place of the containers.
    pub fn take_tenants(&mut self, tenants: Tenants) -> Vec<StoredContainer> {
        self.containers.clear();
        self.members = tenants.members;
        self.shares = Some(tenants.shares);
        tenants.all
    }

    /// Whose a container was at a time; 0 for nobody's that the report has.
    pub fn owner(&self, ledger: i32, number: i64, at: i64) -> i64 {
        match &self.shares {
            Some(shares) => shares.at(ledger, number, at).unwrap_or(0),
            None => self.container(ledger, number),
        }
    }

    /// The interfaces of the report: number, name, container.
    pub fn take_interfaces(&mut self, rows: Vec<InterfaceRow>) -> Vec<(i64, String, i64)> {
        let mut all = Vec::new();
        for (ledger, number, name, container) in rows {
            let name = self.named_node(ledger).map_or_else(|| name.clone(), |node| format!("{node}/{name}"));
            let shown = i64::try_from(all.len()).unwrap_or(i64::MAX) + 1;
            let container = if container == 0 { 0 } else { self.container(ledger, container) };
            all.push((shown, name, container));
            self.interfaces.insert((ledger, number), shown);
        }
        all
    }

    /// What is small, with the containers, interfaces and days of the report. `first` is the start of the first five
    /// minutes that the store has: a ledger may have dropped them since.
    pub fn stored(
        &self,
        (calendar, days): (Calendar, &[DayRow]),
        first: Option<i64>,
        (containers, interfaces): (Vec<StoredContainer>, Vec<(i64, String, i64)>),
    ) -> Result<StoredLedger, LedgerError> {
        let (days, months) = borders(&calendar, days)?;
        let with_rows = || self.extents.iter().filter(|extent| extent.recorded.0 < extent.recorded.1);
        let begin = with_rows().map(|extent| extent.recorded.0).chain(first).min().unwrap_or(0);
        Ok(StoredLedger {
            node: (!self.has_several()).then(|| self.ledgers[0].node.clone()),
            recorded: (begin, with_rows().map(|extent| extent.recorded.1).max().unwrap_or(begin)),
            last_bucket: self.extents.iter().filter_map(|extent| extent.last_bucket).max(),
            last_reading_ms: self.extents.iter().filter_map(|extent| extent.last_reading_ms).max(),
            drops_from: drops::recorded_from(&self.drops),
            calendar,
            days,
            months,
            containers,
            interfaces,
        })
    }
}

type Named = (i64, i64, String);

/// Days and months that were booked under other borders than the rules of the zone give them now. `all` are by start.
fn borders(calendar: &Calendar, all: &[DayRow]) -> Result<(Vec<Named>, Vec<Named>), LedgerError> {
    if let Some(pair) = all.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        return refuse(format!(
            "the nodes booked {} under different borders; ask for each of them with --node, or in another zone with --tz",
            pair[1].2
        ));
    }
    let (mut days, mut months) = (Vec::new(), Vec::new());
    for (start, end, day, _) in all {
        if Ledger::differs_from_rules(calendar, false, (*start, *end, day))? {
            days.push((*start, *end, day.clone()));
        }
    }
    // A month whose first or last day is not known keeps what the rules say.
    for of_month in all.chunk_by(|a, b| a.3 == b.3 && a.1 == b.0) {
        let (Some(first), Some(last)) = (of_month.first(), of_month.last()) else { continue };
        let is_known = all.iter().any(|day| day.1 == first.0) && all.iter().any(|day| day.0 == last.1);
        if is_known && Ledger::differs_from_rules(calendar, true, (first.0, last.1, &first.3))? {
            months.push((first.0, last.1, first.3.clone()));
        }
    }
    Ok((days, months))
}
