//! The report by container and step.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;
use traffic_common::Family;
use traffic_ledger::{ClosedPeriod, Rates, Report, ReportRow, ReportedAdjustment, Volume};
use traffic_model::{counted, is_pending, local_time::LocalTime};

use crate::render::{
    ClassNames,
    class_names::{self, NAME_COLUMNS},
    columns,
    ledger::{
        Format, closing,
        gaps::gap_notes,
        sheet::{
            BILLING, FIGURES, SHORT_BILLING, Sheet, billing, billing_notes, figures, number, short_billing,
            sum,
        },
        with_notes,
    },
    quota_forecasts::{self, Forecasts, ForecastsField},
    with_name,
};

/// The columns that a sheet has besides period and container.
struct Columns {
    times: bool,
    class: bool,
    /// Names of containers and classes in columns of their own.
    names: bool,
    family: bool,
    direction: bool,
    rates: bool,
    percent: Option<f64>,
    /// What to bill: all of it in CSV, in short in a table with corrections.
    billing: bool,
    short_billing: bool,
    /// Only one volume per row: each row is about one direction.
    one_volume: bool,
}

impl Columns {
    /// CSV has the same columns whatever the query was, because programs read it. A table omits the unused
    /// ones.
    fn of(report: &Report, format: Format) -> Self {
        let csv = format == Format::Csv;
        let direction = report.rows.iter().any(|row| row.direction.is_some());
        Self {
            times: csv,
            names: csv,
            class: csv || report.rows.iter().any(|row| row.class.is_some()),
            family: csv || report.rows.iter().any(|row| row.family.is_some()),
            direction: csv || direction,
            rates: report.percentile_rule.is_some(),
            percent: report.percent,
            billing: csv,
            short_billing: !csv && !billing_notes(&report.billing).is_empty(),
            one_volume: direction && !csv,
        }
    }

    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&["period"], &[]);
        sheet.percent = self.percent;
        if self.times {
            sheet.text.extend(["start", "end"]);
        }
        sheet.text.push("container");
        for (name, shown) in [("class", self.class), ("family", self.family), ("direction", self.direction)] {
            sheet.text.extend(shown.then_some(name));
        }
        match (self.one_volume, self.rates) {
            (true, rates) => {
                sheet.numbers.extend(["packets", "bytes"]);
                sheet.numbers.extend(rates.then_some("bits_per_s"));
            }
            (false, rates) => {
                sheet.numbers.extend(FIGURES);
                if rates {
                    sheet.numbers.extend(["in_bits_per_s", "out_bits_per_s", "total_bits_per_s"]);
                }
            }
        }
        sheet.numbers.extend(self.billing.then_some(BILLING).into_iter().flatten());
        sheet.numbers.extend(self.short_billing.then_some(SHORT_BILLING).into_iter().flatten());
        sheet.last.extend(self.names.then_some(NAME_COLUMNS).into_iter().flatten());
        sheet
    }

    fn fields(&self, row: &ReportRow, names: &ClassNames) -> Vec<String> {
        let mut fields = vec![row.period.clone()];
        if self.times {
            fields.extend([row.start.to_string(), row.end.to_string()]);
        }
        fields.push(match self.names {
            true => row.container.clone(),
            false => with_name(&row.container, row.name.as_deref()),
        });
        let class = row.class.map(|class| match self.names {
            // In CSV the number stands alone, because programs join by it.
            true => class.to_string(),
            false => class_names::cell(class, names),
        });
        fields.extend(self.class.then(|| class.unwrap_or_default()));
        fields.extend(self.family.then(|| row.family.unwrap_or_default().to_owned()));
        fields.extend(self.direction.then(|| row.direction.unwrap_or_default().to_owned()));
        let rates = row.percentile.unwrap_or_default();
        if self.one_volume {
            let Volume { packets, bytes } = row.figures.total;
            fields.extend([packets, bytes].map(|number| number.to_string()));
            fields.extend(self.rates.then(|| number(one_rate(&rates))));
        } else {
            fields.extend(figures(&row.figures));
            if self.rates {
                fields.extend([rates.incoming, rates.outgoing, rates.total].map(number));
            }
        }
        if self.billing {
            fields.extend(billing(row.billing.as_ref()));
        }
        if self.short_billing {
            fields.extend(short_billing(row.billing.as_ref()));
        }
        if self.names {
            fields.extend([row.name.clone().unwrap_or_default(), class_names::name(row.class, names)]);
        }
        fields
    }
}

