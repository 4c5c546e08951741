//! The ranking of the top talkers.

use traffic_ledger::{Top, Volume};
use traffic_model::local_time::LocalTime;

use crate::render::{
    json,
    ledger::{
        Format,
        gaps::gap_notes,
        sheet::{FIGURES, Sheet, figures, sum},
        with_notes,
    },
};

/// A ranking. CSV holds the rows only; [`top_notes`] has the rest.
///
/// # Errors
/// When the output cannot be formatted.
pub fn top(top: &Top, format: Format) -> anyhow::Result<String> {
    if format == Format::Json {
        return json::document(top);
    }
    let mut sheet = Sheet::new(&["place", "container", "class"], &FIGURES);
    sheet.numbers.push("permille");
    for row in &top.rows {
        let class = row.class.map(|class| class.to_string()).unwrap_or_default();
        let mut fields = vec![row.place.to_string(), row.container.clone(), class];
        fields.extend(figures(&row.figures));
        fields.push(row.permille.to_string());
        sheet.rows.push(fields);
    }
    if format == Format::Csv { sheet.csv() } else { Ok(with_notes(sheet.table(), top_notes(top))) }
}

/// The notes below a ranking.
pub fn top_notes(top: &Top) -> Vec<String> {
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
    if top.class_zero.total != Volume::default() && top.rows.iter().all(|row| row.class != Some(0)) {
        notes.push(sum("class 0, not ranked", &top.class_zero));
    }
    notes.push(format!("basis: {}", top.basis_statement));
    notes.extend(gap_notes(&top.gaps, &local_time));
    notes
}
