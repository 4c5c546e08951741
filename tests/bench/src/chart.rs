//! The chart: lookup cost against the number of prefixes, with logarithmic axes and one panel for each
//! family.

use std::fmt::Write as _;

use traffic_common::Family;

use crate::{
    program::{self, Draw},
    results::Results,
    statistics::Summary,
};

const PANEL_WIDTH: f64 = 420.0;
const PANEL_HEIGHT: f64 = 320.0;
const MARGIN: f64 = 60.0;
/// The lower and the upper end in nanoseconds, as powers of ten.
const DECADES: (f64, f64) = (0.0, 7.0);

/// The variants of the chart, with their colours.
const LINES: [(&str, &str); 3] = [("trafctl", "#0b6e4f"), ("trie", "#c8553d"), ("linear", "#6c757d")];
/// The dashes for the ways to draw peers.
const DASHES: [(Draw, &str); 3] = [(Draw::Hot, "2 3"), (Draw::Zipf, ""), (Draw::Uniform, "8 4")];

/// The whole chart as SVG.
pub fn svg(results: &Results, sizes: &[usize]) -> String {
    let (width, height) = (2.0 * (PANEL_WIDTH + 2.0 * MARGIN), PANEL_HEIGHT + 3.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (number, family) in (0_u8..).zip(Family::ALL) {
        let left = MARGIN + f64::from(number) * (PANEL_WIDTH + 2.0 * MARGIN);
        panel(&mut svg, results, sizes, (family, left));
    }
    let mut x = MARGIN;
    let y = height - MARGIN / 2.0;
    for (variant, colour) in LINES {
        line(&mut svg, &[(x, y - 4.0), (x + 24.0, y - 4.0)], colour, "");
        label(&mut svg, (x + 30.0, y), "start", variant);
        x += 110.0;
    }
    for (draw, dash) in DASHES {
        line(&mut svg, &[(x, y - 4.0), (x + 24.0, y - 4.0)], "black", dash);
        label(&mut svg, (x + 30.0, y), "start", &format!("{} peers", draw.name()));
        x += 130.0;
    }
    svg + "</svg>\n"
}

fn panel(svg: &mut String, results: &Results, sizes: &[usize], (family, left): (Family, f64)) {
    let (Some(&least), Some(&most)) = (sizes.iter().min(), sizes.iter().max()) else { return };
    let across = |size: usize| {
        let span = (most as f64 / least as f64).log10().max(f64::MIN_POSITIVE);
        left + (size as f64 / least as f64).log10() / span * PANEL_WIDTH
    };
    let up = |nanoseconds: f64| {
        let share = (nanoseconds.max(1.0).log10() - DECADES.0) / (DECADES.1 - DECADES.0);
        MARGIN + PANEL_HEIGHT * (1.0 - share)
    };
    let name = match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    };
    let title = format!("{name}: lookup above the floor, ns/packet");
    label(svg, (left + PANEL_WIDTH / 2.0, MARGIN / 2.0), "middle", &title);
    let mut nanoseconds = 1_u64;
    while (nanoseconds as f64).log10() <= DECADES.1 {
        let y = up(nanoseconds as f64);
        line(svg, &[(left, y), (left + PANEL_WIDTH, y)], "#e0e0e0", "");
        label(svg, (left - 6.0, y + 4.0), "end", &round_number(nanoseconds));
        nanoseconds *= 10;
    }
    for &size in sizes {
        label(svg, (across(size), MARGIN + PANEL_HEIGHT + 18.0), "middle", &round_number(size as u64));
    }
    label(svg, (left + PANEL_WIDTH / 2.0, MARGIN + PANEL_HEIGHT + 36.0), "middle", "prefixes");
    for (variant, colour) in LINES {
        for (draw, dash) in DASHES {
            let points: Vec<_> = sizes
                .iter()
                .filter_map(|&size| {
                    let case = program::case(family, size, draw);
                    let above = results.above(program::PART, &case, variant, "floor")?;
                    Some((across(size), up(Summary::of(&above)?.median)))
                })
                .collect();
            line(svg, &points, colour, dash);
        }
    }
}

/// `800k` and the like.
fn round_number(number: u64) -> String {
    match number {
        1_000_000.. if number.is_multiple_of(1_000_000) => format!("{}M", number / 1_000_000),
        1_000.. if number.is_multiple_of(1_000) => format!("{}k", number / 1_000),
        _ => number.to_string(),
    }
}

fn line(svg: &mut String, points: &[(f64, f64)], colour: &str, dash: &str) {
    let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    // A write to a string cannot fail; here and below.
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>",
        points.join(" ")
    );
}

fn label(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_round_numbers_are_shortened() {
        let texts = [1, 100, 1000, 1500, 800_000, 10_000_000].map(round_number);
        assert_eq!(texts, ["1", "100", "1k", "1500", "800k", "10M"]);
    }

    #[test]
    fn a_point_is_where_its_cost_belongs() {
        let mut results = Results::default();
        for (size, trie) in [(1000, 110.0), (100_000, 1010.0)] {
            let case = program::case(Family::Ipv4, size, Draw::Zipf);
            results.push(program::PART, &case, "floor", (10.0, "ns/packet"));
            results.push(program::PART, &case, "trie", (trie, "ns/packet"));
        }
        let svg = svg(&results, &[1000, 100_000]);
        // 100 ns are two of seven decades, 1000 ns three. The sizes are the ends of the axis.
        assert!(svg.contains("points=\"60.0,288.6 480.0,242.9\""), "{svg}");
    }
}
