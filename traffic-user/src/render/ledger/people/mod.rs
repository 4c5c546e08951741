//! The report for people: figures with units, sums, shares, and what the running period comes to. It fits the
//! terminal by leaving out columns, and omits those that are empty.
//!
//! Everything in it comes from the [`Report`] that the other formats print.

mod columns;
mod notes;
mod quotas;

use traffic_ledger::{Figures, Rates, Report, ReportRow, SignedFigures, permille_shares};
use traffic_model::units;

pub(in crate::render) use self::columns::shortened;
use self::columns::{Keep, Line, Lines};
use crate::render::{
    ClassNames, class_names,
    ledger::sheet::ordinal,
    look::{Look, Tone, printable},
    quota_forecasts::Forecasts,
    with_name,
};

/// A report for people, with what its containers' quotas come to.
pub fn report(report: &Report, forecasts: Option<&Forecasts<'_>>, look: Look, names: &ClassNames) -> String {
    let mut lines = Lines::new(&headings(report));
    let by_class = report.rows.iter().any(|row| row.billed && row.class.is_some());
    // Without a column of classes, what class 0 has is in a note.
    let rows: Vec<&ReportRow> = report.rows.iter().filter(|row| row.billed || by_class).collect();
    let groups: Vec<&[&ReportRow]> = rows.chunk_by(|a, b| a.start == b.start).collect();
    let has_sums = groups.iter().any(|group| group.len() > 1) || report.running.is_some();
    for group in &groups {
        add_group(&mut lines, (report, group), look, names);
        if has_sums && groups.len() > 1 {
            lines.gap();
        }
    }
    if groups.len() > 1 {
        let corrected = Some(report.billing.corrected).filter(|_| has_corrections(report));
        let mut cells = sum_cells(&report.total, corrected, look);
        cells[PERIOD] = "all".to_owned();
        lines.add(Line::new(Tone::Bold, cells));
    }
    let mut text = lines.text(look, "--format csv");
    if rows.is_empty() {
        text = "no traffic is recorded in this span\n".to_owned();
    }
    text += &forecasts.map(|forecasts| quotas::quotas(forecasts, look)).unwrap_or_default();
    text + &notes::notes(report, look, names)
}

/// The columns, in their order.
const PERIOD: usize = 0;
const CONTAINER: usize = 1;
const IN: usize = 5;
const SHARE: usize = 8;
const CORRECTED: usize = 12;
const PACKETS: usize = 14;
const COLUMNS: usize = 15;

fn headings(report: &Report) -> [(String, Keep); COLUMNS] {
    let rate = |what: &str| match report.percent {
        Some(percent) => format!("{what} {}", ordinal(percent).to_uppercase()),
        None => String::new(),
    };
    let text = |name: &str, keep| (name.to_owned(), keep);
    [
        text("PERIOD", Keep::Text),
        text("CONTAINER", Keep::Shortened(13)),
        text("CLASS", Keep::Shortened(16)),
        text("FAMILY", Keep::Text),
        text("DIRECTION", Keep::Text),
        text("IN", Keep::UntilPlace(5)),
        text("OUT", Keep::UntilPlace(5)),
        text("TOTAL", Keep::Number),
        text("SHARE", Keep::UntilPlace(3)),
        (rate("IN"), Keep::UntilPlace(2)),
        (rate("OUT"), Keep::UntilPlace(2)),
        (rate("TOTAL"), Keep::UntilPlace(4)),
        text("CORRECTED", Keep::UntilPlace(4)),
        text("TO BILL", Keep::Number),
        text("PACKETS", Keep::UntilPlace(1)),
    ]
}

/// The rows of a period, their sum, and what the period comes to.
fn add_group(lines: &mut Lines, (report, rows): (&Report, &[&ReportRow]), look: Look, names: &ClassNames) {
    let billed: Vec<u64> = rows.iter().filter(|row| row.billed).map(|row| row.figures.total.bytes).collect();
    let mut shares = permille_shares(&billed).into_iter();
    let mut first = Some(&rows[0].period).filter(|_| report.by != traffic_ledger::By::Total);
    let mut period = || first.take().cloned().unwrap_or_default();
    for row in rows {
        let mut cells = row_cells(row, (look, has_corrections(report)), names);
        cells[PERIOD] = period();
        if billed.len() > 1 {
            let is_zero = row.figures.total.bytes == 0;
            let share = row.billed.then(|| shares.next()).flatten();
            cells[SHARE] = share.map_or_else(|| "-".to_owned(), |share| units::percent(share, is_zero));
        }
        lines.add(Line::new(Tone::Plain, cells));
    }
    if billed.len() > 1 {
        let (figures, corrected) = sum_of(rows);
        let corrected = Some(corrected).filter(|_| has_corrections(report));
        let mut cells = sum_cells(&figures, corrected, look);
        cells[CONTAINER] = "total".to_owned();
        lines.add(Line::new(Tone::Bold, cells));
    }
    if let Some(running) = report.running.as_ref().filter(|running| running.period == rows[0].period) {
        let mut cells = sum_cells(&running.estimate.figures, None, look);
        cells[CONTAINER] = "estimate".to_owned();
        lines.add(Line::new(Tone::Dim, cells));
    }
}

