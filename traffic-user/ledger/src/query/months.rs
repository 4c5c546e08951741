//! The months of some containers or of the whole node, with what the running one will come to.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::Connection;
use serde::Serialize;
use traffic_model::calendar::{Calendar, Level};

use crate::{
    closing::{correction::Signed, delivered},
    error::LedgerError,
    figures::{Basis, Figures, Sums, add},
    query::{
        billing::{self, Billing, ReportedAdjustment},
        query_plan::{By, Plan, ReportQuery, Split, recorded_range},
        report::ClassFigures,
        running::{Estimate, estimate},
    },
    store::Ledger,
    time::borders::Borders,
    write::clock,
};

/// A month.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Month {
    /// Its name.
    pub period: String,
    /// Start; that of the ledger if the month began before it.
    pub start: Timestamp,
    /// End of the whole month.
    pub end: Timestamp,
    /// Whether the last reading was made after its end.
    pub complete: bool,
    /// Whether it was closed.
    pub closed: bool,
    /// What was counted in the billed classes.
    #[serde(flatten)]
    pub figures: Figures,
    /// What to bill, with the corrections of a closed month.
    pub billing: Billing,
    /// What was counted in class 0.
    pub class_zero: Figures,
    /// The classes with traffic. Documents have them with their names.
    #[serde(skip)]
    pub classes: Vec<ClassFigures>,
    /// Share of the node's billed bytes, in thousandths; `None` for the node itself.
    pub permille: Option<u64>,
    /// What the running month comes to; `None` for others, and on the first day.
    pub estimate: Option<Estimate>,
}

/// The months of some containers or of the whole node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Months {
    /// Time zone of the months.
    pub zone: String,
    /// Day of the month on which they begin.
    pub billing_day: u8,
    /// Network layer of the byte figures.
    pub basis: Basis,
    /// The basis in words.
    pub basis_statement: &'static str,
    /// The containers that were asked for; empty for the whole node.
    pub containers: Vec<String>,
    /// The months, the latest first. Documents have them with the names of classes.
    #[serde(skip)]
    pub months: Vec<Month>,
    /// Corrections of these months.
    pub adjustments: Vec<ReportedAdjustment>,
}

impl Ledger {
    /// The last months with anything in them, at most `most`. Of the query, the containers, the calendar and
    /// the basis are used.
    ///
    /// # Errors
    /// As for [`Ledger::report`].
    pub fn months(&self, query: &ReportQuery, most: usize) -> Result<Months, LedgerError> {
        let view = self.conn.unchecked_transaction()?;
        let query = self.whole_months(&view, query)?;
        let plan = self.plan(&view, &query)?;
        let sums = self.by_step_and_class(&view, &plan)?;
        let of_node = if query.containers.is_empty() {
            BTreeMap::new()
        } else {
            let node = ReportQuery { containers: Vec::new(), ..query.clone() };
            self.by_step_and_class(&view, &self.plan(&view, &node)?)?
        };
        let closed = self.closed_within(&view, &plan)?;
        let adjustments = self.adjustments_of(&view, &plan, &[])?;
        let mut assigned = billing::assign(&plan, &adjustments);
        delivered::subtract_open(&view, &plan, &mut assigned.by_line)?;
        let last_reading = clock::last_reading(&view)?;
        let mut months = Vec::new();
        for at in (0..plan.steps.len()).rev().take(most) {
            let (period, start, end) = plan.step_named(at)?;
            let (billed, class_zero) = split(&sums, at);
            let figures = Figures::new(billed, query.basis);
            let corrections = assigned.by_line.iter().filter(|(key, _)| key.0 == at);
            let corrected = corrections.fold([0; 4], |sum: Signed, (_, of)| billing::add(sum, *of));
            let complete = last_reading.is_some_and(|last| end <= last);
            let whole = Figures::new(split(&of_node, at).0, query.basis).total.bytes;
            months.push(Month {
                complete,
                closed: closed.iter().any(|period| period.start <= start && end <= period.end),
                billing: Billing::new(figures, corrected, query.basis),
                class_zero: Figures::new(class_zero, query.basis),
                classes: of_step(&sums, at, query.basis),
                permille: (plan.containers.is_some()).then(|| permille(figures.total.bytes, whole)),
                estimate: last_reading
                    .filter(|last| !complete && start <= *last)
                    .and_then(|last| estimate(billed, query.basis, (start, last, end))),
                period,
                start,
                end,
                figures,
            });
        }
        Ok(Months {
            zone: plan.calendar.zone_name().to_owned(),
            billing_day: plan.calendar.billing_day(),
            basis: query.basis,
            basis_statement: query.basis.statement(),
            containers: query.containers.clone(),
            months,
            adjustments: assigned.all,
        })
    }

