//! The documents that only the API has: columns for plots, the last day, months, containers.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use traffic_ledger::{
    ClassFigures, ClassSeries, ContainerNames, Extent, Gap, KnownContainer, Month, Months, Overview, Series,
};
use traffic_model::local_time::LocalTime;

use crate::render::{ClassNames, json, ledger::gaps::NamedGap};

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
    gap: NamedGap<'a>,
    loses_traffic: bool,
    text: String,
}

fn told<'a>(gaps: &'a [Gap], names: &'a ContainerNames, local_time: &LocalTime) -> Vec<ToldGap<'a>> {
    let told = |gap: &'a Gap| ToldGap {
        gap: NamedGap::new(gap, names),
        loses_traffic: gap.reason.loses_traffic(),
        text: gap.text(local_time),
    };
    gaps.iter().map(told).collect()
}

/// A document with its classes and gaps.
#[derive(Serialize)]
struct Told<'a, T> {
    #[serde(flatten)]
    document: T,
    #[serde(rename = "container_names", skip_serializing_if = "Option::is_none")]
    names: Option<BTreeMap<&'a str, &'a str>>,
    classes: Vec<Named<'a, ClassSeries>>,
    gaps: Vec<ToldGap<'a>>,
}

/// Columns for a plot.
///
/// # Errors
/// When the output cannot be formatted.
pub fn series(
    series: &Series,
    local_time: &LocalTime,
    (classes, containers): (&ClassNames, &ContainerNames),
) -> anyhow::Result<String> {
    let gaps = told(&series.gaps, containers, local_time);
    let classes = named(&series.classes, |one| one.class, classes);
    let corrected = series.adjustments.iter().map(|one| &one.adjustment.container);
    let named = series.containers.iter().chain(corrected);
    let names = Some(names_at(named, containers, series.to));
    json::line(&Told { document: series, names, classes, gaps })
}

/// The names of containers at a time, of those that have one.
fn names_at<'a>(
    of: impl IntoIterator<Item = &'a String>,
    names: &'a ContainerNames,
    end: Timestamp,
) -> BTreeMap<&'a str, &'a str> {
    of.into_iter().filter_map(|container| Some((container.as_str(), names.at(container, end)?))).collect()
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
    (classes, containers): (&ClassNames, &ContainerNames),
) -> anyhow::Result<String> {
    let gaps = told(&overview.gaps, containers, local_time);
    let classes = named(&overview.classes, |one| one.class, classes);
    // Its containers have their names in their rows.
    let told = Told { document: overview, names: None, classes, gaps };
    json::line(&OfNode::new(facts, Some(extent), Some(told)))
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
    container_names: BTreeMap<&'a str, &'a str>,
    months: Vec<NamedMonth<'a>>,
}

/// A table of months.
///
/// # Errors
/// When the output cannot be formatted.
pub fn months(of: &Months, (classes, containers): (&ClassNames, &ContainerNames)) -> anyhow::Result<String> {
    let months = of.months.iter();
    let months =
        months.map(|month| NamedMonth { month, classes: named(&month.classes, |one| one.class, classes) });
    let corrected = of.adjustments.iter().map(|one| &one.adjustment.container);
    let named = of.containers.iter().chain(corrected);
    let container_names = names_at(named, containers, Timestamp::MAX);
    json::line(&MonthsDocument { of, container_names, months: months.collect() })
}

/// The containers of a ledger.
///
/// # Errors
/// When the output cannot be formatted.
pub fn containers(containers: &[KnownContainer]) -> anyhow::Result<String> {
    json::list("containers", containers)
}
