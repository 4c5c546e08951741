//! The report of drops: counted, dropped, delivered.

use traffic_common::DropGroup;
use traffic_ledger::{Delivery, DropReason, DropReport, DropRow, Figures};
use traffic_model::{counted, local_time::LocalTime};

use crate::render::{
    ClassNames,
    class_names::{self, NAME_COLUMNS},
    ledger::{
        Format,
        gaps::gap_notes,
        sheet::{Sheet, figures, sum},
        with_notes,
    },
    with_name,
};

/// Columns of one row of a table: both directions together, unless the row is about one.
const SHORT: [&str; 6] = [
    "counted_packets",
    "counted_bytes",
    "dropped_packets",
    "dropped_bytes",
    "delivered_packets",
    "delivered_bytes",
];

/// Columns of CSV: those of figures for each of the three, then packets and bytes by reason.
const EXACT: [&str; 18] = [
    "counted_in_packets",
    "counted_in_bytes",
    "counted_out_packets",
    "counted_out_bytes",
    "counted_packets",
    "counted_bytes",
    "dropped_in_packets",
    "dropped_in_bytes",
    "dropped_out_packets",
    "dropped_out_bytes",
    "dropped_packets",
    "dropped_bytes",
    "delivered_in_packets",
    "delivered_in_bytes",
    "delivered_out_packets",
    "delivered_out_bytes",
    "delivered_packets",
    "delivered_bytes",
];

/// Columns of CSV for each group of reasons.
const fn reason_columns(group: DropGroup) -> [&'static str; 2] {
    match group {
        DropGroup::Shaper => ["shaper_packets", "shaper_bytes"],
        DropGroup::Firewall => ["firewall_packets", "firewall_bytes"],
        DropGroup::NoRoute => ["no_route_packets", "no_route_bytes"],
        DropGroup::QueueFull => ["queue_full_packets", "queue_full_bytes"],
        DropGroup::TooBig => ["too_big_packets", "too_big_bytes"],
        DropGroup::Neighbour => ["neighbour_packets", "neighbour_bytes"],
        DropGroup::Other => ["other_packets", "other_bytes"],
    }
}

/// A report of drops. CSV holds the rows only.
///
/// # Errors
/// When the output cannot be formatted.
pub fn drops(report: &DropReport, format: Format, names: &ClassNames) -> anyhow::Result<String> {
    match format {
        Format::Json => class_names::document(report, names),
        Format::Csv => csv(report, names),
        Format::Table => Ok(with_notes(table(report, names), notes(report))),
    }
}

fn csv(report: &DropReport, names: &ClassNames) -> anyhow::Result<String> {
    let mut sheet =
        Sheet::new(&["period", "start", "end", "container", "class", "family", "direction"], &EXACT);
    sheet.numbers.extend(DropGroup::ALL.iter().flat_map(|&group| reason_columns(group)));
    sheet.last.extend(NAME_COLUMNS);
    for row in &report.rows {
        let mut fields = vec![row.period.clone(), row.start.to_string(), row.end.to_string()];
        fields.push(row.container.clone());
        fields.push(row.class.map(|class| class.to_string()).unwrap_or_default());
        fields.extend([row.family, row.direction].map(|text| text.unwrap_or_default().to_owned()));
        let Delivery { counted, dropped, delivered, reasons } = &row.delivery;
        fields.extend([counted, dropped, delivered].into_iter().flat_map(figures));
        for group in DropGroup::ALL {
            let figures = reasons.iter().find(|of| of.reason == group.name()).map(|of| of.figures);
            let total = figures.unwrap_or_default().total;
            fields.extend([total.packets, total.bytes].map(|number| number.to_string()));
        }
        fields.extend([row.name.clone().unwrap_or_default(), class_names::name(row.class, names)]);
        sheet.rows.push(fields);
    }
    sheet.csv()
}

/// The rows with drops.
fn table(report: &DropReport, names: &ClassNames) -> String {
    let rows: Vec<&DropRow> = report.rows.iter().filter(|row| row.delivery.has_drops()).collect();
    let has = |part: fn(&DropRow) -> bool| rows.iter().any(|row| part(row));
    let (class, family, direction) =
        (has(|row| row.class.is_some()), has(|row| row.family.is_some()), has(|row| row.direction.is_some()));
    let mut sheet = Sheet::new(&["period", "container"], &SHORT);
    for (name, shown) in [("class", class), ("family", family), ("direction", direction)] {
        sheet.text.extend(shown.then_some(name));
    }
    sheet.last.push("packets_by_reason");
    for row in rows {
        let mut fields = vec![row.period.clone(), with_name(&row.container, row.name.as_deref())];
        let of_class = row.class.map(|class| class_names::cell(class, names)).unwrap_or_default();
        fields.extend(class.then_some(of_class));
        fields.extend(family.then(|| row.family.unwrap_or_default().to_owned()));
        fields.extend(direction.then(|| row.direction.unwrap_or_default().to_owned()));
        let Delivery { counted, dropped, delivered, reasons } = &row.delivery;
        for Figures { total, .. } in [counted, dropped, delivered] {
            fields.extend([total.packets, total.bytes].map(|number| number.to_string()));
        }
        fields.push(reasons_text(reasons));
        sheet.rows.push(fields);
    }
    if sheet.rows.is_empty() { "no drops are recorded in this span\n".to_owned() } else { sheet.table() }
}

/// Such as `shaper 465, no_route 2`.
fn reasons_text(reasons: &[DropReason]) -> String {
    let text = |of: &DropReason| format!("{} {}", of.reason, of.figures.total.packets);
    reasons.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// The notes below a table.
fn notes(report: &DropReport) -> Vec<String> {
    let local_time = LocalTime::named(&report.zone);
    let mut notes = vec![format!(
        "from {} to {}, zone {}, months from day {}",
        local_time.text(report.from),
        local_time.text(report.to),
        report.zone,
        report.billing_day
    )];
    notes.extend(sums("", &report.total));
    if report.class_zero.has_drops() {
        notes.extend(sums(" in class 0", &report.class_zero));
    }
    let without = report.rows.iter().filter(|row| !row.delivery.has_drops()).count();
    if without > 0 {
        let rows = counted(without, "row");
        notes.push(format!("{rows} without drops not shown; `--format csv` has all rows"));
    }
    notes.push(match report.recorded_from {
        None => "drops were never recorded here: see `trafctl status` for the reason".to_owned(),
        Some(since) if since > report.from => format!(
            "drops are recorded since {}; what was dropped earlier appears as delivered",
            local_time.text(since)
        ),
        Some(_) => "delivered is what is left after the drops; bills are for what was counted, unless [classes.bill] says otherwise".to_owned(),
    });
    if !report.nodes_without_drops.is_empty() {
        notes.push(format!(
            "without the drops of {}, or not with all: not recorded or not shipped there; what was dropped appears as \
             delivered",
            report.nodes_without_drops.join(", ")
        ));
    }
    notes.push(format!("basis: {}", report.basis_statement));
    notes.extend(gap_notes(&report.gaps, &local_time));
    notes
}

fn sums(of: &str, delivery: &Delivery) -> [String; 3] {
    let Delivery { counted, dropped, delivered, .. } = delivery;
    [("counted", counted), ("dropped", dropped), ("delivered", delivered)]
        .map(|(name, figures)| sum(&format!("{name}{of}"), figures))
}
