//! The results as text: one table for each part, and the bars.

use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::{
    bars::Bar,
    program,
    results::{Results, Series},
    statistics::Summary,
};

/// All tables.
pub fn text(results: &Results, bars: &[Bar]) -> String {
    let mut parts: Vec<&'static str> = Vec::new();
    for series in &results.series {
        if !parts.contains(&series.part) {
            parts.push(series.part);
        }
    }
    let mut text = String::new();
    for part in parts {
        text += &part_table(results, part);
        text.push_str("\n\n");
    }
    text + &bars_table(bars) + "\n"
}

/// One row for each case and one column for each variant.
fn part_table(results: &Results, part: &str) -> String {
    let of_part = || results.series.iter().filter(move |series| series.part == part);
    let (mut cases, mut variants): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for series in of_part() {
        if !cases.contains(&series.case.as_str()) {
            cases.push(&series.case);
        }
        if !variants.contains(&series.variant) {
            variants.push(series.variant);
        }
    }
    let unit = of_part().next().map_or("", |series| series.unit);
    let mut table = empty_table();
    let heading = format!("{part}, {unit}");
    table.set_header([heading.as_str()].into_iter().chain(variants.iter().copied()));
    let find = |case: &str, variant: &str| of_part().find(|s| s.case == case && s.variant == variant);
    for case in cases {
        let cells = variants.iter().map(|variant| match find(case, variant) {
            Some(series) => right(summary_text(series)),
            None => Cell::new(""),
        });
        table.add_row([Cell::new(case)].into_iter().chain(cells));
        if part == program::PART {
            let above = variants.iter().map(|variant| {
                let above =
                    results.above(part, case, variant, "floor").and_then(|values| Summary::of(&values));
                right(match (above, *variant) {
                    (Some(above), "trafctl" | "trie" | "linear") => format!("+{}", figure(above.median)),
                    _ => String::new(),
                })
            });
            table.add_row([Cell::new("  above the floor")].into_iter().chain(above));
        }
    }
    table.to_string()
}

fn bars_table(bars: &[Bar]) -> String {
    let mut table = empty_table();
    table.set_header(["bar", "measured", "quartiles", "bound", ""]);
    for bar in bars {
        let Summary { median, lower_quartile, upper_quartile } = bar.measured;
        table.add_row([
            Cell::new(&bar.name),
            right(format!("{median:.3}")),
            right(format!("{lower_quartile:.3} to {upper_quartile:.3}")),
            right(bar.goal.text()),
            Cell::new(if bar.met { "met" } else { "MISSED" }),
        ]);
    }
    table.to_string()
}

fn empty_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// The median, and half the interquartile range in percent of it.
fn summary_text(series: &Series) -> String {
    let Some(summary) = Summary::of(&series.rounds) else { return String::new() };
    let apart = (summary.upper_quartile - summary.lower_quartile) / summary.median * 100.0;
    format!("{} ±{:.0}%", figure(summary.median), apart / 2.0)
}

/// Formats with about three digits.
fn figure(value: f64) -> String {
    match value.abs() {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
