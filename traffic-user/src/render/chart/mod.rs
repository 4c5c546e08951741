//! A report as bars: in the terminal, as SVG and as PNG. All three draw the same [`Chart`], which is made from
//! the [`Report`] that the table prints, so that no figure differs.

pub mod bars;
mod font;
mod palette;
mod picture;
mod png;
mod scene;
mod svg;

use std::collections::BTreeMap;

use traffic_ledger::{By, Report, ReportRow, permille_shares};
use traffic_model::counted;

use crate::render::{ClassNames, class_names, look::printable, with_name};

pub use palette::Theme;
pub use picture::{png, svg};

/// What a colour stands for. The web page has the same colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hue {
    /// Traffic to the container.
    Incoming,
    /// Traffic from the container.
    Outgoing,
    /// A class.
    Class(u8),
}

/// A part of every bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it stands for.
    pub hue: Hue,
    /// Its name.
    pub name: String,
    /// Its bytes in all bars.
    pub bytes: u64,
}

/// A bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// The step, or the container.
    pub label: String,
    /// Bytes of each part, in their order.
    pub parts: Vec<u64>,
    /// What a running step comes to.
    pub estimate: Option<u64>,
    /// Whether traffic of this step is missing.
    pub loses_traffic: bool,
}

impl Bar {
    /// All its bytes.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().copied().fold(0, u64::saturating_add)
    }
}

/// A report as bars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chart {
    /// Whose traffic it is.
    pub title: String,
    /// Span, zone and basis.
    pub subtitle: String,
    /// The parts of bars: directions, or classes.
    pub parts: Vec<Part>,
    /// The bars: steps in their order, or containers, the largest first.
    pub bars: Vec<Bar>,
    /// Whether the bars are steps.
    pub is_over_time: bool,
}

/// The share of each bar in all of them, in thousandths, as in the table.
fn shares(bars: &[Bar]) -> Vec<u64> {
    permille_shares(&bars.iter().map(Bar::bytes).collect::<Vec<u64>>())
}

/// Most containers with a bar of their own. The others share one.
const MOST_CONTAINERS: usize = 20;

impl Chart {
    /// The bars of a report: one for each step; of a report in one step, one for each container. Their parts
    /// are the classes, if it is split by class, otherwise the directions. Class 0 is in no bar, as it is in
    /// no sum.
    pub fn of(report: &Report, node: Option<&str>, names: &ClassNames) -> Self {
        let by_class = report.rows.iter().any(|row| row.billed && row.class.is_some());
        let billed = || report.rows.iter().filter(|row| row.billed);
        let mut hues: Vec<Hue> = match by_class {
            true => billed().filter_map(|row| row.class).map(Hue::Class).collect(),
            false => vec![Hue::Incoming, Hue::Outgoing],
        };
        hues.sort_unstable();
        hues.dedup();
        let is_over_time = report.by != By::Total;
        let bars = if is_over_time { steps(report, &hues) } else { containers(report, &hues) };
        let part = |(at, &hue): (usize, &Hue)| Part {
            hue,
            name: match hue {
                Hue::Incoming => "in".to_owned(),
                Hue::Outgoing => "out".to_owned(),
                Hue::Class(class) if names.contains_key(&class) => {
                    printable(&class_names::cell(class, names))
                }
                Hue::Class(class) => format!("class {class}"),
            },
            bytes: bars.iter().map(|bar| bar.parts[at]).fold(0, u64::saturating_add),
        };
        let parts = hues.iter().enumerate().map(part).collect();
        Self { title: title(report, node), subtitle: subtitle(report), parts, bars, is_over_time }
    }

    /// Bytes of the longest bar, estimates included.
    pub fn longest(&self) -> u64 {
        let ends = self.bars.iter().map(|bar| bar.bytes().max(bar.estimate.unwrap_or(0)));
        ends.max().unwrap_or(0)
    }

    /// Bytes of all bars.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).fold(0, u64::saturating_add)
    }
}

/// Adds a row to the parts of a bar.
fn add(parts: &mut [u64], hues: &[Hue], row: &ReportRow) {
    let figures = &row.figures;
    for (sum, hue) in parts.iter_mut().zip(hues) {
        let bytes = match hue {
            Hue::Incoming => figures.incoming.map_or(0, |of| of.bytes),
            Hue::Outgoing => figures.outgoing.map_or(0, |of| of.bytes),
            Hue::Class(class) if row.class == Some(*class) => figures.total.bytes,
            Hue::Class(_) => 0,
        };
        *sum = sum.saturating_add(bytes);
    }
}

