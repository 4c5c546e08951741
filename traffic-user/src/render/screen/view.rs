//! Draws the screen at any size: the head, the list in as many columns as fit, and a line of keys.

use ratatui::{
    Frame,
    buffer::Buffer,
    style::{Color, Modifier, Style},
};
use traffic_common::Tally;
use traffic_model::{ByDirection, units};
use unicode_width::UnicodeWidthStr as _;

use super::{
    help,
    rows::{self, Row},
    state::{Kind, Screen, Section, Sorting},
};
use crate::render::{
    ledger::people::shortened,
    live_rates::{bits_per_second, packets_per_second},
    look::printable,
    seconds,
};
use traffic_model::live_rates::Order;

/// Widths of the picture of a minute, and the shortest name.
const MINUTE: std::ops::RangeInclusive<usize> = 10..=30;
const SHORTEST_NAME: usize = 8;
/// Blanks between columns.
const GAP: usize = 2;

/// Fills a frame.
pub fn draw(screen: &mut Screen, frame: &mut Frame<'_>) {
    let area = frame.area();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let mut canvas = Canvas { buffer: frame.buffer_mut(), width, height };
    if screen.is_helping {
        return draw_help(screen, &mut canvas);
    }
    let rows = rows::rows(screen);
    // The least that says anything is a row. Then come the headings, the last line, and the head.
    let head = match height {
        0..=5 => 0,
        6..=7 => 1,
        _ => 3,
    };
    let below = usize::from(height > 2);
    let list = height.saturating_sub(head + below + usize::from(height > 1));
    screen.page = list.max(1);
    screen.row_count = rows.len();
    screen.top = screen.top.min(rows.len().saturating_sub(screen.page));
    if head > 0 {
        draw_head(screen, &mut canvas, head);
    }
    draw_list(screen, &mut canvas, (head, list), &rows);
    if below > 0 {
        draw_keys(screen, &mut canvas, rows.len());
    }
}

/// The buffer that is drawn into. Nothing is drawn outside it.
struct Canvas<'a> {
    buffer: &'a mut Buffer,
    width: usize,
    height: usize,
}

impl Canvas<'_> {
    /// Writes a text, cut where the line ends. Returns its width.
    fn text(&mut self, (x, y): (usize, usize), text: &str, style: Style) -> usize {
        let (Ok(column), Ok(line)) = (u16::try_from(x), u16::try_from(y)) else { return 0 };
        if x >= self.width || y >= self.height {
            return 0;
        }
        self.buffer.set_stringn(column, line, text, self.width - x, style);
        text.width()
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// A colour, where the terminal takes any.
fn coloured(screen: &Screen, colour: Color) -> Style {
    if screen.colours { Style::new().fg(colour) } else { Style::new() }
}

/// The colours of in and out are those of the web page, as near as the eight of every terminal come.
fn incoming(screen: &Screen) -> Style {
    coloured(screen, Color::Cyan)
}

fn outgoing(screen: &Screen) -> Style {
    coloured(screen, Color::Magenta)
}

fn draw_head(screen: &Screen, canvas: &mut Canvas<'_>, lines: usize) {
    let Some(reading) = &screen.reading else {
        let text = screen.problem.clone().unwrap_or_else(|| "reading the counters".to_owned());
        canvas.text((0, 0), &printable(&text), coloured(screen, Color::Red).add_modifier(Modifier::BOLD));
        return;
    };
    let mut x = canvas.text((0, 0), &format!("node {}  ", printable(&reading.node)), BOLD);
    x += canvas.text((x, 0), &seconds(reading.time), Style::new());
    if let Some(problem) = &screen.problem {
        let style = coloured(screen, Color::Red).add_modifier(Modifier::BOLD);
        // The figures below are old, so this comes first where there is one line.
        let text = format!("no newer reading: {}", printable(problem));
        if lines == 1 {
            canvas.text((0, 0), &" ".repeat(canvas.width), Style::new());
            canvas.text((0, 0), &text, style);
        } else {
            canvas.text((0, 1), &text, style);
        }
        return;
    }
    let what = match (screen.kind, screen.is_paused) {
        (_, true) => "  paused",
        (Kind::Rates, _) => "  layer 3, as on the wire",
        (Kind::Totals, _) => "  layer-3 bytes, as on the wire",
    };
    canvas.text((x, 0), what, DIM);
    if lines < 2 {
        return;
    }
    let Some(rates) = &screen.rates else {
        canvas.text((0, 1), "rates appear with the second reading", DIM);
        return;
    };
    let mut x = 0;
    for (name, passed) in [("all", &rates.classes), ("  no class", &rates.faults)] {
        let [a, b] = rate_texts(screen, passed, rates.seconds);
        x += canvas.text((x, 1), &format!("{name}  in "), Style::new());
        x += canvas.text((x, 1), &a, incoming(screen));
        x += canvas.text((x, 1), "  out ", Style::new());
        x += canvas.text((x, 1), &b, outgoing(screen));
    }
}

fn rate_texts(screen: &Screen, passed: &ByDirection<Tally>, seconds: f64) -> [String; 2] {
    [passed.incoming.bytes, passed.outgoing.bytes].map(|bytes| rate_text(screen, bytes, seconds))
}

fn rate_text(screen: &Screen, bytes: u64, seconds: f64) -> String {
    let bits = bits_per_second(bytes, seconds);
    if !screen.in_bytes {
        return units::rate(bits);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "three digits are shown")]
    let bytes = (bits / 8.0).round() as u64;
    if bytes == 0 { "0".to_owned() } else { format!("{}/s", units::volume(bytes)) }
}

