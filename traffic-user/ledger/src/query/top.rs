//! The largest containers of a span of time.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    error::LedgerError,
    figures::{Basis, Figures},
    query::query_plan::{By, ReportQuery, Split},
    store::Ledger,
    write::gaps::Gap,
};

/// A question for the largest containers.
#[derive(Clone, Debug, PartialEq)]
pub struct TopQuery {
    /// How many.
    pub count: usize,
    /// Begin; `None` for the ledger's begin.
    pub from: Option<Timestamp>,
    /// End; `None` for the ledger's end.
    pub to: Option<Timestamp>,
    /// Classes; empty for all billed ones.
    pub classes: Vec<u8>,
    /// So many for each class instead of all together.
    pub by_class: bool,
    /// What bytes are measured on.
    pub basis: Basis,
}

/// One of the largest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopRow {
    /// Place, from 1; for each class anew where asked by class.
    pub place: usize,
    /// The container.
    pub container: String,
    /// The class where asked by class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<u8>,
    /// Packets and bytes.
    #[serde(flatten)]
    pub figures: Figures,
    /// Share of the bytes of all containers, in parts of a thousand.
    pub permille: u64,
}

/// The largest containers, and what the ranking is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Top {
    /// Begin of the span.
    pub from: Timestamp,
    /// End of the span.
    pub to: Timestamp,
    /// What bytes are measured on, in words.
    pub basis_statement: &'static str,
    /// By class where asked, then by place.
    pub rows: Vec<TopRow>,
    /// All that was ranked, the rest included.
    pub total: Figures,
    /// Class 0 where it was not asked for.
    pub class_zero: Figures,
    /// Gaps that touch the span.
    pub gaps: Vec<Gap>,
}

impl Ledger {
    /// The containers with most bytes in and out. Class 0 is left out unless asked for.
    ///
    /// # Errors
    /// As for [`Ledger::report`].
    pub fn top_talkers(&self, query: &TopQuery) -> Result<Top, LedgerError> {
        let report = self.report(&ReportQuery {
            by: By::Total,
            classes: query.classes.clone(),
            from: query.from,
            to: query.to,
            split: Split { class: query.by_class, ..Split::default() },
            basis: query.basis,
            ..ReportQuery::default()
        })?;
        let wanted_zero = query.classes.contains(&0);
        let mut groups: BTreeMap<Option<u8>, Vec<TopRow>> = BTreeMap::new();
        for row in report.rows.into_iter().filter(|row| row.billed || wanted_zero) {
            let (container, class, figures) = (row.container, row.class, row.figures);
            groups.entry(class).or_default().push(TopRow {
                place: 0,
                container,
                class,
                figures,
                permille: 0,
            });
        }
        let mut top = Vec::new();
        for mut rows in groups.into_values() {
            let all: u128 = rows.iter().map(|row| u128::from(row.figures.total.bytes)).sum();
            // The order of equal ones is the report's.
            rows.sort_by_key(|row| std::cmp::Reverse(row.figures.total.bytes));
            for (place, row) in (1..).zip(rows.iter_mut().take(query.count)) {
                row.place = place;
                let share = u128::from(row.figures.total.bytes) * 1000 / all.max(1);
                row.permille = u64::try_from(share).unwrap_or(1000);
            }
            rows.truncate(query.count);
            top.append(&mut rows);
        }
        Ok(Top {
            from: report.from,
            to: report.to,
            basis_statement: report.basis_statement,
            rows: top,
            total: report.total,
            class_zero: report.class_zero,
            gaps: report.gaps,
        })
    }
}
