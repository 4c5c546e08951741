//! Reports, rankings and gaps as a table for people, or as JSON or CSV for programs. Knows no database.

mod interfaces;
#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use traffic_common::Family;
use traffic_ledger::{
    Adjusted, Adjustment, ClosedPeriod, Corrected, Figures, Gap, LedgerError, Report, Top, Volume,
};
use traffic_model::calendar::FIVE_MINUTES_S;

use crate::render;

pub use interfaces::{Part, interface_notes, interfaces};

/// How output looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// One JSON value.
    Json,
    /// A header and comma-separated lines.
    Csv,
}

/// A report. CSV holds the lines only: what else is to be said comes from [`notes`].
///
/// # Errors
/// When the output cannot be formed.
pub fn report(report: &Report, format: Format) -> Result<String, LedgerError> {
    let with_rates = report.percentile_rule.is_some();
    let mut sheet = Sheet::new(&["period"], &[]);
    if format == Format::Csv {
        sheet.text.extend(["start", "end"]);
    }
    sheet.text.push("container");
    let columns = [
        ("class", report.rows.iter().any(|row| row.class.is_some())),
        ("family", report.rows.iter().any(|row| row.family.is_some())),
        ("direction", report.rows.iter().any(|row| row.direction.is_some())),
    ];
    // A program wants the same columns whatever was asked.
    let shown: Vec<bool> = columns.iter().map(|column| column.1 || format == Format::Csv).collect();
    sheet.text.extend(columns.iter().zip(&shown).filter(|(_, shown)| **shown).map(|(column, _)| column.0));
    sheet.numbers.extend(FIGURES);
    if with_rates {
        sheet.numbers.extend(["in_bits_per_s", "out_bits_per_s", "total_bits_per_s"]);
    }
    for row in &report.rows {
        let mut line = vec![row.period.clone()];
        if format == Format::Csv {
            line.extend([row.start.to_string(), row.end.to_string()]);
        }
        line.push(row.container.clone());
        let optional = [
            row.class.map(|class| class.to_string()).unwrap_or_default(),
            row.family.unwrap_or_default().to_owned(),
            row.direction.unwrap_or_default().to_owned(),
        ];
        line.extend(optional.into_iter().zip(&shown).filter(|(_, shown)| **shown).map(|(text, _)| text));
        line.extend(figures(&row.figures));
        if with_rates {
            let rates = row.percentile.unwrap_or_default();
            line.extend([rates.incoming, rates.outgoing, rates.total].map(number));
        }
        sheet.lines.push(line);
    }
    match format {
        Format::Json => json(report),
        Format::Csv => sheet.csv(),
        Format::Table => {
            let mut text = sheet.table();
            if !report.corrected.is_empty() {
                text += "\ncorrected after their period was closed, whole periods, layer-3 bytes:\n";
                text += &corrected(&report.corrected).table();
            }
            text.push('\n');
            for note in notes(report) {
                text.push_str(&note);
                text.push('\n');
            }
            Ok(text)
        }
    }
}

/// What stands below a report's lines: sums, basis, rule, gaps, closed periods.
pub fn notes(report: &Report) -> Vec<String> {
    let mut notes = vec![format!(
        "from {} to {}, zone {}, months from day {}",
        report.from, report.to, report.zone, report.billing_day
    )];
    notes.extend(span_notes(report));
    notes.push(sum("total", &report.total));
    if report.class_zero.total != Volume::default() {
        notes.push(sum("class 0, not in the total", &report.class_zero));
    }
    if report.faults.total != Volume::default() {
        notes.push(sum("faults, in no class (--show faults tells which)", &report.faults));
    }
    notes.push(format!("basis: {}", report.basis_statement));
    notes.extend(report.percentile_rule.clone());
    if report.marked_buckets > 0 {
        notes.push(format!(
            "{} five-minute buckets also hold traffic of another time (late reading or clock set)",
            report.marked_buckets
        ));
    }
    for period in &report.closed {
        notes.push(format!("{} was closed at {} with hash {}", period.name, period.closed, period.hash));
    }
    notes.extend(report.adjustments.iter().map(adjustment_line));
    notes.extend(gap_notes(&report.gaps));
    notes
}

fn sum(name: &str, figures: &Figures) -> String {
    let volume = |volume: Option<Volume>| {
        let Volume { packets, bytes } = volume.unwrap_or_default();
        format!("{bytes} bytes in {packets} packets")
    };
    let (incoming, outgoing) = (volume(figures.incoming), volume(figures.outgoing));
    format!("{name}: in {incoming}; out {outgoing}; together {}", volume(Some(figures.total)))
}

/// The steps at the ends that are shown in part, and where the ledger ends.
fn span_notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(part) = &report.first_from {
        notes.push(format!("{} is not whole: shown from {}", part.period, part.at));
    }
    if let Some(part) = &report.last_until {
        notes.push(format!("{} is not whole: shown until {}", part.period, part.at));
    }
    if let Some(last) = report.last_reading.filter(|last| report.to.duration_since(*last) > BUCKET) {
        notes.push(format!("nothing is recorded after the last reading, {last}"));
    }
    notes
}