fn steps(report: &Report, hues: &[Hue]) -> Vec<Bar> {
    let mut sums: BTreeMap<jiff::Timestamp, Vec<u64>> = BTreeMap::new();
    for row in report.rows.iter().filter(|row| row.billed) {
        add(sums.entry(row.start).or_insert_with(|| vec![0; hues.len()]), hues, row);
    }
    let lossy: Vec<_> =
        report.gaps.iter().filter(|gap| gap.reason.loses_traffic() && !gap.is_small()).collect();
    let bar = |step: &traffic_ledger::Step| Bar {
        label: step.period.clone(),
        parts: sums.get(&step.start).cloned().unwrap_or_else(|| vec![0; hues.len()]),
        estimate: report
            .running
            .as_ref()
            .filter(|running| running.period == step.period)
            .map(|running| running.estimate.figures.total.bytes),
        // Of a gap whose start is not known, only the end is sure, as on the page. Otherwise one interface that was
        // attached late would mark the whole history.
        loses_traffic: lossy.iter().any(|gap| {
            gap.start.map_or(gap.end <= step.end, |start| start < step.end) && gap.end > step.start
        }),
    };
    report.steps.iter().map(bar).collect()
}

fn containers(report: &Report, hues: &[Hue]) -> Vec<Bar> {
    let mut sums: Vec<(&ReportRow, Vec<u64>)> = Vec::new();
    for row in report.rows.iter().filter(|row| row.billed) {
        // Rows are ordered by container.
        if sums.last().is_none_or(|last| last.0.container != row.container) {
            sums.push((row, vec![0; hues.len()]));
        }
        if let Some((_, parts)) = sums.last_mut() {
            add(parts, hues, row);
        }
    }
    let bar = |label: String, parts: Vec<u64>| Bar { label, parts, estimate: None, loses_traffic: false };
    let mut bars: Vec<Bar> = sums.into_iter().map(|(row, parts)| bar(label_of(row), parts)).collect();
    bars.sort_by_key(|bar| std::cmp::Reverse(bar.bytes()));
    if bars.len() > MOST_CONTAINERS {
        let others = bars.split_off(MOST_CONTAINERS - 1);
        let mut parts = vec![0_u64; hues.len()];
        for other in &others {
            parts.iter_mut().zip(&other.parts).for_each(|(sum, &part)| *sum = sum.saturating_add(part));
        }
        bars.push(bar(format!("{} more", others.len()), parts));
    }
    bars
}

/// A container as people know it.
fn label_of(row: &ReportRow) -> String {
    printable(&with_name(&row.container, row.name.as_deref()))
}

fn title(report: &Report, node: Option<&str>) -> String {
    let mut containers: Vec<&str> = report.rows.iter().map(|row| row.container.as_str()).collect();
    containers.sort_unstable();
    containers.dedup();
    let whose = match (containers.len(), report.rows.last(), node) {
        (0, ..) | (_, None, _) => "no traffic".to_owned(),
        (1, Some(last), _) => label_of(last),
        (several, _, Some(node)) => format!("{} on {}", counted(several, "container"), printable(node)),
        (several, ..) => counted(several, "container"),
    };
    let by = match report.by {
        By::FiveMinutes => "five minutes",
        By::Hour => "hour",
        By::Day => "day",
        By::Week => "week",
        By::Month => "month",
        By::Year => "year",
        By::Total => "container",
    };
    format!("{whose}, by {by}")
}

fn subtitle(report: &Report) -> String {
    let calendar = traffic_model::calendar::Calendar::new(&report.zone, 1);
    let zone = calendar.map_or(jiff::tz::TimeZone::UTC, |calendar| calendar.zone().clone());
    let time = |time: jiff::Timestamp| time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string();
    let layer = match report.basis {
        traffic_ledger::Basis::L3 => 3,
        traffic_ledger::Basis::L2 => 2,
        traffic_ledger::Basis::L1 => 1,
    };
    format!("{} to {} {}, layer {layer}", time(report.from), time(report.to), report.zone)
}

/// A whole number of pixels or cells, for a part of a whole.
fn portion(part: u64, whole: u64, length: usize) -> usize {
    let scaled = (u128::from(part) * length as u128 * 2 + u128::from(whole)) / (u128::from(whole) * 2).max(1);
    let scaled = usize::try_from(scaled).unwrap_or(length).min(length);
    if part > 0 && length > 0 { scaled.max(1) } else { scaled }
}

#[cfg(test)]
mod tests;
