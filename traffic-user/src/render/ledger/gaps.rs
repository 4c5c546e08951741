//! Gaps: a list of them, one of them as a line, and the notes about them below other results.

use serde::Serialize;
use traffic_ledger::{ContainerNames, Gap, GapSize, SMALL_GAP_BYTES};
use traffic_model::{counted, local_time::LocalTime};

use crate::render::{
    class_names::CONTAINER_NAME_COLUMN,
    json,
    ledger::{
        Format,
        sheet::{Sheet, number},
    },
    with_name,
};

/// A gap with what people called its container.
#[derive(Debug, Serialize)]
pub(in crate::render) struct NamedGap<'a> {
    #[serde(flatten)]
    pub gap: &'a Gap,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
}

impl<'a> NamedGap<'a> {
    pub(in crate::render) fn new(gap: &'a Gap, names: &'a ContainerNames) -> Self {
        let name = gap.container.as_ref().and_then(|container| names.at(container, gap.end));
        Self { gap, name }
    }
}

/// A list of gaps.
///
/// # Errors
/// When the output cannot be formatted.
pub fn gaps(
    gaps: &[Gap],
    names: &ContainerNames,
    format: Format,
    local_time: &LocalTime,
) -> anyhow::Result<String> {
    let gaps: Vec<NamedGap<'_>> = gaps.iter().map(|gap| NamedGap::new(gap, names)).collect();
    if format == Format::Json {
        return json::list("gaps", &gaps);
    }
    let has_nodes = gaps.iter().any(|gap| gap.gap.node.is_some());
    let mut first = vec!["start", "end", "reason", "loses_traffic", "interface", "container"];
    if has_nodes {
        first.insert(0, "node");
    }
    let mut sheet = Sheet::new(&first, &["in_skbs", "in_skb_bytes", "out_skbs", "out_skb_bytes"]);
    sheet.last.extend((format == Format::Csv).then_some(CONTAINER_NAME_COLUMN));
    sheet.last.push("detail");
    let time = |time: jiff::Timestamp| match format {
        Format::Csv => time.to_string(),
        Format::Table | Format::Json => local_time.text(time),
    };
    let loses = |gap: &Gap| match (format, gap.reason.loses_traffic()) {
        (Format::Csv, loses) => loses.to_string(),
        (_, true) => "yes".to_owned(),
        (_, false) => "no".to_owned(),
    };
    // A program expects a time or nothing.
    let unknown = if format == Format::Csv { "" } else { "(unknown)" };
    for NamedGap { gap, name } in gaps {
        let container = gap.container.as_deref().unwrap_or_default();
        let size = |value: fn(&GapSize) -> u64| number(gap.size.as_ref().map(value));
        let mut fields = vec![
            gap.start.map_or_else(|| unknown.to_owned(), time),
            time(gap.end),
            gap.reason.name().to_owned(),
            loses(gap),
            gap.interface.clone().unwrap_or_default(),
            match format {
                Format::Csv => container.to_owned(),
                Format::Table | Format::Json => with_name(container, name),
            },
            size(|size| size.in_skbs),
            size(|size| size.in_skb_bytes),
            size(|size| size.out_skbs),
            size(|size| size.out_skb_bytes),
        ];
        fields.extend((format == Format::Csv).then(|| name.unwrap_or_default().to_owned()));
        fields.push(gap.detail.clone().unwrap_or_default());
        if has_nodes {
            fields.insert(0, gap.node.clone().unwrap_or_default());
        }
        sheet.rows.push(fields);
    }
    if format == Format::Csv { sheet.csv() } else { Ok(sheet.table()) }
}

/// The gaps of a time span, as notes below a result. Those that lost nothing, or little, take one line.
pub(super) fn gap_notes(gaps: &[Gap], local_time: &LocalTime) -> Vec<String> {
    let (small, large): (Vec<&Gap>, Vec<&Gap>) = gaps.iter().partition(|gap| gap.is_small());
    let mut notes = Vec::new();
    if !large.is_empty() {
        let overlap = if large.len() == 1 { "gap overlaps" } else { "gaps overlap" };
        let losses = large.iter().filter(|gap| gap.reason.loses_traffic()).count();
        notes.push(format!(
            "{} {overlap} this span, {losses} of them with traffic that is not in the sums:",
            large.len()
        ));
        notes.extend(large.iter().map(|gap| format!("  {}", gap.text(local_time))));
    }
    if !small.is_empty() {
        let lost = small.iter().filter_map(|gap| gap.doubtful_bytes()).fold(0, u64::saturating_add);
        notes.push(format!(
            "{}, {} (each lost nothing, or less than {}; `trafctl gaps` lists them)",
            counted(small.len(), "small gap"),
            short_bytes(lost),
            short_bytes(SMALL_GAP_BYTES)
        ));
    }
    notes
}

/// Bytes in kB from a thousand on, rounded up, so that a loss is never shown as none.
fn short_bytes(bytes: u64) -> String {
    if bytes < 1000 { counted(bytes, "byte") } else { format!("{} kB", bytes.div_ceil(1000)) }
}
