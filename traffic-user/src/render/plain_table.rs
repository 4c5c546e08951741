//! Tables of text as all commands print them: without borders, numbers aligned to the right.

use std::{fmt::Display, fmt::Write as _, ops::Range};

use unicode_width::UnicodeWidthStr as _;

/// A table with its header. The columns of the range `numbers` are numbers.
pub(super) fn plain_table<T: AsRef<str>>(header: &[T], numbers: &Range<usize>) -> PlainTable {
    let mut table =
        PlainTable { numbers: numbers.clone(), text: String::new(), cells: Vec::new(), rows: Vec::new() };
    table.add_row(header);
    table
}

/// Rows of text, the header first. A dump has tens of thousands, for which a library that also wraps and
/// colours takes three times as long as writing all of them as JSON, and a string for each cell twice as long.
pub(super) struct PlainTable {
    numbers: Range<usize>,
    /// All cells without anything between them.
    text: String,
    cells: Vec<Cell>,
    /// For each row, the number of cells up to its end.
    rows: Vec<usize>,
}

/// Where a cell ends in the text, and how many columns of the terminal it takes.
struct Cell {
    end: usize,
    width: usize,
}

impl PlainTable {
    /// Adds a row.
    pub(super) fn add_row(&mut self, row: impl IntoIterator<Item = impl AsRef<str>>) {
        for cell in row {
            self.add_cell(cell.as_ref());
        }
        self.end_row();
    }

    /// Adds a cell to the row that has not ended. A cell has one line, whatever is in it.
    pub(super) fn add_cell(&mut self, cell: impl Display) {
        let start = self.text.len();
        // A string takes everything.
        let _ = write!(self.text, "{cell}");
        let written = &self.text[start..];
        if written.contains('\n') {
            let line = written.replace('\n', " ");
            self.text.truncate(start);
            self.text += &line;
        }
        let written = &self.text[start..];
        let width = if written.is_ascii() { written.len() } else { written.width() };
        self.cells.push(Cell { end: self.text.len(), width });
    }

    /// Ends a row of cells.
    pub(super) fn end_row(&mut self) {
        self.rows.push(self.cells.len());
    }

    /// The cells of each row.
    fn cells_of_rows(&self) -> impl Iterator<Item = &[Cell]> {
        let starts = std::iter::once(&0).chain(&self.rows);
        starts.zip(&self.rows).map(|(&start, &end)| &self.cells[start..end])
    }
}

/// The text of a table, without blanks at the ends of lines.
pub(super) fn finish(table: &PlainTable) -> String {
    let columns = table.cells_of_rows().map(<[Cell]>::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in table.cells_of_rows() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.width.max(*width);
        }
    }
    let line: usize = widths.iter().map(|width| width + 2).sum();
    let blank = " ".repeat(line);
    let mut text = String::with_capacity(table.rows.len() * (line + 1) + 1);
    let mut start = 0;
    for row in table.cells_of_rows() {
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let blanks = width - cell.width;
            let (before, behind) = if table.numbers.contains(&at) { (blanks, 2) } else { (0, blanks + 2) };
            text += &blank[..before];
            text += &table.text[start..cell.end];
            text += &blank[..behind];
            start = cell.end;
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = plain_table(&["NAME", "N", "NOTE"], &(1..2));
        table.add_row(["caf\u{e9}", "1", "two\nlines"]);
        table.add_row(["\u{4f60}\u{597d}", "12345", ""]);
        assert_eq!(
            finish(&table),
            "NAME      N  NOTE\ncaf\u{e9}      1  two lines\n\u{4f60}\u{597d}  12345\n\n"
        );
    }
}
