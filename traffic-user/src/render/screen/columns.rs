//! The columns of the list: which fit, how wide they are, and what is in them.

use std::ops::RangeInclusive;

use ratatui::style::{Color, Style};
use traffic_model::{live_rates::Order, units};
use unicode_width::UnicodeWidthStr as _;

use super::{
    rows::Row,
    state::{Kind, Screen, Section, Sorting},
    view::{coloured, incoming, outgoing},
};
use crate::render::{
    ledger::people::shortened,
    live_rates::{bits_per_second, packets_per_second},
};

/// Widths of the picture of a minute, and the least of ids, names and classes.
const MINUTE: RangeInclusive<usize> = 10..=30;
const LEAST_ID: usize = 8;
const LEAST_CLASS: usize = 7;
/// Blanks between columns.
pub(super) const GAP: usize = 2;

/// A column of the list.
pub(super) struct Column {
    pub heading: String,
    pub cells: Vec<String>,
    pub is_number: bool,
    pub style: Style,
    pub width: usize,
}

impl Column {
    fn new(heading: &str, cells: Vec<String>, is_number: bool) -> Self {
        let width = cells.iter().map(|cell| cell.width()).max().unwrap_or(0).max(heading.width());
        Self { heading: heading.to_owned(), cells, is_number, style: Style::new(), width }
    }

    /// Shortens the cells to a width.
    fn fit(&mut self, width: usize) {
        for cell in &mut self.cells {
            *cell = shortened(cell, width);
        }
        self.heading = shortened(&self.heading, width);
        self.width = width;
    }
}

/// A column of texts that may be shortened, and the width that it has so far.
struct Text {
    column: Column,
    width: usize,
}

impl Text {
    fn new(heading: &str, cells: Vec<String>, least: usize) -> Self {
        let column = Column::new(heading, cells, false);
        Self { width: column.width.min(least), column }
    }

    /// Takes from what is left, up to a width.
    fn grow(&mut self, most: usize, left: &mut usize) {
        let more = most.min(self.column.width).saturating_sub(self.width).min(*left);
        self.width += more;
        *left -= more;
    }

    fn fitted(mut self) -> Column {
        self.column.fit(self.width);
        self.column
    }
}

/// What is left out where the line is too short.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extra {
    Name,
    Minute,
    Packets,
    Dropped,
}

/// The columns that fit: ids and bytes always, then names. Rates then have their minute before packets; totals have
/// exact figures before a picture.
pub(super) fn columns(screen: &Screen, rows: &[Row], width: usize) -> Vec<Column> {
    let (first, second) = match screen.section {
        Section::Classes => ("CONTAINER", "CLASS"),
        Section::Faults => ("INTERFACE", "FAULT"),
        Section::Interfaces => ("INTERFACE", "CONTAINER"),
    };
    let is_of_classes = screen.section == Section::Classes;
    let texts = |of: fn(&Row) -> &str| rows.iter().map(|row| of(row).to_owned()).collect::<Vec<_>>();
    let mut id = Text::new(first, texts(|row| &row.id), LEAST_ID);
    let mut name = Text::new("NAME", texts(|row| &row.name), LEAST_ID);
    let mut class =
        (!is_of_classes || screen.by_class).then(|| Text::new(second, texts(|row| &row.second), LEAST_CLASS));
    let family =
        (is_of_classes && screen.by_family).then(|| Column::new("FAMILY", texts(|row| row.family), false));
    let taken = |columns: &[&Column]| columns.iter().map(|column| column.width + GAP).sum::<usize>();
    let texts_taken = id.width + GAP + class.as_ref().map_or(0, |class| class.width + GAP);
    // Behind the last column there is no gap.
    let room = (width + GAP).saturating_sub(texts_taken + taken(&family.iter().collect::<Vec<_>>()));
    let mut of_figures = figures(screen, rows, screen.human);
    if taken(&[&of_figures[0], &of_figures[2]]) > room {
        // A figure that loses its last digits would be another one.
        of_figures = figures(screen, rows, true);
    }
    let [bytes_in, packets_in, bytes_out, packets_out] = of_figures;
    let mut left = room.saturating_sub(taken(&[&bytes_in, &bytes_out]));
    let has_names = rows.iter().any(|row| !row.name.is_empty());
    let dropped = dropped(screen, rows);
    let mut extras = Vec::new();
    let order = match screen.kind {
        Kind::Rates => [Extra::Name, Extra::Dropped, Extra::Minute, Extra::Packets],
        Kind::Totals => [Extra::Name, Extra::Dropped, Extra::Packets, Extra::Minute],
    };
    for extra in order {
        let (is_there, cost) = match extra {
            Extra::Name => (has_names, name.width + GAP),
            Extra::Minute => (is_of_classes, MINUTE.start() + GAP),
            Extra::Packets => (true, taken(&[&packets_in, &packets_out])),
            // As long as nothing is dropped, there is none.
            Extra::Dropped => (dropped.is_some(), taken(&dropped.iter().collect::<Vec<_>>())),
        };
        if is_there && left >= cost {
            left -= cost;
            extras.push(extra);
        }
    }
    let has = |extra| extras.contains(&extra);
    // Step by step, so that a long id leaves something for the others.
    for most in [12, 20, usize::MAX] {
        id.grow(most, &mut left);
        if has(Extra::Name) {
            name.grow(most, &mut left);
        }
        if let Some(class) = &mut class {
            class.grow(most, &mut left);
        }
    }
    let second = class.map(Text::fitted);
    let name = has(Extra::Name).then(|| name.fitted());
    let mut columns = vec![id.fitted()];
    // A name follows the id of its container.
    match is_of_classes {
        true => columns.extend(name.into_iter().chain(second)),
        false => columns.extend(second.into_iter().chain(name)),
    }
    columns.extend(family);
    for (bytes, packets) in [(bytes_in, packets_in), (bytes_out, packets_out)] {
        columns.push(bytes);
        columns.extend(has(Extra::Packets).then_some(packets));
    }
    columns.extend(dropped.filter(|_| has(Extra::Dropped)));
    if has(Extra::Minute) {
        let cells = (MINUTE.start() + left).min(*MINUTE.end());
        let minutes = rows.iter().map(|row| row.minute(screen, cells)).collect();
        let mut minute = Column::new("LAST 60 S", minutes, false);
        minute.style = coloured(screen, Color::Cyan);
        columns.push(minute);
    }
    columns
}