fn gap_notes(gaps: &[Gap]) -> Vec<String> {
    if gaps.is_empty() {
        return Vec::new();
    }
    let losses = gaps.iter().filter(|gap| gap.reason.loses_traffic()).count();
    let touch = if gaps.len() == 1 { "gap touches" } else { "gaps touch" };
    let first =
        format!("{} {touch} this span, {losses} of them with traffic that is not in the sums:", gaps.len());
    std::iter::once(first).chain(gaps.iter().map(|gap| format!("  {}", gap_line(gap)))).collect()
}

/// A list of gaps.
///
/// # Errors
/// When the output cannot be formed.
pub fn gaps(gaps: &[Gap], format: Format) -> Result<String, LedgerError> {
    let mut sheet = Sheet::new(
        &["start", "end", "reason", "loses_traffic", "interface", "container"],
        &["in_skbs", "in_skb_bytes", "out_skbs", "out_skb_bytes"],
    );
    sheet.last = Some("detail");
    for gap in gaps {
        let size = |value: fn(&traffic_ledger::GapSize) -> u64| number(gap.size.as_ref().map(value));
        sheet.lines.push(vec![
            gap.start.map(|start: Timestamp| start.to_string()).unwrap_or_default(),
            gap.end.to_string(),
            gap.reason.name().to_owned(),
            gap.reason.loses_traffic().to_string(),
            gap.interface.clone().unwrap_or_default(),
            gap.container.clone().unwrap_or_default(),
            size(|size| size.in_skbs),
            size(|size| size.in_skb_bytes),
            size(|size| size.out_skbs),
            size(|size| size.out_skb_bytes),
            gap.detail.clone().unwrap_or_default(),
        ]);
    }
    match format {
        Format::Table => Ok(sheet.table()),
        Format::Json => json(gaps),
        Format::Csv => sheet.csv(),
    }
}

/// A ranking.
///
/// # Errors
/// When the output cannot be formed.
pub fn top(top: &Top, format: Format) -> Result<String, LedgerError> {
    let mut sheet = Sheet::new(&["place", "container", "class"], &FIGURES);
    sheet.numbers.push("permille");
    for row in &top.rows {
        let class = row.class.map(|class| class.to_string()).unwrap_or_default();
        let mut line = vec![row.place.to_string(), row.container.clone(), class];
        line.extend(figures(&row.figures));
        line.push(row.permille.to_string());
        sheet.lines.push(line);
    }
    match format {
        Format::Table => {
            let mut text = sheet.table() + "\n";
            for note in top_notes(top) {
                text.push_str(&note);
                text.push('\n');
            }
            Ok(text)
        }
        Format::Json => json(top),
        Format::Csv => sheet.csv(),
    }
}

/// What stands below a ranking.
pub fn top_notes(top: &Top) -> Vec<String> {
    let mut notes = vec![
        format!("from {} to {}; permille of the bytes in and out of all containers", top.from, top.to),
        sum("all containers", &top.total),
    ];
    if top.class_zero.total != Volume::default() && top.rows.iter().all(|row| row.class != Some(0)) {
        notes.push(sum("class 0, not ranked", &top.class_zero));
    }
    notes.push(format!("basis: {}", top.basis_statement));
    notes.extend(gap_notes(&top.gaps));
    notes
}

/// Closed periods as a table.
pub fn closed(periods: &[ClosedPeriod]) -> String {
    let mut sheet = Sheet::new(&["period", "start", "end", "closed", "hash"], &["rows"]);
    for period in periods {
        let times = [period.start, period.end, period.closed].map(|time| time.to_string());
        let mut line = vec![period.name.clone()];
        line.extend(times);
        line.extend([period.hash.clone(), period.rows.to_string()]);
        sheet.lines.push(line);
    }
    sheet.table()
}

/// A correction in one line of text.
fn adjustment_line(adjustment: &Adjustment) -> String {
    let family = Family::ALL[usize::from(adjustment.family != 0)].name();
    format!(
        "correction of {}, not in the lines: {} class {} {family}, in {:+} bytes {:+} packets, out {:+} bytes {:+} packets, \
         made at {}: {}",
        adjustment.period,
        adjustment.container,
        adjustment.class,
        adjustment.bytes[0],
        adjustment.packets[0],
        adjustment.bytes[1],
        adjustment.packets[1],
        adjustment.made,
        adjustment.reason
    )
}

