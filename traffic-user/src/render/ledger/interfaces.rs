//! What passed interfaces, faults and balances as sheets.

use jiff::Timestamp;
use traffic_ledger::{Balance, BalanceRow, Figures, InterfaceReport, LedgerError};

use crate::render::ledger::{Format, Sheet, gap_notes, json};

/// Which part of it a sheet shows; JSON has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What passed each interface.
    Interfaces,
    /// What is in no class, by reason.
    Faults,
    /// Passed = classes + faults.
    Balance,
}

/// A part of a report on interfaces. CSV holds the lines only: what else is to be said comes from [`interface_notes`].
///
/// # Errors
/// When the output cannot be formed.
pub fn interfaces(report: &InterfaceReport, part: Part, format: Format) -> Result<String, LedgerError> {
    if format == Format::Json {
        return json(report);
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
    let mut text = sheet.table() + "\n";
    for note in interface_notes(report, part) {
        text += &note;
        text.push('\n');
    }
    Ok(text)
}

/// What stands below the lines.
pub fn interface_notes(report: &InterfaceReport, part: Part) -> Vec<String> {
    let mut notes = vec![
        format!(
            "from {} to {}, zone {}, months from day {}",
            report.from, report.to, report.zone, report.billing_day
        ),
        format!("basis: {}", report.basis_statement),
    ];
    match part {
        Part::Interfaces => {
            notes
                .push("in and out are the container's; faults are in what passed and in no class".to_owned());
        }
        Part::Faults => {
            notes.push("faults passed an interface and are in no class, so they are not billed".to_owned());
        }
        Part::Balance => {
            notes.push(
                "passed = billed classes + class 0 + faults + difference; readings of one drain are not taken at one instant, \
                 so traffic in flight makes small differences that the next step takes back"
                    .to_owned(),
            );
            notes.push(
                "(shared) is all shared interfaces and all containers without one of their own; who has both makes a \
                 difference in two lines that (node) does not have"
                    .to_owned(),
            );
        }
    }
    if report.without_pva_history {
        notes.push("history of PVA is not in it: PVA counted no interfaces".to_owned());
    }
    notes.extend(gap_notes(&report.gaps));
    notes
}

fn begin(sheet: &mut Sheet, with_times: bool, more: &[&'static str]) {
    sheet.text.push("period");
    if with_times {
        sheet.text.extend(["start", "end"]);
    }
    sheet.text.extend(more);
}

fn line(period: &str, times: (Timestamp, Timestamp), with_times: bool, more: &[&str]) -> Vec<String> {
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
    begin(&mut sheet, with_times, &["interface", "container"]);
    sheet.numbers.extend(["in_packets", "in_bytes", "out_packets", "out_bytes"]);
    sheet.numbers.extend(["in_fault_packets", "in_fault_bytes", "out_fault_packets", "out_fault_bytes"]);
    for row in &report.interfaces {
        let mut fields =
            line(&row.period, (row.start, row.end), with_times, &[&row.interface, &row.container]);
        fields.extend(four(&row.passed));
        fields.extend(four(&row.faults));
        sheet.lines.push(fields);
    }
    sheet
}

fn fault_sheet(report: &InterfaceReport, with_times: bool) -> Sheet {
    let mut sheet = Sheet::default();
    begin(&mut sheet, with_times, &["interface", "container", "fault"]);
    sheet.numbers.extend(["in_packets", "in_bytes", "out_packets", "out_bytes"]);
    for row in &report.faults {
        let names = [row.interface.as_str(), &row.container, &row.fault];
        let mut fields = line(&row.period, (row.start, row.end), with_times, &names);
        fields.extend(four(&row.figures));
        sheet.lines.push(fields);
    }
    sheet
}

fn balance_sheet(report: &InterfaceReport, with_times: bool) -> Sheet {
    let mut sheet = Sheet::default();
    begin(&mut sheet, with_times, &["container", "direction", "unit"]);
    sheet.numbers.extend(["passed", "billed", "class_0", "faults", "difference"]);
    for row in &report.balance {
        for (direction, balance) in [("in", &row.incoming), ("out", &row.outgoing)] {
            sheet.lines.extend(balance_lines(row, direction, balance, with_times));
        }
    }
    sheet
}

/// A direction in bytes and in packets.
fn balance_lines(row: &BalanceRow, direction: &str, balance: &Balance, with_times: bool) -> [Vec<String>; 2] {
    let volumes = [balance.passed, balance.billed, balance.class_zero, balance.faults];
    let units = [
        ("bytes", volumes.map(|volume| volume.bytes), balance.difference_bytes),
        ("packets", volumes.map(|volume| volume.packets), balance.difference_packets),
    ];
    units.map(|(unit, values, difference)| {
        let mut fields =
            line(&row.period, (row.start, row.end), with_times, &[&row.container, direction, unit]);
        fields.extend(values.map(|value| value.to_string()));
        fields.push(difference.to_string());
        fields
    })
}
