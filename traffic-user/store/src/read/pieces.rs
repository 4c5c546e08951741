//! Which rows answer for which time.
//!
//! A closed month answers from its frozen rows, a day that is over from its own rows, and everything else from five
//! minutes. A day whose five minutes changed after it was summed up does not answer until it is summed up again.

use std::collections::BTreeMap;

use traffic_ledger::StoredQuery;

use super::book::Book;

/// Seconds. No day of any zone is shorter.
const SHORTEST_DAY_S: i64 = 20 * 3600;

/// Rows of one level in a span, of some ledgers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// 0 for five minutes, 2 for days.
    pub level: i16,
    pub span: (i64, i64),
    pub ledgers: Vec<i32>,
    /// The days that answer.
    pub days: Vec<Start>,
}

/// A closed month of a ledger, and the step that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClosedPiece {
    pub ledger: i32,
    pub period: i64,
    pub step: usize,
}

/// All rows of a span.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pub rows: Vec<Piece>,
    pub closed: Vec<ClosedPiece>,
}

/// A ledger, and where a day of it begins.
pub(crate) type Start = (i32, i64);

/// A ledger, and a span of Unix seconds in it.
pub(crate) type LedgerSpan = (i32, (i64, i64));

/// Days of a ledger one after another: their span, and where each begins.
type Run = ((i64, i64), Vec<Start>);

/// Ledgers that are asked for together, and their days.
type Together = (Vec<i32>, Vec<Start>);

/// The step that holds a whole unit.
fn step_of(query: &StoredQuery<'_>, (start, end): (i64, i64)) -> Option<usize> {
    let is_inside = query.range.0 <= start && end <= query.range.1 && start < end;
    let step = query.step(start)?;
    (is_inside && query.step(end - 1) == Some(step)).then_some(step)
}

/// Whether a whole day can be in a step.
pub(crate) fn has_days(query: &StoredQuery<'_>) -> bool {
    (0..query.starts.len()).any(|step| {
        let (start, end) = query.span(step);
        end - start >= SHORTEST_DAY_S
    })
}

/// Cuts a span. `uses_closed`: whether frozen rows have what is asked for. `days`: those that hold everything of their
/// five minutes, by ledger and start.
pub(crate) fn cut(book: &Book, query: &StoredQuery<'_>, uses_closed: bool, days: &[LedgerSpan]) -> Pieces {
    let mut covered: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
    let mut pieces = Pieces::default();
    for period in book.periods.iter().filter(|_| uses_closed) {
        if let Some(step) = step_of(query, period.span) {
            pieces.closed.push(ClosedPiece { ledger: period.ledger, period: period.number, step });
            covered.entry(period.ledger).or_default().push(period.span);
        }
    }
    let mut grouped: BTreeMap<(i16, i64, i64), Together> = BTreeMap::new();
    let mut of_days: BTreeMap<i32, Vec<Run>> = BTreeMap::new();
    for &(ledger, span) in days {
        let is_covered = covered
            .get(&ledger)
            .is_some_and(|closed| closed.iter().any(|of| of.0 <= span.0 && span.0 < of.1));
        if is_covered || step_of(query, span).is_none() {
            continue;
        }
        let of_ledger = of_days.entry(ledger).or_default();
        match of_ledger.last_mut() {
            Some((last, starts)) if last.1 == span.0 => {
                last.1 = span.1;
                starts.push((ledger, span.0));
            }
            _ => of_ledger.push((span, vec![(ledger, span.0)])),
        }
    }
    for ledger in book.numbers() {
        let of_days = of_days.remove(&ledger).unwrap_or_default();
        let mut taken = covered.remove(&ledger).unwrap_or_default();
        for ((start, end), starts) in of_days {
            let (ledgers, days) = grouped.entry((2, start, end)).or_default();
            ledgers.push(ledger);
            days.extend(starts);
            taken.push((start, end));
        }
        taken.sort_unstable();
        for (start, end) in between(query.range, &taken) {
            grouped.entry((0, start, end)).or_default().0.push(ledger);
        }
    }
    pieces.rows = grouped
        .into_iter()
        .map(|((level, start, end), (ledgers, days))| Piece { level, span: (start, end), ledgers, days })
        .collect();
    pieces
}

/// What is left of a span without some parts of it, which are sorted and do not overlap.
fn between(range: (i64, i64), taken: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let mut left = Vec::new();
    let mut at = range.0;
    for &(start, end) in taken {
        left.extend((at < start).then_some((at, start)));
        at = at.max(end);
    }
    left.extend((at < range.1).then_some((at, range.1)));
    left
}
