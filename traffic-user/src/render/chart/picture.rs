//! The layout of a chart as a picture: upright bars over time, lying bars for containers.

use anyhow::ensure;
use traffic_model::units;

use super::{
    Chart, Theme, font,
    palette::{Palette, Rgb},
    png as png_file,
    scene::{Anchor, Scene},
    shares, svg as svg_text,
};

/// The width of a picture that needs no more.
const WIDTH: f32 = 760.0;
/// The height of a picture of bars over time.
const HEIGHT: f32 = 380.0;
/// The space around everything.
const MARGIN: f32 = 18.0;
/// The first pixel below title and legend.
const TOP: f32 = 86.0;
/// The height of a container's bar, and of its place.
const BAR: f32 = 14.0;
const PLACE: f32 = 24.0;
/// The narrowest place of a bar over time.
const NARROWEST: f32 = 2.0;
/// Most bars: a picture this wide still fits a screen.
const MOST_BARS: usize = 800;

const TITLE: f32 = 16.0;
const SMALL: f32 = 11.0;

/// The chart as an SVG document.
///
/// # Errors
/// When there are too many bars.
pub fn svg(chart: &Chart, theme: Theme) -> anyhow::Result<String> {
    Ok(svg_text::document(&scene(chart, theme)?, (&chart.title, &description(chart))))
}

/// The chart as a PNG file.
///
/// # Errors
/// When there are too many bars.
pub fn png(chart: &Chart, theme: Theme) -> anyhow::Result<Vec<u8>> {
    png_file::file(&scene(chart, theme)?)
}

fn description(chart: &Chart) -> String {
    let parts = chart.parts.iter().map(|part| format!("{} {}", part.name, units::volume(part.bytes)));
    let parts: Vec<String> = parts.collect();
    format!("{}. {}; total {}.", chart.subtitle, parts.join(", "), units::volume(chart.bytes()))
}

fn scene(chart: &Chart, theme: Theme) -> anyhow::Result<Scene> {
    ensure!(
        chart.bars.len() <= MOST_BARS,
        "cannot draw {} bars in a picture, at most {MOST_BARS}; give longer steps (--by) or a shorter span",
        chart.bars.len()
    );
    let colours = Palette::of(theme);
    let mut scene = Scene { width: WIDTH, height: HEIGHT, shapes: Vec::new() };
    if chart.is_over_time {
        let needed = 2.0 * MARGIN + 80.0 + number(chart.bars.len()) * NARROWEST;
        scene.width = scene.width.max(needed.ceil());
    } else {
        scene.height = TOP + number(chart.bars.len().max(2)) * PLACE + MARGIN + 10.0;
    }
    scene.rect((0.0, 0.0, scene.width, scene.height), colours.panel);
    heading(&mut scene, chart, &colours);
    if chart.bytes() == 0 {
        let place = (scene.width / 2.0, f32::midpoint(TOP, scene.height));
        scene.text(place, Anchor::Middle, (13.0, colours.muted), "no traffic is recorded in this span");
    } else if chart.is_over_time {
        over_time(&mut scene, chart, &colours);
    } else {
        of_containers(&mut scene, chart, &colours);
    }
    let corner = (scene.width - MARGIN, scene.height - 8.0);
    scene.text(corner, Anchor::End, (9.0, colours.muted), "trafctl");
    Ok(scene)
}

