//! The report by interface: traffic, faults and balances.

use jiff::Timestamp;
use traffic_ledger::{Balance, BalanceRow, Figures, InterfaceReport};
use traffic_model::local_time::LocalTime;

use crate::render::{
    json,
    ledger::{Format, gaps::gap_notes, sheet::Sheet, with_notes},
};

/// The part that a table or CSV shows. JSON has all parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What passed each interface.
    Interfaces,
    /// Unclassified traffic, by reason.
    Faults,
    /// Comparison of what passed with classes and faults.
    Balance,
}

/// A part of an interface report. CSV holds the rows only.
///
/// # Errors
/// When the output cannot be formatted.
pub fn interfaces(report: &InterfaceReport, part: Part, format: Format) -> anyhow::Result<String> {
    if format == Format::Json {
        return json::document(report);
    }
    let with_times = format == Format::Csv;
    let sheet = match part {
        Part::Interfaces => interface_sheet(report, with_times),
        Part::Faults => fault_sheet(report, with_times),
        Part::Balance => balance_sheet(report, with_times),
    };
    if format == Format::Csv {
        return sheet.csv();
    }
    Ok(with_notes(sheet.table(), interface_notes(report, part)))
}

/// The notes below a table.
fn interface_notes(report: &InterfaceReport, part: Part) -> Vec<String> {
    let local_time = LocalTime::named(&report.zone);
    let mut notes = vec![
        format!(
            "from {} to {}, zone {}, months from day {}",
            local_time.text(report.from),
            local_time.text(report.to),
            report.zone,
            report.billing_day
        ),
        format!("basis: {}", report.basis_statement),
    ];
    match part {
        Part::Interfaces => {
            notes.push(
                "in and out are the container's directions; faults are part of what passed and are in no \
                 class"
                    .to_owned(),
            );
        }
        Part::Faults => {
            notes.push("faults passed an interface but are in no class, so they are not billed".to_owned());
        }
        Part::Balance => {
            notes.push(
                "passed = billed classes + class 0 + faults + difference; counters are not read at one \
                 instant, so traffic in flight causes small differences that the next step reverses"
                    .to_owned(),
            );
            notes.push(
                "(shared) combines all shared interfaces and all containers without an interface of their \
                 own; a container with both causes differences in two rows that (node) does not have"
                    .to_owned(),
            );
        }
    }
    if report.without_pva_history {
        notes.push("history from PVA is not included: PVA did not count interfaces".to_owned());
    }
    notes.extend(gap_notes(&report.gaps, &local_time));
    notes
}

fn begin_columns(sheet: &mut Sheet, with_times: bool, more: &[&'static str]) {
    sheet.text.push("period");
    if with_times {
        sheet.text.extend(["start", "end"]);
    }
    sheet.text.extend(more);
}

fn row_fields(period: &str, times: (Timestamp, Timestamp), with_times: bool, more: &[&str]) -> Vec<String> {
    let mut line = vec![period.to_owned()];
    if with_times {
        line.extend([times.0.to_string(), times.1.to_string()]);
    }
    line.extend(more.iter().map(|&text| text.to_owned()));
    line
}

fn four(figures: &Figures) -> [String; 4] {
    let (incoming, outgoing) = (figures.incoming.unwrap_or_default(), figures.outgoing.unwrap_or_default());
    [incoming.packets, incoming.bytes, outgoing.packets, outgoing.bytes].map(|number| number.to_string())
}

fn interface_sheet(report: &InterfaceReport, with_times: bool) -> Sheet {
    let mut sheet = Sheet::default();
    begin_columns(&mut sheet, with_times, &["interface", "container"]);
    sheet.numbers.extend(["in_packets", "in_bytes", "out_packets", "out_bytes"]);
    sheet.numbers.extend(["in_fault_packets", "in_fault_bytes", "out_fault_packets", "out_fault_bytes"]);
    for row in &report.interfaces {
        let mut fields =
            row_fields(&row.period, (row.start, row.end), with_times, &[&row.interface, &row.container]);
        fields.extend(four(&row.passed));
        fields.extend(four(&row.faults));
        sheet.rows.push(fields);
    }
    sheet
}

fn fault_sheet(report: &InterfaceReport, with_times: bool) -> Sheet {
    let mut sheet = Sheet::default();
    begin_columns(&mut sheet, with_times, &["interface", "container", "fault"]);
    sheet.numbers.extend(["in_packets", "in_bytes", "out_packets", "out_bytes"]);
    for row in &report.faults {
        let names = [row.interface.as_str(), &row.container, &row.fault];
        let mut fields = row_fields(&row.period, (row.start, row.end), with_times, &names);
        fields.extend(four(&row.figures));
        sheet.rows.push(fields);
    }
    sheet
}

fn balance_sheet(report: &InterfaceReport, with_times: bool) -> Sheet {
    let mut sheet = Sheet::default();
    begin_columns(&mut sheet, with_times, &["container", "direction", "unit"]);
    sheet.numbers.extend(["passed", "billed", "class_0", "faults", "difference"]);
    for row in &report.balance {
        for (direction, balance) in [("in", &row.incoming), ("out", &row.outgoing)] {
            sheet.rows.extend(balance_rows(row, direction, balance, with_times));
        }
    }
    sheet
}

/// The rows of one direction, in bytes and in packets.
fn balance_rows(row: &BalanceRow, direction: &str, balance: &Balance, with_times: bool) -> [Vec<String>; 2] {
    let volumes = [balance.passed, balance.billed, balance.class_zero, balance.faults];
    let units = [
        ("bytes", volumes.map(|volume| volume.bytes), balance.difference_bytes),
        ("packets", volumes.map(|volume| volume.packets), balance.difference_packets),
    ];
    units.map(|(unit, values, difference)| {
        let mut fields =
            row_fields(&row.period, (row.start, row.end), with_times, &[&row.container, direction, unit]);
        fields.extend(values.map(|value| value.to_string()));
        fields.push(difference.to_string());
        fields
    })
}
