//! What `trafctl compare` prints: a [`Comparison`], or where the first readings were stored.

use std::{collections::BTreeSet, path::Path};

use serde::Serialize;
use traffic_common::Tally;

use crate::{
    compare::{Comparison, Readings, Reason, Row, Side},
    render::{ClassNames, class_names, columns, json, seconds},
};

/// Text for people after the first call: the readings are stored, and there is nothing to compare yet.
pub fn stored_table(baseline: &Path) -> String {
    format!("first readings stored in {}; the next call shows the differences\n", baseline.display())
}

/// The same as a document: a span of no length without rows, and the file.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn stored_json(baseline: &Path, first: &Readings) -> anyhow::Result<String> {
    let (since, until) = (seconds(first.time), seconds(first.time));
    json::document(&Document {
        since,
        until,
        baseline: Some(baseline.display().to_string()),
        rows: Vec::new(),
    })
}

/// The same as CSV: the header without rows.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn stored_csv() -> anyhow::Result<String> {
    sheet(&[])
}

/// The table for people, with an explanation of each reason in it.
pub fn table(comparison: &Comparison, names: &ClassNames) -> String {
    let header = [
        "CONTAINER",
        "CLASS",
        "IN BYTES",
        "THEIRS",
        "DIFF",
        "IN PACKETS",
        "THEIRS",
        "OUT BYTES",
        "THEIRS",
        "DIFF",
        "OUT PACKETS",
        "THEIRS",
        "LIKELY",
    ];
    let lines: Vec<Vec<String>> = comparison.rows.iter().map(|row| line(row, names)).collect();
    let mut text = format!("counted from {} to {}\n\n", seconds(comparison.since), seconds(comparison.until));
    if lines.is_empty() {
        return text + "neither side counted anything\n";
    }
    text += &columns(&header.map(str::to_owned), &(2..12), &lines);
    let reasons: BTreeSet<Reason> = comparison
        .rows
        .iter()
        .flat_map(|row| [row.sides.incoming.reason, row.sides.outgoing.reason])
        .flatten()
        .collect();
    if reasons.is_empty() {
        return text + "\nno differences\n";
    }
    text.push('\n');
    for reason in reasons {
        text += &format!("{}: {}\n", reason.short(), reason.explanation());
    }
    text
}

fn line(row: &Row, names: &ClassNames) -> Vec<String> {
    let mut line = vec![row.container.to_string(), class_names::cell(row.class, names)];
    for side in [&row.sides.incoming, &row.sides.outgoing] {
        let theirs = |value: fn(&Tally) -> u64| {
            side.theirs.as_ref().map_or_else(|| "-".to_owned(), |tally| value(tally).to_string())
        };
        line.extend([
            side.ours.bytes.to_string(),
            theirs(|tally| tally.bytes),
            difference(side),
            side.ours.packets.to_string(),
            theirs(|tally| tally.packets),
        ]);
    }
    let reasons = match (row.sides.incoming.reason, row.sides.outgoing.reason) {
        (None, None) => String::new(),
        (Some(both), Some(out)) if both == out => both.short().to_owned(),
        (incoming, outgoing) => {
            let named =
                |way: &str, reason: Option<Reason>| reason.map(|reason| format!("{way}: {}", reason.short()));
            [named("in", incoming), named("out", outgoing)]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(", ")
        }
    };
    line.push(reasons);
    line
}

/// The difference of their bytes from ours in per cent, truncated to two decimals.
fn difference(side: &Side) -> String {
    let (ours, theirs) = match side.theirs {
        Some(theirs) if theirs.bytes != side.ours.bytes => {
            (i128::from(side.ours.bytes), i128::from(theirs.bytes))
        }
        _ => return String::new(),
    };
    if ours == 0 {
        return "new".to_owned();
    }
    let hundredths = (theirs - ours).unsigned_abs() * 10_000 / ours.unsigned_abs();
    let sign = if theirs < ours { '-' } else { '+' };
    format!("{sign}{}.{:02} %", hundredths / 100, hundredths % 100)
}

/// One document.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn json(comparison: &Comparison, names: &ClassNames) -> anyhow::Result<String> {
    let document = Document {
        since: seconds(comparison.since),
        until: seconds(comparison.until),
        baseline: None,
        rows: comparison.rows.iter().map(Flat::from).collect(),
    };
    class_names::document(&document, names)
}

/// The rows, with a header.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn csv(comparison: &Comparison) -> anyhow::Result<String> {
    sheet(&comparison.rows)
}

fn sheet(rows: &[Row]) -> anyhow::Result<String> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_record(FIELDS)?;
    for row in rows {
        writer.serialize(Flat::from(row))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    since: String,
    until: String,
    /// Where the first readings were just stored; absent in a comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<String>,
    rows: Vec<Flat<'a>>,
}

/// The fields of [`Flat`]: the header of a sheet, with or without rows.
const FIELDS: [&str; 12] = [
    "container",
    "class",
    "in_bytes",
    "in_bytes_theirs",
    "in_packets",
    "in_packets_theirs",
    "in_reason",
    "out_bytes",
    "out_bytes_theirs",
    "out_packets",
    "out_packets_theirs",
    "out_reason",
];

/// A row; a figure that they do not show is null.
#[derive(Debug, Serialize)]
struct Flat<'a> {
    container: &'a str,
    class: u8,
    in_bytes: u64,
    in_bytes_theirs: Option<u64>,
    in_packets: u64,
    in_packets_theirs: Option<u64>,
    in_reason: Option<Reason>,
    out_bytes: u64,
    out_bytes_theirs: Option<u64>,
    out_packets: u64,
    out_packets_theirs: Option<u64>,
    out_reason: Option<Reason>,
}

impl<'a> From<&'a Row> for Flat<'a> {
    fn from(row: &'a Row) -> Self {
        let (incoming, outgoing) = (&row.sides.incoming, &row.sides.outgoing);
        Self {
            container: row.container.as_str(),
            class: row.class,
            in_bytes: incoming.ours.bytes,
            in_bytes_theirs: incoming.theirs.map(|tally| tally.bytes),
            in_packets: incoming.ours.packets,
            in_packets_theirs: incoming.theirs.map(|tally| tally.packets),
            in_reason: incoming.reason,
            out_bytes: outgoing.ours.bytes,
            out_bytes_theirs: outgoing.theirs.map(|tally| tally.bytes),
            out_packets: outgoing.ours.packets,
            out_packets_theirs: outgoing.theirs.map(|tally| tally.packets),
            out_reason: outgoing.reason,
        }
    }
}
