//! The ranking of the top talkers.

use traffic_ledger::{Top, Volume};
use traffic_model::local_time::LocalTime;

use crate::render::{
    ClassNames,
    class_names::{self, NAME_COLUMNS},
    ledger::{
        Format,
        gaps::gap_notes,
        sheet::{
            BILLING, FIGURES, SHORT_BILLING, Sheet, billing, billing_notes, figures, short_billing, sum,
        },
        with_notes,
    },
    with_name,
};

/// A ranking. CSV holds the rows only.
///
/// # Errors
/// When the output cannot be formatted.
pub fn top(top: &Top, format: Format) -> anyhow::Result<String> {
    top_with(top, format, &ClassNames::new())
}

/// The same, with the names of classes.
///
/// # Errors
/// When the output cannot be formatted.
pub fn top_with(top: &Top, format: Format, names: &ClassNames) -> anyhow::Result<String> {
    if format == Format::Json {
        return class_names::document(top, names);
    }
    let mut sheet = Sheet::new(&["place", "container", "class"], &FIGURES);
    sheet.numbers.push("permille");
    let csv = format == Format::Csv;
    let short = !csv && !billing_notes(&top.billing).is_empty();
    sheet.numbers.extend(csv.then_some(BILLING).into_iter().flatten());
    sheet.numbers.extend(short.then_some(SHORT_BILLING).into_iter().flatten());
    sheet.last.extend(csv.then_some(NAME_COLUMNS).into_iter().flatten());
    for row in &top.rows {
        let class = row.class.map(|class| match csv {
            true => class.to_string(),
            false => class_names::cell(class, names),
        });
        let container =
            if csv { row.container.clone() } else { with_name(&row.container, row.name.as_deref()) };
        let mut fields = vec![row.place.to_string(), container, class.unwrap_or_default()];
        fields.extend(figures(&row.figures));
        fields.push(row.permille.to_string());
        if csv {
            fields.extend(billing(row.billing.as_ref()));
            fields.push(row.name.clone().unwrap_or_default());
            fields.push(class_names::name(row.class, names));
        }
        if short {
            fields.extend(short_billing(row.billing.as_ref()));
        }
        sheet.rows.push(fields);
    }
    if csv { sheet.csv() } else { Ok(with_notes(sheet.table(), top_notes(top))) }
}

/// The notes below a table.
fn top_notes(top: &Top) -> Vec<String> {
    let local_time = LocalTime::named(&top.zone);
    let mut notes = vec![
        format!(
            "from {} to {}, zone {}; permille of the bytes in and out of all ranked containers",
            local_time.text(top.from),
            local_time.text(top.to),
            top.zone
        ),
        sum("all containers", &top.total),
    ];
    notes.extend(billing_notes(&top.billing));
    if top.class_zero.total != Volume::default() && top.rows.iter().all(|row| row.class != Some(0)) {
        notes.push(sum("class 0, not ranked", &top.class_zero));
    }
    notes.push(format!("basis: {}", top.basis_statement));
    notes.extend(gap_notes(&top.gaps, &local_time));
    notes
}
