//! Lines of cells that fit a width: empty columns are omitted, others are left out in a fixed order, and long
//! names are shortened.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::notes::wrapped;
use crate::render::look::{Look, Tone};

/// What a column does where there is too little room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Stays: it says which row this is.
    Text,
    /// Stays, and is shortened to this width first.
    Shortened(usize),
    /// A number that stays.
    Number,
    /// A number that is left out, the ones with the lowest place first.
    UntilPlace(u8),
}

impl Keep {
    const fn is_number(self) -> bool {
        matches!(self, Self::Number | Self::UntilPlace(_))
    }
}

/// A line of cells, one for each column.
pub(super) struct Line {
    tone: Tone,
    cells: Vec<String>,
}

impl Line {
    pub fn new(tone: Tone, cells: Vec<String>) -> Self {
        Self { tone, cells }
    }
}

/// Lines below a heading.
pub(super) struct Lines {
    keeps: Vec<Keep>,
    headings: Vec<String>,
    /// `None` for an empty line.
    lines: Vec<Option<Line>>,
}

/// The place of the last columns that go before names are shortened.
const BEFORE_NAMES: u8 = 4;

/// Blanks between columns.
const GAP: usize = 2;

impl Lines {
    pub fn new(columns: &[(String, Keep)]) -> Self {
        let (headings, keeps) = columns.iter().cloned().unzip();
        Self { keeps, headings, lines: Vec::new() }
    }

    pub fn add(&mut self, line: Line) {
        self.lines.push(Some(line));
    }

    /// An empty line.
    pub fn gap(&mut self) {
        self.lines.push(None);
    }

    /// The text, and below it which columns were left out, and what `all` has.
    pub fn text(mut self, look: Look, all: &str) -> String {
        self.remove(|lines, at| lines.cells().all(|line| line.cells[at].is_empty()));
        let left_out = look.width.map(|width| self.fit(width)).unwrap_or_default();
        let widths = self.widths();
        let numbers: Vec<bool> = self.keeps.iter().map(|keep| keep.is_number()).collect();
        let laid_out = |cells: &[String]| {
            let mut text = String::new();
            for ((cell, &width), &is_number) in cells.iter().zip(&widths).zip(&numbers) {
                let blanks = " ".repeat(width.saturating_sub(cell.width()));
                text += &if is_number { format!("{blanks}{cell}") } else { format!("{cell}{blanks}") };
                text += &" ".repeat(GAP);
            }
            let end = text.trim_end().len();
            text.truncate(end);
            look.width.map_or_else(|| text.clone(), |width| cut(&text, width))
        };
        let mut text = look.toned(Tone::Bold, &laid_out(&self.headings)) + "\n";
        for line in &self.lines {
            if let Some(line) = line {
                text += &look.toned(line.tone, &laid_out(&line.cells));
            }
            text += "\n";
        }
        if !left_out.is_empty() {
            let note = format!("no room for {}; {all} has everything", left_out.join(", "));
            text += &wrapped(&note, look, Tone::Dim);
        }
        text
    }

    fn cells(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().flatten()
    }

    /// Leaves out columns, and shortens names, until the lines fit. Returns the headings left out.
    fn fit(&mut self, width: usize) -> Vec<String> {
        let mut left_out = Vec::new();
        let mut place = 1;
        while place <= BEFORE_NAMES && self.width() > width {
            left_out.extend(self.leave_out(place));
            place += 1;
        }
        for at in 0..self.keeps.len() {
            let over = self.width().saturating_sub(width);
            if let Keep::Shortened(least) = self.keeps[at]
                && over > 0
            {
                let most = self.widths()[at].saturating_sub(over).max(least);
                for line in self.lines.iter_mut().flatten() {
                    line.cells[at] = shortened(&line.cells[at], most);
                }
            }
        }
        while place <= BEFORE_NAMES + 1 && self.width() > width {
            left_out.extend(self.leave_out(place));
            place += 1;
        }
        left_out
    }

    fn leave_out(&mut self, place: u8) -> Vec<String> {
        self.remove(|lines, at| lines.keeps[at] == Keep::UntilPlace(place))
    }

    fn remove(&mut self, is_out: impl Fn(&Self, usize) -> bool) -> Vec<String> {
        let mut removed = Vec::new();
        for at in (0..self.keeps.len()).rev() {
            if is_out(self, at) {
                self.keeps.remove(at);
                removed.push(self.headings.remove(at));
                self.lines.iter_mut().flatten().for_each(|line| drop(line.cells.remove(at)));
            }
        }
        removed.reverse();
        removed
    }

    fn widths(&self) -> Vec<usize> {
        let widest = |at: usize| self.cells().map(|line| line.cells[at].width()).max().unwrap_or(0);
        self.headings.iter().enumerate().map(|(at, heading)| heading.width().max(widest(at))).collect()
    }

    fn width(&self) -> usize {
        (self.widths().iter().sum::<usize>() + GAP * self.keeps.len()).saturating_sub(GAP)
    }
}

/// A name of at most this width. The middle goes: names of one kind begin alike, and ids of one owner end
/// alike.
pub(in crate::render) fn shortened(name: &str, most: usize) -> String {
    if name.width() <= most {
        return name.to_owned();
    }
    let room = most.saturating_sub(1);
    let head = cut(name, room.div_ceil(2));
    let mut tail = Vec::new();
    let mut left = room - head.width().min(room);
    for c in name.chars().rev() {
        let width = c.width().unwrap_or(0);
        if width > left {
            break;
        }
        left -= width;
        tail.push(c);
    }
    format!("{head}\u{2026}{}", tail.into_iter().rev().collect::<String>())
}

/// The first characters that fit.
pub(in crate::render) fn cut(text: &str, most: usize) -> String {
    let mut width = 0;
    text.chars()
        .take_while(|c| {
            width += c.width().unwrap_or(0);
            width <= most
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_keeps_both_ends() {
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("0123456789", 6), "012\u{2026}89");
        assert_eq!(shortened("\u{4f60}\u{597d}\u{4f60}\u{597d}", 6), "\u{4f60}\u{2026}\u{597d}");
        assert_eq!(shortened("abcdef", 1), "\u{2026}");
        assert_eq!(shortened("abcdef", 0), "\u{2026}");
        assert_eq!(cut("\u{4f60}\u{597d}", 3), "\u{4f60}");
    }
}
