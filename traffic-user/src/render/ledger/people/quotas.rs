//! What a report says of quotas, below its figures.

use super::{
    columns::{Keep, Line, Lines},
    notes::wrapped,
};
use crate::render::{
    look::{Look, Tone, printable},
    quota_forecasts::{self, Forecasts},
};

/// A table that fits, and what belongs to it.
pub(super) fn quotas(forecasts: &Forecasts<'_>, look: Look) -> String {
    let (headings, rows) = quota_forecasts::table(forecasts, look.exact);
    let columns: Vec<_> = headings.into_iter().map(|heading| (heading.clone(), keep(&heading))).collect();
    let mut lines = Lines::new(&columns);
    let is_empty = rows.is_empty();
    for cells in rows {
        lines.add(Line::new(Tone::Plain, cells));
    }
    let mut text = String::from("\n");
    if !is_empty {
        text += &lines.text(look, "trafctl quota show");
    }
    for note in quota_forecasts::notes(forecasts) {
        let tone = if note.starts_with("problem: ") { Tone::Problem } else { Tone::Dim };
        text += &wrapped(&printable(&note), look, tone);
    }
    text
}

fn keep(heading: &str) -> Keep {
    match heading {
        "CONTAINER" => Keep::Shortened(13),
        "QUOTA" => Keep::Shortened(7),
        "RUNS OUT" => Keep::Text,
        "EXPECTED" | "OF" => Keep::Number,
        "USED" => Keep::UntilPlace(4),
        "SHARE" => Keep::UntilPlace(3),
        "PERIOD" => Keep::UntilPlace(2),
        // The thresholds that are reached, and units.
        _ => Keep::UntilPlace(1),
    }
}