fn heading(scene: &mut Scene, chart: &Chart, colours: &Palette) {
    let room = scene.width - 2.0 * MARGIN;
    let title = font::fitted(&chart.title, TITLE, room);
    scene.text((MARGIN, 28.0), Anchor::Start, (TITLE, colours.text), &title);
    let subtitle = font::fitted(&chart.subtitle, SMALL, room);
    scene.text((MARGIN, 46.0), Anchor::Start, (SMALL, colours.muted), &subtitle);
    let mut items: Vec<(Option<(Rgb, f32)>, String)> = chart
        .parts
        .iter()
        .filter(|part| part.bytes > 0)
        .map(|part| {
            (Some((colours.hue(part.hue), 1.0)), format!("{} {}", part.name, units::volume(part.bytes)))
        })
        .collect();
    items.push((None, format!("total {}", units::volume(chart.bytes()))));
    if let Some(estimate) = chart.bars.iter().find_map(|bar| bar.estimate) {
        items.push((Some((colours.axis, 0.4)), format!("estimate {}", units::volume(estimate))));
    }
    if chart.bars.iter().any(|bar| bar.loses_traffic) {
        items.push((Some((colours.gap, colours.gap_opacity)), "traffic is missing".to_owned()));
    }
    let mut x = MARGIN;
    for (swatch, text) in items {
        let indent = if swatch.is_some() { 15.0 } else { 0.0 };
        let left = scene.width - MARGIN - x - indent;
        let text = font::fitted(&text, SMALL, left.min(220.0));
        if text.is_empty() {
            break;
        }
        if let Some((colour, opacity)) = swatch {
            scene.veil((x, 57.0, 10.0, 10.0), colour, opacity);
        }
        scene.text((x + indent, 66.0), Anchor::Start, (SMALL, colours.text), &text);
        x += indent + font::width(&text, SMALL) + 18.0;
    }
}

/// The share of a whole that is not 0.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "exact to a pixel")]
fn fraction(bytes: u64, whole: u64) -> f32 {
    (bytes as f64 / whole as f64) as f32
}

fn over_time(scene: &mut Scene, chart: &Chart, colours: &Palette) {
    let values_are_shown = chart.bars.len() <= 13;
    let (step, ticks) = ticks(chart.longest());
    let labels: Vec<String> = (0..=ticks).map(|tick| axis(step.saturating_mul(tick))).collect();
    let widest = labels.iter().map(|label| font::width(label, SMALL)).fold(0.0, f32::max);
    let (left, right) = ((MARGIN + widest + 8.0).ceil(), scene.width - MARGIN);
    let (top, bottom) = (TOP + 4.0, scene.height - 40.0);
    let whole = step.saturating_mul(ticks).max(1);
    let height = |bytes: u64| fraction(bytes, whole) * (bottom - top);
    for (tick, label) in (0..).zip(&labels) {
        let y = bottom - height(step.saturating_mul(tick));
        let colour = if tick == 0 { colours.axis } else { colours.grid };
        scene.rect((left, y.round() - 0.5, right - left, 1.0), colour);
        scene.text((left - 8.0, y.round() + 4.0), Anchor::End, (SMALL, colours.muted), label);
    }
    let place = (right - left) / number(chart.bars.len().max(1));
    let width = if place > 6.0 { (place * 0.7).min(64.0) } else { (place - 0.5).max(1.0) };
    let wide = chart.bars.iter().map(|bar| font::width(&short(&bar.label), SMALL)).fold(0.0, f32::max);
    let every = ((wide + 12.0) / place).ceil().max(1.0);
    for (at, bar) in chart.bars.iter().enumerate() {
        let centre = left + place * (number(at) + 0.5);
        let x = centre - width / 2.0;
        if bar.loses_traffic {
            scene.veil((centre - place / 2.0, top, place, bottom - top), colours.gap, colours.gap_opacity);
        }
        let mut y = bottom;
        for (&bytes, part) in bar.parts.iter().zip(&chart.parts) {
            let part_height = height(bytes);
            y -= part_height;
            if bytes > 0 {
                // What is there is seen, however little it is.
                scene.rect((x, y, width, part_height.max(0.5)), colours.hue(part.hue));
            }
        }
        let mut shown = bar.bytes();
        if let Some(estimate) = bar.estimate.filter(|&estimate| estimate > shown) {
            let rest = height(estimate) - (bottom - y);
            scene.veil((x, y - rest, width, rest), colours.axis, 0.4);
            y -= rest;
            shown = bar.bytes();
        }
        if values_are_shown && shown > 0 {
            let value = units::volume(shown);
            scene.text((centre, y - 5.0), Anchor::Middle, (SMALL, colours.text), &value);
        }
        if number(at) % every < 0.5 {
            let label = short(&bar.label);
            scene.text((centre, bottom + 16.0), Anchor::Middle, (SMALL, colours.muted), &label);
        }
    }
}