/// Frozen figures with their corrections, a line for each direction.
fn corrected(corrected: &[Corrected]) -> Sheet {
    let mut sheet = Sheet::new(
        &["period", "container", "class", "direction"],
        &["frozen_bytes", "correction", "bytes_to_bill", "frozen_packets", "correction", "packets_to_bill"],
    );
    for line in corrected {
        for (direction, packets) in [("in", 0), ("out", 2)] {
            let mut fields = vec![
                line.period.clone(),
                // As the lines above have it: under the id somebody else may be billed by now.
                line.container_now.as_ref().unwrap_or(&line.container).clone(),
                line.class.to_string(),
                direction.to_owned(),
            ];
            for at in [packets + 1, packets] {
                fields.extend([
                    line.frozen[at].to_string(),
                    format!("{:+}", line.corrections[at]),
                    line.to_bill[at].to_string(),
                ]);
            }
            sheet.lines.push(fields);
        }
    }
    sheet
}

/// A correction with what it does.
///
/// # Errors
/// When the output cannot be formed.
pub fn adjusted(adjusted: &Adjusted, format: Format) -> Result<String, LedgerError> {
    if format == Format::Json {
        return json(adjusted);
    }
    let adjustment = &adjusted.adjustment;
    let mut sheet = Sheet::new(&[""], &["frozen", "corrected_before", "this_correction", "to_bill"]);
    let (packets, bytes) = (adjustment.packets, adjustment.bytes);
    for (name, at, this) in [
        ("bytes in", 1, bytes[0]),
        ("packets in", 0, packets[0]),
        ("bytes out", 3, bytes[1]),
        ("packets out", 2, packets[1]),
    ] {
        sheet.lines.push(vec![
            name.to_owned(),
            adjusted.frozen[at].to_string(),
            format!("{:+}", adjusted.corrected_before[at]),
            format!("{this:+}"),
            adjusted.to_bill[at].to_string(),
        ]);
    }
    let family = Family::ALL[usize::from(adjustment.family != 0)].name();
    let mut text = format!(
        "{}, container {} class {} {family}: {}\n\n",
        adjustment.period, adjustment.container, adjustment.class, adjustment.reason
    );
    text += &sheet.table();
    for remark in &adjusted.remarks {
        text += &format!("note: {remark}\n");
    }
    if let Some(entry) = &adjusted.chained {
        text += &format!("written as entry {} of the chain, hash {}\n", entry.seq, entry.hash);
    }
    Ok(text)
}

/// A gap in one line of text.
pub fn gap_line(gap: &Gap) -> String {
    let start = gap.start.map_or_else(|| "?".to_owned(), |start| start.to_string());
    let mut line = format!("{start} to {}: {}", gap.end, gap.reason.name());
    if let Some(interface) = &gap.interface {
        line += &format!(", interface {interface}");
    }
    if let Some(container) = &gap.container {
        line += &format!(", container {container}");
    }
    if let Some(size) = &gap.size {
        line += &format!(
            ", in {} bytes in {} buffers, out {} bytes in {} buffers (with link-layer headers)",
            size.in_skb_bytes, size.in_skbs, size.out_skb_bytes, size.out_skbs
        );
    }
    if let Some(detail) = &gap.detail {
        line += &format!(" ({detail})");
    }
    line
}

/// A span that ends with the bucket of the last reading ends at most this much later.
const BUCKET: SignedDuration = SignedDuration::from_secs(FIVE_MINUTES_S);

const FIGURES: [&str; 6] = ["in_packets", "in_bytes", "out_packets", "out_bytes", "packets", "bytes"];

fn number(value: Option<u64>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn figures(figures: &Figures) -> [String; 6] {
    let (incoming, outgoing) = (figures.incoming, figures.outgoing);
    [
        number(incoming.map(|volume| volume.packets)),
        number(incoming.map(|volume| volume.bytes)),
        number(outgoing.map(|volume| volume.packets)),
        number(outgoing.map(|volume| volume.bytes)),
        figures.total.packets.to_string(),
        figures.total.bytes.to_string(),
    ]
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, LedgerError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| LedgerError::Output(error.into()))?;
    Ok(text + "\n")
}

/// Columns of texts, then of numbers, then perhaps one of text; and the lines.
#[derive(Default)]
struct Sheet {
    text: Vec<&'static str>,
    numbers: Vec<&'static str>,
    last: Option<&'static str>,
    lines: Vec<Vec<String>>,
}

impl Sheet {
    fn new(text: &[&'static str], numbers: &[&'static str]) -> Self {
        Self { text: text.to_vec(), numbers: numbers.to_vec(), ..Self::default() }
    }

    fn header(&self) -> impl Iterator<Item = &'static str> {
        self.text.iter().chain(&self.numbers).copied().chain(self.last)
    }

    fn csv(&self) -> Result<String, LedgerError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let failed = |error: csv::Error| LedgerError::Output(error.into());
        writer.write_record(self.header()).map_err(failed)?;
        for line in &self.lines {
            writer.write_record(line).map_err(failed)?;
        }
        let bytes = writer.into_inner().map_err(|error| LedgerError::Output(error.into_error()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn table(&self) -> String {
        let header: Vec<String> = self.header().map(|name| name.replace('_', " ").to_uppercase()).collect();
        let numbers = self.text.len()..self.text.len() + self.numbers.len();
        render::columns(&header, &numbers, &self.lines)
    }
}
