//! Formats results: tables for people, JSON and CSV for programs. One file per command; no access to kernel
//! or files.

pub mod attach;
pub mod chart;
mod class_names;
pub mod compare;
pub mod config;
pub mod drops;
pub mod dump;
pub mod host;
pub mod json;
pub mod ledger;
pub mod live_rates;
pub mod look;
pub mod nagios;
pub mod plots;
pub mod quota;
pub mod quota_alerts;
pub mod quota_crossings;
pub mod screen;
pub mod statement;
pub mod status;

use std::ops::Range;

pub use class_names::ClassNames;
use jiff::Timestamp;
use serde::Serialize;
use traffic_common::Tally;
use traffic_model::ByDirection;
use unicode_width::UnicodeWidthStr as _;

/// A table as all commands print it: without borders, numbers aligned to the right.
fn plain_table<T: AsRef<str>>(header: &[T], numbers: &Range<usize>) -> PlainTable {
    let header: Vec<String> = header.iter().map(|name| name.as_ref().to_owned()).collect();
    PlainTable { numbers: numbers.clone(), rows: vec![header] }
}

/// Rows of text, each with as many cells as the header, which is the first. A dump has tens of thousands, for
/// which a library that also wraps and colours takes three times as long as writing all of them as JSON.
struct PlainTable {
    numbers: Range<usize>,
    rows: Vec<Vec<String>>,
}

impl PlainTable {
    /// Adds a row. A cell has one line, whatever is in it.
    fn add_row(&mut self, row: impl IntoIterator<Item = impl Into<String>>) {
        let one_line = |cell: String| if cell.contains('\n') { cell.replace('\n', " ") } else { cell };
        self.rows.push(row.into_iter().map(|cell| one_line(cell.into())).collect());
    }
}

/// The text of a table, without blanks at the ends of lines.
fn finish(table: &PlainTable) -> String {
    let columns = table.rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in &table.rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.width().max(*width);
        }
    }
    let line: usize = widths.iter().map(|width| width + 2).sum();
    let mut text = String::with_capacity(table.rows.len() * (line + 1) + 1);
    for row in &table.rows {
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let blanks = width - cell.width();
            let (before, behind) = if table.numbers.contains(&at) { (blanks, 2) } else { (0, blanks + 2) };
            text.extend(std::iter::repeat_n(' ', before));
            text += cell;
            text.extend(std::iter::repeat_n(' ', behind));
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text.push('\n');
    text
}

/// A table of text columns.
pub fn rows(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = plain_table(header, &(0..0));
    for row in rows {
        table.add_row(row);
    }
    finish(&table).trim_end().to_owned() + "\n"
}

/// A table in which the columns of the range `numbers` are numbers.
pub fn columns(header: &[String], numbers: &Range<usize>, lines: &[Vec<String>]) -> String {
    let mut table = plain_table(header, numbers);
    for line in lines {
        table.add_row(line);
    }
    finish(&table).trim_end().to_owned() + "\n"
}

/// A container as a cell of a table: its id, and its name if it has one.
fn with_name(id: &str, name: Option<&str>) -> String {
    name.map_or_else(|| id.to_owned(), |name| format!("{id} ({name})"))
}

/// A time in UTC, truncated to seconds.
fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// Both directions, as fields of a JSON document.
#[derive(Debug, Serialize)]
struct Amounts {
    in_bytes: u64,
    in_packets: u64,
    out_bytes: u64,
    out_packets: u64,
}

impl From<&ByDirection<Tally>> for Amounts {
    fn from(passed: &ByDirection<Tally>) -> Self {
        let ByDirection { incoming, outgoing } = passed;
        Self {
            in_bytes: incoming.bytes,
            in_packets: incoming.packets,
            out_bytes: outgoing.bytes,
            out_packets: outgoing.packets,
        }
    }
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
