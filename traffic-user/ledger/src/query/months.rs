//! The months of some containers or of the whole node, with what the running one will come to.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::Connection;
use serde::Serialize;
use traffic_model::calendar::Level;

use crate::{
    closing::{adjust, close, correction::Signed},
    error::LedgerError,
    figures::{Basis, Figures, Sums, add},
    query::{
        billing::{self, Billing, ReportedAdjustment},
        query_plan::{By, Plan, ReportQuery, Split, recorded_range},
        report::ClassFigures,
    },
    store::Ledger,
    time::borders::Borders,
    write::clock,
};

/// Nothing is estimated from less than this, in seconds: a night is not a month.
const SHORTEST_ESTIMATE_S: i64 = 86_400;

/// What a running month comes to if its traffic goes on as until now.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Packets and bytes at the end of the month.
    #[serde(flatten)]
    pub figures: Figures,
    /// Start of the time that the estimate is made from.
    pub from: Timestamp,
    /// Its end: the last reading.
    pub until: Timestamp,
}

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
        let (from, to) = (Timestamp::from_second(plan.range.0)?, Timestamp::from_second(plan.range.1)?);
        let closed = close::periods_within(&view, from, to)?;
        let adjustments = adjust::adjustments_within(&view, (from, to), plan.containers.as_deref(), &[])?;
        let assigned = billing::assign(&plan, &adjustments);
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

/// What was counted from `start` to `last`, scaled to the time from `start` to `end`.
fn estimate(
    counted: Sums,
    basis: Basis,
    (start, last, end): (Timestamp, Timestamp, Timestamp),
) -> Option<Estimate> {
    let (elapsed, whole) = (last.as_second() - start.as_second(), end.as_second() - start.as_second());
    if elapsed < SHORTEST_ESTIMATE_S || whole < elapsed {
        return None;
    }
    let scaled = counted.map(|value| {
        let all = u128::from(value) * u128::from(whole.unsigned_abs()) / u128::from(elapsed.unsigned_abs());
        u64::try_from(all).unwrap_or(u64::MAX)
    });
    Some(Estimate { figures: Figures::new(scaled, basis), from: start, until: last })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn an_estimate_goes_on_as_until_now() {
        let month = (at("2026-11-01T00:00:00Z"), at("2026-11-11T00:00:00Z"), at("2026-12-01T00:00:00Z"));
        let found = estimate([10, 1000, 20, 7], Basis::L3, month).unwrap();
        let incoming = found.figures.incoming.unwrap();
        assert_eq!((incoming.packets, incoming.bytes), (30, 3000));
        let outgoing = found.figures.outgoing.unwrap();
        assert_eq!((outgoing.packets, outgoing.bytes), (60, 21));
        assert_eq!((found.from, found.until), (month.0, month.1));
        let huge = estimate([1, u64::MAX, 1, 1], Basis::L3, month).unwrap();
        assert_eq!(huge.figures.incoming.unwrap().bytes, u64::MAX);
    }

    #[test]
    fn nothing_is_estimated_from_a_night_or_after_the_end() {
        let [start, end] = ["2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"].map(at);
        for (last, some) in [
            ("2026-11-01T00:00:00Z", false),
            ("2026-11-01T23:59:59Z", false),
            ("2026-11-02T00:00:00Z", true),
            ("2026-12-01T00:00:00Z", true),
            ("2026-12-01T00:00:01Z", false),
        ] {
            assert_eq!(estimate([1; 4], Basis::L3, (start, at(last), end)).is_some(), some, "{last}");
        }
    }

    #[test]
    fn a_share_is_rounded_and_of_nothing_zero() {
        assert_eq!((permille(1, 3), permille(2, 3), permille(5, 5), permille(0, 0)), (333, 667, 1000, 0));
        assert_eq!(permille(u64::MAX, u64::MAX), 1000);
    }
}