/// A column of the list.
struct Column {
    heading: String,
    cells: Vec<String>,
    is_number: bool,
    style: Style,
    width: usize,
}

impl Column {
    fn new(heading: &str, cells: Vec<String>, is_number: bool) -> Self {
        let width = cells.iter().map(|cell| cell.width()).max().unwrap_or(0).max(heading.width());
        Self { heading: heading.to_owned(), cells, is_number, style: Style::new(), width }
    }
}

fn draw_list(screen: &Screen, canvas: &mut Canvas<'_>, (head, list): (usize, usize), rows: &[Row]) {
    let shown = &rows[screen.top.min(rows.len())..rows.len().min(screen.top + list)];
    let columns = columns(screen, shown, canvas.width);
    let headings = usize::from(canvas.height > 1);
    let mut x = 0;
    if headings > 0 {
        canvas.text((0, head), &" ".repeat(canvas.width), REVERSED);
    }
    for column in &columns {
        let at = |text: &str| match column.is_number {
            true => x + column.width.saturating_sub(text.width()),
            false => x,
        };
        if headings > 0 {
            canvas.text((at(&column.heading), head), &column.heading, REVERSED);
        }
        for (line, cell) in column.cells.iter().enumerate() {
            canvas.text((at(cell), head + headings + line), cell, column.style);
        }
        x += column.width + GAP;
    }
    if rows.is_empty() && list > 0 {
        let text = match (&screen.reading, screen.search.is_empty()) {
            (None, _) => "",
            (_, false) => "nothing matches; Esc shows everything",
            (_, true) if screen.kind == Kind::Rates => "no traffic in the last minute",
            (_, true) => "nothing is counted here",
        };
        canvas.text((0, head + headings), text, DIM);
    }
}

