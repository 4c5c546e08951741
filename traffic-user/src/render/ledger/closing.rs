//! Closed months, corrections and audits.

use serde::Serialize;
use traffic_common::Family;
use traffic_ledger::{Adjusted, Audit, ClosePreview, ClosedPeriod, Corrected, RetirePreview};
use traffic_model::local_time::LocalTime;

use crate::render::{
    ClassNames, class_names, json,
    ledger::{
        Format, NOTHING_WRITTEN,
        sheet::{Sheet, sum},
        with_notes,
    },
};
use traffic_model::counted;

/// The JSON document of closed months.
#[derive(Serialize)]
struct ClosedDocument<'a> {
    closed: &'a [ClosedPeriod],
    /// Given when a month was just closed: gaps in it with traffic that is not in the sums.
    #[serde(skip_serializing_if = "Option::is_none")]
    gaps_losing_traffic: Option<usize>,
}

/// Closed months. `gaps_losing_traffic` is given when a month was just closed.
///
/// # Errors
/// When the output cannot be formatted.
pub fn closed(
    periods: &[ClosedPeriod],
    gaps_losing_traffic: Option<usize>,
    format: Format,
    local_time: &LocalTime,
) -> anyhow::Result<String> {
    if format == Format::Json {
        return json::document(&ClosedDocument { closed: periods, gaps_losing_traffic });
    }
    if periods.is_empty() {
        return Ok("no month has been closed yet\n".to_owned());
    }
    let mut sheet = Sheet::new(&["period", "start", "end", "closed", "hash"], &["rows"]);
    for period in periods {
        let times = [period.start, period.end, period.closed].map(|time| local_time.text(time));
        let mut fields = vec![period.name.clone()];
        fields.extend(times);
        fields.extend([period.hash.clone(), period.rows.to_string()]);
        sheet.rows.push(fields);
    }
    let Some(losses) = gaps_losing_traffic else { return Ok(sheet.table()) };
    let mut notes =
        vec!["whoever keeps the hash elsewhere can prove that the month was not changed".to_owned()];
    if losses > 0 {
        let have = if losses == 1 { "has" } else { "have" };
        notes.push(format!(
            "{} in this month {have} traffic that is not in the sums; see `trafctl gaps`",
            counted(losses, "gap")
        ));
    }
    Ok(with_notes(sheet.table(), notes))
}

/// The JSON document of a month that would be closed.
#[derive(Serialize)]
struct PreviewDocument<'a> {
    /// Nothing was closed.
    closed: [ClosedPeriod; 0],
    would_close: &'a ClosePreview,
}

/// What closing a month would freeze.
///
/// # Errors
/// When the output cannot be formatted.
pub fn close_preview(
    preview: &ClosePreview,
    format: Format,
    local_time: &LocalTime,
) -> anyhow::Result<String> {
    if format == Format::Json {
        return json::document(&PreviewDocument { closed: [], would_close: preview });
    }
    let mut lines = vec![
        format!(
            "would close {}, {} to {}: its figures never change again",
            preview.name,
            local_time.text(preview.start),
            local_time.text(preview.end)
        ),
        format!("figures of {}", counted(preview.containers, "container")),
        sum("total", &preview.total),
    ];
    if preview.gaps_losing_traffic > 0 {
        let gaps = counted(preview.gaps_losing_traffic, "gap");
        lines.push(format!("{gaps} with traffic that is not in the sums; see `trafctl gaps`"));
    }
    if preview.pending_owners > 0 {
        lines.push(format!(
            "{} of them pending: nobody is billed for them; `trafctl container attribute` before closing saves \
             corrections",
            match preview.pending_owners {
                1 => "1 is".to_owned(),
                n => format!("{n} are"),
            }
        ));
    }
    lines.extend(preview.delivered.iter().map(|of| {
        let corrections = counted(of.corrections, "correction");
        let what =
            format!("class {} is billed by what was delivered; {corrections} of what was dropped", of.class);
        sum(&what, &of.dropped)
    }));
    lines.extend(preview.doubt.as_ref().map(|doubt| format!("its figures are doubtful: {doubt}")));
    lines.push(NOTHING_WRITTEN.to_owned());
    Ok(lines.join("\n") + "\n")
}

/// The result of retiring a container, or what it would be.
#[derive(Serialize)]
pub struct Retired {
    /// False for a preview.
    pub written: bool,
    /// The figures that stay with the old owner, by the ids under which they are recorded.
    pub figures: Vec<RetirePreview>,
    /// The labels under which they are kept; empty in a preview.
    pub labels: Vec<String>,
    /// Whether live counters start at zero.
    pub has_live_counters: bool,
}

