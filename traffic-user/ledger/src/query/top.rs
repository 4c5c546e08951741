//! The top talkers of a time span.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use traffic_model::calendar::Calendar;

use crate::{
    error::LedgerError,
    figures::{Basis, Figures, permille_shares},
    query::{
        billing::Billing,
        query_plan::{By, ReportQuery, Split},
        report::ReportRow,
    },
    store::Ledger,
    write::gaps::Gap,
};

/// A query for the top talkers.
#[derive(Clone, Debug, PartialEq)]
pub struct TopQuery {
    /// Number of rows.
    pub count: usize,
    /// Start; `None` for the start of the ledger.
    pub from: Option<Timestamp>,
    /// End; `None` for the end of the ledger.
    pub to: Option<Timestamp>,
    /// Classes; empty for all billed ones.
    pub classes: Vec<u8>,
    /// Rank each class separately.
    pub by_class: bool,
    /// Time zone of the output; `None` for the ledger's own.
    pub calendar: Option<Calendar>,
    /// Network layer of the byte figures.
    pub basis: Basis,
}

/// One row of a ranking.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopRow {
    /// Rank from 1, within its class if ranked by class.
    pub place: usize,
    /// The container.
    pub container: String,
    /// What people call it, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The class, if ranked by class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<u8>,
    /// Packets and bytes.
    #[serde(flatten)]
    pub figures: Figures,
    /// What to bill, with the corrections of closed periods; `None` for class 0. Ranks are by what passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billing: Option<Billing>,
    /// Share of the bytes of all containers, in thousandths. The shares of all ranked containers add up to
    /// 1000.
    pub permille: u64,
}

/// A ranking.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Top {
    /// Start of the span.
    pub from: Timestamp,
    /// End of the span.
    pub to: Timestamp,
    /// Time zone for output.
    pub zone: String,
    /// The network layer of the byte figures, in words.
    pub basis_statement: &'static str,
    /// The rows, by class if ranked by class, then by rank.
    pub rows: Vec<TopRow>,
    /// Sum of all ranked containers, including those not shown.
    pub total: Figures,
    /// Sum of what all ranked containers are billed.
    pub billing: Billing,
    /// Sum of class 0, if it was not requested.
    pub class_zero: Figures,
    /// Gaps that overlap the span.
    pub gaps: Vec<Gap>,
}

impl Ledger {
    /// Ranks containers by their bytes in both directions. Class 0 is omitted unless requested.
    ///
    /// # Errors
    /// As for [`Ledger::report`].
    pub fn top_talkers(&self, query: &TopQuery) -> Result<Top, LedgerError> {
        let report = self.report(&ReportQuery {
            by: By::Total,
            classes: query.classes.clone(),
            from: query.from,
            to: query.to,
            calendar: query.calendar.clone(),
            split: Split { class: query.by_class, ..Split::default() },
            basis: query.basis,
            ..ReportQuery::default()
        })?;
        let wanted_zero = query.classes.contains(&0);
        let mut groups: BTreeMap<Option<u8>, Vec<TopRow>> = BTreeMap::new();
        for row in report.rows.into_iter().filter(|row| row.billed || wanted_zero) {
            let ReportRow { container, name, class, figures, billing, .. } = row;
            groups.entry(class).or_default().push(TopRow {
                place: 0,
                container,
                name,
                class,
                figures,
                billing,
                permille: 0,
            });
        }
        let mut top = Vec::new();
        for mut rows in groups.into_values() {
            // Rows with equal bytes keep the order of the report.
            rows.sort_by_key(|row| std::cmp::Reverse(row.figures.total.bytes));
            let bytes: Vec<u64> = rows.iter().map(|row| row.figures.total.bytes).collect();
            for ((place, row), permille) in (1..).zip(&mut rows).zip(permille_shares(&bytes)) {
                (row.place, row.permille) = (place, permille);
            }
            rows.truncate(query.count);
            top.append(&mut rows);
        }
        Ok(Top {
            from: report.from,
            to: report.to,
            zone: report.zone,
            basis_statement: report.basis_statement,
            rows: top,
            total: report.total,
            billing: report.billing,
            class_zero: report.class_zero,
            gaps: report.gaps,
        })
    }
}
