//! The result of an import of PVA's database.

use jiff::Timestamp;
use traffic_ledger::PvaImported;
use traffic_model::local_time::LocalTime;

use crate::render::{
    json,
    ledger::{Format, NOTHING_WRITTEN, sheet::Sheet},
};

/// What an import took over, skipped and found to differ.
///
/// # Errors
/// When the output cannot be formatted.
pub fn imported(imported: &PvaImported, format: Format, local_time: &LocalTime) -> anyhow::Result<String> {
    if format == Format::Json {
        return json::document(imported);
    }
    let mut sheet =
        Sheet::new(&["container", "first", "last"], &["in_packets", "in_bytes", "out_packets", "out_bytes"]);
    let time = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |time| local_time.text(time));
    for container in &imported.containers {
        let numbers = [container.in_packets, container.in_bytes, container.out_packets, container.out_bytes];
        let mut fields = vec![container.container.clone(), time(container.first), time(container.last)];
        fields.extend(numbers.map(|number| number.to_string()));
        sheet.rows.push(fields);
    }
    Ok(notes(imported, local_time).into_iter().fold(sheet.table(), |text, note| text + &note + "\n"))
}

fn notes(imported: &PvaImported, local_time: &LocalTime) -> Vec<String> {
    let rows = imported.rows;
    let mut notes = vec![
        format!("history until {}", local_time.text(imported.until)),
        format!(
            "{} samples are new, {} were imported before",
            imported.samples, imported.samples_imported_before
        ),
        format!(
            "rows: {} of five minutes, {} of hours, {} of days",
            rows.five_minutes, rows.hours, rows.days
        ),
    ];
    for container in imported.containers.iter().filter(|container| container.retired) {
        notes.push(format!(
            "history of {} belongs to {}, which had the id at that time",
            container.eid, container.container
        ));
    }
    if imported.totals_taken.count > 0 {
        let first = imported.totals_taken.first.as_deref().unwrap_or_default();
        notes.push(format!(
            "{} times the classes did not add up to the total, and the total was used; first: {first}",
            imported.totals_taken.count
        ));
    }
    for skipped in &imported.skipped {
        let period = skipped.period.as_ref().map(|period| format!(" {period}")).unwrap_or_default();
        notes.push(format!(
            "skipped: {} {}{period}; first: {}",
            skipped.count,
            skipped.reason.text(),
            skipped.first
        ));
    }
    if imported.conflicts.count > 0 {
        notes.push(format!(
            "CONFLICT: {} sums imported before differ in this file; the ledger keeps its own:",
            imported.conflicts.count
        ));
        notes.extend(imported.conflicts.first.iter().map(|conflict| format!("  {conflict}")));
    }
    if imported.dry_run {
        notes.push(NOTHING_WRITTEN.to_owned());
    }
    notes
}