/// Packets that were dropped; `None` if there are none.
fn dropped(screen: &Screen, rows: &[Row]) -> Option<Column> {
    let seconds = screen.rates.as_ref()?.seconds;
    rows.iter().any(|row| row.dropped > 0).then(|| {
        let cells = rows.iter().map(|row| packets_per_second(row.dropped, seconds)).collect();
        let mut column = Column::new("DROPPED/S", cells, true);
        column.style = coloured(screen, Color::Red);
        column
    })
}

/// Bytes of a time as a rate, in the unit that was asked for.
pub(super) fn rate_text(screen: &Screen, bytes: u64, seconds: f64) -> String {
    let bits = bits_per_second(bytes, seconds);
    if !screen.in_bytes {
        return units::rate(bits);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "three digits are shown")]
    let bytes = (bits / 8.0).round() as u64;
    if bytes == 0 { "0".to_owned() } else { format!("{}/s", units::volume(bytes)) }
}

/// The columns of figures: bytes and packets in, bytes and packets out.
fn figures(screen: &Screen, rows: &[Row], human: bool) -> [Column; 4] {
    let is_rate = screen.kind == Kind::Rates;
    let seconds = screen.rates.as_ref().map_or(0.0, |rates| rates.seconds);
    let bytes = |bytes: u64| match screen.kind {
        Kind::Rates => rate_text(screen, bytes, seconds),
        Kind::Totals => units::format_bytes(bytes, human),
    };
    let packets = |packets: u64| match is_rate {
        true => packets_per_second(packets, seconds),
        false => packets.to_string(),
    };
    let heading = |direction: &str, unit: &str| {
        let (unit, rate) = if is_rate { (unit, "/S") } else { (unit, "") };
        let mark = match (screen.sorting, direction, unit) {
            (Sorting::By(Order::In), "IN", "") | (Sorting::By(Order::Out), "OUT", "") => "\u{25bc}",
            (Sorting::By(Order::Packets), _, "PACKETS") => "\u{25bc}",
            _ => "",
        };
        match unit {
            "" if is_rate => format!("{direction}{mark}"),
            "" => format!("{direction} BYTES{mark}"),
            unit => format!("{direction} {unit}{rate}{mark}"),
        }
    };
    let column = |heading: String, of: &dyn Fn(&Row) -> String| {
        Column::new(&heading, rows.iter().map(of).collect(), true)
    };
    let mut columns = [
        column(heading("IN", ""), &|row| bytes(row.figures.incoming.bytes)),
        column(heading("IN", "PACKETS"), &|row| packets(row.figures.incoming.packets)),
        column(heading("OUT", ""), &|row| bytes(row.figures.outgoing.bytes)),
        column(heading("OUT", "PACKETS"), &|row| packets(row.figures.outgoing.packets)),
    ];
    for (at, column) in columns.iter_mut().enumerate() {
        column.style = if at < 2 { incoming(screen) } else { outgoing(screen) };
        // Rates keep their width, so that columns do not move with every reading.
        if is_rate {
            column.width = column.width.max(if at % 2 == 0 { 10 } else { 12 });
        }
    }
    columns
}
