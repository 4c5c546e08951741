//! Draws the screen at any size: the head, the list in as many columns as fit, and a line of keys.

use ratatui::{
    Frame,
    buffer::Buffer,
    style::{Color, Modifier, Style},
};
use traffic_common::Tally;
use traffic_model::{ByDirection, live_rates::Order};
use unicode_width::UnicodeWidthStr as _;

use super::{
    columns::{GAP, columns, rate_text},
    help,
    rows::{self, Row},
    state::{Kind, Screen, Section, Sorting},
};
use crate::render::{
    look::{ascii, printable},
    seconds,
};

/// Fills a frame.
pub fn draw(screen: &mut Screen, frame: &mut Frame<'_>) {
    let area = frame.area();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let mut canvas = Canvas { buffer: frame.buffer_mut(), width, height, ascii: screen.ascii };
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
    ascii: bool,
}

impl Canvas<'_> {
    /// Writes a text, cut where the line ends. Returns its width.
    fn text(&mut self, (x, y): (usize, usize), text: &str, style: Style) -> usize {
        let (Ok(column), Ok(line)) = (u16::try_from(x), u16::try_from(y)) else { return 0 };
        if x >= self.width || y >= self.height {
            return 0;
        }
        let shown = if self.ascii { ascii(text).into() } else { std::borrow::Cow::from(text) };
        self.buffer.set_stringn(column, line, &shown, self.width - x, style);
        text.width()
    }

    /// Writes a figure with what belongs to it, if all of it fits: one that loses its last digits would be another one.
    /// Returns whether it does.
    fn figure(&mut self, (x, y): (usize, usize), parts: &[(&str, Style)]) -> bool {
        let width: usize = parts.iter().map(|(text, _)| text.width()).sum();
        if x + width > self.width {
            self.text((x, y), CUT, DIM);
            return false;
        }
        let mut x = x;
        for (text, style) in parts {
            x += self.text((x, y), text, *style);
        }
        true
    }
}

/// What stands for a figure that does not fit.
const CUT: &str = "\u{2026}";

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// A colour, where the terminal takes any.
pub(super) fn coloured(screen: &Screen, colour: Color) -> Style {
    if screen.colours { Style::new().fg(colour) } else { Style::new() }
}

/// The colours of in and out are those of the web page, as near as the eight of every terminal come.
pub(super) fn incoming(screen: &Screen) -> Style {
    coloured(screen, Color::Cyan)
}

pub(super) fn outgoing(screen: &Screen) -> Style {
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
        for (what, text, style) in
            [(format!("{name}  in "), a, incoming(screen)), ("  out ".to_owned(), b, outgoing(screen))]
        {
            if !canvas.figure((x, 1), &[(&what, Style::new()), (&text, style)]) {
                return;
            }
            x += what.width() + text.width();
        }
    }
}

fn rate_texts(screen: &Screen, passed: &ByDirection<Tally>, seconds: f64) -> [String; 2] {
    [passed.incoming.bytes, passed.outgoing.bytes].map(|bytes| rate_text(screen, bytes, seconds))
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
        let is_whole = x + column.width <= canvas.width || !column.is_number;
        if headings > 0 && is_whole {
            canvas.text((at(&column.heading), head), &column.heading, REVERSED);
        }
        for (line, cell) in column.cells.iter().enumerate() {
            let (place, text) = if is_whole { (at(cell), cell.as_str()) } else { (x, CUT) };
            canvas.text((place, head + headings + line), text, column.style);
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