/// The rate of a row about one direction.
fn one_rate(rates: &Rates) -> Option<u64> {
    rates.incoming.or(rates.outgoing)
}

/// A report. CSV holds the rows only.
///
/// # Errors
/// When the output cannot be formatted.
pub fn report(report: &Report, format: Format) -> anyhow::Result<String> {
    report_with(report, None, format, &ClassNames::new())
}

/// The document of a report.
#[derive(Serialize)]
struct WithQuotas<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    quotas: Option<ForecastsField<'a>>,
}

/// The same, with what quotas come to and the names of classes. CSV has no quotas.
///
/// # Errors
/// When the output cannot be formatted.
pub fn report_with(
    report: &Report,
    forecasts: Option<&Forecasts<'_>>,
    format: Format,
    names: &ClassNames,
) -> anyhow::Result<String> {
    if format == Format::Json {
        let quotas = forecasts.map(quota_forecasts::field).transpose()?;
        return class_names::document(&WithQuotas { report, quotas }, names);
    }
    let shown = Columns::of(report, format);
    let mut sheet = shown.sheet();
    sheet.rows = report.rows.iter().map(|row| shown.fields(row, names)).collect();
    if format == Format::Csv {
        return sheet.csv();
    }
    let mut text = sheet.table();
    if !report.corrected.is_empty() {
        text += "\ncorrected after their period was closed, whole periods, layer-3 bytes:\n";
        text += &closing::corrected(&report.corrected, names).table();
    }
    let mut notes = notes(report, names);
    if let Some(forecasts) = forecasts {
        let (heading, rows) = quota_forecasts::table(forecasts, true);
        if !rows.is_empty() {
            text += &format!("\nquotas in their present periods:\n{}", columns(&heading, &(3..7), &rows));
        }
        notes.extend(quota_forecasts::notes(forecasts));
    }
    Ok(with_notes(text, notes))
}

/// The notes below a table: span, sums, basis, rules, gaps and closed periods.
pub(super) fn notes(report: &Report, names: &ClassNames) -> Vec<String> {
    let local_time = LocalTime::named(&report.zone);
    let time = |time: Timestamp| local_time.text(time);
    let mut notes = vec![format!(
        "from {} to {}, zone {}, months from day {}",
        time(report.from),
        time(report.to),
        report.zone,
        report.billing_day
    )];
    notes.extend(span_notes(report, &local_time));
    notes.push(sum("total", &report.total));
    notes.extend(billing_notes(&report.billing));
    notes.extend(pending_note(report));
    if report.class_zero.total != Volume::default() {
        notes.push(sum("class 0, not in the total", &report.class_zero));
    }
    if report.faults.total != Volume::default() {
        notes.push(sum("faults, in no class (details with --show faults)", &report.faults));
    }
    notes.push(format!("basis: {}", report.basis_statement));
    notes.extend(report.percentile_rule.clone());
    notes.extend(mixed_note(report));
    notes.extend(kept_note(report, &local_time));
    for period in &report.closed {
        notes.push(format!(
            "{}{} was closed at {} with hash {}",
            period.name,
            period.node.as_ref().map_or_else(String::new, |node| format!(" of {node}")),
            time(period.closed),
            period.hash
        ));
    }
    notes.extend(delivered_note(report));
    notes.extend(report.adjustments.iter().map(|adjustment| adjustment_line(adjustment, &local_time, names)));
    notes.extend(gap_notes(&report.gaps, &local_time));
    notes
}

/// How many buckets hold traffic of another time.
pub(super) fn mixed_note(report: &Report) -> Option<String> {
    (report.mixed_buckets > 0).then(|| {
        format!(
            "{} five-minute buckets also hold traffic of another time (late reading or clock set)",
            report.mixed_buckets
        )
    })
}

