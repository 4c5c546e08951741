//! Gaps: a list of them, one of them as a line, and the notes about them below other results.

use traffic_ledger::{Gap, GapSize};
use traffic_model::local_time::LocalTime;

use crate::render::{
    json,
    ledger::{
        Format,
        sheet::{Sheet, number},
    },
};

/// A list of gaps.
///
/// # Errors
/// When the output cannot be formatted.
pub fn gaps(gaps: &[Gap], format: Format, local_time: &LocalTime) -> anyhow::Result<String> {
    if format == Format::Json {
        return json::list("gaps", gaps);
    }
    let mut sheet = Sheet::new(
        &["start", "end", "reason", "loses_traffic", "interface", "container"],
        &["in_skbs", "in_skb_bytes", "out_skbs", "out_skb_bytes"],
    );
    sheet.last = Some("detail");
    let time = |time: jiff::Timestamp| match format {
        Format::Csv => time.to_string(),
        Format::Table | Format::Json => local_time.text(time),
    };
    let loses = |gap: &Gap| match (format, gap.reason.loses_traffic()) {
        (Format::Csv, loses) => loses.to_string(),
        (_, true) => "yes".to_owned(),
        (_, false) => "no".to_owned(),
    };
    for gap in gaps {
        let size = |value: fn(&GapSize) -> u64| number(gap.size.as_ref().map(value));
        sheet.rows.push(vec![
            gap.start.map(time).unwrap_or_default(),
            time(gap.end),
            gap.reason.name().to_owned(),
            loses(gap),
            gap.interface.clone().unwrap_or_default(),
            gap.container.clone().unwrap_or_default(),
            size(|size| size.in_skbs),
            size(|size| size.in_skb_bytes),
            size(|size| size.out_skbs),
            size(|size| size.out_skb_bytes),
            gap.detail.clone().unwrap_or_default(),
        ]);
    }
    if format == Format::Csv { sheet.csv() } else { Ok(sheet.table()) }
}

/// The gaps of a time span, as notes below a result.
pub(super) fn gap_notes(gaps: &[Gap], local_time: &LocalTime) -> Vec<String> {
    if gaps.is_empty() {
        return Vec::new();
    }
    let losses = gaps.iter().filter(|gap| gap.reason.loses_traffic()).count();
    let overlap = if gaps.len() == 1 { "gap overlaps" } else { "gaps overlap" };
    let first =
        format!("{} {overlap} this span, {losses} of them with traffic that is not in the sums:", gaps.len());
    std::iter::once(first).chain(gaps.iter().map(|gap| format!("  {}", gap.text(local_time)))).collect()
}
