//! The lines below the report for people. What is missing takes one line; `trafctl gaps` lists it.

use jiff::Timestamp;
use traffic_ledger::{Basis, Gap, Report, Volume};
use traffic_model::{calendar::Calendar, counted, local_time::LocalTime, units};

use super::bytes_text;
use crate::render::{
    ClassNames,
    ledger::report::{adjustment_line, closed_note, delivered_note, kept_note, mixed_note, pending_note},
    look::{Look, Tone, printable},
};

pub(super) fn notes(report: &Report, look: Look, names: &ClassNames) -> String {
    let local_time = LocalTime::named(&report.zone);
    let clock = Clock::of(report);
    let mut notes = vec![span(report, &clock)];
    notes.extend(running(report, &clock));
    notes.extend(begins(report, &clock));
    notes.extend(not_billed(report, look));
    notes.extend(pending_note(report));
    notes.extend(report.percentile_rule.clone());
    notes.extend(mixed_note(report));
    notes.extend(kept_note(report, &local_time));
    notes.extend(closed_note(report));
    notes.extend(delivered_note(report));
    notes.extend(report.adjustments.iter().map(|of| adjustment_line(of, &local_time, names)));
    let mut text = String::from("\n");
    for note in notes {
        text += &wrapped(&printable(&note), look, Tone::Dim);
    }
    if let Some((tone, note)) = gaps(&report.gaps) {
        text += &wrapped(&note, look, tone);
    }
    text
}

/// Times for people: to the minute, in the report's zone, which is named once.
struct Clock(Calendar);

impl Clock {
    fn of(report: &Report) -> Self {
        Self(Calendar::new(&report.zone, 1).unwrap_or_else(|_unknown| Calendar::utc()))
    }

    fn text(&self, time: Timestamp) -> String {
        time.to_zoned(self.0.zone().clone()).strftime("%Y-%m-%d %H:%M").to_string()
    }
}

/// What the figures are: their span, their zone, their basis.
fn span(report: &Report, clock: &Clock) -> String {
    let layer = match report.basis {
        Basis::L3 => "layer 3, as on the wire",
        Basis::L2 => "layer 2 (18 bytes more per packet)",
        Basis::L1 => "layer 1 (38 bytes more per packet)",
    };
    let months = match report.billing_day {
        1 => String::new(),
        day => format!(", months from day {day}"),
    };
    let (from, to) = (clock.text(report.from), clock.text(report.to));
    format!("{from} to {to} {}{months}; {layer}", clock.0.zone_name())
}

fn running(report: &Report, clock: &Clock) -> Option<String> {
    if let Some(running) = &report.running {
        let [from, until] = [running.estimate.from, running.estimate.until].map(|time| clock.text(time));
        return Some(format!(
            "figures until {until}; the estimate for {} goes on as since {from}",
            running.period
        ));
    }
    match report.last_reading {
        Some(last) if report.to > last => {
            Some(format!("figures until {}, the last reading", clock.text(last)))
        }
        _ => {
            let part = report.last_until.as_ref()?;
            Some(format!("{} is shown until {}", part.period, clock.text(part.at)))
        }
    }
}

fn begins(report: &Report, clock: &Clock) -> Option<String> {
    let zero = if report.percent.is_some() { ", and the percentiles count that time as zero" } else { "" };
    if let Some(begin) = report.ledger_begin {
        return Some(format!("the ledger begins at {}; nothing is recorded before{zero}", clock.text(begin)));
    }
    let first = report.first_from.as_ref()?;
    Some(format!("{} is shown from {} on", first.period, clock.text(first.at)))
}

/// What is counted and not in the sums.
fn not_billed(report: &Report, look: Look) -> Option<String> {
    let parts = [(report.class_zero.total, "class 0"), (report.faults.total, "faults (--show faults)")];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(volume, _)| *volume != Volume::default())
        .map(|(volume, name)| format!("{name} {}", bytes_text(volume.bytes, look)))
        .collect();
    (!parts.is_empty()).then(|| format!("not in the totals: {}", parts.join(", ")))
}

/// What is missing, in one line.
fn gaps(gaps: &[Gap]) -> Option<(Tone, String)> {
    if gaps.is_empty() {
        return None;
    }
    let large: Vec<&Gap> = gaps.iter().filter(|gap| !gap.is_small()).collect();
    let losing: Vec<&&Gap> = large.iter().filter(|gap| gap.reason.loses_traffic()).collect();
    let count = counted(gaps.len(), "gap");
    if losing.is_empty() {
        return Some((
            Tone::Dim,
            format!("{count}, none of which lost anything to speak of; trafctl gaps lists them"),
        ));
    }
    let known: Vec<u64> = losing.iter().filter_map(|gap| gap.doubtful_bytes()).collect();
    let bytes = units::volume(known.iter().copied().fold(0, u64::saturating_add));
    let size = match (known.len(), losing.len() - known.len()) {
        (0, _) => "of unknown size".to_owned(),
        (_, 0) => format!("about {bytes}"),
        (_, unknown) => format!("about {bytes}, and {unknown} of unknown size"),
    };
    let text = format!(
        "{count}, {} with traffic that is not in the sums ({size}); trafctl gaps lists them",
        losing.len()
    );
    Some((Tone::Problem, text))
}

/// A note in lines that fit.
pub(super) fn wrapped(note: &str, look: Look, tone: Tone) -> String {
    let mut text = String::new();
    let mut line = String::new();
    for word in note.split(' ') {
        let width = line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && look.width.is_some_and(|most| width > most) {
            text += &(look.toned(tone, &line) + "\n");
            line = "  ".to_owned();
        } else if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    text + &look.toned(tone, &line) + "\n"
}