fn of_containers(scene: &mut Scene, chart: &Chart, colours: &Palette) {
    let texts: Vec<String> = chart
        .bars
        .iter()
        .zip(shares(&chart.bars))
        .map(|(bar, share)| {
            let share = units::percent(share, bar.bytes() == 0);
            format!("{}  {share}", units::volume(bar.bytes()))
        })
        .collect();
    let widest = |texts: &mut dyn Iterator<Item = &str>| {
        texts.map(|text| font::width(text, SMALL)).fold(0.0, f32::max).ceil()
    };
    let names = widest(&mut chart.bars.iter().map(|bar| bar.label.as_str())).min(260.0);
    let values = widest(&mut texts.iter().map(String::as_str));
    let left = MARGIN + names + 10.0;
    let room = scene.width - MARGIN - values - 10.0 - left;
    let length = |bytes: u64| fraction(bytes, chart.longest().max(1)) * room;
    for (at, (bar, text)) in chart.bars.iter().zip(&texts).enumerate() {
        let y = TOP + number(at) * PLACE;
        let label = font::fitted(&bar.label, SMALL, names);
        scene.text((MARGIN, y + 11.0), Anchor::Start, (SMALL, colours.text), &label);
        let mut x = left;
        for (&bytes, part) in bar.parts.iter().zip(&chart.parts).filter(|(bytes, _)| **bytes > 0) {
            let long = length(bytes).max(0.5);
            scene.rect((x, y, long, BAR), colours.hue(part.hue));
            x += long;
        }
        let end = scene.width - MARGIN;
        scene.text((end, y + 11.0), Anchor::End, (SMALL, colours.text), text);
    }
}

/// The step of an axis and the number of steps that reach a value: at most five, of 1, 2 or 5 times a power of
/// ten.
fn ticks(most: u64) -> (u64, u64) {
    let mut power: u64 = 1;
    loop {
        for factor in [1, 2, 5] {
            let Some(step) = power.checked_mul(factor) else { return (u64::MAX, 1) };
            let steps = most.div_ceil(step);
            if steps <= 5 {
                return (step, steps.max(1));
            }
        }
        let Some(next) = power.checked_mul(10) else { return (u64::MAX, 1) };
        power = next;
    }
}

/// A value of an axis: no needless zeros.
fn axis(bytes: u64) -> String {
    let text = units::volume(bytes);
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

/// The name of a step below its bar: days without their year, hours without their offset, which the subtitle
/// has.
fn short(period: &str) -> String {
    match (period.get(5..10), period.get(11..16)) {
        (Some(day), Some(time)) if period.len() > 16 => format!("{day} {time}"),
        (Some(day), None) if period.len() == 10 => day.to_owned(),
        _ => period.to_owned(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a picture has few bars")]
fn number(count: usize) -> f32 {
    count as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_few_round_steps() {
        for (most, found) in [
            (0, (1, 1)),
            (1, (1, 1)),
            (5, (1, 5)),
            (6, (2, 3)),
            (11, (5, 3)),
            (553_287_497_784, (200_000_000_000, 3)),
            (u64::MAX, (5_000_000_000_000_000_000, 4)),
        ] {
            assert_eq!(ticks(most), found, "{most}");
        }
        assert_eq!(axis(200_000_000_000), "200 GB");
        assert_eq!(axis(2_000_000_000), "2 GB");
        assert_eq!(axis(1_500_000), "1.5 MB");
        assert_eq!(axis(0), "0");
    }

    #[test]
    fn steps_have_short_names() {
        assert_eq!(short("2026-11-10T12:00+00:00"), "11-10 12:00");
        assert_eq!(short("2026-11-10"), "11-10");
        assert_eq!([short("2026-11"), short("2026-W48"), short("2026")], ["2026-11", "2026-W48", "2026"]);
    }
}