/// The result of retiring a container, or what it would be.
///
/// # Errors
/// When the output cannot be formatted.
pub fn retired(retired: &Retired, format: Format, local_time: &LocalTime) -> anyhow::Result<String> {
    if format == Format::Json {
        return json::document(retired);
    }
    let mut text = String::new();
    for (at, preview) in retired.figures.iter().enumerate() {
        let id = &preview.container;
        text += &match retired.labels.get(at) {
            Some(label) => format!("the figures of {id} are kept under {label}\n"),
            None => format!(
                "would retire {id}: its figures since {} stay with the old customer, and the id begins at zero\n{}\n",
                local_time.text(preview.since),
                sum("total", &preview.total)
            ),
        };
    }
    if retired.figures.is_empty() && retired.has_live_counters {
        text += match retired.written {
            true => "there are no figures in the ledger; only the live counters start at zero\n",
            false => "there are no figures in the ledger; only the live counters would start at zero\n",
        };
    }
    if !retired.written {
        text += NOTHING_WRITTEN;
        text.push('\n');
    }
    Ok(text)
}

/// Frozen figures with their corrections, one row per direction.
pub(super) fn corrected(corrected: &[Corrected], names: &ClassNames) -> Sheet {
    let mut sheet = Sheet::new(
        &["period", "container", "class", "direction"],
        &["frozen_bytes", "correction", "bytes_to_bill", "frozen_packets", "correction", "packets_to_bill"],
    );
    for line in corrected {
        for (direction, packets) in [("in", 0), ("out", 2)] {
            let mut fields = vec![
                line.period.clone(),
                // The current label, as in the rows above: the former id may have a new owner.
                line.container_now.as_ref().unwrap_or(&line.container).clone(),
                class_names::cell(line.class, names),
                direction.to_owned(),
            ];
            for at in [packets + 1, packets] {
                fields.extend([
                    line.frozen[at].to_string(),
                    format!("{:+}", line.corrections[at]),
                    line.to_bill[at].to_string(),
                ]);
            }
            sheet.rows.push(fields);
        }
    }
    sheet
}

/// A correction and its effect, made or previewed.
///
/// # Errors
/// When the output cannot be formatted.
pub fn adjusted(adjusted: &Adjusted, format: Format, names: &ClassNames) -> anyhow::Result<String> {
    if format == Format::Json {
        return json::document(adjusted);
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
        sheet.rows.push(vec![
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
        adjustment.period,
        adjustment.container,
        class_names::cell(adjustment.class, names),
        adjustment.reason
    );
    text += &sheet.table();
    for remark in &adjusted.remarks {
        text += &format!("note: {remark}\n");
    }
    text += &match &adjusted.chained {
        Some(entry) => format!("written as entry {} of the chain, hash {}\n", entry.seq, entry.hash),
        None => format!("{NOTHING_WRITTEN}\n"),
    };
    Ok(text)
}

/// The result of an audit.
///
/// # Errors
/// When the output cannot be formatted.
pub fn audit(audit: &Audit, format: Format) -> anyhow::Result<String> {
    if format == Format::Json {
        return json::document(audit);
    }
    let mut text = format!(
        "{} recomputed, {} skipped (still open, or their finer rows were dropped)\n\
         {} compared with their control totals, and classes + faults with what passed\n\
         {} of the chain of closed months recomputed\n\
         {} compared with the digests of what was written\n",
        counted(audit.units, "sum"),
        audit.units_skipped,
        counted(audit.counter_sets, "counter epoch"),
        counted(audit.chain_entries, "entry"),
        counted(audit.rows, "row")
    );
    if audit.rows_skipped > 0 {
        text += &format!(
            "{} have no digest yet; the daemon computes the digests of a migrated ledger little by little\n",
            counted(audit.rows_skipped, "row")
        );
    }
    text += &match &audit.live_counters_skipped {
        None => format!("{} compared with the live counters\n", counted(audit.live_counters, "last reading")),
        Some(reason) => format!("last readings not compared with the live counters: {reason}\n"),
    };
    if audit.counter_sets_skipped > 0 {
        text += &format!(
            "{} counter epochs skipped: they began under an older version without control totals\n",
            audit.counter_sets_skipped
        );
    }
    if let Some(hash) = &audit.chain_hash {
        text += &format!("last hash of the chain: {hash}\n");
    }
    for problem in &audit.problems {
        text += &format!("PROBLEM {problem}\n");
    }
    if audit.problems.is_empty() {
        text += "no problems\n";
    }
    Ok(text)
}
