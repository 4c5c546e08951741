//! Formats results: tables for people, JSON and CSV for programs. One file per command; no access to kernel
//! or files.

pub mod attach;
pub mod compare;
pub mod dump;
pub mod json;
pub mod ledger;
pub mod live_rates;
pub mod status;

use std::ops::Range;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde::Serialize;
use traffic_common::Tally;
use traffic_model::ByDirection;

/// A table as all commands print it: without borders, numbers aligned to the right.
fn plain_table<T: AsRef<str>>(header: &[T], numbers: &Range<usize>) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.iter().map(AsRef::as_ref));
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if numbers.contains(&at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The text of a table, without blanks at the ends of lines.
fn finish(table: &Table) -> String {
    let mut text: String = table.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
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