/// Which steps keep the borders of earlier rules.
pub(super) fn kept_note(report: &Report, local_time: &LocalTime) -> Option<String> {
    let (first, last) = (report.kept_borders.first()?, report.kept_borders.last()?);
    Some(format!(
        "the rules of the zone have changed: {} from {} to {} keep the borders under which they were booked ({} \
         began at {}, by the rules of today at {})",
        counted(report.kept_borders.len(), "day or month"),
        first.period,
        last.period,
        last.period,
        local_time.text(last.start),
        local_time.text(last.start_by_rules)
    ))
}

/// Which classes are billed by what was delivered.
pub(super) fn delivered_note(report: &Report) -> Option<String> {
    let classes: Vec<String> = report.billed_as_delivered.iter().map(u8::to_string).collect();
    (!classes.is_empty()).then(|| {
        format!(
            "billed by what was delivered: class {}; corrected has what was dropped (--show drops)",
            classes.join(", ")
        )
    })
}

/// Which months are closed.
pub(super) fn closed_note(report: &Report) -> Option<String> {
    let name = |period: &ClosedPeriod| match &period.node {
        Some(node) => format!("{} of {node}", period.name),
        None => period.name.clone(),
    };
    let names: Vec<String> = report.closed.iter().map(name).collect();
    (!names.is_empty()).then(|| format!("closed, with frozen figures: {}", names.join(", ")))
}

/// Which part of the total is nobody's yet.
pub(super) fn pending_note(report: &Report) -> Option<String> {
    let rows = || report.rows.iter().filter(|row| is_pending(&row.container));
    let pending: BTreeSet<&str> = rows().map(|row| row.container.as_str()).collect();
    let bytes: u64 = rows().filter(|row| row.billed).map(|row| row.figures.total.bytes).sum();
    (!pending.is_empty()).then(|| {
        format!(
            "not attributed yet: {bytes} bytes of the total, of {} (`pending:...`) whose containers are not known; \
             nobody is billed for them before `trafctl container attribute`",
            counted(pending.len(), "interface")
        )
    })
}

/// Which steps are incomplete, and where the ledger begins and ends.
fn span_notes(report: &Report, local_time: &LocalTime) -> Vec<String> {
    let mut notes = Vec::new();
    // A first step before the ledger's begin is empty, and the note about the begin says so.
    if let Some(part) = report.first_from.as_ref().filter(|_| report.ledger_begin.is_none()) {
        notes.push(format!("{} is incomplete: shown from {}", part.period, local_time.text(part.at)));
    }
    if let Some(part) = &report.last_until {
        notes.push(format!("{} is incomplete: shown until {}", part.period, local_time.text(part.at)));
    }
    if let Some(begin) = report.ledger_begin {
        let zero =
            if report.percent.is_some() { ", and the percentiles count that time as zero" } else { "" };
        notes.push(format!(
            "the ledger begins at {}; nothing is recorded before{zero}",
            local_time.text(begin)
        ));
    }
    if let Some(last) = report.last_reading.filter(|&last| report.to > last) {
        notes.push(format!(
            "figures up to the last drain at {}; `trafctl dump` has what came since",
            local_time.text(last)
        ));
    }
    notes
}

/// A correction as one line of text.
pub(super) fn adjustment_line(
    reported: &ReportedAdjustment,
    local_time: &LocalTime,
    names: &ClassNames,
) -> String {
    let ReportedAdjustment { adjustment, in_rows } = reported;
    let family = Family::ALL[usize::from(adjustment.family != 0)].name();
    let place = match (in_rows, adjustment.class) {
        (true, _) => "",
        (false, 0) => ", in no row because class 0 is not billed",
        (false, _) => ", in no row because no row has its whole month",
    };
    format!(
        "correction of {}{place}: {} class {} {family}, in {:+} bytes {:+} packets, out {:+} bytes \
         {:+} packets, made at {}: {}",
        adjustment.period,
        adjustment.container,
        class_names::cell(adjustment.class, names),
        adjustment.bytes[0],
        adjustment.packets[0],
        adjustment.bytes[1],
        adjustment.packets[1],
        local_time.text(adjustment.made),
        adjustment.reason
    )
}