/// The sum of billed rows, and of their corrections.
fn sum_of(rows: &[&ReportRow]) -> (Figures, SignedFigures) {
    let mut sum = Figures::default();
    let mut corrected = SignedFigures::default();
    for row in rows.iter().filter(|row| row.billed) {
        for (sum, of) in
            [(&mut sum.incoming, row.figures.incoming), (&mut sum.outgoing, row.figures.outgoing)]
        {
            if let Some(of) = of {
                sum.get_or_insert_default().add(of);
            }
        }
        sum.total.add(row.figures.total);
        if let Some(billing) = row.billing {
            corrected.total.bytes = corrected.total.bytes.saturating_add(billing.corrected.total.bytes);
            corrected.total.packets = corrected.total.packets.saturating_add(billing.corrected.total.packets);
        }
    }
    (sum, corrected)
}

/// Whether any row or sum has corrections.
fn has_corrections(report: &Report) -> bool {
    !report.billed_as_delivered.is_empty() || report.adjustments.iter().any(|adjustment| adjustment.in_rows)
}

fn row_cells(row: &ReportRow, (look, corrections): (Look, bool), names: &ClassNames) -> Vec<String> {
    let corrected = row.billing.map(|billing| billing.corrected).filter(|_| corrections);
    let mut cells = sum_cells(&row.figures, corrected, look);
    // The whole of a row about one direction is its total.
    if row.direction.is_some() {
        cells[IN].clear();
        cells[IN + 1].clear();
    }
    cells[CONTAINER] = printable(&with_name(&row.container, row.name.as_deref()));
    cells[2] = row.class.map(|class| printable(&class_names::cell(class, names))).unwrap_or_default();
    cells[3] = row.family.unwrap_or_default().to_owned();
    cells[4] = row.direction.unwrap_or_default().to_owned();
    let Rates { incoming, outgoing, total, .. } = row.percentile.unwrap_or_default();
    for (cell, rate) in cells[SHARE + 1..].iter_mut().zip([incoming, outgoing, total]) {
        *cell = rate.map(|rate| bits(rate, look)).unwrap_or_default();
    }
    cells
}

/// The cells that a row and a sum have both.
fn sum_cells(figures: &Figures, corrected: Option<SignedFigures>, look: Look) -> Vec<String> {
    let mut cells = vec![String::new(); COLUMNS];
    let volume = |bytes| bytes_text(bytes, look);
    cells[IN] = figures.incoming.map(|of| volume(of.bytes)).unwrap_or_default();
    cells[IN + 1] = figures.outgoing.map(|of| volume(of.bytes)).unwrap_or_default();
    cells[IN + 2] = volume(figures.total.bytes);
    if let Some(corrected) = corrected {
        let bytes = corrected.total.bytes;
        let sign = match bytes {
            ..0 => "-",
            0 => "",
            1.. => "+",
        };
        cells[CORRECTED] = format!("{sign}{}", volume(bytes.unsigned_abs()));
        let to_bill = i128::from(figures.total.bytes) + i128::from(bytes);
        let sign = if to_bill < 0 { "-" } else { "" };
        let size = u64::try_from(to_bill.unsigned_abs()).unwrap_or(u64::MAX);
        cells[CORRECTED + 1] = format!("{sign}{}", volume(size));
    }
    cells[PACKETS] = match look.exact {
        true => figures.total.packets.to_string(),
        false => units::count(figures.total.packets),
    };
    cells
}

/// Bytes, exact or with a unit.
pub(super) fn bytes_text(bytes: u64, look: Look) -> String {
    if look.exact { bytes.to_string() } else { units::volume(bytes) }
}

fn bits(rate: u64, look: Look) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    if look.exact { rate.to_string() } else { units::rate(rate as f64) }
}

#[cfg(test)]
mod tests;
