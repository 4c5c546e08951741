//! The rows of the list, from the last reading: grouped, filtered and sorted.

use std::{cmp::Reverse, collections::BTreeMap};

use traffic_common::{Family, Tally};
use traffic_model::{ByDirection, ContainerId, Snapshot, live_rates::Order};

use super::{
    minute::{SeriesKey, sparkline},
    state::{Kind, Screen, Section, Sorting},
};
use crate::render::{class_names, look::printable};

/// A row of the list.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// The container, or the interface.
    pub id: String,
    /// What people call the container; empty if it has no other name than its id.
    pub name: String,
    /// The class, the fault, or the interface's container; empty if rows are not divided by it.
    pub second: String,
    /// The family; empty if rows are not divided by it.
    pub family: &'static str,
    /// What passed since the last reading, or altogether.
    pub figures: ByDirection<Tally>,
    /// What was dropped since the last reading: packets.
    pub dropped: u64,
    /// The series that it consists of.
    series: Vec<SeriesKey>,
}

impl Row {
    /// The last minute in so many cells.
    pub fn minute(&self, screen: &Screen, width: usize) -> String {
        let mut cells = vec![0.0; width];
        self.series.iter().for_each(|key| screen.minute.add_to(key, &mut cells));
        sparkline(&cells)
    }
}

/// What a row is: the generation tells two owners of one id apart.
type Group = (ContainerId, u32, Option<u8>, Option<Family>);

/// All rows that match what is looked for, in their order.
pub(super) fn rows(screen: &Screen) -> Vec<Row> {
    let Some(reading) = &screen.reading else { return Vec::new() };
    let mut rows = match (screen.section, screen.kind) {
        (Section::Classes, Kind::Rates) => rates(screen),
        (Section::Classes, Kind::Totals) => totals(screen, reading),
        (Section::Faults, _) => faults(screen, reading),
        (Section::Interfaces, _) => interfaces(screen, reading),
    };
    let looked_for = screen.search.to_lowercase();
    rows.retain(|row| {
        let text = format!("{} {} {} {}", row.id, row.name, row.second, row.family).to_lowercase();
        text.contains(&looked_for)
    });
    let weight = |row: &Row, order: Order| match order {
        Order::Total => row.figures.total().bytes,
        Order::In => row.figures.incoming.bytes,
        Order::Out => row.figures.outgoing.bytes,
        Order::Packets => row.figures.total().packets,
    };
    match screen.sorting {
        // Stable: rows without traffic keep their order, and do not swap places with every reading.
        Sorting::By(order) => rows.sort_by_key(|row| Reverse(weight(row, order))),
        Sorting::Name => {
            // Containers by what people call them.
            let is_named = |row: &Row| screen.section == Section::Classes && !row.name.is_empty();
            let called = |row: &Row| if is_named(row) { row.name.clone() } else { row.id.clone() };
            rows.sort_by_cached_key(|row| order_of_name(&called(row)));
        }
    }
    rows
}

/// Numbers by their value, before other names.
fn order_of_name(name: &str) -> (u64, String) {
    (name.parse().unwrap_or(u64::MAX), name.to_owned())
}

fn row(screen: &Screen, (id, _, class, family): &Group, figures: ByDirection<Tally>) -> Row {
    Row {
        id: printable(id.as_str()),
        name: screen.containers.get(id).map(|name| printable(name)).unwrap_or_default(),
        second: class.map(|class| printable(&class_names::cell(class, &screen.classes))).unwrap_or_default(),
        family: family.map(Family::name).unwrap_or_default(),
        figures,
        dropped: 0,
        series: Vec::new(),
    }
}

fn group(screen: &Screen, id: &ContainerId, generation: u32, class: u8, family: Family) -> Group {
    (id.clone(), generation, screen.by_class.then_some(class), screen.by_family.then_some(family))
}

/// What passed since the last reading. Whoever had traffic within the minute stays, so that rows do not flicker.
fn rates(screen: &Screen) -> Vec<Row> {
    let mut groups: BTreeMap<Group, (ByDirection<Tally>, u64, Vec<SeriesKey>)> = BTreeMap::new();
    for key in screen.minute.keys() {
        let (id, class, family) = key;
        groups.entry(group(screen, id, 0, *class, *family)).or_default().2.push(key.clone());
    }
    for of in &screen.passed {
        if let Some(known) = groups.get_mut(&group(screen, &of.container, 0, of.class, of.family)) {
            known.0 += of.passed;
            known.1 = known.1.saturating_add(of.dropped.total().packets);
        }
    }
    let row = |(group, (figures, dropped, series)): (Group, (_, u64, Vec<SeriesKey>))| Row {
        dropped,
        series,
        ..row(screen, &group, figures)
    };
    groups.into_iter().map(row).collect()
}

fn totals(screen: &Screen, reading: &Snapshot) -> Vec<Row> {
    let mut groups: BTreeMap<Group, (ByDirection<Tally>, Vec<SeriesKey>)> = BTreeMap::new();
    for counter in screen.filter.apply(reading.clone()).counters {
        let group = group(screen, &counter.container, counter.generation, counter.class, counter.family);
        let sum = groups.entry(group).or_default();
        sum.0 += counter.tally;
        let series = (counter.container, counter.class, counter.family);
        // Both owners of an id have the series of the one that is there.
        if !sum.1.contains(&series) {
            sum.1.push(series);
        }
    }
    let row = |(group, (figures, series)): (Group, (_, Vec<SeriesKey>))| Row {
        series,
        ..row(screen, &group, figures)
    };
    groups.into_iter().map(row).collect()
}

fn other(interface: &str, second: &str, figures: ByDirection<Tally>) -> Row {
    let (id, second) = (printable(interface), printable(second));
    Row { id, name: String::new(), second, family: "", figures, dropped: 0, series: Vec::new() }
}

fn faults(screen: &Screen, reading: &Snapshot) -> Vec<Row> {
    let shown = screen.filter.apply(reading.clone());
    shown.faults.iter().map(|fault| other(&fault.interface, fault.fault.name(), fault.tally)).collect()
}

fn interfaces(screen: &Screen, reading: &Snapshot) -> Vec<Row> {
    let shown = screen.filter.apply(reading.clone());
    let row = |interface: &traffic_model::InterfaceCounter| {
        let owner = interface.container.as_ref().map_or("(shared)", ContainerId::as_str);
        let passed = &interface.passed;
        let figures = ByDirection { incoming: passed.incoming.wire, outgoing: passed.outgoing.wire };
        let name = interface.container.as_ref().and_then(|id| screen.containers.get(id));
        Row {
            name: name.map(|name| printable(name)).unwrap_or_default(),
            ..other(&interface.interface, owner, figures)
        }
    };
    shown.interfaces.iter().map(row).collect()
}
