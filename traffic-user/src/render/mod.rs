//! Formats results: tables for people, JSON and CSV for programs. One file per command; no access to kernel
//! or files.

pub mod attach;
pub mod calibration;
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
mod plain_table;
pub mod plots;
pub mod quota;
pub mod quota_alerts;
pub mod quota_crossings;
pub mod quota_forecasts;
pub mod reconcile;
pub mod screen;
pub mod shadow;
pub mod statement;
pub mod status;

use std::ops::Range;

pub use class_names::ClassNames;
use jiff::Timestamp;
use plain_table::{finish, plain_table};
use serde::Serialize;
use traffic_common::Tally;
use traffic_model::ByDirection;

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