/// The columns that fit: name and bytes always, then the minute, then packets.
fn columns(screen: &Screen, rows: &[Row], width: usize) -> Vec<Column> {
    let (first, second) = match screen.section {
        Section::Classes => ("CONTAINER", "CLASS"),
        Section::Faults => ("INTERFACE", "FAULT"),
        Section::Interfaces => ("INTERFACE", "CONTAINER"),
    };
    let texts = |of: fn(&Row) -> &str| rows.iter().map(|row| of(row).to_owned()).collect::<Vec<_>>();
    let mut name = Column::new(first, texts(|row| &row.name), false);
    let mut divided = Vec::new();
    if screen.section != Section::Classes || screen.by_class {
        divided.push(Column::new(second, texts(|row| &row.second), false));
    }
    if screen.section == Section::Classes && screen.by_family {
        divided.push(Column::new("FAMILY", texts(|row| row.family), false));
    }
    let [bytes_in, packets_in, bytes_out, packets_out] = figures(screen, rows);
    let taken = |columns: &[&Column]| columns.iter().map(|column| column.width + GAP).sum::<usize>();
    let mut left = width.saturating_sub(taken(&[&bytes_in, &bytes_out]));
    // Names of classes get short before names of containers do.
    let names = SHORTEST_NAME.min(name.width) + GAP;
    if let Some(class) = divided.first_mut() {
        let most = left.saturating_sub(names + GAP + 8).max(7);
        fit(class, most.min(class.width));
    }
    left = left.saturating_sub(divided.iter().map(|column| column.width + GAP).sum());
    let has_minute = screen.section == Section::Classes;
    let minute_least = MINUTE.start() + GAP;
    let packets = taken(&[&packets_in, &packets_out]);
    let name_most = name.width.min(left.saturating_sub(GAP).max(SHORTEST_NAME));
    let shows_minute = has_minute && left >= names + minute_least;
    let mut rest = left.saturating_sub(names + if shows_minute { minute_least } else { 0 });
    let shows_packets = rest >= packets;
    rest = rest.saturating_sub(if shows_packets { packets } else { 0 });
    let name_width = (SHORTEST_NAME.min(name.width) + rest).min(name_most);
    rest = rest.saturating_sub(name_width.saturating_sub(SHORTEST_NAME.min(name.width)));
    fit(&mut name, name_width);
    let mut columns = vec![name];
    columns.extend(divided);
    for (bytes, packets) in [(bytes_in, packets_in), (bytes_out, packets_out)] {
        columns.push(bytes);
        columns.extend(shows_packets.then_some(packets));
    }
    if shows_minute {
        let cells = (MINUTE.start() + rest).min(*MINUTE.end());
        let minutes = rows.iter().map(|row| row.minute(screen, cells)).collect();
        let mut minute = Column::new("LAST 60 S", minutes, false);
        minute.style = coloured(screen, Color::Cyan);
        columns.push(minute);
    }
    columns
}

/// Shortens the cells of a column.
fn fit(column: &mut Column, width: usize) {
    for cell in &mut column.cells {
        *cell = shortened(cell, width);
    }
    column.heading = shortened(&column.heading, width);
    column.width = width;
}

/// The columns of figures: bytes and packets in, bytes and packets out.
fn figures(screen: &Screen, rows: &[Row]) -> [Column; 4] {
    let is_rate = screen.kind == Kind::Rates;
    let seconds = screen.rates.as_ref().map_or(0.0, |rates| rates.seconds);
    let bytes = |bytes: u64| match screen.kind {
        Kind::Rates => rate_text(screen, bytes, seconds),
        Kind::Totals => units::format_bytes(bytes, screen.human),
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

fn draw_keys(screen: &Screen, canvas: &mut Canvas<'_>, count: usize) {
    let line = canvas.height - 1;
    if screen.is_typing {
        canvas.text((0, line), &format!("/{}_", printable(&screen.search)), BOLD);
        return;
    }
    let below = count.saturating_sub(screen.top + screen.page);
    let order = match screen.sorting {
        Sorting::By(Order::Total) => "total",
        Sorting::By(Order::In) => "in",
        Sorting::By(Order::Out) => "out",
        Sorting::By(Order::Packets) => "packets",
        Sorting::Name => "name",
    };
    let mut parts = vec!["q quit".to_owned(), "? help".to_owned(), format!("by {order}")];
    if !screen.search.is_empty() {
        parts.insert(0, format!("only \"{}\"", printable(&screen.search)));
    }
    if screen.top > 0 {
        parts.insert(0, format!("{} above", screen.top));
    }
    if below > 0 {
        parts.insert(0, format!("{below} more"));
    }
    if screen.kind == Kind::Totals {
        parts.push(
            match screen.section {
                Section::Classes => "Tab: faults",
                Section::Faults => "Tab: interfaces",
                Section::Interfaces => "Tab: classes",
            }
            .to_owned(),
        );
    }
    canvas.text((0, line), &parts.join("  "), DIM);
}

fn draw_help(screen: &Screen, canvas: &mut Canvas<'_>) {
    let title = match screen.kind {
        Kind::Rates => "trafctl top: what passes right now. in is to the container, out is from it.",
        Kind::Totals => "trafctl dump --watch: the counters. in is to the container, out is from it.",
    };
    canvas.text((0, 0), title, BOLD);
    for (at, (key, what)) in help::keys(screen.kind).into_iter().enumerate() {
        canvas.text((2, at + 2), key, BOLD);
        canvas.text((12, at + 2), what, Style::new());
    }
    if canvas.height > 2 {
        canvas.text((0, canvas.height - 1), "any key: back", DIM);
    }
}