    /// Where a look at the last two months begins: with the month before that of the last reading, or with the
    /// ledger if it is younger.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn last_two_months(&self, calendar: &Calendar) -> Result<Timestamp, LedgerError> {
        let view = self.conn.unchecked_transaction()?;
        let (begin, end) = recorded_range(&view)?;
        let last = clock::last_reading(&view)?.map_or(end - 1, Timestamp::as_second);
        let is_own = calendar.is_same(self.calendar.zone_name(), self.calendar.billing_day());
        let start = |at: i64| match is_own {
            true => Borders::new(&view, &self.calendar).start(Level::Month, at),
            false => Ok(calendar.start(Level::Month, at)?),
        };
        let before = start(start(last)? - 1)?;
        Ok(Timestamp::from_second(before.max(begin).min(end))?)
    }

    /// A query for all months from the ledger's begin to the end of the last one.
    fn whole_months(&self, view: &Connection, query: &ReportQuery) -> Result<ReportQuery, LedgerError> {
        let calendar = query.calendar.clone().unwrap_or_else(|| self.calendar.clone());
        let (_, end) = recorded_range(view)?;
        let last = clock::last_reading(view)?.map_or(end - 1, Timestamp::as_second);
        let end = if calendar.is_same(self.calendar.zone_name(), self.calendar.billing_day()) {
            Borders::new(view, &self.calendar).unit(Level::Month, last)?.1
        } else {
            calendar.end(Level::Month, calendar.start(Level::Month, last)?)?
        };
        Ok(ReportQuery {
            by: By::Month,
            containers: query.containers.clone(),
            to: Some(Timestamp::from_second(end)?),
            calendar: Some(calendar),
            split: Split { class: true, ..Split::default() },
            basis: query.basis,
            ..ReportQuery::default()
        })
    }

    fn by_step_and_class(&self, view: &Connection, plan: &Plan<'_>) -> Result<StepSums, LedgerError> {
        let mut sums = StepSums::new();
        self.each_row(view, plan, |step, row| add(sums.entry((step, row.class)).or_default(), row.values))?;
        Ok(sums)
    }
}

/// Sums by step and class.
type StepSums = BTreeMap<(usize, u8), Sums>;

/// The sums of a step in billed classes, and in class 0.
fn split(sums: &StepSums, step: usize) -> (Sums, Sums) {
    let (mut billed, mut class_zero) = ([0; 4], [0; 4]);
    for (&(_, class), &of) in sums.range((step, 0)..=(step, u8::MAX)) {
        add(if class == 0 { &mut class_zero } else { &mut billed }, of);
    }
    (billed, class_zero)
}

fn of_step(sums: &StepSums, step: usize, basis: Basis) -> Vec<ClassFigures> {
    let of = sums.range((step, 0)..=(step, u8::MAX));
    of.map(|(&(_, class), &sums)| ClassFigures::new(class, sums, basis)).collect()
}

fn permille(part: u64, whole: u64) -> u64 {
    let share = (u128::from(part) * 1000 + u128::from(whole) / 2).checked_div(u128::from(whole));
    share.and_then(|share| u64::try_from(share).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_and_of_nothing_zero() {
        assert_eq!((permille(1, 3), permille(2, 3), permille(5, 5), permille(0, 0)), (333, 667, 1000, 0));
        assert_eq!(permille(u64::MAX, u64::MAX), 1000);
    }
}
