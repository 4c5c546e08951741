//! A chart as bars in the terminal, one on a line.

use unicode_width::UnicodeWidthStr as _;

use traffic_model::units;

use super::{Chart, Hue, Part, portion};
use crate::render::{
    ledger::people::shortened,
    look::{Look, Tone},
};

/// The width where the output has none of its own.
const WIDTH: usize = 80;
/// The shortest bar that says anything.
const SHORTEST: usize = 10;

/// What a part is drawn with, so that parts can be told apart without colours.
const FILLS: [char; 4] = ['\u{2588}', '\u{2592}', '\u{2593}', '\u{2591}'];

/// The chart as text.
pub fn bars(chart: &Chart, look: Look) -> String {
    let mut text = look.toned(Tone::Bold, &chart.title) + "\n";
    text += &(look.toned(Tone::Dim, &chart.subtitle) + "\n\n");
    if chart.bars.is_empty() {
        return text + "no traffic is recorded in this span\n";
    }
    let volume = |bytes: u64| if look.exact { bytes.to_string() } else { units::volume(bytes) };
    let totals: Vec<String> = chart.bars.iter().map(|bar| volume(bar.bytes())).collect();
    let total_width = totals.iter().map(|total| total.width()).max().unwrap_or(0);
    let widest = chart.bars.iter().map(|bar| bar.label.width()).max().unwrap_or(0);
    let width = look.width.unwrap_or(WIDTH);
    // Two blanks on either side of the bar, and the mark of a gap.
    let label_width = widest.min(width.saturating_sub(total_width + SHORTEST + 6).max(8));
    let length = width.saturating_sub(label_width + total_width + 6).max(SHORTEST);
    let longest = chart.longest();
    for (bar, total) in chart.bars.iter().zip(&totals) {
        let label = shortened(&bar.label, label_width);
        text += &label;
        text += &" ".repeat(label_width.saturating_sub(label.width()) + 2);
        let cells = portion(bar.bytes(), longest, length);
        let mut drawn = 0;
        let mut sum: u64 = 0;
        for (at, (&bytes, part)) in bar.parts.iter().zip(&chart.parts).enumerate() {
            sum = sum.saturating_add(bytes);
            // By the sum so far, so that all parts together are as long as the bar.
            let end = portion(sum, bar.bytes(), cells).max(drawn);
            let fill: String = std::iter::repeat_n(FILLS[at % FILLS.len()], end - drawn).collect();
            text += &toned(part, &fill, look);
            drawn = end;
        }
        let mut end = drawn;
        if let Some(estimate) = bar.estimate {
            end = portion(estimate, longest, length).max(drawn);
            text += &look.toned(Tone::Dim, &"\u{b7}".repeat(end - drawn));
        }
        text += &" ".repeat(length - end.min(length) + 2);
        text += &" ".repeat(total_width - total.width());
        text += total;
        if bar.loses_traffic {
            text += &look.toned(Tone::Problem, " !");
        }
        text.push('\n');
    }
    text + "\n" + &legend(chart, look)
}

fn legend(chart: &Chart, look: Look) -> String {
    let volume = |bytes: u64| if look.exact { bytes.to_string() } else { units::volume(bytes) };
    let mut items: Vec<String> = chart
        .parts
        .iter()
        .enumerate()
        .map(|(at, part)| {
            let fill = toned(part, &FILLS[at % FILLS.len()].to_string(), look);
            format!("{fill} {} {}", part.name, volume(part.bytes))
        })
        .collect();
    items.push(format!("total {}", volume(chart.bytes())));
    if let Some(estimate) = chart.bars.iter().find_map(|bar| bar.estimate) {
        items.push(format!("\u{b7} estimate {}", volume(estimate)));
    }
    if chart.bars.iter().any(|bar| bar.loses_traffic) {
        items.push(look.toned(Tone::Problem, "! traffic is missing (trafctl gaps)"));
    }
    items.join("   ") + "\n"
}

/// A text in the colour of a part.
fn toned(part: &Part, text: &str, look: Look) -> String {
    // The eight colours of every terminal, as near to the page's as they come.
    const CLASSES: [&str; 8] = ["34", "33", "32", "35", "93", "94", "31", "92"];
    let code = match part.hue {
        Hue::Incoming => return look.toned(Tone::Incoming, text),
        Hue::Outgoing => return look.toned(Tone::Outgoing, text),
        Hue::Class(0) => return look.toned(Tone::Dim, text),
        Hue::Class(class) => CLASSES[usize::from(class - 1) % CLASSES.len()],
    };
    if look.colours && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
