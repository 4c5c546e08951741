//! The documents that only the API has: columns for plots, the last day, months, containers.

use serde::Serialize;
use traffic_ledger::{
    ClassFigures, ClassSeries, Extent, Gap, KnownContainer, Month, Months, Overview, Series,
};
use traffic_model::local_time::LocalTime;

use crate::render::{ClassNames, json};

/// A class with its name, if it has one.
#[derive(Serialize)]
struct Named<'a, T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(flatten)]
    of: &'a T,
}

fn named<'a, T>(all: &'a [T], class: fn(&T) -> u8, names: &'a ClassNames) -> Vec<Named<'a, T>> {
    let name = |one: &T| names.get(&class(one)).map(String::as_str);
    all.iter().map(|of| Named { name: name(of), of }).collect()
}

/// A gap with what people read.
#[derive(Serialize)]
struct ToldGap<'a> {
    #[serde(flatten)]
    gap: &'a Gap,
    loses_traffic: bool,
    text: String,
}

fn told<'a>(gaps: &'a [Gap], local_time: &LocalTime) -> Vec<ToldGap<'a>> {
    let told =
        |gap: &'a Gap| ToldGap { gap, loses_traffic: gap.reason.loses_traffic(), text: gap.text(local_time) };
    gaps.iter().map(told).collect()
}

/// A document with its classes and gaps.
#[derive(Serialize)]
struct Told<'a, T> {
    #[serde(flatten)]
    document: T,
    classes: Vec<Named<'a, ClassSeries>>,
    gaps: Vec<ToldGap<'a>>,
}

/// Columns for a plot.
///
/// # Errors
/// When the output cannot be formatted.
pub fn series(series: &Series, local_time: &LocalTime, names: &ClassNames) -> anyhow::Result<String> {
    let (gaps, classes) = (told(&series.gaps, local_time), named(&series.classes, |one| one.class, names));
    json::line(&Told { document: series, classes, gaps })
}

/// What is known of the node besides its ledger.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeFacts<'a> {
    /// Its name; `None` for that of the ledger.
    pub node: Option<&'a str>,
    /// Whether its counters can be read.
    pub live: bool,
    /// What is wrong.
    pub problems: &'a [String],
}

/// The node, before the figures.
#[derive(Serialize)]
struct OfNode<'a, T> {
    node: Option<&'a str>,
    trafctl_version: &'static str,
    live: bool,
    ledger: Option<&'a Extent>,
    problems: &'a [String],
    #[serde(flatten)]
    overview: Option<T>,
}

impl<'a, T> OfNode<'a, T> {
    const fn new(facts: &NodeFacts<'a>, ledger: Option<&'a Extent>, overview: Option<T>) -> Self {
        let NodeFacts { node, live, problems } = *facts;
        Self { node, trafctl_version: env!("CARGO_PKG_VERSION"), live, ledger, problems, overview }
    }
}

/// The last day of a node.
///
/// # Errors
/// When the output cannot be formatted.
pub fn overview(
    overview: &Overview,
    (facts, extent): (&NodeFacts<'_>, &Extent),
    local_time: &LocalTime,
    names: &ClassNames,
) -> anyhow::Result<String> {
    let (gaps, classes) =
        (told(&overview.gaps, local_time), named(&overview.classes, |one| one.class, names));
    json::line(&OfNode::new(facts, Some(extent), Some(Told { document: overview, classes, gaps })))
}

/// The same of a node that keeps no ledger.
///
/// # Errors
/// When the output cannot be formatted.
pub fn overview_without_ledger(facts: &NodeFacts<'_>) -> anyhow::Result<String> {
    json::line(&OfNode::<()>::new(facts, None, None))
}

/// A month with the names of its classes.
#[derive(Serialize)]
struct NamedMonth<'a> {
    #[serde(flatten)]
    month: &'a Month,
    classes: Vec<Named<'a, ClassFigures>>,
}

#[derive(Serialize)]
struct MonthsDocument<'a> {
    #[serde(flatten)]
    of: &'a Months,
    months: Vec<NamedMonth<'a>>,
}

/// A table of months.
///
/// # Errors
/// When the output cannot be formatted.
pub fn months(of: &Months, names: &ClassNames) -> anyhow::Result<String> {
    let months = of.months.iter();
    let months =
        months.map(|month| NamedMonth { month, classes: named(&month.classes, |one| one.class, names) });
    json::line(&MonthsDocument { of, months: months.collect() })
}

/// The containers of a ledger.
///
/// # Errors
/// When the output cannot be formatted.
pub fn containers(containers: &[KnownContainer]) -> anyhow::Result<String> {
    json::list("containers", containers)
}
